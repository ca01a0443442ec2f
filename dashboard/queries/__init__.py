"""What the pages read.  Every query has a bound that does not grow with history."""
