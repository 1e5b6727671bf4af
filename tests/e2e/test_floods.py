"""Whatever the other end of a connection sends, and however long: memory stays bounded, and an error names that end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from remote_kernel import errors
from remote_kernel.endpoint import Endpoint
from remote_kernel.link.link import (
    ACK,
    CLOSE,
    CONTROL,
    DATA,
    FRAME_BYTES,
    HELLO,
    HELLO_BYTES,
    OPEN,
    PING,
    PONG,
    PROTOCOL_VERSION,
    STDOUT,
)
from remote_kernel.options import LaunchOptions, find_program
from tests.support.isolation import Isolation
from tests.support.kernels import write_connection_file

GROWTH_BYTES = 64 << 20
_LOOK_SECONDS = 0.02
SECONDS = 1.5  # an unbounded reader takes hundreds of MB in one

# In the place of ssh. What is flooded goes out as fast as it is taken, and nothing is read.
FAKE = f"""#!{sys.executable}
import itertools, json, os, re, struct, sys, zlib
if "-G" in sys.argv:
    sys.exit(0)
how = os.environ["FLOOD"]
open(os.environ["CALLED"], "w").close()
marker = re.search(r"remote_kernel-[0-9a-f]{{16}}", sys.argv[-1])
def frame(kind, stream=0, offset=0, payload=b""):
    return struct.pack("!BIQI", kind, stream, offset, len(payload)) + payload
def data(stream, pieces):
    offset = 0
    for piece in pieces:
        yield frame({DATA}, stream, offset, piece)
        offset += len(piece)
hello = frame({HELLO}, 0, 0, json.dumps({{"version": {PROTOCOL_VERSION}, "highest": 15, "streams": {{}}}}).encode())
if how == "nothing" or not (marker or "is here" in sys.argv[-1] or sys.argv[-1] == "sftp"):
    sys.exit(255)
end = b" " if how.startswith("answer") else b" {{}}\\n" if how.startswith("sync") else b"\\n"
if marker and how not in ("stdout", "stderr", "half a line"):
    os.write(1, f"\\n{{marker[0]}} reads\\n\\n{{marker[0]}}".encode() + end)
def again_and_again(kind, *rest):
    return itertools.chain([hello], itertools.repeat(frame(kind, *rest) * 1000))
message = json.dumps({{"event": "no such thing", "text": "x" * 1000}}).encode() + b"\\n"
def said(kind, body=b"", number=0):
    return struct.pack(">cQI", kind, number, len(body)) + body
def told(kind, value):
    return said(kind, zlib.compress(json.dumps(value).encode()))
def rules():
    for n in itertools.count():
        yield said(b"r", b"%d\\0" % n + b"".join(b"%d-%d\\n" % (n, m) for m in range(1000)), 1)
