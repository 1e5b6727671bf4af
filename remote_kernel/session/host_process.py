"""Make a session, start its host process, and end both: what needs more than a socket."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.jupyter.connection_file import read_connection_file
from remote_kernel.launcher.state_file import read_state
from remote_kernel.options import check_folder
from remote_kernel.process import is_alive
from remote_kernel.session.host_connection import HostConnection, HostHangs, NoSuchSession, check_host
from remote_kernel.session.host_lock import read_holder, take_lock
from remote_kernel.session.paths import Paths, sessions_folder
from remote_kernel.session.protocol import decode, decode_problem, request_line
from remote_kernel.session.questions import Closed
from remote_kernel.session.record import Record, read_process, read_record, write_record

_READY_SECONDS = 120.0
_CHECK_SECONDS = 5.0  # for a host to show that it does not hang
_LEAVE_SECONDS = 20.0  # for one that has said that it will end: it writes the notebook
_KILLED_SECONDS = 5.0
_DISMISS_SECONDS = {"close": 40.0, "leave": 20.0}  # for it to end the kernel, or to let go of it
_UNREACHABLE_SECONDS = 3.0  # for a host whose socket was removed to listen again


def make_session(
    paths: Paths, *, kernelspec: str, connection_file: str, log: str | None, cwd: str, workdir: str = ""
) -> None:
    """Write the session's record; the host, which the first connection starts, does the rest."""
    where = os.path.abspath(cwd or os.getcwd())
    notebook = os.path.join(where, f"rkernel-{paths.name}.ipynb") if log is None else log and os.path.join(where, log)
    if notebook and os.path.isdir(os.path.dirname(notebook)) and not os.access(os.path.dirname(notebook), os.W_OK):
        raise UsageError(f"cannot log to {notebook}: its folder cannot be written to", "give --log PATH, or --no-log")
    if connection_file:
        path = os.path.abspath(connection_file)
        values = read_connection_file(path).values
        record = Record("", str(values.get("kernel_name") or ""), path, notebook, where, _identity(), time.time())
    elif kernelspec:
        from remote_kernel.session.kernel_program import find_program

        program = find_program(kernelspec)
        if workdir and not program.host:
            workdir = check_folder(os.path.join(where, os.path.expanduser(workdir)))
        record = Record(
            program.kernelspec,
            program.display_name,
            paths.connection_file,
            notebook,
            where,
            _identity(),
            time.time(),
            program.language,
            program.interrupt_mode,
            program.host,
            workdir=workdir,
        )
    else:
        raise NoSuchSession(f"there is no session '{paths.name}'", "see 'rkernel ls'; give -k to make one")
    try:
        paths.make()
        with _making(paths):
            if not paths.exists():
                write_record(paths, record)
    except OSError:
        if not paths.exists():
            _remove(paths)
        raise


def _identity() -> str:
    return os.urandom(12).hex()


@contextlib.contextmanager
def _making(paths: Paths) -> Iterator[None]:
    """Allow one client at a time to make a session or start its host. The lock is beside the folder, which may go.

    With the last session goes the folder that holds them all.
    """
    path = os.path.join(sessions_folder(), f".{paths.name}.lock")
    deadline = time.monotonic() + _READY_SECONDS + 10
    while (lock := _lock(path)) < 0:
        if time.monotonic() > deadline:
            raise RemoteKernelError(
                f"another client has been starting '{paths.name}' for too long", f"'rkernel close {paths.name}' ends it"
            )
        time.sleep(0.05)
    try:
        yield
    finally:
        os.unlink(path)
        os.close(lock)
        with contextlib.suppress(OSError):  # there are other sessions
            os.rmdir(sessions_folder())


def _lock(path: str) -> int:
    """Return a descriptor that holds the lock; -1 where somebody else has it, or has just removed the file."""
    lock = -1
    with contextlib.suppress(FileNotFoundError):  # the last session has just been closed
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        lock = take_lock(path)
        if lock < 0 or os.path.samestat(os.fstat(lock), os.stat(path)):
            return lock
    if lock >= 0:
        os.close(lock)
    return -1


