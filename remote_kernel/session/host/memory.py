"""Give memory back to the system.

glibc keeps what is freed in between of what is not: after a cell that has printed faster than it was written, 200 to
450 MB of messages that had waited stayed with the host, measured for cells of 500 MB; 34 MB when given back.
"""

from __future__ import annotations


def give_back() -> None:
    """Give back what is free. Does nothing where the C library cannot: macOS, musl."""
    import ctypes  # takes a megabyte itself

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass
