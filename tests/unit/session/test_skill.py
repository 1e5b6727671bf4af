"""The instructions for coding agents: valid, complete, and installed without harm."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from remote_kernel.cli.rkernel import command as command_line
from remote_kernel.cli.rkernel import main
from remote_kernel.errors import UsageError
from remote_kernel.session import skill
from remote_kernel.session.events import VERDICTS


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_frontmatter_has_a_name_and_a_description_that_agents_take() -> None:
    begin, frontmatter, body = skill.skill_text().split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in frontmatter.splitlines())

    assert begin == "" and body.startswith("\n# ")
    assert set(fields) == {"name", "description"}
    assert fields["name"] == skill.NAME
    assert 50 < len(fields["description"]) <= 1024
    # What a plain YAML scalar, or a reader of tags, would stumble over.
    assert not re.search(r"[<>#]|: ", fields["description"])


def test_skill_is_short_enough_to_be_read() -> None:
    assert skill.skill_text().count("\n") < 500
    assert skill.stanza_text().count("\n") < 15


def test_skill_explains_every_exit_status() -> None:
    for status in (*VERDICTS.values(), 2, 3):
        assert f"\n| {status} |" in skill.skill_text()


def commands() -> list[list[str]]:
    """Return every `rkernel` command of the skill's code blocks and inline code, as its words."""
    text = skill.skill_text() + skill.stanza_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [
        line for block in blocks for line in re.sub(r"<<'PY'\n.*?\nPY\n", "\n", block, flags=re.DOTALL).splitlines()
    ]
    lines += re.findall(r"`(rkernel [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [shlex.split(line.replace("<<'PY'", ""), comments=True)[1:] for line in lines if line.startswith("rkernel ")]


def test_skill_names_commands() -> None:
    assert {words[0] for words in commands()} >= {
        "exec",
        "wait",
        "tail",
        "interrupt",
        "vars",
        "inspect",
        "status",
        "ls",
    }


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_in_the_skill_parses(words: list[str]) -> None:
    name, *arguments = words
    if name in ("COMMAND", "--help"):
        return
    command = command_line.find_command(name)

    assert command is not None, f"there is no 'rkernel {name}'"
    command_line.parse(name, command, arguments)  # raises UsageError


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ("claude", ".claude/skills/rkernel/SKILL.md"),
        ("codex", ".agents/skills/rkernel/SKILL.md"),
        ("~/mine", "mine/rkernel/SKILL.md"),
        ("~/mine/rkernel", "mine/rkernel/SKILL.md"),
        ("~/notes.md", "notes.md"),
    ],
)
def test_skill_is_installed_where_the_agent_looks(home: Path, where: str, path: str) -> None:
    assert skill.install(where) == (home / path, "installed")
    assert (home / path).read_text().startswith(skill.skill_text())
    assert [file.name for file in (home / path).parent.iterdir() if file.is_file()] == [Path(path).name]


def test_install_again_changes_nothing(home: Path) -> None:
    first = skill.install("claude")

    assert skill.install("claude") == (first.path, "unchanged")


def test_install_replaces_what_an_earlier_version_wrote(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skill, "skill_text", lambda: "---\nname: rkernel\n---\nolder\n")
    path = skill.install("claude").path
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(home))

    assert skill.install("claude") == (path, "updated")
    assert path.read_text().startswith(skill.skill_text())


@pytest.mark.parametrize("change", ["mine", None])
def test_install_keeps_what_somebody_wrote_or_changed(home: Path, change: str | None) -> None:
    path = skill.install("claude").path
    path.write_text(change or path.read_text().replace("rkernel exec", "rkernel  exec", 1))
    kept = path.read_text()

    with pytest.raises(UsageError, match="changed since"):
        skill.install("claude")
    assert path.read_text() == kept
    assert skill.install("claude", force=True).change == "updated"


def test_uninstall_removes_what_install_wrote_and_nothing_else(home: Path) -> None:
    path = skill.install("claude").path
    assert skill.uninstall("claude") == (path, "removed")
    assert not path.parent.exists()
    assert skill.uninstall("claude").change == "not there:"
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(UsageError, match="changed since"):
        skill.uninstall("claude")
    assert path.read_text() == "mine"
    assert skill.uninstall("claude", force=True).change == "removed"


def test_install_that_cannot_write_says_so(home: Path) -> None:
    (home / "file").write_text("")

    with pytest.raises(UsageError, match="cannot write"):
        skill.install("~/file/skills")


def test_command_shows_the_skill(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["skill", "show"]) == 0
    assert capsys.readouterr().out == skill.skill_text()

    assert main.run(["skill", "show", "--agents-md"]) == 0
    assert capsys.readouterr().out == skill.stanza_text()


def test_command_installs_the_skill(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["skill", "install", "--for", "codex"]) == 0

    path = home / ".agents/skills/rkernel/SKILL.md"
    assert capsys.readouterr().out == f"installed {path}\n"
    path.write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        main.run(["skill", "install", "--for", "codex"])
    assert main.run(["skill", "install", "--for", "codex", "--force"]) == 0
