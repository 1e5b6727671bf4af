"""What a sync is asked for: the options of its command line, under the names that they have there.

A NamedTuple and no dataclass, whose import would take longer than the copying of a few files.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class SyncOptions(NamedTuple):
    """`exclude` are lines as in a .gitignore; `verbose`, and a dry run, name every path that is dealt with."""

    exclude: tuple[bytes, ...] = ()
    no_ignore: bool = False
    delete: bool = False
    dry_run: bool = False
    checksum: bool = False
    watch: bool = False
    sftp: bool = False
    verbose: bool = False

    @property
    def names_paths(self) -> bool:
        """True if every path that is dealt with is to be named."""
        return self.dry_run or self.verbose

    def pack(self) -> dict[str, Any]:
        """Return what `unpack` at the other end makes the same options of."""
        return {**self._asdict(), "exclude": [line.decode("utf-8", "surrogateescape") for line in self.exclude]}


def unpack_options(packed: dict[str, Any]) -> SyncOptions:
    """Return the options that `pack` was called on."""
    exclude = tuple(line.encode("utf-8", "surrogateescape") for line in packed["exclude"])
    return SyncOptions(**{**packed, "exclude": exclude})
