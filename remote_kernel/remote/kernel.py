"""Find, start and end the kernel process on the remote host.

Reads the remote Jupyter paths itself, because nothing but the kernel need be installed there.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

from remote_kernel.process import processes, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?\Z")
_NOT_FOR_THE_KERNEL = ("JPY_PARENT_PID", "JPY_SESSION_NAME", "JPY_INTERRUPT_EVENT")
# Whether the program that the bootstrap ran has become this process (`exec`); seen before the agent forks.
_RAN_IN_PLACE = sys.argv[-1:] == [str(os.getpid())]
SSH_AGENT_LINK = "ssh"  # in the kernel's folder, to the socket of the ssh agent that is forwarded
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


class StartError(Exception):
    """The kernel cannot be started: the name of the error in the launcher's tree, what is wrong, what to do."""

    def __init__(self, name: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.name, self.message, self.hint = name, message, hint


class KernelSettings:
    """What the launcher asks for, as sent with the bootstrap; see `bootstrap.parameters`."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.id: str = values["id"]
        self.connection: dict[str, Any] = values["connection"]
        self.python: str = values["python"]
        self.kernel: str = values["kernel"]
        self.env: list[tuple[str, str]] = [(name, value) for name, value in values["env"]]
        self.workdir: str = values["workdir"]
        self.init: str = values["init"]
        self.folder: str = values["folder"]
        self.launched_by: str = values["launched_by"]
        self.fingerprint: str = values["fingerprint"]
        self.link: str = values["link"]
        self.keep: bool = values["keep"]
        self.linger: float | None = values["linger"]  # seconds, None for ever
        self.spool_bytes: int = values["spool_bytes"]
        self.extra_arguments: list[str] = values["extra_arguments"]
        self.spec_env: list[tuple[str, str]] = [(name, value) for name, value in values["spec_env"]]

    def of_the_kernel(self) -> dict[str, object]:
        """Return what another kernel like this one is to be started with."""
        names = ("python", "kernel", "env", "workdir", "init", "keep", "linger", "spool_bytes", "extra_arguments")
        return {name: getattr(self, name) for name in names}


class KernelspecFile:
    """A kernelspec found on the remote host."""

    def __init__(self, name: str, folder: str, values: dict[str, Any]) -> None:
        self.name, self.folder = name, folder
        self.argv: list[str] = [str(word) for word in values["argv"]]
        self.display_name = str(values.get("display_name", name))
        self.language = str(values.get("language", ""))
        self.interrupt_mode = str(values.get("interrupt_mode", "signal"))
        self.env: dict[str, str] = {str(k): str(v) for k, v in (values.get("env") or {}).items()}

    @property
    def is_ipykernel(self) -> bool:
        """True if the kernel is known to speak `ipc`, which keeps it out of other users' reach."""
        return any("ipykernel" in word for word in self.argv)


def find_python(settings: KernelSettings) -> str:
    """Return the absolute path of the interpreter asked for. Raises StartError.

    The bootstrap already ran it, unless it was not there; then `sys.argv[1]` names its stand-in.
    With `--init` the name means what the init code makes of it, and stays as it is.
    """
    asked = os.path.expanduser(settings.python)
    if settings.init:
        return asked
    if len(sys.argv) > 1 and sys.argv[1] == asked and sys.executable:
        return sys.executable
    found = which(asked)
    if found is None:
        raise StartError(
            "PythonNotFound",
            f"there is no interpreter '{settings.python}' on {hostname()}",
            f"give --python one of: {', '.join(_some_pythons()) or 'the path of a Python 3.8 or later'}",
        )
    return found


def kernel_python(settings: KernelSettings) -> str:
    """Return what runs the kernel: what the person named, where that is a wrapper, else the interpreter itself.

    A wrapper that starts Python as its child would get the kernel's signals in its place: then it is not used. Nor is a
    plain `python3`, which pyenv and its like choose anew in each folder. Raises StartError.
    """
    python, asked = find_python(settings), os.path.expanduser(settings.python)
    if python == sys.executable and _RAN_IN_PLACE and not settings.init and not _PYTHON.match(asked):
        return os.path.abspath(which(asked) or python)
    return python


def which(name: str) -> str | None:
    """Return the path of a program; shutil has the same, at 5 ms of import."""
    folders = [""] if "/" in name else os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _some_pythons() -> list[str]:
    home = os.path.expanduser("~")
    places = [
        f"{home}/{p}/bin/python" for p in (".venv", "venv", "miniconda3", "miniforge3", "anaconda3", "mambaforge")
    ]
    return [path for path in (which("python3"), which("python"), *places) if path and os.access(path, os.X_OK)]


def hostname() -> str:
    """Return this host's name."""
    return os.uname().nodename


# -- kernelspecs


def kernel_folders(python: str) -> Iterator[str]:
    """Return the folders that hold kernelspecs for this user and interpreter, first wins, as Jupyter does."""
    home = os.path.expanduser("~")
    yield from (os.path.join(p, "kernels") for p in os.environ.get("JUPYTER_PATH", "").split(os.pathsep) if p)
    data = os.environ.get("JUPYTER_DATA_DIR") or (
        f"{home}/Library/Jupyter" if sys.platform == "darwin" else f"{home}/.local/share/jupyter"
    )
    yield os.path.join(data, "kernels")
    for prefix in (os.path.dirname(os.path.dirname(python)), os.environ.get("CONDA_PREFIX", "")):
        if prefix and prefix != "/":
            yield os.path.join(prefix, "share/jupyter/kernels")
    yield "/usr/local/share/jupyter/kernels"
    yield "/usr/share/jupyter/kernels"


def kernelspecs(folders: Iterable[str]) -> dict[str, KernelspecFile]:
    """Read every kernelspec in these folders; one that cannot be read is left out."""
    found: dict[str, KernelspecFile] = {}
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            try:
                with open(os.path.join(path, "kernel.json"), encoding="utf-8") as file:
                    spec = KernelspecFile(name.lower(), path, json.load(file))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            if spec.argv:
                found.setdefault(spec.name, spec)
    return found


def find_kernelspec(name: str, python: str) -> KernelspecFile:
    """Return the kernelspec of that name. Raises StartError."""
    found = kernelspecs(kernel_folders(python))
    if name.lower() not in found:
        names = ", ".join(sorted(found)) or "none at all"
        raise StartError(
            "RemoteKernelspecNotFound",
            f"there is no kernelspec '{name}' on {hostname()}",
            f"it has: {names}; look with 'jupyter kernelspec list' there",
        )
    return found[name.lower()]


# -- the command


class KernelCommand:
    """How to start the kernel: `argv` with `{connection_file}` filled in, its environment, its folder."""

    def __init__(self, settings: KernelSettings, connection_file: str) -> None:
        python, command = find_python(settings), kernel_python(settings)
        self.language, self.interrupt_mode = "python", "signal"
        self.env = {k: v for k, v in os.environ.items() if k not in _NOT_FOR_THE_KERNEL}
        if "SSH_AUTH_SOCK" in self.env:  # which ends with this connection
            self.env["SSH_AUTH_SOCK"] = os.path.join(os.path.dirname(connection_file), SSH_AGENT_LINK)
        if settings.kernel:
            spec = find_kernelspec(settings.kernel, python)
            self.ipc = spec.is_ipykernel
            self.language, self.interrupt_mode = spec.language, spec.interrupt_mode
            places = {
                "connection_file": connection_file,
                "resource_dir": spec.folder,
                "prefix": os.path.dirname(os.path.dirname(python)),
            }
            argv = [re.sub(r"\{(\w+)\}", lambda m: places.get(m[1], m[0]), word) for word in spec.argv]
            if _PYTHON.match(argv[0]):
                argv[0] = command
            self.env.update(filled_in(spec.env.items(), self.env))
        else:
            self.ipc = True
            argv = [command, "-m", "ipykernel_launcher", "-f", connection_file]
        self.env.update(filled_in(settings.spec_env, self.env))
        self.env.update(settings.env)
        self.argv = with_init(settings.init, argv + settings.extra_arguments)
        self.cwd = os.path.expanduser(settings.workdir or "~")
        if not os.path.isdir(self.cwd):
            if settings.workdir:
                raise StartError(
                    "RemoteError",
                    f"there is no folder '{settings.workdir}' on {hostname()}",
                    "make it there, or give another --workdir",
                )
            self.cwd = "/"


def with_init(init: str, argv: list[str]) -> list[str]:
    """Return the command that runs `init` in a login shell first: only that knows `module` and `conda`."""
    if not init:
        return argv
    shell = which("bash") or "/bin/sh"
    return [shell, "-lc", f'{init}\nexec "$@"', "remote_kernel", *argv]


def filled_in(templates: Iterable[tuple[str, str]], variables: Mapping[str, str]) -> dict[str, str]:
    """Return a kernelspec's `env` with `$NAME` and `${NAME}` filled in and `$$` made `$`, as Jupyter does it."""
    found = {}
    for name, text in templates:
        from string import Template  # only here: most kernels are started without

        found[name] = Template(text).safe_substitute(variables)
    return found


# -- the process


class KernelProcess:
    """The kernel as a child process, leading a session of its own."""

    def __init__(self, command: KernelCommand) -> None:
        """Start it. Raises StartError when the program cannot be run."""
        env = dict(command.env, JPY_PARENT_PID=str(os.getpid()))
        try:
            self._process = subprocess.Popen(
                command.argv,
                cwd=command.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise StartError(
                "KernelDied",
                f"'{command.argv[0]}' on {hostname()} cannot be run: {error.strerror}",
                "run it there by hand to see more",
            ) from error
        assert self._process.stdout and self._process.stderr
        self._oom_kills = oom_kills()
        self._spares = True
        self.pid = self._process.pid
        self.stdout, self.stderr = self._process.stdout.fileno(), self._process.stderr.fileno()

    def status(self) -> int | None:
        """Return the exit status (minus the number for a signal), None while it runs."""
        if self._process.returncode is None:
            self._spares = not ignores_hangup(self.pid)  # when it has been waited for, nobody can tell
        return self._process.poll()

    def terminate(self) -> None:
        """Send SIGTERM to it and what its cells have started, but not to what was meant to stay."""
        kill_session(self.pid, signal.SIGTERM, spare=self._spares)

    def kill(self) -> None:
        """Kill all of these."""
        kill_session(self.pid, spare=self._spares)

    def signal(self, number: int) -> None:
        """Send a signal to the kernel's process group, as Jupyter does locally. Nothing happens once it has ended."""
        if self.status() is None:
            try:
                os.killpg(self.pid, number)
            except OSError:
                pass

    def memory_at_end(self) -> dict[str, Any]:
        """Return how much memory an ended kernel held at most, and whether the system has killed for want of it."""
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
        return {"peak_bytes": peak, "out_of_memory": oom_kills() > self._oom_kills}

    def close(self) -> None:
        """Close its output."""
        for file in (self._process.stdout, self._process.stderr):
            if file:
                file.close()


def oom_kills() -> int:
    """Return how many processes this system has killed for want of memory since its start; 0 where it does not say."""
    return next((int(line.split()[1]) for line in _lines("/proc/vmstat") if line.startswith("oom_kill ")), 0)


def kill_session(sid: int, number: int = signal.SIGKILL, *, spare: bool = True) -> None:
    """Signal every process of a kernel's session: the kernel, and what its cells started.

    What was meant to stay does, as it does with a local kernel: a process in a session of its own (`setsid`), and with
    `spare` one that ignores SIGHUP (`nohup`), and whatever that has started. Where the kernel itself ignores SIGHUP,
    all the others have that from it, and it means nothing.
    """
    spare = spare and not ignores_hangup(sid)
    for _ in range(5):  # a process may fork between the look and the kill
        members = {pid: parent for pid, parent, session, *_ in processes() if session == sid}
        more = stay = {pid for pid in members if spare and pid != sid and ignores_hangup(pid)}
        while more:
            more = {pid for pid, parent in members.items() if parent in stay} - stay
            stay = stay | more
        to_end = members.keys() - stay
        for pid in to_end:
            try:
                os.kill(pid, number)
            except OSError:
                pass
        if not to_end or number != signal.SIGKILL:
            return


def ignores_hangup(pid: int) -> bool:
    """True if a process ignores SIGHUP; false too where the system (macOS) does not say so."""
    ignored = next((line.split()[1] for line in _lines(f"/proc/{pid}/status") if line.startswith("SigIgn:")), "0")
    return bool(int(ignored, 16) & 1 << signal.SIGHUP - 1)


def _lines(path: str) -> list[str]:
    return read_text(path).splitlines()
