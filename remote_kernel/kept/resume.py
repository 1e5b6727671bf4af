"""Join a front end to a kernel that runs already: a launcher that attaches in place of starting one.

The kernel has its own key, so a relay stands between the front end's ports and the launcher's, which are private
Unix sockets here. The key comes with the agent's first message, through SSH. The kernel is kept: it lives on when
this front end leaves, and the kernelspec stays. When the kernel ends, the kernelspec goes.

A front end that restarts the kernel starts the same command again, and expects a fresh kernel. So a launcher that sees
the restart leaves a note of how the kernel was started, and the next one starts another such kernel: from then on an
ordinary one, with the front end's own key. The note goes when the front end closes that kernel.

A launcher that takes the place of one that was killed attaches too, and needs no relay: it serves the same front end at
the same ports, and the kernel was started with that front end's key.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from remote_kernel.errors import ConnectionLost, KernelGone, RemoteKernelError
from remote_kernel.files import private_folder, write_private
from remote_kernel.jupyter.connection_file import ConnectionFile
from remote_kernel.launcher import agent_messages, launcher
from remote_kernel.launcher.launcher import Launcher
from remote_kernel.launcher.log import Log
from remote_kernel.launcher.orphans import OrphanNote
from remote_kernel.launcher.relay import PrivateRelay
from remote_kernel.launcher.state_file import SUCCEEDS
from remote_kernel.link.reactor import Reactor
from remote_kernel.options import FOREVER, LaunchOptions, parse_launch
from remote_kernel.typed_json import MALFORMED

_NOTE_SECONDS = 7 * 86400.0


def main(arguments: Sequence[str]) -> int:
    """Serve one front end and give the exit status, as the launcher does."""
    killed = os.environ.pop(SUCCEEDS, "")
    try:
        options = parse_launch(arguments)
        fresh = _after_restart(options)
    except RemoteKernelError:  # which the launcher says better
        return launcher.main(arguments)
    if killed and (fresh or not options.resume):  # one that resumes attaches in any case
        own = fresh.to_arguments() if fresh else arguments
        return launcher.main(own, partial(SucceedingLauncher, killed))
    if fresh:
        return launcher.main(fresh.to_arguments(), lambda *what: RestartedLauncher(options.resume, *what))
    return launcher.main(arguments, ResumingLauncher)


class ResumingLauncher(Launcher):
    """One front end's time with a kernel that runs already."""

    def __init__(self, reactor: Reactor, options: LaunchOptions, front: ConnectionFile, log: Log) -> None:
        """Use the front end's connection; `run` listens there."""
        self._relay = PrivateRelay(front, log.info)
        super().__init__(reactor, options._replace(keep=True), self._relay.back, log)
        self._settings: dict[str, Any] | None = None
        self._filter.on_shutdown = self._note_restart

    def run(self) -> int:
        """Serve until the front end leaves or the kernel has ended. Raises the error that kept it from attaching."""
        if self._options.extra_arguments:
            words = " ".join(self._options.extra_arguments)
            self._log.info(f"the front end's arguments for the kernel are ignored, because it runs already: {words}")
        try:
            with self._relay:
                return super().run()
        except KernelGone as error:
            self._remove_kernelspec(error.message)
            raise

    def begin(self, seconds: float) -> None:
        """Attach to the kernel, in place of starting one."""
        self._reconnector.attempt("attach", self._attach_settings(resume=True), seconds)

    def _started(self, found: agent_messages.KernelStarted) -> None:
        self._connection = self._connection._replace(values=found.connection)
        self._settings = found.settings
        self._relay.start(found.connection)
        super()._started(found)

    def _load_the_rest(self) -> None:
        super()._load_the_rest()
        with contextlib.suppress(ImportError):
            from remote_kernel.kernelspec import writing  # noqa: F401

    def _note_restart(self, restart: bool) -> None:
        if restart and self._settings:
            with contextlib.suppress(*MALFORMED):
                _remember_restart(self._options, self._settings)

    def _finish(self) -> None:
        self._remove_kernelspec()
        super()._finish()

    def _remove_kernelspec(self, where: str = "") -> None:
        """Remove the kernel from the picker: it is gone."""
        from remote_kernel.kernelspec.writing import forget_kernel

        for slug in forget_kernel(self._options.resume, where):
            self._log.info(f"removed the kernelspec '{slug}': its kernel has ended")


