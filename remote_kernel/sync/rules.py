"""Decide what is left out: the patterns of --exclude and of .gitignore files, read as git reads them.

Both ends need the same answer, and the remote one has neither git nor libraries to ask, so git's matching
(wildmatch.c, dir.c) is put into regular expressions here; a test compares it with git itself.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache

from remote_kernel.sync.options import SyncOptions
from remote_kernel.sync.wire import Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from re import Pattern

FILE = b".gitignore"
_LARGEST = 1 << 20
_LONGEST_LINE = 8 << 10  # a path has 4,096 bytes at most, and each may have a backslash
_EXCLUDES, _BELOW, _ABOVE = range(3)  # parts of the rules on their way
# What the other end's rules may take here, by line and by byte: enough for some 20,000 lines that differ.
_MOST_BYTES, _RULE_BYTES, _SIGN_BYTES = 48 << 20, 1000, 64
_MOST_LINES = 50_000  # of one file
_CLASSES = {
    b"alnum": b"a-zA-Z0-9",
    b"alpha": b"a-zA-Z",
    b"blank": b" \\t",
    b"cntrl": b"\\x00-\\x1f\\x7f",
    b"digit": b"0-9",
    b"graph": b"!-~",
    b"lower": b"a-z",
    b"print": b" -~",
    b"punct": b"!-/:-@\\[-`{-~",
    b"space": b" \\t-\\r",
    b"upper": b"A-Z",
    b"xdigit": b"0-9A-Fa-f",
}


class Rule:
    """One line: `leaves_out` is false after a `!`; of several that match a path the last one counts."""

    def __init__(self, line: bytes) -> None:
        self.leaves_out = not line.startswith(b"!")
        line = line if self.leaves_out else line[1:]
        self._of_folders = line.endswith(b"/")
        line = line[:-1] if self._of_folders else line
        self._of_names = b"/" not in line
        line = line[1:] if line.startswith(b"/") else line
        self._pattern = _compiled(line) if len(line) <= _LONGEST_LINE else None

    def matches(self, path: bytes, name: bytes, is_folder: bool) -> bool:
        """True if a path below the rule's folder, with this last part, is one that it speaks of."""
        if (self._of_folders and not is_folder) or self._pattern is None:
            return False
        return bool(self._pattern.match(name if self._of_names else path))


_rule = lru_cache(maxsize=None)(Rule)  # most .gitignore files have the same lines


def parse(text: bytes) -> list[Rule]:
    """Return the rules of a .gitignore file, in order."""
    lines = text[3:].split(b"\n") if text.startswith(b"\xef\xbb\xbf") else text.split(b"\n")
    lines = [_without_spaces(line[:-1] if line.endswith(b"\r") else line) for line in lines]
    return [_rule(line) for line in lines if line and not line.startswith(b"#")]


class Rules:
    """All that decides for one tree: `excludes` before the .gitignore files, the deepest of those before the others.

    `texts` holds the .gitignore files by their folder below the root, `above` those of the folders over it up to the
    top of its git work tree, each with the way from that folder to the root.
    """

    def __init__(self, excludes: list[bytes], use_gitignore: bool) -> None:
        self.excludes, self.use_gitignore = excludes, use_gitignore
        self.texts: dict[bytes, bytes] = {}
        self.above: list[tuple[bytes, bytes]] = []
        self._excludes = parse(b"\n".join(excludes))
        self._parsed: dict[bytes, list[Rule]] = {}
        self._parsed_above: list[tuple[bytes, list[Rule]]] = []
        self._lines: set[bytes] = set()
        self._weight = 0

    @classmethod
    def of(cls, options: SyncOptions) -> Rules:
        """Return those that the options ask for, with no .gitignore file read yet."""
        return cls(list(options.exclude), not options.no_ignore)

    def read_above(self, root: bytes) -> None:
        """Read the .gitignore files of the folders over the root, if that is inside a git work tree."""
        folder, way = os.path.abspath(root), b""
        found: list[tuple[bytes, bytes]] = []
        while self.use_gitignore and not os.path.lexists(os.path.join(folder, b".git")):
            parent, name = os.path.split(folder)
            if parent == folder or not name:
                return
            folder, way = parent, name + b"/" + way
            try:
                text = _read(os.path.join(folder, FILE))
            except PermissionError:
                continue  # it may be above the work tree, if there is one
            if text:
                found.append((way, text))
        for way, text in found:
            self.add_above(way, text)

    def read(self, folder: bytes, path: bytes) -> None:
        """Read the .gitignore file of a folder below the root, which is at `path`.

        Raises PermissionError where there is one that cannot be read: nobody knows then what is to be left out.
        """
        if self.use_gitignore:
            self.add(folder, _read(os.path.join(path, FILE)))

    def leave_out(self, path: bytes, is_folder: bool) -> bool:
        """True if a path below the root is left out, if the folder that it is in is not."""
        folder, _, name = path.rpartition(b"/")
        found = _verdict(self._excludes, path, name, is_folder)
        if found is not None or not self.use_gitignore:
            return bool(found)
        if name == b".git":
            return True
        while self._parsed:
            rules = self._parsed.get(folder)
            if rules:
                found = _verdict(rules, path[len(folder) + 1 :] if folder else path, name, is_folder)
                if found is not None:
                    return found
            if not folder:
                break
            folder = folder.rpartition(b"/")[0]
        for way, rules in self._parsed_above:
            found = _verdict(rules, way + path, name, is_folder)
            if found is not None:
                return found
        return False

    def with_choice(self, options: SyncOptions) -> Rules:
        """Return the same .gitignore files with these options' --exclude, and with or without them."""
        found = Rules.of(options)
        found.texts, found.above = self.texts, self.above
        found._parsed, found._parsed_above = self._parsed, self._parsed_above
        return found

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """Yield what `take` at the other end makes the same rules of."""
        if self.excludes:
            yield _EXCLUDES, b"\n".join(self.excludes)
        for number, texts in ((_BELOW, self.texts.items()), (_ABOVE, self.above)):
            for folder, text in texts:
                yield number, folder + b"\0" + text

    def take(self, number: int, part: bytes) -> None:
        """Add one of the `parts` of the other end's rules. Raises Violation, also for more than there may be."""
        folder, _, text = part.partition(b"\0")
        lines = set(text.split(b"\n")) - self._lines if part.count(b"\n") < _MOST_LINES else set()
        self._lines |= lines
        self._weight += _RULE_BYTES * len(lines) + _SIGN_BYTES * sum(map(len, lines))
        if part.count(b"\n") >= _MOST_LINES or self._weight > _MOST_BYTES or number > _ABOVE:
            raise Violation("more rules than are taken, or none")
        if number == _EXCLUDES:
            self.excludes, self._excludes = [part], parse(part)
        elif number == _BELOW:
            self.add(folder, text)
        else:
            self.add_above(folder, text)

    def add(self, folder: bytes, text: bytes) -> None:
        """Add the text of the .gitignore file of a folder below the root."""
        if text:
            self.texts[folder], self._parsed[folder] = text, parse(text)

    def add_above(self, way: bytes, text: bytes) -> None:
        """Add the one of a folder over it, with the way from there to the root; the nearest comes first."""
        self.above.append((way, text))
        self._parsed_above.append((way, parse(text)))


