"""An SFTP server as the remote end of a sync."""

from __future__ import annotations

from remote_kernel.errors import ConnectionLost, NoSftp, RemoteError, RemoteKernelError, RemoteShellNoise
from remote_kernel.sftp.client import Sftp
from remote_kernel.sftp.packets import NotSftp, PipeBroken
from remote_kernel.sync.carrying import FarProcess
from remote_kernel.transport import choice, notes


class SftpEnd(FarProcess):
    """An SFTP server as the remote end; `sftp` speaks with it, once `greet` has been called."""

    def _argv(self) -> list[str]:
        return choice.subsystem_argv(self._options, "sftp")

    def _start(self, fd_in: int, fd_out: int) -> None:
        self.sftp = Sftp(fd_in, fd_out)

    def greet(self) -> None:
        """Wait until the server answers. Raises TransportError's kinds, NoSftp, RemoteShellNoise."""
        try:
            with self._patience():
                self.sftp.begin()
        except PipeBroken as error:
            noise = error.args[0] if error.args else b""
            found = self._no_greeting(noise)
            if isinstance(error, NotSftp) and isinstance(found, ConnectionLost):  # it would have gone on
                shown = noise.decode("utf-8", "replace")[:100]
                raise RemoteShellNoise(
                    f"{self._options.endpoint} answered something else than SFTP: {shown!r}",
                    "let its rc files print nothing in shells that are not interactive",
                ) from error
            if not isinstance(found, RemoteError) and "subsystem request failed" not in found.message:
                raise found from error
            raise NoSftp(
                f"{self._options.endpoint} does not allow copying files over SFTP",
                "its sshd needs a line 'Subsystem sftp internal-sftp'",
            ) from error
        notes.clear_refusals(self._options)

    def check(self) -> None:
        """Raise ConnectionLost if the carrier has ended."""
        if self._process.poll() is not None:
            raise self.why()

    def why(self) -> RemoteKernelError:
        """Give the error for a conversation that broke off."""
        self._ended()
        return self._lost()
