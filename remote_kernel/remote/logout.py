"""Move the agent out of a logout's reach where systemd ends what a user leaves behind (KillUserProcesses=yes).

There a lost SSH connection is a logout, and every process in the session's scope is killed with it. The agent
moves itself to a scope of the user's own manager, as `systemd-run --user --scope` would start it in one; that helps
only where the manager itself outlives the logout, which is what `loginctl enable-linger` is for.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess

from remote_kernel.process import read_text
from remote_kernel.remote.kernel import hostname, which

MOVE_SECONDS = 5.0
_SETTINGS = ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd")
_SCOPE = re.compile(r"/session-[^/]+\.scope")


def outlive_logout(identity: str, root: str = "/") -> str:
    """Move this process out of the reach of a logout; give a warning where it cannot be moved, else nothing.

    Called by the agent before it forks or starts anything. `root` is where the host's files are. Costs the reading
    of a few small files where there is nothing to do.
    """
    if not in_session_scope(root) or not kills_at_logout(root):
        return ""
    if lingers(root) and _move(identity) and not in_session_scope(root):
        return ""
    return (
        f"{hostname()} ends your processes at logout, so a lost connection would end the kernel; "
        f"run 'loginctl enable-linger' there once"
    )


def in_session_scope(root: str = "/") -> bool:
    """True if this process belongs to a login session, as systemd counts it."""
    return bool(_SCOPE.search(_text(root, "proc/self/cgroup")))


def kills_at_logout(root: str = "/") -> bool:
    """True if logind is set to end this user's processes at logout; systemd's own default is not to."""
    found = {"KillUserProcesses": "no", "KillOnlyUsers": "", "KillExcludeUsers": "root"}
    for path in _setting_files(root):
        for line in _text(root, path).splitlines():
            name, equals, value = line.partition("=")
            if equals and name.strip() in found:
                found[name.strip()] = value.strip()
    user = _user()
    only, never = found["KillOnlyUsers"].split(), found["KillExcludeUsers"].split()
    yes = found["KillUserProcesses"].lower() in ("yes", "true", "on", "1")
    return yes and user not in never and (not only or user in only)


def _setting_files(root: str) -> list[str]:
    """Return logind's files in the order in which systemd reads them: a file of the same name counts once, the last."""
    parts: dict[str, str] = {}
    for folder in _SETTINGS:
        try:
            names = os.listdir(os.path.join(root, folder, "logind.conf.d"))
        except OSError:
            continue
        parts.update({name: os.path.join(folder, "logind.conf.d", name) for name in names if name.endswith(".conf")})
    return ["etc/systemd/logind.conf", *(parts[name] for name in sorted(parts))]


def lingers(root: str = "/") -> bool:
    """True if this user's manager outlives the logout."""
    return os.path.exists(os.path.join(root, "var/lib/systemd/linger", _user()))


def _move(identity: str) -> bool:
    """Ask the user's manager for a scope with this process in it."""
    busctl = which("busctl")
    if busctl is None:
        return False
    manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
    scope = [f"remote_kernel-{identity}.scope", "fail", "1", "PIDs", "au", "1", str(os.getpid()), "0"]
    argv = [busctl, "--user", "call", *manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", *scope]
    env = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ}
    null = subprocess.DEVNULL
    try:
        done = subprocess.run(argv, env=env, stdin=null, stdout=null, stderr=null, timeout=MOVE_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _text(root: str, path: str) -> str:
    return read_text(os.path.join(root, path))
