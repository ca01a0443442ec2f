"""Planners carry a plan out: the StateUpdater writes it, the ComputeForwarder tells the nodes."""
