"""The kill -9 campaign: real processes that die at random moments, and a judge that trusts none of them.

A *victim* embeds the engine or serves the API, goes on with what earlier victims left, and takes new random plans. It
is killed, at random; now and then it is stopped properly instead. Its tools write each start and end of a body into the
*side log*, a file that survives the kill. Between a death and the next start, a *look* reads the database; the *judge*
holds all looks and the side log against each other. A *round* is so many kills of one database and a last run that
nobody disturbs; the *campaign* is many rounds on both databases.

Everything random comes from one seed, so that a round that failed can be repeated: its plans, kinds of victims and
moments are the same, and only the machine's own timing differs.
"""
