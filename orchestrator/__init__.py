"""Decides: what every job wants, where it runs, and what to do when that changes."""
