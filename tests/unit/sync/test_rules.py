"""What .gitignore patterns leave out, compared with git itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from remote_kernel.sync.rules import Rules
from remote_kernel.sync.tree import list_folder

PATHS = (
    *("a", "b", "foo", "foo.o", "foo/a", "foo/b.o", "foo/bar/a", "foo/bar/b", "a/foo/x", "a/b/foo", "abc/foo/bar/x"),
    *("#x", "!x", "x ", "[a]", "*", "a?", "A", "b/a b", "b/c/a-b", "b/c/]", "b/\\", "doc/frotz/a", "a/doc/frotz/b"),
    *(".hidden", "b/.hidden", "tmp/é", "tmp/keep", "fooa/b/bar", "x/1", "x/12", "x/a1/z"),
)
ALPHABET = st.sampled_from(
    [*"ab*?/!#[]\\-^. ", "foo", "**", "bar", "**/", "/**", "[a-c]", "[!a]", "[[:digit:]]", "\\ "]
)
LINES = st.lists(st.lists(ALPHABET, min_size=1, max_size=6).map("".join), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def work_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a git work tree with PATHS in it."""
    root = tmp_path_factory.mktemp("work")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    for name in PATHS:
        path = root / name
        if path.is_dir():
            continue
        for parent in reversed(path.relative_to(root).parents):
            if (root / parent).is_file():
                (root / parent).unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def as_git_sees(root: Path) -> set[bytes]:
    """Give the files that git would add."""
    command = [
        "git",
        "-c",
        "core.excludesFile=/dev/null",
        "-C",
        str(root),
        "ls-files",
        "-o",
        "--exclude-per-directory=.gitignore",
        "-z",
    ]
    done = subprocess.run(command, check=True, capture_output=True)
    return set(done.stdout.split(b"\0")) - {b""}


def as_we_see(root: Path, gitignore: bool = True) -> set[bytes]:
    found = list_folder(bytes(root), Rules([], gitignore), with_digests=False)
    return {entry.path for entry in found.entries if entry.kind != "d"}


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(LINES, LINES)
@example(["foo/", "!foo/bar"], ["*.o"])
@example(["/foo", "**/x", "foo/**", "a/**/foo"], ["!a"])
@example(["foo**/bar", "[[:digit:]]*", "x/[0-9]", "\\!x", "\\#x", "x\\ "], ["*"])
@example(["*", "!*/", "!*.o"], ["[]a]", "[!]a]", "[a-", "[", "\\"])
@example(["a"], ["\\\\ ", "x\\  "])
@example(["b/*", "!b/c", "a\r"], ["**", "!/keep"])
def test_rules_are_those_of_git(work_tree: Path, top: list[str], inner: list[str]) -> None:
    (work_tree / ".gitignore").write_text("\n".join(top) + "\n")
    for folder in ("foo", "b", "tmp"):
        (work_tree / folder / ".gitignore").write_text("\n".join(inner) + "\n")
    assert as_we_see(work_tree) == as_git_sees(work_tree)
    # a folder below takes the rules above it along
    inside = {path[2:] for path in as_git_sees(work_tree) if path.startswith(b"b/")}
    if inside:
        assert as_we_see(work_tree / "b") == inside


def test_excludes_come_before_gitignore_files(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n")
    for name in ("a.log", "b.log", "c.txt", "d.txt"):
        (tmp_path / name).touch()
    found = list_folder(bytes(tmp_path), Rules([b"c.*", b"!a.log"], True), with_digests=False)
    assert [entry.path for entry in found.entries] == [b".gitignore", b"a.log", b"d.txt"]
    assert found.left_out == 2


def test_rules_survive_the_journey() -> None:
    rules = Rules([b"*.o", b"\xff*"], True)
    rules.add(b"sub", b"/x\n!y\n")
    rules.add_above(b"way/", b"above\n")
    again = Rules([], True)
    for number, part in rules.parts():
        again.take(number, part)
    for path in (b"a.o", b"\xffz", b"above", b"sub/x", b"sub/y", b"x", b".git", b"sub/.git"):
        assert again.leave_out(path, False) == rules.leave_out(path, False)
    assert again.leave_out(b"sub/x", False) and not again.leave_out(b"x", False) and again.leave_out(b".git", True)


def test_links_are_no_gitignore_files(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("a\n")
    (tmp_path / ".gitignore").symlink_to("rules")
    (tmp_path / "a").touch()
    assert b"a" in as_we_see(tmp_path)
