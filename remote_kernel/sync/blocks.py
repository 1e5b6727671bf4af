"""Tell which parts of a file the other end has already: the digest of each block, at the same place in the file.

Serves a partial file, whose beginning is there, and a large one that has changed in places or grown.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import blake2b

DIGEST = 16
LEAST = 1 << 20  # a smaller file is sent whole: that is quicker than asking
_SMALLEST, _MOST = 128 << 10, 1 << 16


def block_size(size: int) -> int:
    """Return the size of a block in a file of that size; both ends work it out from what they are told."""
    found = _SMALLEST
    while found * _MOST < size:
        found *= 2
    return found


def digests(fd: int, block: int, first: int, end: int) -> bytes:
    """Return the digests of the blocks from number `first` to the offset `end`, one behind the other.

    The last one may be of a shorter block.
    """
    found = []
    for start in range(first * block, end, block):
        data = os.pread(fd, min(block, end - start), start)
        if not data:
            break
        found.append(digest(data))
    return b"".join(found)


def digest(data: bytes) -> bytes:
    """Return a block's digest."""
    return new_digest(data).digest()


def new_digest(data: bytes = b"", size: int = DIGEST) -> blake2b:
    """Return what works out a digest of `size` bytes: of this, and of what it is updated with."""
    from hashlib import blake2b  # it loads OpenSSL, which takes milliseconds that small files need not spend

    return blake2b(data, digest_size=size)
