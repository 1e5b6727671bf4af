"""Here: the process that holds a session's kernel, runs its cells and answers the clients."""
