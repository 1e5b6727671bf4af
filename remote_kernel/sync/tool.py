"""Say whether this machine has an rsync that will do.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import re

PARTIAL_FOLDER = b".remote_kernel-rsync.part"  # one name with the unfinished files that sync passes over
_OLDEST = (3, 1)  # progress of a whole run; macOS brings an older one


def has_rsync() -> bool:
    """Run `rsync --version`."""
    import shutil  # only here: a receiving end seldom has to ask
    import subprocess

    program = shutil.which("rsync")
    if not program:
        return False
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.match(rb"rsync\s+version v?(\d+)\.(\d+)", done.stdout)
    return bool(found and (int(found[1]), int(found[2])) >= _OLDEST)
