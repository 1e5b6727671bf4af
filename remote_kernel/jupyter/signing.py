"""Sign and check Jupyter messages with a connection file's key.

A message is a list of frames: identities, the delimiter, the signature, header, parent header, metadata, content,
then any buffers. The signature covers the four that follow it (jupyter_client's messaging docs, "wire protocol").
hashlib and hmac are imported when they are needed: most kernels' agents never do, and they take milliseconds.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DELIMITER = b"<IDS|MSG>"
_SIGNED = 4  # header, parent header, metadata, content


class Signer:
    """One connection file's key and signature scheme. An empty key signs nothing and accepts everything, as Jupyter."""

    def __init__(self, values: Mapping[str, object]) -> None:
        """Use `key` and `signature_scheme` of a connection file's values. Raises ValueError for an unknown scheme."""
        self._key = str(values.get("key") or "").encode()
        scheme = str(values.get("signature_scheme") or "hmac-sha256")
        import hashlib

        name = scheme[len("hmac-") :]
        if not scheme.startswith("hmac-") or name not in hashlib.algorithms_available:
            raise ValueError(f"unknown signature scheme '{scheme}'")
        self._digest = name

    def sign(self, parts: Sequence[bytes]) -> bytes:
        """Return the signature of header, parent header, metadata and content."""
        if not self._key:
            return b""
        import hmac

        made = hmac.new(self._key, digestmod=self._digest)
        for part in parts:
            made.update(part)
        return made.hexdigest().encode()

    def accepts(self, frames: Sequence[bytes]) -> bool:
        """True if this is a whole message with a right signature."""
        import hmac

        at = delimiter_at(frames)
        if at < 0:
            return False
        return not self._key or hmac.compare_digest(frames[at + 1], self.sign(_signed(frames, at)))

    def resigned(self, frames: Sequence[bytes]) -> list[bytes]:
        """Return a message, which has to be a whole one, with this key's signature in place of the other's."""
        at = delimiter_at(frames)
        return [*frames[: at + 1], self.sign(_signed(frames, at)), *frames[at + 2 :]]


def delimiter_at(frames: Sequence[bytes]) -> int:
    """Return the delimiter's place; -1 where the frames are no whole message."""
    try:
        at = list(frames).index(DELIMITER)
    except ValueError:
        return -1
    return at if len(frames) >= at + 2 + _SIGNED else -1


def header_and_content(frames: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return a whole message's header and content, as JSON text."""
    at = delimiter_at(frames)
    return frames[at + 2], frames[at + 5]


def _signed(frames: Sequence[bytes], at: int) -> Sequence[bytes]:
    return frames[at + 2 : at + 2 + _SIGNED]
