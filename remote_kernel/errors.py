"""What can go wrong, as one tree. Each kind has an exit status of its own and says what to do; this is what it means.

    RemoteKernelError                     1
    ├── UsageError                        2   an invalid option, endpoint or name
    │   └── NoSuchKernelspec              3   no kernelspec of that name here
    ├── ConnectionFileError              10   missing, truncated, not JSON, or a key is missing
    ├── PortInUse                        11   a port of the connection file is taken here
    ├── LocalFilesError                  12   a file or folder here cannot be used: full, gone, read-only
    ├── TransportError                   20   SSH failed for a reason that is not listed below
    │   ├── SshNotFound                  21   there is no ssh program here, or not the one asked for
    │   ├── SshConfigError               22   ssh refuses its configuration file or an option of it
    │   ├── UnknownHost                  23   the name has no address
    │   ├── ConnectionRefused            24   the host answers, the port does not
    │   ├── ConnectTimeout               25   no answer in time, or no route
    │   ├── AuthenticationFailed         26   the server does not let this user in with what was offered
    │   ├── HostKeyUnknown               27   the server's key is in no known_hosts file
    │   ├── HostKeyChanged               28   the server's key is not the one on record
    │   ├── JumpHostFailed               29   a jump host did not pass the connection on
    │   ├── ConnectionLost               30   the link broke after it had been up
    │   └── AccountRefused               31   the login is accepted, the account or its session is not
    ├── RemoteError                      40   the remote host cannot run what is asked
    │   ├── PythonNotFound               41   no such interpreter, or older than 3.8
    │   ├── KernelNotInstalled           42   the interpreter lacks ipykernel
    │   ├── RemoteKernelspecNotFound     43   --kernel names none that the host has
    │   ├── RemoteFolderError            44   no folder there can take the connection file: full, read-only
    │   ├── RemoteShellNoise             45   the remote shell printed something, and our program never answered
    │   └── ProtocolMismatch             46   the two ends speak different versions, or one broke the protocol
    ├── KernelDied                       50   the kernel ended before it was ready
    ├── KernelGone                       51   the kernel is no longer there after the connection had been lost
    │   └── NoSuchKernel                 53   no kernel with that id on the hosts that were asked
    ├── KernelParted                     52   the kernel goes on without this front end, which was away for too long
    └── SyncError                        60   files cannot be copied, for a reason that is not listed below
        ├── NothingToSync                61   there is no such file or folder to copy
        ├── NoRoom                       62   the disk that the files go to is full
        ├── SyncIncomplete               63   some paths could not be copied; the others were
        ├── NoSftp                       64   the server has no SFTP, or the user may not use it
        └── PushFailed                   65   the folder of --on-start could not be copied, so no kernel was started

A kernel that starts and later ends gives the launcher its own exit status (128 + N for
signal N); the statuses here are for everything else.
"""

from __future__ import annotations

import errno


class RemoteKernelError(Exception):
    """Base of every error that a user is meant to read.

    `message` is one sentence without a final stop, lower case; `hint` says what to do and may
    be empty. `str()` joins them with a semicolon, which is the last line a front end shows.
    """

    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(RemoteKernelError):
    exit_status = 2


class NoSuchKernelspec(UsageError):
    exit_status = 3


class ConnectionFileError(RemoteKernelError):
    exit_status = 10


class PortInUse(RemoteKernelError):
    exit_status = 11


class LocalFilesError(RemoteKernelError):
    exit_status = 12

    @classmethod
    def of(cls, error: OSError) -> LocalFilesError:
        """Return the error for an OSError of this machine's files."""
        if error.errno == errno.ENOENT and not error.filename:  # only of the working folder there is no name
            return cls("the folder that this was started in is gone", "change to one that is there")
        hint = "see to that, and try again"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint = "make room there, and try again"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "see who may write there"
        return cls(f"cannot use {error.filename or 'a file here'}: {(error.strerror or str(error)).lower()}", hint)


class TransportError(RemoteKernelError):
    exit_status = 20


class SshNotFound(TransportError):
    exit_status = 21


class SshConfigError(TransportError):
    exit_status = 22


class UnknownHost(TransportError):
    exit_status = 23


class ConnectionRefused(TransportError):
    exit_status = 24


class ConnectTimeout(TransportError):
    exit_status = 25


class AuthenticationFailed(TransportError):
    exit_status = 26


class HostKeyUnknown(TransportError):
    exit_status = 27


class HostKeyChanged(TransportError):
    exit_status = 28


class JumpHostFailed(TransportError):
    exit_status = 29


class ConnectionLost(TransportError):
    exit_status = 30


class AccountRefused(TransportError):
    exit_status = 31


class RemoteError(RemoteKernelError):
    exit_status = 40


class PythonNotFound(RemoteError):
    exit_status = 41


class KernelNotInstalled(RemoteError):
    exit_status = 42


class RemoteKernelspecNotFound(RemoteError):
    exit_status = 43


class RemoteFolderError(RemoteError):
    exit_status = 44


class RemoteShellNoise(RemoteError):
    exit_status = 45


class ProtocolMismatch(RemoteError):
    exit_status = 46


class KernelDied(RemoteKernelError):
    exit_status = 50


class KernelGone(RemoteKernelError):
    exit_status = 51


class NoSuchKernel(KernelGone):
    exit_status = 53


class KernelParted(RemoteKernelError):
    exit_status = 52


class SyncError(RemoteKernelError):
    exit_status = 60


class NothingToSync(SyncError):
    exit_status = 61


class NoRoom(SyncError):
    exit_status = 62


class SyncIncomplete(SyncError):
    exit_status = 63


class NoSftp(SyncError):
    exit_status = 64


class PushFailed(SyncError):
    exit_status = 65


_TEMPORARY = {UnknownHost, ConnectionRefused, ConnectTimeout, JumpHostFailed, ConnectionLost, TransportError}


def is_temporary(error: RemoteKernelError) -> bool:
    """True if the error may pass by itself, with the outage that it came of, so that it is worth another try."""
    return type(error) in _TEMPORARY


def by_name(name: str, message: str, hint: str = "") -> RemoteKernelError:
    """Rebuild an error that the agent reported by its class name.

    The agent runs without this module, so it names the class; a name that is unknown here
    (an agent of another version) becomes a plain RemoteError.
    """
    found = globals().get(name)
    if isinstance(found, type) and issubclass(found, RemoteKernelError):
        return found(message, hint)
    return RemoteError(message, hint)
