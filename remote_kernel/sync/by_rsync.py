"""Let rsync carry files of which the other side has an older version: it finds what has moved inside a file.

Everything else it would do (what is copied, deleted, left out) is decided by the two ends as always; rsync gets a list
of files, goes the same way as the rest, and what it brought is looked at before it counts.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from remote_kernel.errors import ConnectionLost, NoRoom, SyncError
from remote_kernel.options import LaunchOptions
from remote_kernel.sync.tool import PARTIAL_FOLDER
from remote_kernel.transport import choice

_STDERR_BYTES = 64 << 10
_OF_THE_CONNECTION = (10, 12, 30, 35, 255)
_OPTIONS = ("--times", "--perms", "--sparse", "--copy-links", "--protect-args", "--from0", "--ignore-times")
# As for what comes without it: no file runs as its owner, and folders are left as they are.
_WITHOUT = ("--chmod=ug-s,o-t", "--no-implied-dirs")
_SHOWS = re.compile(rb"^\s*([\d,.]+)\s+\d+%")


class Errand(NamedTuple):
    """What rsync is to carry: `files` are paths below `source`, and come to the same paths below `target`.

    Where `files` is empty, `source` is one file and `target` its path. `is_push` says which of them is remote.
    """

    source: bytes
    target: bytes
    files: tuple[bytes, ...]
    is_push: bool


def errand(source: bytes, target: bytes, names: tuple[bytes, ...], single: bytes, *, is_push: bool) -> Errand:
    """Give what rsync is to do; a `single` file gets that name."""
    if not single:
        return Errand(source, target, names, is_push)
    return Errand(os.path.join(source, names[0]), os.path.join(target, single), (), is_push)


def carry(options: LaunchOptions, errand: Errand, moved: Callable[[int, int], None]) -> None:
    """Run rsync, and tell `moved` of the bytes that it has dealt with.

    Whether it has brought every file is for the receiving end to see. Raises ConnectionLost, NoRoom, SyncError.
    """
    argv = _argv(options, errand)
    with tempfile.TemporaryFile() as stderr, tempfile.TemporaryFile() as names:
        names.write(b"".join(b"./" + name + b"\0" for name in errand.files))
        names.seek(0)
        process = subprocess.Popen(
            argv,
            stdin=names,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=choice.environment(options),
            start_new_session=True,
        )
        try:
            _follow(process, moved)
            status = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _STDERR_BYTES))
        said = stderr.read().decode("utf-8", "replace").strip()
    if status:
        _check(options, status, said)


def _check(options: LaunchOptions, status: int, said: str) -> None:
    if "No space left on device" in said or "Disk quota exceeded" in said:
        raise NoRoom("there is no room for what rsync brings", "make room; the same command then continues from here")
    last = (said.splitlines() or [f"exit status {status}"])[-1]
    if status in _OF_THE_CONNECTION:
        message = f"rsync's connection to {options.endpoint} broke: {last}"
        raise ConnectionLost(message, "the same command continues from here")
    if status not in (23, 24):  # some files were not transferred: the receiving end finds out which
        raise SyncError(f"rsync failed: {last}", "--no-rsync copies without it")


def _argv(options: LaunchOptions, errand: Errand) -> list[bytes]:
    *shell, host, _ = choice.carrier_argv(options, "true")
    remote = os.fsencode(f"[{host}]" if ":" in host else host) + b":"
    words = [*_OPTIONS, *_WITHOUT, f"--partial-dir={os.fsdecode(PARTIAL_FOLDER)}", "--info=progress2", "--outbuf=L"]
    words += [f"--rsh={' '.join(map(_quoted, shell))}"]
    ends = [errand.source, errand.target]
    if errand.files:
        words.append("--files-from=-")
        ends = [end.rstrip(b"/") + b"/" for end in ends]
    ends[errand.is_push] = remote + ends[errand.is_push]
    return [b"rsync", *map(os.fsencode, words), b"--", *ends]


def _quoted(word: str) -> str:
    """Quote for rsync's own reading of --rsh, which takes a doubled quote for one."""
    return "'" + word.replace("'", "''") + "'"


def _follow(process: subprocess.Popen[bytes], moved: Callable[[int, int], None]) -> None:
    """Tell how far rsync is, by what it prints."""
    assert process.stdout
    told, rest = 0, b""
    with process.stdout as stdout:
        while data := os.read(stdout.fileno(), 4096):
            *lines, rest = re.split(rb"[\r\n]", rest + data)
            for line in lines:
                found = _SHOWS.match(line)
                if found:
                    now = int(re.sub(rb"\D", b"", found[1]))
                    moved(max(0, now - told), 0)
                    told = max(told, now)
