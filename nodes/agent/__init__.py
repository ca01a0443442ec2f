"""The agent: our program on a node.  It takes orders, runs tasks and tells what happened.

It imports nothing of Django nor of the server; ``nodes.protocol`` is all that both ends share.
"""

__version__ = "0.1.0"
