"""Verify that a server is the one it is taken for: its host key against the user's known_hosts files.

A key that is in no file is refused unless a person accepts it, or the configuration says `StrictHostKeyChecking
accept-new` (or `no`, which is read as the same: nothing here connects to a server whose key has changed).
"""

from __future__ import annotations

import logging

import paramiko

from remote_kernel.transport.known_hosts import KnownKey, add_key, fingerprint, known_keys, known_name
from remote_kernel.transport.paramiko.config import Hop
from remote_kernel.transport.ssh_messages import Person, SshFailure

SSH_LOG = logging.getLogger("remote_kernel.ssh")
"""What the connection does, in the words of OpenSSH's LogLevel DEBUG1: `program -v` shows it."""
SSH_LOG.propagate = False
SSH_LOG.addHandler(logging.NullHandler())

_WARNING = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
The fingerprint for the {kind} key sent by the remote host is
{fingerprint}.
Offending {kind} key in {file}:{line}
Host key for {name} has changed and you have requested strict checking.
Host key verification failed."""


def name_of(hop: Hop) -> str:
    """Return the name that known_hosts has a hop under."""
    return hop.alias or known_name(hop.host, hop.port)


def verify(hop: Hop, key: paramiko.PKey, person: Person | None = None) -> None:
    """Raise SshFailure unless the server that shows this key is to be trusted."""
    name, blob, kind = name_of(hop), key.asbytes(), short_name(key.get_name())
    known = known_keys(hop.known_hosts, name)
    if _is_known(known, name, key):
        return
    known = [other for other in known if not other.revoked]
    for other in known:
        if other.kind == key.get_name():
            raise SshFailure(
                _WARNING.format(kind=kind, fingerprint=fingerprint(blob), file=other.file, line=other.line, name=name)
            )
    has_port = name != hop.host and not hop.alias
    if has_port and _is_known(known_keys(hop.known_hosts, hop.host), hop.host, key):
        return
    doubt = f"The authenticity of host '{name}' can't be established: {kind} key fingerprint is {fingerprint(blob)}."
    if not known and hop.strict in ("accept-new", "no", "off"):
        _add_key(hop, name, key)
        return
    if hop.strict == "ask" and person and person.confirm(doubt, "Is this the server's fingerprint? (yes/no) "):
        _add_key(hop, name, key)
        return
    strict = f"No {kind} host key is known for {name} and you have requested strict checking.\n"
    # The name is told either way: through a jump host nothing else says whose key it is.
    unknown = f"No {kind} host key is known for {name} here.\n"
    raise SshFailure(f"{doubt}\n{strict if hop.strict == 'yes' else unknown}Host key verification failed.")


def _is_known(known: list[KnownKey], name: str, key: paramiko.PKey) -> bool:
    """True if the key is among these, which are on record for the name. Raises SshFailure if it is revoked there."""
    same = [other for other in known if other.blob == key.asbytes()]
    if any(other.revoked for other in same):
        raise SshFailure(f"WARNING: REVOKED HOST KEY DETECTED for {name}\nHost key verification failed.")
    if same:
        SSH_LOG.debug("debug1: Host '%s' is known and matches the %s host key.", name, short_name(key.get_name()))
    return bool(same)


def short_name(kind: str) -> str:
    """Return a key type as OpenSSH prints it: ED25519, ECDSA, RSA."""
    return kind.removeprefix("ssh-").partition("-")[0].upper().replace("RSA2", "RSA")


def _add_key(hop: Hop, name: str, key: paramiko.PKey) -> None:
    """Add a key that the configuration, or a person, accepts at first sight."""
    if not hop.known_hosts:
        return
    try:
        add_key(hop.known_hosts[0], name, key.get_name(), key.asbytes())
    except OSError:
        pass  # as OpenSSH: the next connection finds it unknown again
