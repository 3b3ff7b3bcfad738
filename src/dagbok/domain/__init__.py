"""The pure centre: no clock, no loop, no database, no HTTP. Time is an argument, and so is everything from outside."""
