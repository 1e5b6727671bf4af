"""One engine with a real kernel: output that comes late, and other front ends on the same kernel."""

from __future__ import annotations

import ast
import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from remote_kernel.session.events import Done, Event, Line, Queued, Sent, Stream
from remote_kernel.session.host import engine as engine_module
from remote_kernel.session.host import host_log, kernel_side
from remote_kernel.session.host.cell import Cell
from remote_kernel.session.host.engine import CellWaits, Engine
from remote_kernel.session.host.foreign import ForeignCells
from remote_kernel.session.host.kernel_client import KernelClient, NoAnswer, NotInstalled
from remote_kernel.session.host.kernel_side import UNSEEN
from remote_kernel.session.paths import Paths
from remote_kernel.session.record import Record
from tests.support.relay import Address, Relay

SECONDS = 60
IDENTITY = "engine-under-test"


class Kernel(NamedTuple):
    """A kernel that somebody else has started, and has open."""

    manager: KernelManager
    client: BlockingKernelClient

    def connection(self) -> dict[str, Any]:
        """Return its connection file's content."""
        values: dict[str, Any] = json.loads(Path(self.manager.connection_file).read_text())
        return values


class Events(list[Event]):
    """A recorder."""

    def append(self, event: Event, line: Line | None = None) -> None:
        super().append(event)

    @property
    def text(self) -> str:
        """What was printed."""
        return "".join(event.text for event in self if isinstance(event, Stream))


class Slow:
    """A recorder that takes its time."""

    def append(self, event: Event, line: Line | None = None) -> None:
        """Take the next event."""
        time.sleep(0.005)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    manager, client = start_new_kernel(kernel_name="python3")
    yield Kernel(manager, client)
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture
def relay(kernel: Kernel) -> Iterator[Relay]:
    """Yield a relay in front of the kernel's iopub."""
    relay = Relay(Address("127.0.0.1", kernel.connection()["iopub_port"]))
    yield relay
    relay.close()


