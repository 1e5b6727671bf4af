"""Tell whose an interpreter is, before it is run: on a shared disk anybody may leave one where others look.

Python 3.8, standard library: this file is shipped to the remote host.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat


class Owners:
    """The users whose programs this user runs anyway: themselves, root, and the owners of some folders of theirs."""

    def __init__(self, *folders: str) -> None:
        self._uids = {0, os.getuid()}
        for folder in filter(None, folders):
            try:
                self._uids.add(os.stat(folder).st_uid)
            except OSError:
                pass

    def have(self, python: str) -> bool:
        """Whether nobody else can say what an interpreter of an environment does: PREFIX/bin/python."""
        folder = os.path.dirname(python)
        return all(self._own(path) for path in (os.path.dirname(folder), folder, python))

    def _own(self, path: str) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return False
        if found.st_uid not in self._uids or found.st_mode & stat.S_IWOTH:
            return False
        return not found.st_mode & stat.S_IWGRP or _is_private(found.st_gid, found.st_uid)


def _is_private(gid: int, uid: int) -> bool:
    """Whether a group has no member but its user, as on systems that give each user one; then umask is 002 there."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(uid)
    except KeyError:
        return False
    return gid == 0 or (gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name})
