"""What both ends of the conversation between a node and the orchestrator agree on.

Pure: no Django, no sockets, no clock.  The agent is installed with this package and nothing
else of the server.
"""
