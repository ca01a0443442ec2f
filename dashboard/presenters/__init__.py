"""Words and shapes for what the queries found.  Pure: no database, no clock, no Django."""
