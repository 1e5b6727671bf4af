"""Read an ssh config as OpenSSH does, as far as paramiko's parser goes, and say where it does not.

paramiko knows Host and Match but not Include, takes a comment behind a value for a part of it and every keyword for
one that there is, and needs a library for `Match exec`. ssh refuses a configuration with a keyword that it does not
know, for a typo may be what keeps a connection safe.
"""

from __future__ import annotations

import fnmatch
import getpass
import glob
import os
import re
import shlex
import subprocess
from functools import cache
from typing import Any, ClassVar

import paramiko

from remote_kernel.transport.ssh_messages import SshFailure

_KNOWN = """
    addkeystoagent addressfamily afstokenpassing batchmode bindaddress bindinterface canonicaldomains
    canonicalizefallbacklocal canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames
    casignaturealgorithms certificatefile challengeresponseauthentication channeltimeout checkhostip cipher
    ciphers clearallforwardings compression compressionlevel connectionattempts connecttimeout controlmaster
    controlpath controlpersist dsaauthentication dynamicforward enableescapecommandline enablesshkeysign
    escapechar exitonforwardfailure fallbacktorsh fingerprinthash forkafterauthentication forwardagent
    forwardx11 forwardx11timeout forwardx11trusted gatewayports globalknownhostsfile globalknownhostsfile2
    gssapiauthentication gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange
    gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns hashknownhosts host
    hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes hostkeyalgorithms hostkeyalias
    hostname identitiesonly identityagent identityfile identityfile2 ignoreunknown include ipqos
    kbdinteractiveauthentication kbdinteractivedevices keepalive kerberosauthentication kerberostgtpassing
    kexalgorithms knownhostscommand localcommand localforward loglevel logverbose macs match
    nohostauthenticationforlocalhost numberofpasswordprompts obscurekeystroketiming passwordauthentication
    permitlocalcommand permitremoteopen pkcs11provider port preferredauthentications protocol
    protocolkeepalives proxycommand proxyjump proxyusefdpass pubkeyacceptedalgorithms pubkeyacceptedkeytypes
    pubkeyauthentication refuseconnection rekeylimit remotecommand remoteforward requesttty requiredrsasize
    revokedhostkeys rhostsauthentication rhostsrsaauthentication rsaauthentication securitykeyprovider sendenv
    serveralivecountmax serveraliveinterval sessiontype setenv setuptimeout skeyauthentication smartcarddevice
    stdinnull streamlocalbindmask streamlocalbindunlink stricthostkeychecking syslogfacility tag tcpkeepalive
    tisauthentication tunnel tunneldevice updatehostkeys useblacklistedkeys usekeychain useprivilegedport user
    userknownhostsfile userknownhostsfile2 useroaming usersh verifyhostkeydns versionaddendum visualhostkey
    warnweakcrypto xauthlocation
"""
KNOWN = frozenset(_KNOWN.split())

UNSUPPORTED = (
    *("addkeystoagent", "addressfamily", "bindaddress", "bindinterface", "canonicalizehostname", "ciphers"),
    *("compression", "gssapiauthentication", "hostbasedauthentication", "hostkeyalgorithms", "kexalgorithms"),
    *("knownhostscommand", "macs", "pkcs11provider", "pubkeyacceptedalgorithms", "securitykeyprovider"),
    *("verifyhostkeydns", "requiredrsasize", "proxyusefdpass"),
)
"""What a user may rely on, and paramiko cannot do: named in a warning unless it is switched off."""

CRITERIA = frozenset(("all", "canonical", "exec", "final", "host", "localuser", "originalhost", "user"))
NEWER_CRITERIA = frozenset(("command", "localnetwork", "sessiontype", "tagged", "version"))
"""What a Match may ask for, and what paramiko's parser would take for something that holds."""

WHOLE_LINE = frozenset(("knownhostscommand", "localcommand", "proxycommand", "remotecommand"))
"""Keywords whose value is the rest of the line, with what looks like a comment."""

_MOST_INCLUDES = 16  # as OpenSSH's READCONF_MAX_DEPTH
_EVERYWHERE, _NOWHERE = "Host *", "Match originalhost !*"
_TOKENS = ["%C", "%d", "%h", "%L", "%l", "%n", "%p", "%r", "%u"]
_LINE = re.compile(r'\s*"?(\w+)"?(?:\s*=\s*|\s+|$)(.*)')


class MatchingConfig(paramiko.SSHConfig):  # type: ignore[misc]
    """paramiko's parser, with `Match exec`, and the tokens that newer versions of ssh put into paths."""

    TOKENS_BY_CONFIG_KEY: ClassVar[dict[str, list[str]]] = {
        **paramiko.SSHConfig.TOKENS_BY_CONFIG_KEY,
        "proxycommand": ["%h", "%n", "%p", "%r"],
        "identityfile": _TOKENS,
        **dict.fromkeys(("certificatefile", "identityagent", "userknownhostsfile"), _TOKENS),
    }

    def _does_match(self, match_list: list[dict[str, Any]], target_hostname: str, *rest: Any) -> Any:
        """Run the programs of a Match when all else that it asks for holds, as ssh does."""
        others = [criterion for criterion in match_list if criterion["type"] != "exec"]
        if not match_list or (others and not super()._does_match(others, target_hostname, *rest)):
            return False
        options = rest[-1]
        commands = [criterion for criterion in match_list if criterion["type"] == "exec"]
        return all(
            _succeeds(self._tokenize(options, target_hostname, "match-exec", criterion["param"]))
            is not criterion["negate"]
            for criterion in commands
        )

    def _tokenize(self, config: Any, target_hostname: str, key: str, value: str) -> str:
        """Replace each token by what it stands for; that is not looked through for tokens again, as paramiko does."""
        names = {"%h": target_hostname if key == "hostname" else config.get("hostname", target_hostname)}
        names |= {"%n": target_hostname, "%r": config.get("user") or getpass.getuser(), "%%": "%"}

        def expanded(found: re.Match[str]) -> str:
            if found[0] != "%%" and found[0] not in self._allowed_tokens(key):
                return found[0]
            return names.get(found[0]) or str(
                super(MatchingConfig, self)._tokenize(config, target_hostname, key, found[0])
            )

        return re.sub("%.", expanded, value) if self._allowed_tokens(key) else value


