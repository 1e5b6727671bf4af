"""Keep one kernel on the remote host: start it, join it to its launcher, and end it when it should end.

The bootstrap runs `main` in the SSH session. It forks: the parent stays as the session's process and ends when
the agent lets go of the session; the agent has a session of its own, reads and writes the SSH session's
descriptors itself, and owns the kernel as its child. When that SSH session is gone, the launcher opens another
and runs `attach` in it, which hands its descriptors to the agent through the socket in the agent's folder.

Several launchers may be attached, each as a Peer: the one that started the kernel and those that resumed it.
A kernel that was resumed is kept from then on. Who may end the kernel, and what ends it when it is kept:

- the launcher says `bye` (SIGTERM or SIGHUP from its front end): at once; kept, it lives on without that launcher,
  unless that was told to restart it;
- the launcher is gone (end of input while our output is healthy): after LAUNCHER_GRACE_SECONDS; kept: as above;
- the SSH session is gone (end of input and, a moment later, nobody reads our output and its sshd has ended):
  after `linger` seconds without a launcher; kept, it lives on;
- a launcher that never heard of the start has given up or tries another: after LAUNCHER_GRACE_SECONDS, kept or not;
- `stop` through the socket: at once;
- the kernel itself ends: its status and the last of its stderr wait for each launcher, `linger` seconds at most.

Ending is SIGTERM, then SIGKILL, to the kernel and all of its session but what was started with nohup.

Control messages are JSON objects. From the launcher: `{"do": "signal", "number": N}`, `{"do": "bye", "restart": B}`,
`{"do": "keep"}`, and `{"do": "done"}` once it has all that an ended kernel left. To it: `started`, `ready`, `kept`,
`parted`, `failed`, `ended`, each as `{"event": …}` with the fields seen below; iopub adds `overflow` and `discarded`. A
launcher that resumes learns the kernel's key from `started`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time

from remote_kernel.link.link import PROTOCOL_VERSION, STDERR, STDOUT
from remote_kernel.link.reactor import Reactor
from remote_kernel.link.spool import MEMORY_BYTES
from remote_kernel.remote.agent_socket import AgentSocket
from remote_kernel.remote.channels import KernelOutput, KernelPorts
from remote_kernel.remote.folder import (
    CONNECTION_FILE,
    Guard,
    link_ssh_agent,
    make_folder,
    remove_folder,
    write_connection_file,
)
from remote_kernel.remote.kernel import KernelCommand, KernelProcess, KernelSettings, StartError, hostname
from remote_kernel.remote.logout import outlive_logout
from remote_kernel.remote.peer import POLL_SECONDS, Peer, PeerOwner
from remote_kernel.remote.ssh_session import SshSession, session_server, to_null
from remote_kernel.remote.text_log import TextLog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from remote_kernel.link.link import LinkStream

LAUNCHER_GRACE_SECONDS = 10.0  # time for a launcher that lost only its ssh to come back
TERMINATE_SECONDS = 2.0  # from SIGTERM to SIGKILL
REPORT_SECONDS = 24 * 3600.0  # for a launcher to come back for the report of its kernel's end
CONFIRM_SECONDS = 0.1  # from a refused port to the traceback of it
PORT_TRIES = 5


def main(marker: str, parameters: dict[str, Any]) -> None:
    """Run in the SSH session: leave an agent behind, wait until it lets go of the session. Does not return."""
    stub, keep = socket.socketpair()
    if os.fork():
        keep.close()
        stub.recv(1)
        os._exit(0)
    stub.close()
    server = session_server()
    os.setsid()
    fds = (os.dup(0), os.dup(1))
    to_null(0, 1)
    try:
        with Reactor() as reactor:
            Agent(reactor, KernelSettings(parameters["settings"])).run(SshSession(keep, *fds, server), marker)
    except BaseException:
        # The top of a process: whatever it is, the launcher's log is the only place where anyone will see it.
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Agent(PeerOwner):
    """One kernel's life on this host. See the module's text for who may end it."""

    def __init__(self, reactor: Reactor, settings: KernelSettings) -> None:
        self._reactor, self._settings = reactor, settings
        self._keep = settings.keep
        self._text_log = TextLog(reactor)
        self._peers: dict[str, Peer] = {}  # by their Link's id, the longest here first
        self._folder = ""
        self._socket: AgentSocket | None = None
        self._guard: Guard | None = None
        self._kernel: KernelProcess | None = None
        self._ports: KernelPorts | None = None
        self._outputs: list[KernelOutput] = []
        self._language, self._interrupt_mode = "", "signal"
        self._ready = False
        self._confirm_at = 0.0  # when five listeners are taken for the kernel's own, 0.0 before there are five
        self._status: int | None = None
        self._started_at = time.monotonic()
        self._started_wall = time.time()
        self._tries = 0
        self._why = self._warning = ""

    def run(self, session: SshSession, marker: str) -> None:
        """Serve until the kernel is gone and the launchers know, or cannot be told."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._reactor.on_signal(number, lambda: self._end("the agent was told to end"))
        self._reactor.on_signal(signal.SIGCHLD, self._child_changed)
        self._reactor.on_signal(signal.SIGHUP, lambda: None)  # ignored by a handler: SIG_IGN would be the kernel's too
        self._add_peer(self._settings.link).serve(session, marker)
        self._start(self._prepare)
        self._reactor.run()
        self._clean_up()

    def _prepare(self) -> None:
        self._folder = make_folder(self._settings.folder, self._settings.id, self._settings.connection)
        self._warning = outlive_logout(self._settings.id)
        link_ssh_agent(self._folder, os.environ.get("SSH_AUTH_SOCK", ""))
        self._guard = Guard(self._folder)
        self._socket = AgentSocket(self._reactor, self._folder, self._answer)
        self._start_kernel()

    # -- the kernel

    def _start(self, begin: Callable[[], None]) -> None:
        """Begin, or tell the launchers why that cannot be."""
        try:
            begin()
        except StartError as error:
            self._fail(error)
        except OSError as error:  # no process, descriptor or room to spare
            reason = (error.strerror or str(error)).lower()
            hint = "see what uses that host up, and its limits: 'ulimit -a' there, and 'df'"
            self._fail(StartError("KernelDied", f"a kernel cannot be started on {hostname()}: {reason}", hint))

    def _start_kernel(self) -> None:
        command = KernelCommand(self._settings, os.path.join(self._folder, CONNECTION_FILE))
        self._confirm_at = 0.0
        self._ports = KernelPorts(self._folder, self._settings.connection, command.ipc)
        write_connection_file(self._folder, self._ports.connection)
        self._kernel = KernelProcess(command)
        assert self._guard
        self._guard.watch(self._kernel.pid)
        self._language, self._interrupt_mode = command.language, command.interrupt_mode
        self._outputs = [KernelOutput(self._reactor, fd, None) for fd in (self._kernel.stdout, self._kernel.stderr)]
        self._route_outputs()
        self._tell_peers("started", host=hostname(), pid=self._kernel.pid, folder=self._folder, warning=self._warning)
        self._check_sockets()

    def _fail(self, error: StartError) -> None:
        self._status = 1
        for peer in list(self._peers.values()):
            peer.start_failed(error=error.name, message=error.message, hint=error.hint)

    def _check_sockets(self) -> None:
        """Join what waits for the kernel's sockets once they are all there."""
        if self._ready or self._status is not None:
            return
        assert self._ports and self._kernel
        if self._refused_a_port():
            self._kernel.kill()  # ipykernel 6 and 7 hang at their exit when the port is iopub's or hb's
        elif not self._ports.is_up():
            # A kernel on a slow shared file system takes a minute; then a look every 5 ms is too many.
            late = time.monotonic() - self._started_at > 10
            self._reactor.call_later(POLL_SECONDS * (10 if late else 1), self._check_sockets)
        elif self._ports.ipc or time.monotonic() > (self._confirm_at or float("inf")):
            self._be_ready()
        else:  # somebody else's listener may be among the five: the kernel would be about to say so
            self._confirm_at = self._confirm_at or time.monotonic() + CONFIRM_SECONDS
            self._reactor.call_later(CONFIRM_SECONDS, self._check_sockets)

    def _be_ready(self) -> None:
        assert self._ports
        self._ready = True
        self._tell_peers("ready", seconds=time.monotonic() - self._started_at)
        for peer in list(self._peers.values()):
            peer.join(self._ports)

    # -- the launchers

    def _add_peer(self, link: str) -> Peer:
        """Begin with a launcher that has seen nothing yet."""
        peer = Peer(self._reactor, self, link)
        self._peers[link] = peer
        return peer

    def _tell_peers(self, event: str, **fields: object) -> None:
        for peer in self._peers.values():
            peer.send_event(event, **fields)

    def _route_outputs(self) -> None:
        """Send the kernel's stdout and stderr to the launcher that has been here longest."""
        first = next(iter(self._peers.values()), None)
        for number, output in zip((STDOUT, STDERR), self._outputs):
            output.write_to(first.link.streams[number] if first else None)

    def handle_message(self, peer: Peer, message: dict[str, Any]) -> None:
        """Do what a launcher's control message says."""
        do = message.get("do")
        if do == "signal" and self._kernel:
            self._kernel.signal(int(message["number"]))
        elif do == "keep":
            self._keep_on()
        elif do in ("bye", "done") and self._status is not None:
            self._reactor.call_later(0, lambda: self.peer_left(peer))  # later: its pipe is in use right now
        elif do == "bye" and self._keep and not message.get("restart"):
            self._update_text_log(besides=peer)
            peer.detach()
        elif do == "bye":
            self._end("the front end closed the kernel")

    def _keep_on(self) -> None:
        if not self._keep:
            self._keep = True
            self._tell_peers("kept")

    def use_disk(self, stream: LinkStream) -> None:
        """Keep in a file what a launcher has not read yet and memory does not take."""
        # With less, what is under way while all is well would count as too much.
        stream.spool.use_files(
            max(self._settings.spool_bytes, MEMORY_BYTES), ("/var/tmp", os.path.dirname(self._folder), "/tmp")
        )

    def peer_away(self, peer: Peer, *, launcher_gone: bool) -> None:
        """Wait for a launcher to come back: it has lost its SSH session or has died."""
        seconds: float | None = LAUNCHER_GRACE_SECONDS
        if launcher_gone:
            why = "the launcher is gone"
        elif peer.has_heard:
            seconds, why = self._settings.linger, "the connection was lost"
        else:
            why = "the launcher never heard of its start"
        peer.set_lease(seconds, lambda: self._give_up(peer, why), why)
        self._update_text_log()

    def _update_text_log(self, besides: Peer | None = None) -> None:
        """Record what cells print while no front end is attached."""
        if any(peer.connected for peer in self._peers.values() if peer is not besides):
            self._text_log.stop()
        elif self._ready and self._ports and self._status is None:
            self._text_log.start(self._ports)

    def await_report(self, peer: Peer) -> None:
        """Wait for a launcher that is away to hear of the kernel's end, if nothing else bounds the waiting."""
        linger = self._settings.linger
        peer.set_lease(
            REPORT_SECONDS if linger is None else linger, lambda: self.peer_left(peer), "the kernel has ended"
        )

    def _give_up(self, peer: Peer, why: str) -> None:
        # A kept kernel is its front end's or somebody's who resumed it, not of an attempt that has failed.
        is_wanted = peer.has_heard or peer.identity != self._settings.link or len(self._peers) > 1
        if (self._keep and is_wanted) or self._status is not None:
            self.peer_left(peer)
        else:
            self._end(why)

    def peer_left(self, peer: Peer) -> None:
        """Drop a launcher; end when there is neither a kernel nor a launcher left."""
        first = next(iter(self._peers.values()), None)
        peer.close()
        if self._peers.pop(peer.identity, None) is first:
            self._route_outputs()
        self._update_text_log()
        if self._status is not None and not self._peers:
            self._reactor.stop()

    # -- the socket

    def _answer(self, connection: socket.socket, request: dict[str, Any], fds: list[int]) -> bool:
        """Do what a request says; true when it took over the connection and the descriptors."""
        do = request["do"]
        if do == "attach" and request["version"] == PROTOCOL_VERSION:
            return self._attach(connection, request, fds)
        if do == "keep":
            self._keep_on()
        state = self._state()
        if do == "logs":
            state["logs"] = [output.tail.decode("utf-8", "replace") for output in self._outputs]
            state["diary"] = self._text_log.text
        try:
            connection.sendall(json.dumps(state).encode())
        except OSError:
            pass  # who asks has waited long enough and left; what is to be done is done
        if do == "stop":
            self._end("it was stopped")
        elif do == "bye" and (not self._keep or (request.get("restart") and not state["connected"])):
            # Of a launcher that had to go before it could say so itself; a kept kernel may be somebody else's by now.
            self._end("the front end closed the kernel")
        return False

    def _add_resuming_peer(self, link: str, resume: Any) -> Peer:
        """Return a peer for a launcher that resumes the kernel, or replaces the one that `resume` names."""
        if resume is True:
            self._keep_on()
        peer = self._add_peer(link)
        whole = False
        if resume in self._peers:
            whole = peer.inherit(self._peers[resume])
            self.peer_left(self._peers[resume])
        elif len(self._peers) == 1:
            self._route_outputs()
        assert self._ports
        connection = {name: value for name, value in self._ports.connection.items() if not name.endswith("_port")}
        settings = self._settings.of_the_kernel()
        peer.send_event("started", connection=connection, settings=settings, whole=whole, **self._state())
        if self._ready:
            peer.join(self._ports)
            peer.send_event("ready", seconds=0.0)
        return peer

    def _attach(self, connection: socket.socket, request: dict[str, Any], fds: list[int]) -> bool:
        """Serve a launcher through the SSH session whose descriptors these are; return whether that could be."""
        if len(fds) != 3:
            why = "has no descriptor left for another connection"
            hint = "close some of what is connected to the kernel"
            return self._refuse(connection, "RemoteError", f"the agent of kernel {self._name} {why}", hint)
        peer = self._peers.get(request["link"])
        if peer is None:
            if self._status is not None:
                ended = f"the kernel {self._name} has ended"
                return self._refuse(connection, "KernelGone", ended, "start a new one")
            if not request["resume"]:
                hint = f"attach to it with 'remote_kernel resume {self._settings.id}'"
                parted = f"the kernel {self._name} goes on without this front end"
                return self._refuse(connection, "KernelParted", parted, hint)
            peer = self._add_resuming_peer(request["link"], request["resume"])
        link_ssh_agent(self._folder, str(request.get("ssh_agent", "")))
        fd_in, fd_out, fd_error = fds
        peer.serve(SshSession(connection, fd_in, fd_out, int(request["server"])), str(request["marker"]))
        self._update_text_log()
        os.dup2(fd_error, 2)
        os.close(fd_error)
        return True

    @property
    def _name(self) -> str:
        return f"{self._settings.id} on {hostname()}"

    def _refuse(self, connection: socket.socket, error: str, message: str, hint: str) -> bool:
        connection.sendall(json.dumps({"error": error, "message": message, "hint": hint}).encode())
        return False

    def _state(self) -> dict[str, object]:
        return {
            "id": self._settings.id,
            "version": PROTOCOL_VERSION,
            "host": hostname(),
            "pid": self._kernel.pid if self._kernel else 0,
            "folder": self._folder,
            "kernel": self._settings.kernel,
            "language": self._language,
            "interrupt_mode": self._interrupt_mode,
            "fingerprint": self._settings.fingerprint,
            "launched_by": self._settings.launched_by,
            "since": self._started_wall,
            "connected": any(peer.connected for peer in self._peers.values()),
            "away": next((peer.away for peer in self._peers.values() if not peer.connected), ""),
            "launchers": len(self._peers),
            "keep": self._keep,
            "ended": self._status is not None,
        }

    # -- the end

    def _end(self, why: str) -> None:
        if self._status is not None:  # nobody came for the report of its end
            self._reactor.stop()
            return
        self._why = self._why or why
        if self._kernel and self._kernel.status() is None:
            self._kernel.terminate()
            self._reactor.call_later(TERMINATE_SECONDS, self._kill)

    def _kill(self) -> None:
        assert self._kernel
        if self._kernel.status() is None:  # else its number may be another's by now
            self._kernel.kill()

    def _child_changed(self) -> None:
        if self._kernel is None or self._status is not None:
            return
        status = self._kernel.status()
        if status is None:
            return
        self._kernel.kill()
        assert self._guard
        self._guard.watch(0)
        for output in self._outputs:
            output.stop()
        if self._lost_a_port(status):
            self._kernel.close()
            self._start(self._start_kernel)
            return
        self._status = status
        report = {
            "status": status,
            "ready": self._ready,
            "why": self._why,
            "stderr": self._outputs[1].tail.decode("utf-8", "replace"),
            **self._kernel.memory_at_end(),
        }
        for peer in list(self._peers.values()):
            peer.kernel_ended(report)
        if not self._peers:
            self._reactor.stop()

    def _lost_a_port(self, status: int) -> bool:
        if self._ready or self._why or not status or self._tries + 1 >= PORT_TRIES or not self._refused_a_port():
            return False
        self._tries += 1
        return True

    def _refused_a_port(self) -> bool:
        assert self._ports
        return not self._ports.ipc and b"ddress already in use" in self._outputs[1].tail

    def _clean_up(self) -> None:
        if self._kernel:
            if self._kernel.status() is None:
                self._kernel.kill()
            self._kernel.close()
        if self._socket:
            self._socket.close()
        self._text_log.stop()
        if self._folder:
            remove_folder(self._folder)
        if self._guard:
            self._guard.stop()
        for peer in self._peers.values():
            peer.close()
