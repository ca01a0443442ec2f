"""The command line: a client of the HTTP API, which imports nothing of the server."""
