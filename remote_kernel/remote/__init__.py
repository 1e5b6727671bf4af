"""There: everything that runs on the remote host and nowhere else. Standard library, Python 3.8."""
