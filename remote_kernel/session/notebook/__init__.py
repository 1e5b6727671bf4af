"""Here: the notebook that a session writes: cells, outputs, and what people change in it."""
