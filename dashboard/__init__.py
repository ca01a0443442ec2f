"""Shows: the live pages that operators look at."""
