"""Run Jupyter kernels on remote machines over SSH as if they were local, with nothing lost.

    JupyterLab, VS Code, nbclient, rkernel        this machine  |  remote host (behind jump hosts)
          | ZMQ over TCP, five ports of the                     |
          v connection file                                     |
    launcher: one process per kernel, started by kernel.json    |
          | Link: many streams, one byte pipe, resumable        |
          v stdin/stdout of                                     |
    ssh, or its pure-Python stand-in ========== SSH ============|==> attach -> agent -> the five sockets of the kernel
                                                                |

A front end starts the launcher as if it were a kernel. The launcher starts an SSH command with a program in its stdin:
the agent, which starts the kernel there as its child. From then on bytes go through untouched. When SSH drops, both
ends keep what the other has not acknowledged, and go on once there is a new SSH session: nothing is lost. A kernel
whose front end is gone is ended by its agent, unless it is to be kept: nothing is left behind.

Who runs where, and which folder that is:

    both ends   link/        streams over one byte pipe that outlive it
                jupyter/     connection files, signatures, ZMTP
    there       remote/      what is sent to the host and runs there: attach, agent, kernel; the lease is in agent.py
    here        launcher/    the process of one kernel: it reaches the agent, again after each drop, and passes bytes on
                transport/   the SSH command, what its errors mean, logging in; paramiko/ is the stand-in for ssh
                kernelspec/  what front ends offer: kernel.json files that start the launcher
                kept/        kernels without a front end: list them, end them, open them again
                doctor/      finds out why a host does not work
                demo/        a kernel with no server at hand
                session/     rkernel: kernels for agents and terminals; host/ runs cells, notebook/ logs, render/ shows
                cli/         the commands; nothing else prints, asks or exits
    both ends   sync/        copies folders to and from the host

In which order to read: launcher/launcher.py, the life of one kernel from this end; transport/openssh.py, the way
between; bootstrap.py and remote/stage.py, how our program gets there; remote/agent.py and remote/peer.py, the far end;
link/link.py, the protocol; launcher/reconnect.py, after a drop. For rkernel: session/__init__.py. What can go wrong is
in errors.py. docs/contributing.md has the whole list, and says where a change goes. Imports point down: from cli to
launcher and session, to kernelspec, transport, remote, link; the far end imports nothing of the rest.

Programs use kernels through `Session`; see session/client.py.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # as type checkers take it; `typing` itself takes milliseconds to load
if TYPE_CHECKING:
    from remote_kernel.session.client import Session as Session


def __getattr__(name: str) -> object:
    """Load `Session` when somebody asks for it: the launcher and the commands start without it."""
    if name == "Session":
        import importlib

        return importlib.import_module("remote_kernel.session.client").Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