@cache
def _succeeds(command: str) -> bool:
    shell = os.environ.get("SHELL") or "/bin/sh"
    done = subprocess.run([shell, "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    return done.returncode == 0


class ConfigReader:
    """Read a file and those that it includes. `lines` is what paramiko is to parse, `warnings` what it cannot do."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self._errors: list[str] = []
        self._ignored = ""

    def read(self, path: str, *, must_exist: bool = False) -> None:
        """Add a file's lines. Raises SshFailure, in ssh's words, for what ssh would refuse."""
        if not self._read(path, 0, _EVERYWHERE) and must_exist:
            raise SshFailure(f"Can't open user config file {path}: No such file or directory")
        if self._errors:
            count = len(self._errors)
            raise SshFailure("\n".join([*self._errors, f"{path}: terminating, {count} bad configuration options"]))

    def _read(self, path: str, depth: int, block: str) -> bool:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError:
            return False
        if depth > _MOST_INCLUDES:
            self._errors.append(f"{path}: Bad configuration option: Include goes too deep")
            return True
        enclosing = block
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            found = _LINE.match(line)
            keyword, value = (found[1].lower(), found[2].strip()) if found else (line.strip(), "")
            if keyword not in WHOLE_LINE:
                value = _without_comment(value)
            if not self._is_right(keyword, value, f"{path}: line {number}: ", f"{path} line {number}: "):
                continue
            if keyword == "include":
                self._include(path, value, depth, block)
                continue
            if keyword in ("host", "match"):
                if enclosing != _EVERYWHERE:
                    self._warn(f"{keyword} {value} in {path} holds also outside '{enclosing}', which includes that")
                block = f"Host {value}" if keyword == "host" else self._match(value)
                self.lines.append(block)
            else:
                self._note(keyword, value, path)
                # paramiko keeps the first of each keyword, and these count together.
                name = f"{keyword}{len(self.lines)}" if keyword == "sendenv" else keyword
                self.lines.append(f"{name} {value}")
        return True

    def _is_right(self, keyword: str, value: str, place: str, other_place: str) -> bool:
        """True if ssh would accept a line; what it would say of one that it refuses is noted."""
        if keyword not in KNOWN:
            patterns = re.split(r"[\s,]+", self._ignored)
            if not any(fnmatch.fnmatchcase(keyword, pattern) for pattern in patterns):
                self._errors.append(f"{place}Bad configuration option: {keyword}")
            return False
        if not value:
            self._errors.append(f'{other_place}no argument after keyword "{keyword}"')
            return False
        if keyword == "match":
            unknown = [word for word in _criteria(value) if word not in CRITERIA | NEWER_CRITERIA]
            if unknown:
                self._errors.append(f"{other_place}Bad Match condition: {unknown[0]}")
                return False
        return True

    def _match(self, value: str) -> str:
        """Return a Match as paramiko reads it, criteria in lower case; one that it cannot know holds for nobody."""
        criteria = _criteria(value)
        if NEWER_CRITERIA.intersection(criteria):
            self._warn(f"match {value}")
            return _NOWHERE
        words = shlex.split(value)
        for index in criteria.values():
            words[index] = words[index].lower()
        return f"Match {shlex.join(words)}"

    def _note(self, keyword: str, value: str, path: str) -> None:
        if keyword == "ignoreunknown" and not self._ignored:
            self._ignored = value.lower()
        if keyword == "certificatefile" and self.lines and self.lines[-1].startswith("certificatefile "):
            self._warn(f"{keyword} {value} in {path}, after another one")

    def _include(self, path: str, value: str, depth: int, block: str) -> None:
        base = "/etc/ssh" if path.startswith("/etc/ssh/") else os.path.expanduser("~/.ssh")
        for pattern in shlex.split(value):
            expanded = os.path.expanduser(with_environment(pattern))
            for found in sorted(glob.glob(os.path.join(base, expanded))):
                self._read(found, depth + 1, block)
                self.lines.append(block)  # what follows belongs where it stood

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def with_environment(text: str) -> str:
    """Replace variables of the environment, which ssh knows as ${NAME}; one that is not set stays as it is."""
    return re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), text)


def _criteria(value: str) -> dict[str, int]:
    """Return what a Match asks for, in lower case and without `!`, and which of its words that is."""
    try:
        words = shlex.split(value)
    except ValueError:
        return {value: 0}
    found: dict[str, int] = {}
    at = 0
    while at < len(words):
        word = words[at].lower().removeprefix("!")
        found[word] = at
        at += 1 if word in ("all", "canonical", "final") else 2
    return found


def _without_comment(value: str) -> str:
    """Leave out a comment: a word that begins with `#` outside quotes, and all behind it."""
    quoted = False
    for index, sign in enumerate(value):
        if sign == '"':
            quoted = not quoted
        elif sign == "#" and not quoted and (index == 0 or value[index - 1].isspace()):
            return value[:index].rstrip()
    return value
