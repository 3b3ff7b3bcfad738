"""How fast Dagbok is beside its peers and beside the limits of the machine. Not shipped. See README.md."""
