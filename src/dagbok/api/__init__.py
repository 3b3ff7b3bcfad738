"""The HTTP side: what clients call, and what they are told when it does not work. FastAPI lives here alone."""
