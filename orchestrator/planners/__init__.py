"""Planners carry a plan out: the StateUpdater writes it, the ComputeForwarder tells the nodes.

Both move executions by ``transitions``, as the Endpoint does with what nodes say.
"""