def start_host(paths: Paths) -> None:
    """Start the session's host and wait until it serves. Raises what kept the kernel from starting.

    A session that has never had a kernel goes with the failure, so that nothing has to be closed.
    """
    with _making(paths):
        lock = _lock_for_host(paths)
        if lock < 0:
            return
        read_end, write_end = os.pipe()
        log = os.open(paths.host_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            host = subprocess.Popen(
                [sys.executable, "-m", "remote_kernel.session.host.host", paths.name, str(write_end), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_end, lock),
                cwd="/",
                start_new_session=True,
            )
        finally:
            for fd in (log, write_end, lock):
                os.close(fd)
        try:
            fields = json.loads(_read_report(read_end) or "{}")
        finally:
            os.close(read_end)
        if "answer" in fields:
            _reap(host)
            return
        host.kill()
        host.wait()
        what_it_said = _last_line(paths.host_log)
        if _has_run_nothing(paths):
            _remove(paths)
        if "problem" in fields:
            raise decode_problem(fields["problem"])
        raise RemoteKernelError(
            f"the host of session '{paths.name}' did not start: {what_it_said}",
            f"it has {_READY_SECONDS:.0f} s for it; its log, if it is there, is {paths.host_log}",
        )


def _has_run_nothing(paths: Paths) -> bool:
    """True if nothing is lost with the session: its first kernel did not start, and no cell was ever sent."""
    record = read_record(paths)
    return not record.pid and record.generation == 1 and not os.listdir(paths.cells)


def _last_line(path: str) -> str:
    with open(path, "rb") as file:
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _reap(host: subprocess.Popen[bytes]) -> None:
    """Wait for the host to end, in a thread: it may do so while the program that has started it goes on."""
    import threading

    threading.Thread(target=host.wait, name=f"reap {host.pid}", daemon=True).start()


def _lock_for_host(paths: Paths) -> int:
    """Lock host.lock, which a host holds for as long as it lives, for the next one; -1 if one serves.

    It is locked here, not by the host, so that a host whose client has left while it was starting is seen by the next.
    """
    begun = time.monotonic()
    while not _serves(paths):
        try:
            lock = take_lock(paths.host_lock)
        except FileNotFoundError:  # whoever held the other lock before has removed the session
            raise NoSuchSession(f"the session '{paths.name}' has just gone", "see 'rkernel ls'") from None
        if lock >= 0:
            return lock
        if time.monotonic() > begun + _UNREACHABLE_SECONDS and _should_serve(paths):
            raise _unreachable(paths)
        if time.monotonic() > begun + _READY_SECONDS:
            raise RemoteKernelError(
                f"the host of session '{paths.name}' does not answer", f"see {paths.host_log}, or close the session"
            )
        time.sleep(0.05)
    return -1


def _serves(paths: Paths) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CHECK_SECONDS)
        return probe.connect_ex(paths.socket()) == 0


def _should_serve(paths: Paths) -> bool:
    """True if the host is neither starting nor ending; one of an older version is taken to start for a while."""
    holder = read_holder(paths.host_lock)
    if holder and holder.socket is None:
        with contextlib.suppress(OSError):
            return time.time() - os.stat(paths.host_lock).st_mtime > _READY_SECONDS
    return bool(holder and holder.socket)


def _has_host(paths: Paths) -> bool:
    holder = read_holder(paths.host_lock)
    return holder is not None and is_alive(holder.pid, holder.born)


def _is_cut_off(paths: Paths) -> bool:
    """True if the host lives and cannot be reached, a wait for its socket included."""
    deadline = time.monotonic() + _UNREACHABLE_SECONDS
    while not _serves(paths) and _should_serve(paths):
        if not _has_host(paths):
            break
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)
    return False


def _unreachable(paths: Paths) -> RemoteKernelError:
    holder = read_holder(paths.host_lock)
    where = f" at {holder.socket}" if holder and holder.socket else ""
    message = f"the host of session '{paths.name}' lives, and cannot be reached{where}"
    if holder and not is_alive(holder.pid, holder.born):
        return HostHangs(message, "use the session where it was made: on that machine, or in that container")
    return HostHangs(message, f"'rkernel refresh {paths.name}' replaces it; the kernel lives on, with what runs in it")


