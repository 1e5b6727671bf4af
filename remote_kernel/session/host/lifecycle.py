"""Manage one session's kernel: start or find it, restart it, notice that it has ended or is another one, and end it."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import Any, Protocol

from remote_kernel.errors import (
    ConnectionFileError,
    KernelDied,
    KernelParted,
    RemoteKernelError,
    UsageError,
)
from remote_kernel.jupyter.connection_file import read_connection_file
from remote_kernel.launcher.state_file import LauncherState, read_state
from remote_kernel.session.events import VERDICTS
from remote_kernel.session.host import host_log
from remote_kernel.session.host.kernel_client import KernelClient, Listener, NoAnswer
from remote_kernel.session.host.kernel_sockets import KernelSockets
from remote_kernel.session.host.process_group import KernelProcessGroup, comes_back, listens, make_connection_file
from remote_kernel.session.kernel_program import find_program
from remote_kernel.session.paths import Paths
from remote_kernel.session.record import Record, write_record

START_SECONDS = 90.0
_PATIENCE_SECONDS = 5.0  # for a kernel to end when it is asked to, and then when it is told to
_ADOPT_SECONDS = 5.0
_SUBSCRIBING = 10  # questions
_LAST_OUTPUT_SECONDS, _LONGEST_LAST_OUTPUT_SECONDS = 0.3, 60.0  # of a kernel that has ended
_RESTART_SECONDS = 20.0  # for a kernel that listens again to answer
_SUCCESSION_SECONDS = 10.0  # at least, between the ends of two launchers that are replaced
_BACK_SECONDS = 0.2
_OWN_ENDS = range(10, 71)  # exit statuses of a launcher that says why it has ended: see errors.py


class Dependent(Listener, Protocol):
    """Runs cells in the kernel."""

    @property
    def is_busy(self) -> bool:
        """True if a cell runs."""

    def connected(self, *, is_new: bool) -> None:
        """Called when there is a client of a kernel, started just now or found; what is spawned ends with it."""

    def kernel_lost(self, message: str) -> None:
        """Called when the kernel is gone, and all that ran in it."""

    @property
    def is_exiting(self) -> bool:
        """True if the kernel has said that it ends."""

    def connection_broke(self) -> None:
        """Called at once when the kernel's connection is gone: a reply may be lost with it."""

    def kernel_exited(self) -> bool:
        """Called when the kernel's connection is gone: end all cells if it has said that it ends.

        Returns True if no other kernel is to be expected at its ports.
        """


class GapListener(Protocol):
    """Called when another launcher takes the place of a killed one: a reply may be lost."""

    def __call__(self, *, is_over: bool, is_whole: bool = False) -> None:
        """Called when the launcher was killed, and when the next one is connected; `is_whole` if it has all output."""


