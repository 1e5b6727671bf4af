"""Make a session, start its host, and put an end to both: what needs more than a socket."""

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
from typing import TYPE_CHECKING, Any

from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.jupyter.connection_file import read_connection_file
from remote_kernel.launcher.state_file import read_presence
from remote_kernel.options import check_folder
from remote_kernel.process import is_alive
from remote_kernel.session.connection import HostHangs, problem_of
from remote_kernel.session.host_lock import read_holder, take_lock
from remote_kernel.session.paths import Place, sessions_folder
from remote_kernel.session.record import Record, read_process, read_record, write_record

if TYPE_CHECKING:
    from remote_kernel.session.client import Session

_READY_SECONDS = 120.0
_CHECK_SECONDS = 5.0  # for a host to show that it does not hang
_LEAVE_SECONDS = 20.0  # for one that has said that it will end: it writes the notebook
_KILLED_SECONDS = 5.0
_UNREACHABLE_SECONDS = 3.0  # for a host whose socket was removed to listen again


def make_session(
    place: Place, *, kernelspec: str, connection_file: str, log: str | None, cwd: str, workdir: str = ""
) -> None:
    """Write the session's record; the host, which the first connection starts, does the rest."""
    from remote_kernel.session.client import NoSuchSession

    where = os.path.abspath(cwd or os.getcwd())
    notebook = os.path.join(where, f"rkernel-{place.name}.ipynb") if log is None else log and os.path.join(where, log)
    if notebook and os.path.isdir(os.path.dirname(notebook)) and not os.access(os.path.dirname(notebook), os.W_OK):
        raise UsageError(f"cannot log to {notebook}: its folder cannot be written to", "give --log PATH, or --no-log")
    if connection_file:
        path = os.path.abspath(connection_file)
        values = read_connection_file(path).values
        record = Record("", str(values.get("kernel_name") or ""), path, notebook, where, _identity(), time.time())
    elif kernelspec:
        from remote_kernel.session.program import find_program

        program = find_program(kernelspec)
        if workdir and not program.host:
            workdir = check_folder(os.path.join(where, os.path.expanduser(workdir)))
        record = Record(
            program.kernelspec,
            program.display_name,
            place.connection_file,
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
        raise NoSuchSession(f"there is no session '{place.name}'", "see 'rkernel ls'; give -k to make one")
    try:
        place.make()
        with _making(place):
            if not place.exists():
                write_record(place, record)
    except OSError:
        if not place.exists():
            _remove(place)
        raise


def _identity() -> str:
    return os.urandom(12).hex()


@contextlib.contextmanager
def _making(place: Place) -> Iterator[None]:
    """Let one client at a time make a session or start its host. The lock is beside the folder, which may go.

    With the last session goes the folder that holds them all.
    """
    path = os.path.join(sessions_folder(), f".{place.name}.lock")
    deadline = time.monotonic() + _READY_SECONDS + 10
    while (lock := _lock(path)) < 0:
        if time.monotonic() > deadline:
            raise RemoteKernelError(
                f"another client has been starting '{place.name}' for too long", f"'rkernel close {place.name}' ends it"
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
    """Give a descriptor that holds the lock; -1 where somebody else has it, or has just removed the file."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # the last session has just been closed
        return -1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == os.stat(path).st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return -1


def start_host(place: Place) -> None:
    """Start the session's host and wait until it serves. Raises what kept the kernel from starting.

    A session that has never had a kernel goes with the failure, so that nothing has to be closed.
    """
    with _making(place):
        lock = _lock_for_host(place)
        if lock < 0:
            return
        read_end, write_end = os.pipe()
        log = os.open(place.host_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            host = subprocess.Popen(
                [sys.executable, "-m", "remote_kernel.session.host.host", place.name, str(write_end), str(lock)],
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
        what_it_said = _last_line(place.host_log)
        if _has_run_nothing(place):
            _remove(place)
        if "problem" in fields:
            raise problem_of(fields["problem"])
        raise RemoteKernelError(
            f"the host of session '{place.name}' did not start: {what_it_said}",
            f"it has {_READY_SECONDS:.0f} s for it; its log, if it is there, is {place.host_log}",
        )


def _has_run_nothing(place: Place) -> bool:
    """Whether nothing is lost with the session: its first kernel did not start, and no cell was ever sent."""
    record = read_record(place)
    return not record.pid and record.generation == 1 and not os.listdir(place.cells)


def _last_line(path: str) -> str:
    with open(path, "rb") as file:
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _reap(host: subprocess.Popen[bytes]) -> None:
    """Take the host's exit status when it ends: it may do so while the program that has started it goes on."""
    import threading

    threading.Thread(target=host.wait, name=f"reap {host.pid}", daemon=True).start()


def _lock_for_host(place: Place) -> int:
    """Take the lock that a host holds for as long as it lives, for the next one; -1 when there is one that serves.

    It is taken here, not by the host, so that a host whose client has left while it was starting is seen by the next.
    """
    from remote_kernel.session.client import NoSuchSession

    begun = time.monotonic()
    while not _serves(place):
        try:
            lock = take_lock(place.host_lock)
        except FileNotFoundError:  # whoever held the other lock before has removed the session
            raise NoSuchSession(f"the session '{place.name}' has just gone", "see 'rkernel ls'") from None
        if lock >= 0:
            return lock
        if time.monotonic() > begun + _UNREACHABLE_SECONDS and _should_serve(place):
            raise _unreachable(place)
        if time.monotonic() > begun + _READY_SECONDS:
            raise RemoteKernelError(
                f"the host of session '{place.name}' does not answer", f"see {place.host_log}, or close the session"
            )
        time.sleep(0.05)
    return -1


def _serves(place: Place) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CHECK_SECONDS)
        return probe.connect_ex(place.socket()) == 0


def _should_serve(place: Place) -> bool:
    """True if the host is neither starting nor ending; one of an older version is taken to start for a while."""
    holder = read_holder(place.host_lock)
    if holder and holder.socket is None:
        with contextlib.suppress(OSError):
            return time.time() - os.stat(place.host_lock).st_mtime > _READY_SECONDS
    return bool(holder and holder.socket)


def _has_host(place: Place) -> bool:
    holder = read_holder(place.host_lock)
    return holder is not None and is_alive(holder.pid, holder.born)


def _is_cut_off(place: Place) -> bool:
    """True if the host lives and cannot be reached, a wait for its socket included."""
    deadline = time.monotonic() + _UNREACHABLE_SECONDS
    while not _serves(place) and _should_serve(place):
        if not _has_host(place):
            break
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)
    return False


