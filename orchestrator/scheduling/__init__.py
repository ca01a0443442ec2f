"""Deciding what should change, as values: no Django, no clock, no randomness of its own."""