class RestartedLauncher(Launcher):
    """The life of a kernel that took the place of a resumed one."""

    def __init__(self, resumed: str, reactor: Reactor, options: LaunchOptions, front: ConnectionFile, log: Log) -> None:
        """Start a kernel; `resumed` is the id of the one restarted first, which the front end's command still names."""
        super().__init__(reactor, options, front, log)
        self._resumed, self._again = resumed, False
        self._shut_down = False
        self._filter.on_shutdown = self._note_shutdown

    def run(self) -> int:
        """Serve until the kernel has ended. Raises the error that kept it from starting."""
        try:
            return super().run()
        finally:
            if (self._shut_down or self._leaving) and not self._again:
                with contextlib.suppress(OSError):
                    os.unlink(_restart_note(self._resumed))

    def _note_shutdown(self, restart: bool) -> None:
        self._shut_down, self._again = not restart, restart


class SucceedingLauncher(Launcher):
    """The rest of a kernel's life whose launcher was killed; `rkernel` starts it, for the front end that it is."""

    def __init__(self, kernel: str, reactor: Reactor, options: LaunchOptions, front: ConnectionFile, log: Log) -> None:
        """Attach to a kernel; `kernel` is what the killed launcher has said of it: LauncherState.kernel."""
        super().__init__(reactor, options, front, log)
        self._kernel = kernel
        self._identity, _, self._predecessor = kernel.partition(" ")
        self._note = OrphanNote(options, self._identity)

    def begin(self, seconds: float) -> None:
        """Attach to the kernel, however long that takes: it is a connection that was lost."""
        if not self._filter.kept:
            self._note.write()  # soon: a watcher ends the kernels of launchers that are gone
        self._reconnector.take_over(self._kernel, ConnectionLost("the launcher was killed"))

    def _handle_message(self, message: dict[str, Any]) -> None:
        if message.get("event") == "started" and message.get("whole"):
            self._reconnector.note_whole()
        super()._handle_message(message)

    def attach(self, seconds: float) -> None:
        """Attach in the place of the launcher that was killed. Called by the Reconnector."""
        self._reconnector.attempt("attach", self._attach_settings(resume=self._predecessor), seconds)


def _restart_note(identity: str) -> str:
    return os.path.join(private_folder(), f"restart-{identity}")


def _remember_restart(options: LaunchOptions, settings: dict[str, Any]) -> None:
    """Leave a note for the next launcher of this kernelspec, and drop those that a killed front end left long ago."""
    for entry in os.scandir(private_folder()):
        if entry.name.startswith("restart-") and time.time() - entry.stat().st_mtime > _NOTE_SECONDS:
            os.unlink(entry.path)
    linger = settings["linger"]
    fresh = options._replace(
        **{name: settings[name] for name in ("python", "kernel", "workdir", "init", "keep", "spool_bytes")},
        env=tuple((name, value) for name, value in settings["env"]),
        extra_arguments=tuple(settings.get("extra_arguments", ())),  # an agent of an earlier version sends none
        linger_seconds=FOREVER if linger is None else linger,
        resume="",
    )
    write_private(_restart_note(options.resume), json.dumps(fresh.to_arguments()))


def _after_restart(options: LaunchOptions) -> LaunchOptions | None:
    """Return how to start a fresh kernel if the one to resume was restarted. Raises UsageError."""
    try:
        with open(_restart_note(options.resume), encoding="utf-8") as file:
            arguments: list[str] = json.load(file)
    except (OSError, ValueError):
        return None
    fresh = parse_launch(arguments)
    return fresh._replace(
        connection_file=options.connection_file,
        on_start=options.on_start,
        extra_arguments=options.extra_arguments or fresh.extra_arguments,
    )