def _unreachable(place: Place) -> RemoteKernelError:
    holder = read_holder(place.host_lock)
    where = f" at {holder.socket}" if holder and holder.socket else ""
    message = f"the host of session '{place.name}' lives, and cannot be reached{where}"
    if holder and not is_alive(holder.pid, holder.born):
        return HostHangs(message, "use the session where it was made: on that machine, or in that container")
    return HostHangs(message, f"'rkernel refresh {place.name}' replaces it; the kernel lives on, with what runs in it")


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


def close_session(session: Session) -> list[str]:
    """End the host and the kernel, also where the host does not answer, and remove the session's folder.

    Gives the names of the kernel's child processes that were killed.
    """
    from remote_kernel.session.client import NoSuchSession

    place = session.place
    if not os.path.isdir(place.folder):
        raise NoSuchSession(f"there is no session '{place.name}'", "see 'rkernel ls'")
    with contextlib.suppress(RemoteKernelError, OSError):
        if read_record(place).host and not _has_host(place):  # which alone can end a kept kernel
            start_host(place)
    if not os.path.isdir(place.folder):  # there was nothing in it
        return []
    with _making(place):  # so that nobody starts another host meanwhile
        answer = _dismiss_host(session, "close")
        pid, born = (0, "") if answer else read_process(place)
        if pid and is_alive(pid, born) and not _end_kernel(pid):
            raise RemoteKernelError(
                f"the kernel of session '{place.name}' cannot be ended", f"its process group is {pid}; see to that"
            )
        there = read_presence(place.kernel_state)
        if answer.get("log_trouble"):
            raise LogIncomplete(
                f"the kernel has ended, but not all is in the notebook: {answer['log_trouble']}",
                f"what the cells gave is in {place.cells}; 'rkernel close {place.name}', once more, removes it",
            )
        _remove(place)
    if there and there.kernel:
        identity = there.kernel.partition(" ")[0]
        raise KernelLeft(
            f"the session '{place.name}' is closed, and its kernel may live on on its host",
            f"'remote_kernel stop {identity}' ends it",
        )
    return list(answer.get("killed", ()))


class KernelLeft(RemoteKernelError):
    """A session was closed, and nobody has seen its remote kernel end."""


class LogIncomplete(RemoteKernelError):
    """A session was closed, and its notebook could not be written to the end."""


def end_host(session: Session) -> None:
    """End the host, also one that hangs; the kernel lives on, and the next client starts the next host. Idempotent."""
    with _making(session.place):
        _dismiss_host(session, "leave")


def _dismiss_host(session: Session, do: str) -> dict[str, Any]:
    """Have the host `close` or `leave`, and wait until it has ended; one that does not answer, or end, is killed.

    Gives its answer, empty where there is none.
    """
    place = session.place
    patience = _LEAVE_SECONDS
    answer: dict[str, Any] = {}
    try:
        if _is_cut_off(place):
            raise _unreachable(place)
        session.check(_CHECK_SECONDS)
        answer = session.tell_host(do)
    except HostHangs:
        patience = 0.0
    except RemoteKernelError:
        pass
    lock = os.open(place.host_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if _has_ended(lock, patience):
            return answer
        holder = read_holder(place.host_lock)
        is_here = holder and is_alive(holder.pid, holder.born)
        if holder and is_here:
            os.kill(holder.pid, signal.SIGKILL)
        if not _has_ended(lock, _KILLED_SECONDS):
            if not is_here:
                raise _unreachable(place)
            raise RemoteKernelError(f"the host of session '{session.name}' cannot be ended", f"see {place.host_log}")
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


def _remove(place: Place) -> None:
    socket = place.socket()
    shutil.rmtree(place.folder, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket)
