"""Here: the pure-Python stand-in for the ssh program: paramiko, with sshtunnel for jump hosts."""
