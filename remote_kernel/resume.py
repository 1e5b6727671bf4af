"""Join a front end to a kernel that runs already: a launcher that attaches in place of starting one.

The kernel has its own key, so a relay stands between the front end's ports and the launcher's, which are private
Unix sockets here. The key comes with the agent's first message, through SSH. The kernel is kept: it lives on when
this front end leaves, and the kernelspec stays. When the kernel ends, the kernelspec goes.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from typing import Any

from remote_kernel import launcher
from remote_kernel.connection_file import CHANNELS, Connection
from remote_kernel.errors import KernelGone
from remote_kernel.launcher import Launcher
from remote_kernel.log import Log
from remote_kernel.options import LaunchOptions
from remote_kernel.process import is_alive
from remote_kernel.reactor import Reactor
from remote_kernel.relay import Relay
from remote_kernel.transport.private import private_folder


def main(arguments: Sequence[str]) -> int:
    """Serve one front end and give the exit status, as the launcher does."""
    return launcher.main(arguments, ResumingLauncher)


class ResumingLauncher(Launcher):
    """One front end's time with a kernel that runs already."""

    def __init__(self, reactor: Reactor, options: LaunchOptions, front: Connection, log: Log) -> None:
        """Take the front end's connection; `run` listens there."""
        base = os.path.join(private_folder(), f"resume-{os.getpid()}")
        back = Connection("ipc", os.path.join(base, "k"), dict(zip(CHANNELS, range(1, 6), strict=True)), {})
        super().__init__(reactor, options._replace(keep=True), back, log)
        self._folder, self._front = base, front
        self._relay: Relay | None = None

    def run(self) -> int:
        """Serve until the front end leaves or the kernel has ended. Raises the error that kept it from attaching."""
        _make_folder(self._folder)
        try:
            self._relay = Relay(self._front, self._log.note, lambda: os.kill(os.getpid(), signal.SIGTERM))
            return super().run()
        except KernelGone as error:
            self._forget(error.message)
            raise
        finally:
            if self._relay:
                self._relay.stop()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self, seconds: float) -> None:
        self._go("attach", self._attach_settings(resume=True), seconds)

    def _handle(self, message: dict[str, Any]) -> None:
        if message.get("event") == "started" and self._relay:
            self._connection = self._connection._replace(values=message["connection"])
            self._relay.start(self._connection)
        super()._handle(message)

    def _finish(self) -> None:
        self._forget()
        super()._finish()

    def _forget(self, where: str = "") -> None:
        """Take the kernel out of the picker: it is gone."""
        from remote_kernel.kernelspec import forget_kernel

        for slug in forget_kernel(self._options.resume, where):
            self._log.note(f"removed the kernelspec '{slug}': its kernel has ended")


def _make_folder(path: str) -> None:
    """Make the folder of this process's sockets, and remove those of launchers that were killed."""
    base = os.path.dirname(path)
    for name in os.listdir(base):
        pid = name.removeprefix("resume-")
        if pid != name and pid.isdigit() and (int(pid) == os.getpid() or not is_alive(int(pid))):
            shutil.rmtree(os.path.join(base, name), ignore_errors=True)
    os.mkdir(path, 0o700)
