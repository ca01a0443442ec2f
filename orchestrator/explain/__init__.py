"""What Muster says to people, made in one place: errors, reasons, and how amounts are written."""
