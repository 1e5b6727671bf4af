"""What is asked for besides the files.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

from typing import NamedTuple


class Wishes(NamedTuple):
    """`delete` what the source lacks, `dry_run` changes nothing, `checksum` compares contents where sizes are equal,
    `names` tells every path that is dealt with.
    """

    delete: bool = False
    dry_run: bool = False
    checksum: bool = False
    names: bool = False
