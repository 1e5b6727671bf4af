"""The command line of rkernel."""
