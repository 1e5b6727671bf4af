"""SFTP over a byte pipe, with as many requests under way as the server takes.

Version 3 of the protocol (draft-ietf-secsh-filexfer-02), with OpenSSH's extensions where the server has them. The pipe
is stdin and stdout of `ssh -s HOST sftp`, or of its stand-in in Python: the same program works over both. Paths are
bytes. Libraries wait for each answer before the next request, but for reads and writes: on a line of 50 ms that is four
minutes for the opening, closing and naming of a thousand small files.
"""
