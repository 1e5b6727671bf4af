"""Hold one SSH session on the remote host, and tell why it ended."""

from __future__ import annotations

import os
import select
import socket

from remote_kernel.process import PARENT, stat_fields


def session_server() -> int:
    """Return the pid of the sshd (or the like) that serves this session, 0 where that cannot be told.

    sshd makes its child the leader of a session of its own.
    """
    fields = stat_fields(os.getsid(0))
    return int(fields[PARENT]) if fields else 0


class SshSession:
    """One SSH session's descriptors, and the socket that keeps its process waiting."""

    def __init__(self, stub: socket.socket, fd_in: int, fd_out: int, server: int) -> None:
        self.stub, self.fd_in, self.fd_out, self._server = stub, fd_in, fd_out, server

    def nobody_reads(self) -> bool:
        """True if the other end of our output is closed.

        Seen on OpenSSH's sshd: a launcher that dies while ssh lives gives end of input and no event here.
        """
        poll = select.poll()
        poll.register(self.fd_out, 0)
        return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))

    def served(self) -> bool:
        """True if the server of this session still runs. A lost connection ends it; a launcher's death does not."""
        if self._server <= 1:
            return False
        try:
            os.kill(self._server, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return stat_fields(self._server)[:1] != ["Z"]  # nothing is told of another user's where /proc hides those


def to_null(*fds: int) -> None:
    """Point descriptors at nothing."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(null, fd)
    os.close(null)