class KernelLifecycle:
    """One session's kernel, from generation to generation. Made by the engine."""

    def __init__(self, paths: Paths, record: Record) -> None:
        self.record = record
        self.trouble = ""  # why the next cell must not run: the kernel died, or is another one
        self.is_dead = True
        self.is_lost = False  # dead for us, and perhaps alive there
        self.memory_bytes = 0  # at the last look, 0 where there was none
        self._info: dict[str, Any] = {}
        self.connection_values: dict[str, Any] = {}  # of the connection file
        self.client: KernelClient | None = None
        self.process: KernelProcessGroup | None = None  # none where the kernel is somebody else's
        self.tasks = host_log.Tasks()  # that end with the client
        self.last_launcher_state: LauncherState | None = None  # that was seen
        self.handle_gap: GapListener = lambda *, is_over, is_whole=False: None
        self._succeeded_at = float("-inf")
        self._paths = paths
        self._dependent: Dependent

    def set_dependent(self, dependent: Dependent) -> None:
        """Register who runs cells in the kernel. Called once, before anything else."""
        self._dependent = dependent

    @property
    def info(self) -> dict[str, Any]:
        """The content of the kernel's last kernel_info_reply, an earlier kernel's while it has not answered."""
        if self.client and self.client.info:
            self._info = self.client.info
        return self._info

    @property
    def language(self) -> str:
        """The language that the kernel names, else that of its kernelspec."""
        return str((self.info.get("language_info") or {}).get("name") or self.record.language)

    # -- beginning

    async def start(self) -> None:
        """Start a kernel and wait until it answers. Raises RemoteKernelError with the reason why it does not."""
        record = self.record
        program = find_program(record.kernelspec, record.workdir)
        cwd = record.cwd if program.host else record.workdir or record.cwd
        make_connection_file(self._paths)
        argv = program.command(self._paths.connection_file)
        try:
            self.process = KernelProcessGroup.start(self._paths, argv, program.env, cwd, is_remote=bool(program.host))
        except OSError as error:
            why = f"{error.strerror}: {error.filename}" if error.filename else str(error)
            raise KernelDied(f"cannot start '{self.record.kernelspec}': {why}", "see 'rkernel kernelspecs'") from error
        folder = program.folder if program.host else cwd
        process = self.process
        self._save(pid=process.pid, born=process.born, connection_file=self._paths.connection_file, folder=folder)
        self.process.go()
        try:
            await self._wait_ready(self.process, self._connect(is_new=True))
        except BaseException:
            await self.end()
            self._save(pid=0, born="")  # there never was a kernel
            raise
        self.is_dead = False  # from here on cells may come: before, their output would be lost

    async def adopt(self) -> None:
        """Find the kernel that an earlier host, or another program, has left. Sets `trouble` if it is gone."""
        if not self.record.is_attached:
            self.process = KernelProcessGroup(
                self._paths, self.record.pid, self.record.born, is_remote=bool(self.record.host)
            )
            status = self.process.status()
            if status is not None and not self._succeed():
                self._died(self.process.describe_end(status, 0))
                return
        try:
            client = self._connect(is_new=False)
        except ConnectionFileError:
            self._died("is gone, and its connection file with it")
            raise
        self.is_dead = False
        try:
            for _ in range(_SUBSCRIBING):  # each question is heard of on iopub too, once the subscription works
                reply = await client.ask("kernel_info_request", {}, channel="control", seconds=_ADOPT_SECONDS)
                client.info = reply.content
                if await client.is_heard(0.2) and await client.sockets.can_be_asked(0.2):
                    break
        except RemoteKernelError as error:
            if self.record.is_attached and not await listens(self.record.connection_file):
                self._died("does not listen any longer")
                raise
            host_log.write(f"the kernel has not answered on control: {error}")

    def _succeed(self) -> bool:
        """Start a launcher that goes on with the kernel of the one that has ended; false where there is none.

        The front end's side, ports and key, stays as it is.
        """
        there = self.launcher_state()
        is_again = time.monotonic() - self._succeeded_at < _SUCCESSION_SECONDS
        if not self.record.host or not there or not there.kernel or is_again:
            return False
        self._succeeded_at = time.monotonic()
        try:
            program = find_program(self.record.kernelspec)
            argv = program.command(self._paths.connection_file)
            self.process = KernelProcessGroup.start(
                self._paths, argv, program.env, self.record.cwd, is_remote=True, succeeds=there.kernel
            )
        except (OSError, RemoteKernelError) as error:
            host_log.write(f"the launcher has ended, and no other can be started: {error}")
            return False
        self._save(pid=self.process.pid, born=self.process.born)
        self.process.go()
        host_log.write("the launcher has ended, and another one goes on with the kernel")
        return True

    def _connect(self, *, is_new: bool) -> KernelClient:
        connection = read_connection_file(self.record.connection_file)
        self.connection_values = connection.values
        sockets = KernelSockets(connection, self.record.identity)
        self.client = client = KernelClient(sockets, self._dependent, self.launcher_state, self._another_kernel)
        self.trouble, self.is_lost = "", False
        client.listen(self.tasks)
        self.tasks.spawn(self._watch_connection(client))
        if self.process:
            self.tasks.spawn(self._watch_process(self.process, client))
        self._dependent.connected(is_new=is_new)
        return client

    async def _wait_ready(self, process: KernelProcessGroup, client: KernelClient) -> None:
        """Wait for an answer on shell and for anything on iopub: only then does no output get lost."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            asking = asyncio.ensure_future(client.ask("kernel_info_request", {}, seconds=START_SECONDS))
            ending = asyncio.ensure_future(process.ended())
            await asyncio.wait({asking, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if asking.done() and not asking.exception():
                client.info = asking.result().content
                if await client.is_heard(0.5) and await client.sockets.can_be_asked(1.0):
                    with suppress(RemoteKernelError):  # other kernels than IPython's; or the next cell tries again
                        await client.prepare()
                    return
                continue
            asking.cancel()
            break
        status = process.status()
        words = process.last_words()
        if status is None:
            raise KernelDied(f"the kernel did not answer within {START_SECONDS:.0f} s", f"see {self._paths.kernel_log}")
        raise _StartFailed(
            status,
            words or f"the kernel ended with status {status} before it was ready",
            is_remote=bool(self.record.host),
        )

    # -- end

    async def restart(self) -> list[str]:
        """End the kernel and start the next one, and return what `end` returns. Its cells end as lost.

        Raises RemoteKernelError.
        """
        if self.is_dead and not self.trouble:
            raise UsageError("the kernel is being restarted", "try again in a moment")
        self.is_dead, self.trouble = True, ""
        try:
            self._kernel_lost("the kernel was restarted")
            killed = await self.end()
            self._save(generation=self.record.generation + 1)
            await self.start()
            return killed
        finally:
            if self.is_dead and not self.trouble:
                self.mark_missing()

    def mark_missing(self) -> None:
        """Record that there is no kernel since one did not start again."""
        again = f"'rkernel restart {self._paths.name}' tries once more"
        self.trouble = f"there is no kernel: it did not start again when it was restarted; {again}"

    async def end(self) -> list[str]:
        """End the kernel, and return which of its processes had to be killed; of an attached one only disconnect.

        Idempotent.
        """
        killed: list[str] = []
        process, self.process = self.process, None
        if process and process.status() is None:
            if self.client and self.client.is_up:
                if self._dependent.is_busy and self.record.interrupt_mode == "signal":
                    process.signal(signal.SIGINT)  # as Jupyter does: what runs may tidy up, and lets it end
                begun = time.monotonic()
                killed = await self.client.end_children()
                patience = max(2.0, _PATIENCE_SECONDS - (time.monotonic() - begun))
                # Not `restart: False`, which a kept kernel's launcher takes for a front end that only leaves.
                await self.client.sockets.send("control", "shutdown_request", {"restart": True})
            else:
                process.signal(signal.SIGTERM)
                patience = _PATIENCE_SECONDS
            await process.end(patience)
        self._disconnect()
        self.is_dead = True
        return killed

    def release(self) -> None:
        """Disconnect from the kernel, which lives on."""
        self.process = None
        self._disconnect()

    @property
    def has_released(self) -> bool:
        """True if the kernel lives on without this host, which leaves: the next one sees to its cells."""
        return self.client is None and not self.is_dead

    def _disconnect(self) -> None:
        self.tasks.cancel()
        client, self.client = self.client, None
        if client:
            client.close(self._no_kernel())

    def _save(self, **fields: Any) -> None:
        self.record = self.record._replace(**fields)
        try:
            write_record(self._paths, self.record)
        except OSError as error:
            host_log.write(f"cannot write {self._paths.record}: {error.strerror}; a next host may not find the kernel")

    def require_client(self) -> KernelClient:
        """Return the client of the kernel. Raises KernelLost where there is none."""
        if self.client is None:
            raise self._no_kernel()
        return self.client

    def _no_kernel(self) -> KernelLost:
        if self.trouble:  # it says what to do
            return KernelLost(self.trouble)
        return KernelLost("there is no kernel", f"'rkernel restart {self._paths.name}' starts one")

    # -- what is watched

    def launcher_state(self) -> LauncherState | None:
        """Return whether the kernel's host is connected; None where nobody says."""
        found = read_state(self._paths.kernel_state)
        self.last_launcher_state = found or self.last_launcher_state
        return found

    def is_away(self) -> bool:
        """True if the connection to the kernel's host is away."""
        now = self.launcher_state()
        return now is not None and not now.connected

    def _another_kernel(self) -> None:
        self._save(generation=self.record.generation + 1)
        self._kernel_lost("the kernel was restarted by another front end, and what it held is gone")
        if self.client:  # what was asked was lost with it
            self.client.end_waits(KernelLost("the kernel was restarted by another front end", "ask again"))
        self.trouble = (
            "another front end has restarted the kernel: what earlier cells left in it is gone, and this cell did "
            "not run; the next one runs in the new kernel"
        )

    async def _watch_process(self, process: KernelProcessGroup, client: KernelClient) -> None:
        status = await process.ended()
        said_why = status in _OWN_ENDS and status != KernelParted.exit_status
        before = self.launcher_state()
        if self.record.host and self.process is process and not self.is_dead and not said_why:
            process.signal(signal.SIGKILL)  # a launcher that has lost its shell only would end the kernel
            if self._succeed() and self.process:
                self.tasks.spawn(self._watch_process(self.process, client))
                self.handle_gap(is_over=False)
                self.tasks.spawn(self._wait_until_back(before))
                return
        how = process.describe_end(await process.clear_away(), self.memory_bytes)
        self._dependent.connection_broke()
        await client.iopub.wait_silent(_LAST_OUTPUT_SECONDS, _LONGEST_LAST_OUTPUT_SECONDS)
        if self.process is process:
            self._died(how)

    async def _wait_until_back(self, before: LauncherState | None) -> None:
        """Wait until a launcher that took the place of a killed one is connected, and look after the cells then."""
        while (now := self.launcher_state()) is None or not now.connected or now == before:
            await asyncio.sleep(_BACK_SECONDS)
        for _ in range(5):  # for it to say whether it has all
            await asyncio.sleep(_BACK_SECONDS)
            if (now := self.launcher_state()) and now.is_whole:
                break
        self.handle_gap(is_over=True, is_whole=now is not None and now.is_whole)

    async def _watch_connection(self, client: KernelClient) -> None:
        """Notice when a kernel that is somebody else's goes, or comes back as another one."""
        async for is_there in client.sockets.connections():
            if not is_there and self.record.is_attached:
                self.tasks.spawn(self._check_listening(client))
            elif is_there and client.is_up:  # its answer shows whether it is the same
                await client.sockets.send("control", "kernel_info_request", {})

    async def _check_listening(self, client: KernelClient) -> None:
        await client.iopub.wait_silent(_LAST_OUTPUT_SECONDS, _LONGEST_LAST_OUTPUT_SECONDS)
        if self._dependent.kernel_exited():
            self._died("was shut down")
            return
        if await comes_back(self.record.connection_file, self.connection_values["shell_port"]):
            try:
                await client.ask("kernel_info_request", {}, channel="control", seconds=_RESTART_SECONDS)
                if self._dependent.is_exiting:  # not every kernel names a session of its own, which would have told
                    self._another_kernel()
                return
            except NoAnswer:  # somebody else has got its port
                pass
            except KernelLost:
                return
        self._died("does not listen any longer")

    def _died(self, how: str) -> None:
        there, name = self.launcher_state(), self._paths.name
        self.is_lost = bool(there and there.kernel)
        what = f"'rkernel restart {name}' starts a new one"
        if self.record.is_attached:
            what = f"it was not started here: 'rkernel close {name}' removes the session"
        elif self.is_lost:
            what = f"it may live on there: 'rkernel refresh {name}' tries again to get to it"
        self.trouble = f"the kernel {how}; what earlier cells left in it is gone, and {what}"
        if self.is_lost:
            self.trouble = f"the kernel {how}; {what}"
        self.is_dead = True
        host_log.write(self.trouble)
        self._kernel_lost(f"the kernel {how}; {what}")
        self.process = None
        asyncio.get_running_loop().call_soon(self._disconnect)

    def _kernel_lost(self, message: str) -> None:
        self.memory_bytes = 0
        self._dependent.kernel_lost(message)


class KernelLost(KernelDied):
    """There is no kernel, or it is not the one that was asked for."""

    exit_status = VERDICTS["lost"]


class _StartFailed(KernelDied):
    """The launcher gave up, and its own exit status says why."""

    def __init__(self, status: int, message: str, *, is_remote: bool) -> None:
        super().__init__(message)
        if status in range(10, 60) and is_remote:
            self.exit_status = status
