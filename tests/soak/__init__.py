"""Long runs under drops, started by hand: `python -m tests.soak`."""
