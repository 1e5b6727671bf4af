"""Run our program at the other end of an SSH session, and find its answer behind whatever the login shell prints.

`bootstrap` has the order of the lines. `ask` runs a short program to its end; the launcher and a sync, which go on
talking, use a Handshake of their own. Nothing of what comes is believed or kept without a bound: an rc file may print
for ever, or put another program in the place of the login shell.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from remote_kernel import bootstrap
from remote_kernel.errors import (
    AuthenticationFailed,
    ConnectTimeout,
    ProtocolMismatch,
    RemoteKernelError,
    RemoteShellNoise,
    by_name,
)
from remote_kernel.options import LaunchOptions
from remote_kernel.transport import choice, masters, notes
from remote_kernel.transport.carrier import KEPT_BYTES, NOISE_LIMIT, Carrier, PipedProcess
from remote_kernel.transport.ssh_config import to_paste, uses_openssh
from remote_kernel.typed_json import MALFORMED, text

ANSWER_LIMIT = 8 << 20  # the text log of a kernel is the longest there is: 1 MB, of which JSON can make 6
_PARTS_LIMIT = 256 << 10  # characters of an answer that are in no text: each value takes two, and 100 bytes once read
QUIET_SECONDS = 5.0  # most login shells are long past their rc files by then
_END_SECONDS = 2.0
_WORD = b"remote_kernel is here"
_DEBUG_LINES = ("debug1: ", "Authenticated ", "Transferred: ", "Bytes per second: ")


class Handshake:
    """What a session's stdout brings until our program has answered.

    `noise` is the end of what others printed, `is_ready` whether the program may be sent, `answer` what stood behind
    the marker in the end.
    """

    def __init__(self, options: LaunchOptions, marker: str) -> None:
        self._options = options
        self._marker, self._ready = f"\n{marker}".encode(), bootstrap.ready(marker)
        self._waiting = bytearray()
        self._is_answering, self._searched = False, 0  # behind the marker, and how far its line's end was looked for
        self._printed = 0
        self.noise = b""
        self.is_ready = False
        self.answer: str | None = None

    def feed(self, data: bytes) -> bytes:
        """Process what was read; return what came behind the marker's line. Raises RemoteShellNoise at a flood."""
        self._waiting += data
        if self._is_answering:
            return self._take_answer()
        if not self.is_ready:
            self.is_ready = self._skip_past(self._ready)
        # Not before: this marker begins that line too, of which the end may be under way.
        if self.is_ready and self._skip_past(self._marker):
            self._is_answering = True
            return self._take_answer()
        if len(self._waiting) > KEPT_BYTES:  # the marker may have come in part
            self._note(self._waiting[:-KEPT_BYTES])
            del self._waiting[:-KEPT_BYTES]
        return b""

    def _skip_past(self, words: bytes) -> bool:
        """Remove the words, and what was printed before them as noise; False while they have not come."""
        noise, found, rest = self._waiting.partition(words)
        if found:
            self._note(noise)
            self._waiting = bytearray(rest)
        return bool(found)

    def _take_answer(self) -> bytes:
        """Remove the rest of the marker's line, once it is there; return what came behind it."""
        end = self._waiting.find(b"\n", self._searched)
        self._searched = len(self._waiting)
        if end >= 0:
            rest = bytes(self._waiting[end + 1 :])
            self.answer = self._waiting[:end].decode("utf-8", "replace").strip()
            self._waiting.clear()
            return rest
        if len(self._waiting) > ANSWER_LIMIT:
            raise too_long(self._options)
        return b""

    def end(self) -> bytes:
        """Return the end of all that was printed, once no more comes."""
        return self.noise + self._waiting

    def _note(self, noise: bytes | bytearray) -> None:
        self.noise = (self.noise + noise)[-KEPT_BYTES:]
        self._printed += len(noise)
        if self._printed > NOISE_LIMIT:
            from remote_kernel.transport.ssh_errors import flooded  # only here: few sessions fail

            raise flooded(self._options, self.noise)


def too_long(options: LaunchOptions) -> RemoteShellNoise:
    """Return the error for an answer that is longer than any of ours."""
    message = f"{options.endpoint} sent an answer of more than {ANSWER_LIMIT >> 20} MB, which was refused"
    return RemoteShellNoise(message, f"see whether that host is what you take it for: {to_paste(options)}")