def _read_report(fd: int) -> str:
    """Read what the host reports: a line, or nothing when it ends or takes too long."""
    deadline = time.monotonic() + _READY_SECONDS
    data = b""
    while not data.endswith(b"\n"):
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return ""
        piece = os.read(fd, 65536)
        if not piece:
            break
        data += piece
    return data.decode()


def close_session(paths: Paths) -> list[str]:
    """End the host and the kernel, also where the host does not answer, and remove the session's folder.

    Returns the names of the kernel's child processes that were killed.
    """
    if not os.path.isdir(paths.folder):
        raise NoSuchSession(f"there is no session '{paths.name}'", "see 'rkernel ls'")
    with contextlib.suppress(RemoteKernelError, OSError):
        if read_record(paths).host and not _has_host(paths):  # which alone can end a kept kernel
            start_host(paths)
    if not os.path.isdir(paths.folder):  # there was nothing in it
        return []
    with _making(paths):  # so that nobody starts another host meanwhile
        closed = _dismiss_host(paths, "close")
        pid, born = (0, "") if closed else read_process(paths)
        if pid and is_alive(pid, born) and not _end_kernel(pid):
            raise RemoteKernelError(
                f"the kernel of session '{paths.name}' cannot be ended", f"its process group is {pid}; see to that"
            )
        there = read_state(paths.kernel_state)
        if closed and closed.log_trouble:
            raise LogIncomplete(
                f"the kernel has ended, but not all is in the notebook: {closed.log_trouble}",
                f"what the cells gave is in {paths.cells}; 'rkernel close {paths.name}', once more, removes it",
            )
        _remove(paths)
    if there and there.kernel:
        identity = there.kernel.partition(" ")[0]
        raise KernelLeft(
            f"the session '{paths.name}' is closed, and its kernel may live on on its host",
            f"'remote_kernel stop {identity}' ends it",
        )
    return list(closed.killed) if closed else []


class KernelLeft(RemoteKernelError):
    """A session was closed, and nobody has seen its remote kernel end."""


class LogIncomplete(RemoteKernelError):
    """A session was closed, and its notebook could not be written to the end."""


def end_host(paths: Paths) -> None:
    """End the host, also one that hangs; the kernel lives on, and the next client starts the next host. Idempotent."""
    with _making(paths):
        _dismiss_host(paths, "leave")


def _dismiss_host(paths: Paths, do: str) -> Closed | None:
    """Ask the host to `close` or to `leave`, and wait until it has ended; one that does not answer, or end, is killed.

    Returns its answer, None where there is none.
    """
    patience = _LEAVE_SECONDS
    answer: Closed | None = None
    try:
        if _is_cut_off(paths):
            raise _unreachable(paths)
        check_host(paths, _CHECK_SECONDS)
        with HostConnection(paths) as connection:
            connection.send(request_line(do))
            answer = decode(Closed, connection.answer(_DISMISS_SECONDS[do]))
    except HostHangs:
        patience = 0.0
    except (RemoteKernelError, OSError):  # there is no host, say
        pass
    lock = os.open(paths.host_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if _has_ended(lock, patience):
            return answer
        holder = read_holder(paths.host_lock)
        is_here = holder and is_alive(holder.pid, holder.born)
        if holder and is_here:
            os.kill(holder.pid, signal.SIGKILL)
        if not _has_ended(lock, _KILLED_SECONDS):
            if not is_here:
                raise _unreachable(paths)
            raise RemoteKernelError(f"the host of session '{paths.name}' cannot be ended", f"see {paths.host_log}")
        return answer
    finally:
        os.close(lock)


def _has_ended(lock: int, seconds: float) -> bool:
    """Wait until no host holds its lock, and take it; false if one still does then."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)


def _end_kernel(pid: int) -> bool:
    """End a kernel whose host is gone; false where it does not end."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + seconds
        try:
            os.killpg(pid, number)
            while time.monotonic() < deadline:
                os.killpg(pid, 0)
                time.sleep(0.05)
        except OSError:
            return True
    return not is_alive(pid)


def _remove(paths: Paths) -> None:
    socket = paths.socket()
    shutil.rmtree(paths.folder, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket)