@pytest.fixture
def attach(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a context in which an engine holds the kernel, with these values in the connection file."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(engine_module, "_IDLE_SECONDS", 0.2)
    notes: list[str] = []
    monkeypatch.setattr(host_log, "write", notes.append)

    @asynccontextmanager
    async def attach(**values: Any) -> AsyncIterator[Engine]:
        paths = Paths("unit")
        paths.make()
        path = tmp_path / "kernel-of-another.json"
        path.write_text(json.dumps({**kernel.connection(), **values}))
        record = Record("", "Python 3", str(path), "", str(tmp_path), IDENTITY, 0.0)
        engine = Engine(paths, record)
        await engine.kernel.adopt()
        try:
            yield engine
        finally:
            engine.kernel.release()
            assert not notes

    return attach


_numbers = iter(range(1, 1000))


def new_cell(code: str) -> tuple[Cell, Events]:
    cell = Cell(Queued(str(next(_numbers)), 0.0, code=code, author="tests"), 1)
    cell.record(events := Events())
    return cell, events


async def run(engine: Engine, code: str) -> tuple[Events, Done]:
    """Run a cell to its end."""
    cell, events = new_cell(code)
    await engine.execute(cell)
    return events, cell.done.result()


async def until(is_so: Callable[[], object]) -> None:
    """Wait for something that has no event of its own; `go` has the limit."""
    while not is_so():
        await asyncio.sleep(0.01)


def go(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(work(), SECONDS)

    asyncio.run(limited())


def test_cell_waits_for_output_that_comes_long_after_its_reply(attach: Callable[..., Any], relay: Relay) -> None:
    async def work() -> None:
        async with attach(iopub_port=relay.port) as engine:
            await run(engine, "1")
            cell, events = new_cell("for i in range(20): print('x' * 50_000, flush=True)\nprint('the last line')")
            relay.freeze()
            running = asyncio.ensure_future(engine.execute(cell))
            await until(lambda: cell.reply is not None)
            await asyncio.sleep(1.0)  # five looks whether it has ended
            assert not cell.done.done()
            relay.bytes_per_second = 2_000_000
            relay.thaw()
            await running
            assert cell.done.result().verdict == "ok"
            assert len(events.text) == 20 * 50_001 + 14
            assert events.text.endswith("the last line\n")
            assert cell.missed == ""

    go(work)


def test_cell_whose_idle_is_lost_ends_with_a_note_when_all_its_output_is_here(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with attach() as engine:
            take = Cell.handle_output
            monkeypatch.setattr(
                Cell, "handle_output", lambda cell, message: message.kind == "status" or take(cell, message)
            )
            events, done = await run(engine, "print('all of it')")
            assert (done.verdict, events.text) == ("ok", "all of it\n")
            assert "a part of it may be missing" in done.message

    go(work)


def test_much_output_at_once_keeps_nobody_from_being_served(attach: Callable[..., Any], relay: Relay) -> None:
    async def work() -> None:
        async with attach(iopub_port=relay.port) as engine:
            await run(engine, "1")
            cell, events = new_cell("for _ in range(500): print('z' * 99, flush=True)")
            cell.record(Slow())
            relay.freeze()
            running = asyncio.ensure_future(engine.execute(cell))
            await until(lambda: cell.reply is not None)
            relay.thaw()
            await until(lambda: events.text)
            turns = 0
            while not running.done():
                await asyncio.sleep(0)
                turns += 1
            assert turns > 50
            assert events.text == ("z" * 99 + "\n") * 500

    go(work)


def test_interrupted_cell_has_stopped_though_its_output_is_still_to_come(
    attach: Callable[..., Any], relay: Relay
) -> None:
    async def work() -> None:
        async with attach(iopub_port=relay.port) as engine:
            await run(engine, "1")
            cell, events = new_cell("import time\nprint('begun', flush=True)\ntime.sleep(60)")
            running = asyncio.ensure_future(engine.execute(cell))
            await until(lambda: events.text)
            relay.freeze()
            assert await engine.interrupt(cell)
            assert not cell.done.done()
            relay.thaw()
            await running
            assert cell.done.result().verdict == "interrupted"

    go(work)


INTERRUPTED_IN_ITS_OWN_CODE = """
import time
kernel = get_ipython().kernel
def wait(**_):
    del kernel.do_execute
    time.sleep(60)
kernel.do_execute = wait
"""


def test_interrupt_that_finds_the_kernel_in_its_own_code_ends_the_cell(attach: Callable[..., Any]) -> None:
    async def work() -> None:
        async with attach() as engine:
            await run(engine, INTERRUPTED_IN_ITS_OWN_CODE)
            cell, _ = new_cell("print('never')")
            running = asyncio.ensure_future(engine.execute(cell))
            await until(lambda: cell.started_at)
            assert await engine.interrupt(cell)
            await running
            assert (cell.done.result().verdict, cell.reply) == ("interrupted", {})
            assert (await run(engine, "print('next')"))[0].text == "next\n"

    go(work)


def test_interrupt_by_another_front_end_that_finds_the_kernel_in_its_own_code_ends_the_cell(
    attach: Callable[..., Any], kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_IDLE_SECONDS", 0.2)

    async def work() -> None:
        async with attach() as engine:
            await run(engine, INTERRUPTED_IN_ITS_OWN_CODE)
            cell, _ = new_cell("print('never')")
            running = asyncio.ensure_future(engine.execute(cell))
            await until(lambda: cell.started_at)
            await asyncio.sleep(0.5)  # it really runs, and is left alone
            assert not cell.done.done()
            kernel.manager.interrupt_kernel()
            await asyncio.wait_for(running, 20)
            done = cell.done.result()
            assert (done.verdict, done.message.partition(",")[0]) == (
                "interrupted",
                "the kernel ended the cell without a reply",
            )
            assert (await run(engine, "print('next')"))[0].text == "next\n"

    go(work)


def person_runs(kernel: Kernel, folder: Path) -> str:
    """Let another front end run a cell until there is the file `stop`; give the id of its request."""
    wait = f"import os, time\nwhile not os.path.exists({str(folder / 'stop')!r}): time.sleep(0.01)"
    return str(kernel.client.execute(f"{wait}\nended = 'by itself'", store_history=False))


def test_interrupt_of_a_waiting_cell_leaves_the_cell_of_another_front_end_alone(
    attach: Callable[..., Any], kernel: Kernel, tmp_path: Path
) -> None:
    async def work() -> None:
        async with attach() as engine:
            await run(engine, "ended = ''")
            person_runs(kernel, tmp_path)
            await until(lambda: engine.foreign.cells)
            cell, events = new_cell("print('never')")
            running = asyncio.ensure_future(engine.execute(cell))
            await until(lambda: engine.withdraw(cell))
            await running
            assert (cell.done.result().verdict, events.text) == ("aborted", "")
            later, events = new_cell("print(ended)")
            running = asyncio.ensure_future(engine.execute(later))
            await until(lambda: later in engine._held)
            assert not any(isinstance(event, Sent) for event in events)
            (tmp_path / "stop").touch()
            await running
            assert events.text == "by itself\n"

    go(work)


def test_cell_in_the_kernels_queue_is_interrupted_when_it_begins_and_not_before(
    attach: Callable[..., Any], kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hold(engine: Engine, cell: Cell) -> None:
        """Hold nothing: the other front end was quicker."""

    monkeypatch.setattr(Engine, "_hold_back", hold)
    monkeypatch.setattr(engine_module, "_INTERRUPT_SECONDS", (0.5, 5.0, 5.0))

    async def work() -> None:
        async with attach() as engine:
            await run(engine, "ended = ''")
            person_runs(kernel, tmp_path)
            await until(lambda: engine.foreign.cells)
            cell, _ = new_cell("import time\nprint(ended, flush=True)\ntime.sleep(60)")
            running = asyncio.ensure_future(engine.execute(cell))
            with pytest.raises(CellWaits, match="has not begun"):
                await engine.interrupt(cell)
            (tmp_path / "stop").touch()
            await running
            assert cell.done.result().verdict == "interrupted"
            assert (await run(engine, "print(ended)"))[0].text == "by itself\n"

    go(work)


def test_cell_beside_others_that_the_kernel_does_not_take_leaves_no_kernel_that_seems_busy(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def beside(client: KernelClient) -> tuple[str, str]:
        raise NoAnswer("the kernel did not answer")

    async def work() -> None:
        async with attach() as engine:
            cell, events = new_cell("1")
            cell.side = True
            monkeypatch.setattr(KernelClient, "beside", beside)
            with pytest.raises(NoAnswer):
                await engine.execute(cell)
            assert not any(isinstance(event, Sent) for event in events)
            assert not engine.is_busy

    go(work)


def test_rest_waits_for_a_short_cell_and_not_for_a_long_one(attach: Callable[..., Any], tmp_path: Path) -> None:
    async def work() -> None:
        async with attach() as engine:
            await engine.wait_for_cells(SECONDS)
            stop = tmp_path / "stop"
            cell, _ = new_cell(f"import os, time\nwhile not os.path.exists({str(stop)!r}): time.sleep(0.01)")
            running = asyncio.ensure_future(engine.execute(cell))
            await until(lambda: cell.started_at)
            await engine.wait_for_cells(0.05)
            assert not cell.done.done()
            stop.touch()
            await engine.wait_for_cells(SECONDS)
            assert cell.done.result().verdict == "ok"
            await running

    go(work)


def test_first_cell_waits_for_what_ran_before_the_session_came(
    attach: Callable[..., Any], kernel: Kernel, tmp_path: Path
) -> None:
    async def work() -> None:
        asked = person_runs(kernel, tmp_path)
        while True:  # until it runs
            message = await asyncio.to_thread(kernel.client.get_iopub_msg, timeout=SECONDS)
            if message["msg_type"] == "execute_input" and message["parent_header"]["msg_id"] == asked:
                break
        async with attach() as engine:
            cell, _ = new_cell("1")
            running = asyncio.ensure_future(engine.execute(cell))
            await until(lambda: engine.withdraw(cell))
            await running
            (tmp_path / "stop").touch()
            assert (await run(engine, "print(ended)"))[0].text == "by itself\n"

    go(work)


def test_next_cell_ends_the_cell_of_another_front_end_whose_idle_got_lost(
    attach: Callable[..., Any], kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with attach() as engine:
            await run(engine, "1")
            with monkeypatch.context() as patch:
                patch.setattr(ForeignCells, "_end", lambda *_: None)
                kernel.client.execute("'of another'")
                await until(lambda: engine.foreign.cells)
                (other,) = engine.foreign.cells
                assert (await run(engine, "2"))[1].verdict == "ok"
                assert engine.is_busy
            assert (await run(engine, "3"))[1].verdict == "ok"
            assert other.done.result().verdict == "ok"
            assert not engine.is_busy

    go(work)


def test_kernel_that_answers_with_its_clients_session_is_not_taken_for_another_one(
    attach: Callable[..., Any], kernel: Kernel
) -> None:
    """IRkernel and IJulia do so."""
    patch = """
session = get_ipython().kernel.session
session.plain_msg = session.msg
def msg(kind, content=None, parent=None, header=None, metadata=None):
    made = session.plain_msg(kind, content, parent, header, metadata)
    made['header']['session'] = (made['parent_header'] or {}).get('session') or made['header']['session']
    return made
session.msg = msg
"""

    async def work() -> None:
        await asyncio.to_thread(kernel.client.execute_interactive, patch, timeout=SECONDS, silent=True)
        async with attach() as engine:
            try:
                for _ in range(2):
                    assert (await run(engine, "1"))[1].verdict == "ok"
                    await asyncio.to_thread(kernel.client.execute_interactive, "2", timeout=SECONDS)
                assert (await run(engine, "3"))[1].verdict == "ok"
                assert engine.kernel.record.generation == 1
                assert not engine.kernel.trouble
            finally:
                await run(engine, "session.msg = session.plain_msg")

    go(work)


def test_cell_that_never_began_is_refused_when_it_comes_after_all(attach: Callable[..., Any]) -> None:
    async def work() -> None:
        async with attach() as engine:
            await run(engine, "ran = []")
            await engine.kernel.require_client().prepare()
            assert await engine.kernel.require_client().ask_prepared("end", {"request": "late"}, "shell") == UNSEEN
            for name in ("late", "other"):
                content = {"code": f"ran.append({name!r})", "silent": False, "store_history": False}
                await engine.kernel.require_client().sockets.send("shell", "execute_request", content, identity=name)
            await engine.drained()
            assert (await run(engine, "print(ran)"))[0].text == "['other']\n"

    go(work)


def test_source_that_runs_in_kernels_needs_python_3_8_and_nothing_of_ours() -> None:
    source = Path(kernel_side.__file__).read_text()
    imports = [
        node.module for node in ast.walk(ast.parse(source, feature_version=(3, 8))) if isinstance(node, ast.ImportFrom)
    ]
    assert not [name for name in imports if name and name.startswith("remote_kernel")]


def test_kernel_of_another_language_is_not_looked_into(attach: Callable[..., Any]) -> None:
    async def work() -> None:
        async with attach() as engine:
            client = engine.kernel.require_client()
            client.info = {**client.info, "language_info": {"name": "sh"}}
            with pytest.raises(NotInstalled, match="cannot be looked into"):
                await client.ask_kernel_side("variables", pattern="*")
            assert (await run(engine, "print(1)"))[0].text == "1\n"
            cell, _ = new_cell("print('never')")
            cell.script = ("/job.py", "job.py", "--lr")
            await engine.execute(cell)
            assert cell.done.result().verdict == "aborted"
            assert "gives a script no arguments" in cell.done.result().message

    go(work)


def test_kernel_that_a_cell_has_asked_to_end_and_that_goes_on_runs_no_other(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_EXIT_SECONDS", 0.1)
    write = "get_ipython().payload_manager.write_payload({{'source': 'ask_exit', 'keepkernel': {}}})"

    async def work() -> None:
        async with attach() as engine:
            assert (await run(engine, write.format(True)))[1].verdict == "ok"
            assert (await run(engine, "print('here')"))[0].text == "here\n"
            assert (await run(engine, write.format(False)))[1].verdict == "ok"
            events, done = await run(engine, "print('never')")
            assert (events.text, done.verdict) == ("", "lost")
            assert "an earlier cell has asked the kernel to end" in done.message

    go(work)