begin = told(b"B", {{"name": "x", "is_folder": True, "mode": 493, "root": "/x"}})
file = [begin, told(b"E", [["file", "f", 420, 1 << 40, 1, "", 0]])]
file += [told(b"e", {{"left_out": 0, "gitignore": False}}), said(b"F")]
plan = told(b"P", {{"root": "/x", "name": "", "files": 1, "bytes": 1}})
block = struct.pack(">Q", 1)
packer = zlib.compressobj()
bomb = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(200 if how == "sync bomb" else 0))
endless = struct.pack(">cQI", b"E", 0, (1 << 32) - 1)
flood = {{
    "sync bomb": [begin, said(b"E", bomb)],
    "sync long message": itertools.chain([begin, endless], itertools.repeat(bytes(40000))),
    "sync unknown messages": itertools.chain([begin], itertools.repeat(said(b"?"))),
    "sync many parts": [begin, told(b"E", [[]] * 250000)],
    "sync rules": itertools.chain([begin], rules()),
    "sync ranges": itertools.chain(file, itertools.repeat((said(b"=", block) + said(b"=", block, 1 << 27)) * 1000)),
    "sync actions": itertools.repeat(told(b"a", [["copy", "x" * 50]] * 1000)),
    "sync wanted": itertools.chain([plan], itertools.repeat(said(b"w", bytes(80000)))),
    "sync digests": itertools.chain([plan], itertools.repeat(said(b"W", bytes(1 << 20)))),
    "sync failures": itertools.chain([plan, said(b".")], itertools.repeat(told(b"x", [["a", "b"]] * 50))),
    "sync stderr": itertools.repeat(b"yes\\n" * 10000),
    "stdout": itertools.repeat(b"yes\\n" * 10000),
    "stderr": itertools.repeat(b"yes\\n" * 10000),
    "half a line": itertools.repeat(b"x" * 40000),
    "answer": itertools.repeat(b"x" * 40000),
    "answer of many parts": [b'{{"error": [{{}}', *[b",{{}}" * 10000] * 250, b"]}}\\n"],
    "answer of long texts": [b'{{"kernels": [""', *[b',"' + b"x" * 40000 + b'"'] * 170, b"]}}\\n"],
    "garbage": itertools.repeat(bytes(40000)),
    "pings": again_and_again({PING}),
    "pongs": again_and_again({PONG}, 0, 7),
    "acknowledgements": again_and_again({ACK}, {CONTROL}),
    "unknown frames": again_and_again(99),
    "opened streams": itertools.chain([hello], (frame({OPEN}, n, 0, b"shell") for n in itertools.count(16))),
    "unknown stream": again_and_again({DATA}, 1 << 20, 0, b"x" * 50),
    "unknown closed": again_and_again({CLOSE}, 1 << 20),
    "endless frame": itertools.chain([hello, frame({DATA})[:-4] + b"\\xff" * 4], itertools.repeat(b"x" * 40000)),
    "deep message": [hello, *data({CONTROL}, [b"[" * 60000] * 16 + [b"\\n"])],
    "message of many": [hello, *data({CONTROL}, [b'{{"event": [{{}}', *[b",{{}}" * 20000] * 16, b"]}}\\n"])],
    "stderr of the agent's session": itertools.repeat(b"yes\\n" * 10000),
    "greetings": itertools.chain([hello], itertools.repeat(hello * 500)),
    "long greeting": [hello[:1] + struct.pack("!IQI", 0, 0, {HELLO_BYTES}) + b"x" * {HELLO_BYTES}],
    "messages": itertools.chain([hello], data({CONTROL}, itertools.repeat(message * 50))),
    "endless message": itertools.chain([hello], data({CONTROL}, itertools.repeat(b"x" * {FRAME_BYTES}))),
    "kernel's output": itertools.chain([hello], data({STDOUT}, itertools.repeat(b"x" * {FRAME_BYTES}))),
}}[how]
if how in ("stderr of the agent's session", "sync stderr"):
    os.write(1, hello if marker and how != "sync stderr" else begin)
for piece in flood:
    while piece:
        piece = piece[os.write(2 if "stderr" in how else 1, piece):]
"""


class Ended(NamedTuple):
    """How a flooded command ended, and how much more memory it took than one whose ssh says nothing, in bytes."""

    status: int
    said: str
    grown: int


@pytest.fixture
def run(tmp_path: Path, isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ended]]:
    """Run a command whose ssh floods, until it ends, has said `words`, or ssh was called so many seconds ago."""
    fake = tmp_path / "ssh"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    monkeypatch.setenv("REMOTE_KERNEL_SSH", str(fake))

    def run_once(how: str, command: Sequence[str], words: str, seconds: float) -> tuple[int, str, int]:
        called = tmp_path / "called"
        called.unlink(missing_ok=True)
        environ = {**os.environ, "FLOOD": how, "CALLED": str(called)}
        said, most, over = b"", 0, threading.Event()

        def watch() -> None:
            nonlocal most
            left = seconds
            while not over.wait(_LOOK_SECONDS):
                most = max(most, _most_memory(process.pid))
                if left > 0 and called.exists():
                    left -= _LOOK_SECONDS
                    if left <= 0:
                        process.terminate()

        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ) as process:
            assert process.stderr
            watcher = threading.Thread(target=watch)
            watcher.start()
            while data := os.read(process.stderr.fileno(), 1 << 16):
                said += data
                if words and words in said.decode("utf-8", "replace"):
                    process.terminate()
            over.set()
            watcher.join()
        return process.returncode, said.decode("utf-8", "replace"), most

    def run(how: str, *command: str, words: str = "", seconds: float = 30.0) -> Ended:
        *_, least = run_once("nothing", command, "", 1.0)
        status, said, most = run_once(how, command, words, seconds)
        return Ended(status, said, most - least)

    yield run
    for note in (isolation.runtime / "remote_kernel").glob("away-*"):  # of launchers that could tell no agent
        note.unlink()


def _most_memory(pid: int) -> int:
    """Return the most that a process has had in memory, in bytes. What wait4 says counts that of pytest, its parent."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


@pytest.fixture
def launcher(tmp_path: Path) -> list[str]:
    """Return the command line of a launcher."""
    file = write_connection_file(tmp_path / "kernel.json")
    options = LaunchOptions(Endpoint.parse("gpu1"), connection_file=str(file))
    return [str(find_program()), *options.to_arguments()]


