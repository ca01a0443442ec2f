"""Talks to machines: who is a node, what it must be told, what it reports."""
