"""The command line: what is typed, and what is seen. Everything it does is done by `dagbok.app` or a server."""