@pytest.mark.openssh_only
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("stdout", "something prints without end when gpu1 starts a login shell: 'yes'"),
        ("stderr", "something prints without end when gpu1 starts a login shell: 'yes'"),
        ("half a line", "something prints without end when gpu1 starts a login shell"),
        ("answer", "gpu1 sent an answer of more than"),
        ("garbage", "something else than the kernel's agent wrote to the SSH session of gpu1"),
        ("pings", "the connection to gpu1 was lost: the other end asks for signs of life and takes none"),
        (
            "long greeting",
            "else than the kernel's agent wrote to the SSH session of gpu1 (a greeting that cannot be read",
        ),
        (
            "endless message",
            "else than the kernel's agent wrote to the SSH session of gpu1 (a control message without an end",
        ),
        ("unknown frames", "else than the kernel's agent wrote to the SSH session of gpu1 (no frame of this protocol"),
        ("endless frame", "else than the kernel's agent wrote to the SSH session of gpu1 (no frame of this protocol"),
        ("opened streams", "the connection to gpu1 was lost: stream 16 cannot be opened by the other end"),
        ("unknown stream", "the connection to gpu1 was lost: stream 1048576 was never opened"),
        ("unknown closed", "the connection to gpu1 was lost: stream 1048576 was never opened"),
        (
            "deep message",
            "else than the kernel's agent wrote to the SSH session of gpu1 (a control message that cannot",
        ),
    ],
)
def test_launcher_is_not_flooded(run: Callable[..., Ended], launcher: list[str], how: str, words: str) -> None:
    ended = run(how, *launcher, words=words)
    assert words in ended.said
    assert ended.grown < GROWTH_BYTES


@pytest.mark.openssh_only
@pytest.mark.parametrize(
    "how",
    [
        "greetings",
        "messages",
        "message of many",
        "kernel's output",
        "pongs",
        "acknowledgements",
        "stderr of the agent's session",
    ],
)
def test_launcher_forgets_what_it_has_read(run: Callable[..., Ended], launcher: list[str], how: str) -> None:
    ended = run(how, *launcher, seconds=SECONDS)
    assert ended.status == 128 + signal.SIGTERM, "nothing is wrong with it"
    assert ended.grown < GROWTH_BYTES


@pytest.mark.openssh_only
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("answer of many parts", "gpu1 answered something that cannot be read"),
        ("answer of long texts", "gpu1"),
    ],
)
def test_whole_answers_take_little_memory(run: Callable[..., Ended], how: str, words: str) -> None:
    ended = run(how, str(find_program()), "add", "gpu1")
    assert ended.status == errors.ProtocolMismatch.exit_status, ended.said
    assert words in ended.said
    assert ended.grown < GROWTH_BYTES


@pytest.mark.openssh_only
@pytest.mark.parametrize("command", [("add", "gpu1"), ("sync", "gpu1", ".", "remote:x")], ids=["add", "sync"])
@pytest.mark.parametrize("how", ["stdout", "stderr", "answer"])
def test_commands_are_not_flooded(run: Callable[..., Ended], how: str, command: tuple[str, ...]) -> None:
    ended = run(how, str(find_program()), *command)
    assert ended.status == errors.RemoteShellNoise.exit_status, ended.said
    assert "gpu1" in ended.said
    assert ended.grown < GROWTH_BYTES


@pytest.mark.openssh_only
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("bomb", "a message that cannot be read"),
        ("long message", "a message that is too long"),
        ("unknown messages", "message b'?' among the entries"),
        ("many parts", "an entry that cannot be read"),
        ("rules", "more rules than are taken"),
        ("ranges", "more of a file than there is"),
        ("actions", "message b'a' in place of b'P'"),
        ("wanted", "a file wanted twice"),
        ("digests", "more digests than it has blocks"),
        ("failures", "message b'x' in place of b'S'"),
    ],
)
def test_sync_is_not_flooded(run: Callable[..., Ended], tmp_path: Path, how: str, words: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").touch()
    is_push = how in ("actions", "wanted", "digests", "failures")
    places = (f"{source}/", "remote:x") if is_push else ("remote:x", str(target))
    ended = run(f"sync {how}", str(find_program()), "sync", "--delete", "gpu1", *places)
    assert ended.status == errors.ProtocolMismatch.exit_status, ended.said
    assert "the remote end of the sync on gpu1 sent" in ended.said
    assert words in ended.said
    assert ended.grown < GROWTH_BYTES


@pytest.mark.openssh_only
def test_sync_is_not_flooded_beside_what_it_reads(run: Callable[..., Ended], tmp_path: Path) -> None:
    ended = run("sync stderr", str(find_program()), "sync", "gpu1", "remote:x", str(tmp_path))
    assert ended.status == errors.RemoteShellNoise.exit_status, ended.said
    assert "gpu1" in ended.said
    assert ended.grown < GROWTH_BYTES