class SecondSession:
    """A session without input, to see what is the matter with one that is silent.

    A program in the place of the login shell ends when it has nothing to read, one that asks something goes on.
    """

    def __init__(self, options: LaunchOptions, argv: Sequence[str]) -> None:
        """Start it with this command. Raises OSError."""
        self._options = options
        self._carrier = Carrier(argv, choice.environment(options))
        os.close(self._carrier.stdin)
        self._carrier.stdin = -1
        self.fd = self._carrier.stdout
        self._said = b""

    def read(self) -> bool:
        """Read what there is on `fd`; True once that was all."""
        data = os.read(self.fd, KEPT_BYTES)
        self._said = (self._said + data)[-KEPT_BYTES:]
        return not data or _WORD in self._said

    def diagnosis(self) -> tuple[RemoteShellNoise | None, float]:
        """Return what is wrong with the login shell there, and how long to wait before that is believed.

        Called once all was read. Nothing is wrong as far as this session could tell where the first is None.
        """
        if _WORD in self._said:  # the other one may just have been slow
            return RemoteShellNoise(
                f"something in the rc files of {self._options.endpoint} waits for input",
                "let ~/.bashrc, or what the login shell there reads, ask nothing when it is not interactive",
            ), QUIET_SECONDS
        from remote_kernel.transport.ssh_errors import shell_replaced  # only here: most sessions need no second one

        return (shell_replaced(self._options) if self._carrier.status(1.0) not in (255, None) else None), 0.0

    def close(self) -> None:
        """End it. Idempotent."""
        if self.fd >= 0:
            self._carrier.kill()
            self._carrier.close()
            self.fd = -1


def start_second_session(options: LaunchOptions) -> SecondSession | None:
    """Start a second session; return None where that cannot be, or not yet.

    Not while ssh would have to log in for it: it may be waiting for somebody to touch a key, who would have to touch it
    twice, and a server that refuses a login counts how often.
    """
    with suppress(RemoteKernelError, OSError):
        argv = choice.carrier_argv(options, f"exec /bin/sh -c 'echo {_WORD.decode()}'")
        if not uses_openssh(options) or masters.is_logged_in(options, argv):
            return SecondSession(options, argv)
    return None


def wait_for_answer(
    options: LaunchOptions, fd: int, handshake: Handshake, send: Callable[[], None], seconds: float
) -> bytes:
    """Read a session's stdout until our program has answered, and return what came behind its marker's line.

    `send` is called when the program may be sent. Where the session ended before, `handshake.answer` is still None.
    Raises RemoteShellNoise, ConnectTimeout.
    """
    deadline, look_at = time.monotonic() + seconds, time.monotonic() + QUIET_SECONDS
    second: SecondSession | None = None
    problem: RemoteShellNoise | None = None
    with ExitStack() as undo:
        selector = undo.enter_context(selectors.DefaultSelector())
        selector.register(fd, selectors.EVENT_READ)
        while True:
            until = deadline if handshake.is_ready else min(deadline, look_at)
            ready = {key.fd for key, _ in selector.select(max(0.0, until - time.monotonic()))}
            now = time.monotonic()
            if now >= deadline:
                raise no_answer(options, seconds)
            if now >= until:
                if problem:
                    raise problem
                look_at = now + QUIET_SECONDS
                second = start_second_session(options)
                if second:
                    look_at = deadline
                    undo.callback(second.close)
                    selector.register(second.fd, selectors.EVENT_READ)
            if second and second.fd in ready and second.read():
                selector.unregister(second.fd)
                problem, seconds_more = second.diagnosis()
                look_at = now + seconds_more if problem else deadline
            if fd in ready:
                data = os.read(fd, KEPT_BYTES)
                was_ready = handshake.is_ready
                rest = handshake.feed(data)
                if handshake.is_ready and not was_ready:
                    send()
                if handshake.answer is not None or not data:
                    return rest