def _verdict(rules: list[Rule], path: bytes, name: bytes, is_folder: bool) -> bool | None:
    for rule in reversed(rules):
        if rule.matches(path, name, is_folder):
            return rule.leaves_out
    return None


def _read(path: bytes) -> bytes:
    """Return a file's text; empty where there is none, or what cannot be one. git reads no link here either.

    Raises PermissionError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:
        raise
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        try:
            return file.read(_LARGEST)
        except OSError:
            return b""


def _without_spaces(line: bytes) -> bytes:
    """Remove the spaces at the end that no backslash protects."""
    at, keep = 0, 0
    while at < len(line):
        is_protected = line[at : at + 1] == b"\\"
        is_space = line[at : at + 1] == b" "
        at += 2 if is_protected else 1
        keep = keep if is_space else at
    return line[:keep]


def _compiled(pattern: bytes) -> Pattern[bytes] | None:
    if not pattern:
        return None
    # git compares what stands before the first wildcard as it is, and matches the rest as if it began there.
    plain = re.match(rb"[^*?\[\\]*", pattern)
    assert plain
    rest = _expression(pattern[plain.end() :])
    return None if rest is None else re.compile(re.escape(plain[0]) + rest + rb"\Z", re.DOTALL)


def _expression(pattern: bytes) -> bytes | None:
    """Put a wildmatch pattern into a regular expression; None for one that matches nothing."""
    found, at = b"", 0
    while at < len(pattern):
        sign = pattern[at : at + 1]
        if sign == b"*":
            stars = at
            while pattern[at : at + 1] == b"*":
                at += 1
            rest = pattern[at:]
            is_whole = stars == 0 or pattern[stars - 1 : stars] == b"/"
            if at - stars == 1 or not is_whole or (rest and not rest.startswith((b"/", b"\\/"))):
                found += b"[^/]*"
            elif rest.startswith(b"/"):
                found, at = found + b"(?:.*/)?", at + 1
            else:
                found += b".*"
            continue
        if sign == b"?":
            found += b"[^/]"
        elif sign == b"[":
            signs, at = _bracket(pattern, at + 1)
            if signs is None:
                return None
            found += signs
            continue
        elif sign == b"\\":
            at += 1
            if at == len(pattern):
                return None
            found += re.escape(pattern[at : at + 1])
        else:
            found += re.escape(sign)
        at += 1
    return found


def _bracket(pattern: bytes, at: int) -> tuple[bytes | None, int]:
    """Put what follows a `[` into a regular expression; give it, None where it never ends, and where it ends."""
    negated = pattern[at : at + 1] in (b"!", b"^") and pattern[at : at + 1] != b""
    at += negated
    found, before, first = b"", b"", True
    while first or pattern[at : at + 1] != b"]":
        first = False
        sign = pattern[at : at + 1]
        if sign == b"-" and before and pattern[at + 1 : at + 2] not in (b"", b"]"):
            at += 2 if pattern[at + 1 : at + 2] == b"\\" else 1
            last = pattern[at : at + 1]
            if not last:
                return None, at
            if before <= last:
                found += b"\\x%02x-\\x%02x" % (before[0], last[0])
            sign = b""
        elif sign == b"[" and pattern[at + 1 : at + 2] == b":":
            end = pattern.find(b"]", at + 2)
            if end < 0:
                return None, at
            if end > at + 2 and pattern[end - 1 : end] == b":":
                if pattern[at + 2 : end - 1] not in _CLASSES:
                    return None, at
                found, at, sign = found + _CLASSES[pattern[at + 2 : end - 1]], end, b""
            else:
                found += b"\\["
        else:
            if sign == b"\\":
                at += 1
                sign = pattern[at : at + 1]
            if not sign:
                return None, at
            found += b"\\x%02x" % sign[0]
        before, at = sign, at + 1
        if at >= len(pattern):
            return None, at
    if not found:
        return (b"[^/]" if negated else b"(?!)"), at + 1
    return (b"(?!/)[" + (b"^" if negated else b"") + found + b"]"), at + 1
