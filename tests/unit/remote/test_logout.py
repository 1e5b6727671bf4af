"""What a host's systemd does at logout, read from a host's files that stand in a folder of the test's.

The move itself is tried with a fake busctl: it needs a host that systemd runs and a user manager.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from remote_kernel.remote import logout

USER = pwd.getpwuid(os.getuid()).pw_name
SESSION = "0::/user.slice/user-1000.slice/session-7.scope\n"
MANAGER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n"


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a host that ends the processes of this user, who is in a login session."""
    write(tmp_path, "proc/self/cgroup", SESSION)
    write(
        tmp_path,
        "etc/systemd/logind.conf",
        "[Login]\n#KillUserProcesses=no\nKillUserProcesses=yes\nKillExcludeUsers=\n",
    )
    return tmp_path


def kills(root: Path) -> bool:
    return logout.kills_at_logout(str(root))


def test_host_without_systemd_kills_nobody(tmp_path: Path) -> None:
    assert not kills(tmp_path)
    assert logout.outlive_logout("0123456789ab", str(tmp_path)) == ""


def test_setting_is_read(root: Path) -> None:
    assert kills(root)


def test_drop_in_files_win_over_the_main_file_and_later_names_over_earlier(root: Path) -> None:
    write(root, "etc/systemd/logind.conf.d/10-a.conf", "[Login]\nKillUserProcesses=no\n")
    assert not kills(root)
    write(root, "usr/lib/systemd/logind.conf.d/20-b.conf", "[Login]\nKillUserProcesses=yes\n")
    assert kills(root)
    write(root, "etc/systemd/logind.conf.d/20-b.conf", "[Login]\nKillUserProcesses=no\n")
    assert not kills(root)


def test_excluded_users_are_left_alone(root: Path) -> None:
    write(root, "etc/systemd/logind.conf.d/1.conf", f"KillExcludeUsers=root {USER}\n")
    assert not kills(root)


def test_only_listed_users_are_killed(root: Path) -> None:
    write(root, "etc/systemd/logind.conf.d/1.conf", "KillOnlyUsers=somebody\n")
    assert not kills(root)
    write(root, "etc/systemd/logind.conf.d/1.conf", f"KillOnlyUsers=somebody {USER}\n")
    assert kills(root)


def test_process_of_the_users_manager_needs_nothing(root: Path) -> None:
    write(root, "proc/self/cgroup", MANAGER)
    assert logout.outlive_logout("0123456789ab", str(root)) == ""


def test_warning_says_what_to_do_where_the_manager_ends_too(root: Path) -> None:
    assert "loginctl enable-linger" in logout.outlive_logout("0123456789ab", str(root))


def test_agent_is_moved_where_the_manager_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, f"var/lib/systemd/linger/{USER}", "")
    tools = root / "tools"
    write(
        root, "tools/busctl", f'#!/bin/sh\necho "$@" > {root}/asked\nprintf %s "{MANAGER}" > {root}/proc/self/cgroup\n'
    )
    (tools / "busctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    assert logout.outlive_logout("0123456789ab", str(root)) == ""
    asked = (root / "asked").read_text()
    assert "remote_kernel-0123456789ab.scope" in asked
    assert f"PIDs au 1 {os.getpid()}" in asked


def test_move_that_fails_leaves_the_warning(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, f"var/lib/systemd/linger/{USER}", "")
    write(root, "tools/busctl", "#!/bin/sh\nexit 1\n")
    (root / "tools/busctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}/tools:{os.environ['PATH']}")

    assert "enable-linger" in logout.outlive_logout("0123456789ab", str(root))