def ask(
    options: LaunchOptions,
    mode: str,
    settings: Mapping[str, object],
    timeout_seconds: float,
    *,
    debug_lines: list[str] | None = None,
) -> tuple[dict[str, Any], str]:
    """Run a short program on the host; return its answer and what the login shell printed before it.

    `debug_lines` is for what the transport says of its work, also when it fails. Raises TransportError's kinds, and
    the error that the program reports.
    """
    marker = bootstrap.new_marker()
    handshake = Handshake(options, marker)
    program = bootstrap.program(marker, mode, settings)
    stderr, status = _run(options, handshake, program, marker, timeout_seconds, debug_lines)
    if handshake.answer is None:
        raise explain_end(options, stderr, status, handshake.end())
    notes.clear_refusals(options)
    answer = parse_answer(options, handshake.answer)
    raise_reported(options, answer)
    return answer, handshake.noise.decode("utf-8", "replace").strip()


def explain_end(options: LaunchOptions, stderr: str, status: int | None, noise: bytes) -> RemoteKernelError:
    """Return why a session ended before our program answered. A login that was refused is noted for launchers."""
    from remote_kernel.transport.ssh_errors import explain  # only here: most sessions do not end so

    found = explain(options, choice.complete_stderr(options, stderr), status, noise)
    if isinstance(found, AuthenticationFailed):
        notes.write_refused_login(options, found)
    return found


def _run(
    options: LaunchOptions,
    handshake: Handshake,
    program: bytes,
    marker: str,
    timeout_seconds: float,
    debug_lines: list[str] | None,
) -> tuple[str, int | None]:
    """Run the program there; return what ssh printed for a person, and its status, None where it was killed."""
    command = bootstrap.remote_command(options.remote_python(), len(program), marker)
    argv = choice.carrier_argv(options, command)
    if debug_lines is not None:
        argv = choice.verbose(options, argv)
    with PipedProcess(argv, choice.environment(options)) as process:
        process.send(bootstrap.FIRST_LINE)
        try:
            wait_for_answer(options, process.stdout.fileno(), handshake, lambda: process.send(program), timeout_seconds)
        except BaseException:
            process.kill()
            raise
        finally:
            status, stderr = process.end(_END_SECONDS)  # a program that an rc file has started may hold it open
            stderr, said = _split_stderr(stderr)
            if debug_lines is not None:
                debug_lines += said
    if process.is_flood:
        from remote_kernel.transport.ssh_errors import flooded  # only here: few sessions fail

        raise flooded(options, stderr.encode())
    return stderr, status


def _split_stderr(stderr: str) -> tuple[str, list[str]]:
    """Return what ssh says for a person, and the lines on its work."""
    lines = stderr.splitlines(keepends=True)
    debug_lines = [line.strip() for line in lines if line.startswith(_DEBUG_LINES)]
    return "".join(line for line in lines if line.strip() not in debug_lines), debug_lines


def parse_answer(options: LaunchOptions, text: str) -> dict[str, Any]:
    """Return what our program answered, in JSON. Raises ProtocolMismatch."""
    if len(re.sub('"[^"]*"', "", text.replace("\\\\", "").replace('\\"', ""))) > _PARTS_LIMIT:
        raise malformed(options)
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise malformed(options) from error
    if not isinstance(answer, dict):
        raise malformed(options)
    return answer


def raise_reported(options: LaunchOptions, answer: Mapping[str, Any]) -> None:
    """Raise the error that an answer reports, if it does; ProtocolMismatch for one without words."""
    if "error" in answer:
        with reading(options):
            name, message, hint = (text(answer.get(part, "")) for part in ("error", "message", "hint"))
        raise by_name(name, message, hint) if message.strip() else malformed(options)


@contextmanager
def reading(options: LaunchOptions) -> Iterator[None]:
    """Raise ProtocolMismatch where the block, which reads an answer, finds another form than ours."""
    try:
        yield
    except MALFORMED as error:
        raise malformed(options) from error


def malformed(options: LaunchOptions) -> ProtocolMismatch:
    """Return the error for an answer that is none of ours."""
    return ProtocolMismatch(
        f"{options.endpoint} answered something that cannot be read",
        "see whether that host and its Python are what you take them for; else this is a bug of remote_kernel",
    )


def no_answer(options: LaunchOptions, seconds: float) -> RemoteKernelError:
    """Return the error for a session that says nothing, and nobody knows why."""
    return ConnectTimeout(
        f"{options.endpoint} does not answer within {seconds:.0f} s",
        f"see how long this takes, and whether it asks something: {to_paste(options)}",
    )
