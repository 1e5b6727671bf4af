"""Log in to one hop: with the agent's keys, key files and certificates, then by keyboard-interactive, then by password.

That is OpenSSH's order. A server may ask for several, one after the other. What needs a secret takes it from the
keyring or from a person; at a kernel's start there is no person, and a key whose passphrase nobody has is named on
stderr. No secret is passed on: not to a log, not to a message.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Iterator

import paramiko

from remote_kernel.transport.known_hosts import fingerprint
from remote_kernel.transport.paramiko.config import Hop
from remote_kernel.transport.paramiko.host_keys import SSH_LOG
from remote_kernel.transport.paramiko.secrets import ATTEMPTS, Secrets, passphrase_of, password_of, read
from remote_kernel.transport.ssh_messages import LOCKED_KEY, SshFailure, account_refused

_PASSWORD_PROMPT = re.compile(r"passw|kennwort|mot de passe|contraseña", re.IGNORECASE)


def log_in(transport: paramiko.Transport, hop: Hop, secrets: Secrets) -> None:
    """Log in, or raise SshFailure with what the server would have accepted."""
    _Login(transport, hop, secrets).run()


class _Login:
    """One login. A method's attempt returns what the server still wants: [] once it lets in, None if it refuses."""

    def __init__(self, transport: paramiko.Transport, hop: Hop, secrets: Secrets) -> None:
        self._transport, self._hop, self._secrets = transport, hop, secrets
        self._locked: list[str] = []
        self._keys = _keys(hop, secrets, self._locked)
        self._offered = 0

    def run(self) -> None:
        allowed = self._first_answer()
        tries: dict[str, Callable[[], list[str] | None]] = {
            "publickey": self._publickey,
            "keyboard-interactive": self._interactive,
            "password": self._password,
        }
        tries = {method: tries[method] for method in self._hop.methods}
        partly, last = False, "none"
        while allowed:
            SSH_LOG.debug("debug1: Authentications that can continue: %s", ",".join(allowed))
            for method, attempt in tries.items():
                further = attempt() if method in allowed else None
                if further is not None:
                    allowed, partly, last = further, True, method
                    break
            else:
                raise self._refusal(allowed, partly)
        where = f"{self._hop.host} ([{self._hop.host}]:{self._hop.port})"
        SSH_LOG.debug('Authenticated to %s using "%s".', where, last)

    def _first_answer(self) -> list[str]:
        try:
            self._transport.auth_none(self._hop.user)
        except paramiko.BadAuthenticationType as answer:
            return list(answer.allowed_types)
        except paramiko.SSHException as error:
            raise SshFailure(f"Connection closed by {self._hop.host} port {self._hop.port}") from error
        return []

    def _refusal(self, allowed: list[str], partly: bool) -> SshFailure:
        said = [f"{path}: {LOCKED_KEY}" for path in self._locked]
        if partly:
            said.append("what was offered is accepted, but the server asks for more")
        return SshFailure(
            "\n".join([*said, f"{self._hop.user}@{self._hop.host}: Permission denied ({','.join(allowed)})."])
        )

    def _try(self, method: Callable[..., list[str]], *values: object) -> list[str] | None:
        try:
            return list(method(self._hop.user, *values))
        except paramiko.BadAuthenticationType:
            return None
        except (paramiko.SSHException, EOFError) as error:  # a refusal is one too
            if self._transport.is_active():
                return None
            where = f"{self._hop.host} port {self._hop.port}"
            banner = self._banner()
            if banner:
                line = account_refused(self._hop.host, self._hop.port, banner.splitlines())
                raise SshFailure(f"{line}Connection closed by {where}") from error
            many = f"Received disconnect from {where}:2: Too many authentication failures"
            raise SshFailure(many if self._offered > 1 else f"Connection closed by {where}") from error

    def _banner(self) -> str:
        """Return what the server said during this attempt: PAM's words for an account that it refuses."""
        handler = self._transport.auth_handler  # get_banner gives nothing once the connection is closed
        said = handler.banner if handler else None
        return said.decode("utf-8", "replace") if isinstance(said, bytes) else said or ""

    def _publickey(self) -> list[str] | None:
        for path, key in self._keys:  # a server that wants two keys gets those that are left
            self._offered += 1
            SSH_LOG.debug("debug1: Offering public key: %s %s", path, fingerprint(key.asbytes()))
            further = self._try(self._transport.auth_publickey, key)
            if further is not None:
                SSH_LOG.debug("debug1: Server accepts key: %s", path)
                return further
        return None

    def _password(self) -> list[str] | None:
        for secret in self._secrets.offers(self._password_name(), f"{self._hop.user}@{self._hop.host}'s password: "):
            self._offered += 1
            further = self._try(self._transport.auth_password, secret, None, False)
            if further is not None:
                return further
            self._show("Permission denied, please try again.")
        return None

    def _interactive(self) -> list[str] | None:
        if not self._secrets.person and not read(self._password_name()):
            return None
        passwords = self._secrets.offers(self._password_name(), f"({self._hop.user}@{self._hop.host}) Password: ")
        for _ in range(ATTEMPTS):
            asked: list[str] = []
            further = self._try(self._transport.auth_interactive, self._answering(passwords, asked))
            if further is not None:
                self._secrets.questions += asked
                return further
            if not self._secrets.person:
                return None
            self._show("Permission denied, please try again.")
        return None

    def _answering(self, passwords: Iterator[str], asked: list[str]) -> Callable[..., list[str]]:
        """Return what answers the server's prompts, in the transport's thread; other questions go into `asked`."""

        def answer(title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
            for text in filter(None, (title, instructions)):
                self._show(text)
            answers = []
            for prompt, echo in prompts:
                if not echo and _PASSWORD_PROMPT.search(prompt):
                    answers.append(next(passwords, ""))
                    continue
                asked.append(prompt.strip())
                person = self._secrets.person
                answers.append(person.ask(f"({self._hop.user}@{self._hop.host}) {prompt}", echo=echo) if person else "")
            return answers

        return answer

    def _password_name(self) -> str:
        return password_of(self._hop.user, self._hop.host, self._hop.port)

    def _show(self, text: str) -> None:
        if self._secrets.person:
            self._secrets.person.show(text)


def _keys(hop: Hop, secrets: Secrets, locked: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield the keys to offer and their paths, in OpenSSH's order; add the files that need a passphrase to `locked`."""
    in_agent = {key.asbytes(): key for key in _agent_keys(hop.agent)}
    files = []
    for path in hop.keys:
        key = in_agent.pop(_public_blob(path), None)
        if key is None:
            files.append(path)
        else:
            yield from _with_certificates(key, path, hop)
    if not hop.only_these_keys:
        yield from (("the agent's", key) for key in in_agent.values())
    for path in files:
        key = _load(path, secrets, locked)
        if key is not None:
            yield from _with_certificates(key, path, hop)


def _agent_keys(socket: str) -> list[paramiko.PKey]:
    if not socket:
        return []
    before = os.environ.get("SSH_AUTH_SOCK")
    os.environ["SSH_AUTH_SOCK"] = socket  # where paramiko looks for it, and at nothing else
    try:
        return list(paramiko.Agent().get_keys())
    except (paramiko.SSHException, OSError):
        return []
    finally:
        os.environ.pop("SSH_AUTH_SOCK")
        if before is not None:
            os.environ["SSH_AUTH_SOCK"] = before


def _public_blob(path: str) -> bytes:
    """Return the public key beside a private one, or what cannot be a key."""
    try:
        with open(f"{path}.pub", encoding="utf-8", errors="replace") as file:
            return base64.b64decode(file.read().split()[1])
    except (OSError, IndexError, binascii.Error):
        return b""


def _load(path: str, secrets: Secrets, locked: list[str]) -> paramiko.PKey | None:
    try:
        return paramiko.PKey.from_path(path)
    except (TypeError, paramiko.PasswordRequiredException):  # cryptography's word for "a password is needed"
        return _unlock(path, secrets, locked)
    except (OSError, ValueError, paramiko.SSHException, paramiko.UnknownKeyType):
        pass  # missing, not a key, or one for a security device
    except Exception as error:  # cryptography's errors have no common base
        if type(error).__module__.partition(".")[0] != "cryptography":
            raise
    return None


def _unlock(path: str, secrets: Secrets, locked: list[str]) -> paramiko.PKey | None:
    for secret in secrets.offers(passphrase_of(path), f"Enter passphrase for key '{path}': "):
        try:
            return paramiko.PKey.from_path(path, secret.encode())
        except (OSError, ValueError, paramiko.SSHException):  # it was not this one
            continue
    locked.append(path)
    return None


def _with_certificates(key: paramiko.PKey, path: str, hop: Hop) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield the key with each certificate that may be its own, and then alone."""
    for certificate in (*hop.certificates, f"{path}-cert.pub"):
        try:
            key.public_blob = None
            key.load_certificate(certificate)
        except (OSError, ValueError, AttributeError, paramiko.SSHException):
            continue  # absent, or of another type of key
        yield certificate, key
    key.public_blob = None
    yield path, key
