"""Here: one process per kernel, between a front end's five ports and the Link."""
