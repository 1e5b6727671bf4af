"""Here: a cell's events as text for a terminal, for a pipe, or as JSON."""
