"""Tests of what is shipped to the remote host, run under every Python that the remote host may have."""
