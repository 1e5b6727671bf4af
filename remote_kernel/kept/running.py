"""Find the kernels that run on remote hosts, by asking every host that a kernelspec names, all at once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from remote_kernel import bootstrap
from remote_kernel.endpoint import Endpoint, print_jumps
from remote_kernel.errors import NoSuchKernel, RemoteError, RemoteKernelError, UsageError
from remote_kernel.handshake import ask, reading
from remote_kernel.kernelspec.installed import Kernelspec, list_kernelspecs, same_name
from remote_kernel.kernelspec.writing import forget_kernel
from remote_kernel.options import LaunchOptions
from remote_kernel.typed_json import MALFORMED, list_of, row, text

ASK_SECONDS = 10.0
STOP_SECONDS = 20.0
_SHORTEST_ID = 4
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_LAST_SECOND = 250_000_000_000  # in the year 9892


class RunningKernel(NamedTuple):
    """A kernel that is alive on a remote host, or has just ended.

    `way` is how it was reached: endpoint, jump hosts, configuration. `slug` and `display_name` are those of the
    kernelspec here that starts such kernels, empty where none does. `state` is `connected` (a front end is attached),
    `away` (a front end may come back to it), `kept` (none is expected), `ended` or `unreadable`. `busy` means that its
    processes use the CPU: a cell that waits, or computes on a GPU alone, is idle. `memory` is in bytes, over all of its
    processes; `since` is seconds since the epoch.
    """

    id: str
    host: str
    way: LaunchOptions
    slug: str
    display_name: str
    kernel: str
    language: str
    interrupt_mode: str
    state: str
    busy: bool
    keep: bool
    launchers: int
    since: float
    memory: int
    version: int
    launched_by: str


class RunningKernels(NamedTuple):
    """What the hosts said: their kernels, and the errors of those that did not answer, with their endpoints."""

    kernels: list[RunningKernel]
    silent: list[tuple[str, RemoteKernelError]]
    asked: int

    def check(self) -> None:
        """Raise the first error if not a single host answered."""
        if self.silent and len(self.silent) == self.asked:
            raise self.silent[0][1]

    def find(self, text: str) -> RunningKernel:
        """Return the kernel with this id, or the one whose id begins so. Raises NoSuchKernel, UsageError."""
        if not re.fullmatch(rf"[0-9a-f]{{{_SHORTEST_ID},12}}", text):
            hint = f"give at least {_SHORTEST_ID} characters of an id that 'remote_kernel ps' shows"
            raise UsageError(f"'{text}' is not a kernel's id", hint)
        found = [kernel for kernel in self.kernels if kernel.id.startswith(text)]
        if len(found) > 1:
            raise UsageError(f"several kernels begin with '{text}'", f"give one of: {', '.join(k.id for k in found)}")
        if found:
            return found[0]
        if self.silent:
            mute = ", ".join(endpoint for endpoint, _ in self.silent)
            raise NoSuchKernel(f"no host that answered has a kernel '{text}'", f"no answer came from {mute}")
        raise NoSuchKernel(f"there is no kernel '{text}'", "see 'remote_kernel ps'")


def hosts_to_ask(names: Sequence[str] = ()) -> list[LaunchOptions]:
    """Return how to reach the hosts to ask: of all kernelspecs, or of those of a slug, display name, host or endpoint.

    A name that no kernelspec has is taken for a host, as `add` takes it. Raises UsageError.
    """
    known = [spec for spec in list_kernelspecs() if spec.options]
    if not names:
        return _unique(_way(spec.options) for spec in known if spec.options)
    found = []
    for name in names:
        of_name = [_way(s.options) for s in known if s.options and s.slug == name.lower()]
        of_name = of_name or [_way(s.options) for s in known if s.options and same_name(s.display_name, name)]
        of_name = of_name or [
            _way(s.options) for s in known if s.options and name in (str(s.options.endpoint), s.options.endpoint.host)
        ]
        found += of_name or [LaunchOptions(Endpoint.parse(name))]
    return _unique(found)


def find_running(hosts: Sequence[LaunchOptions], timeout_seconds: float = ASK_SECONDS) -> RunningKernels:
    """Ask every host for its kernels, at once. Kernelspecs of resumed kernels that are gone are removed."""
    kernels: dict[str, RunningKernel] = {}
    silent = []
    specs = [spec for spec in list_kernelspecs() if spec.options]

    def one(way: LaunchOptions) -> tuple[str, list[RunningKernel]] | RemoteKernelError:
        try:
            host, states = ask_agents(way, "status", "", timeout_seconds)
            with reading(way):
                return host, [_kernel_or_unreadable(way, host, state, specs) for state in states]
        except RemoteKernelError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, min(32, len(hosts)))) as threads:
        answers = list(threads.map(one, hosts))
    for way, answer in zip(hosts, answers, strict=True):
        if isinstance(answer, RemoteKernelError):
            silent.append((_name(way), answer))
            continue
        host, here = answer
        for kernel in here:
            kernels.setdefault(kernel.id, kernel)  # two ways may lead to one host
        _forget_gone(way, host, {kernel.id for kernel in here if kernel.state != "ended"}, specs)
    return RunningKernels(sorted(kernels.values(), key=lambda kernel: (kernel.host, kernel.since)), silent, len(hosts))


def ask_agents(
    way: LaunchOptions, do: str, identity: str, timeout_seconds: float = ASK_SECONDS
) -> tuple[str, list[dict[str, Any]]]:
    """Ask the agents on a host, or the one of that id, to do something; return the host's name and their states.

    Raises as `ask` does, and ProtocolMismatch.
    """
    answer, _ = ask(way, "ask", {"id": identity, "do": do, "folder": bootstrap.remote_folder()}, timeout_seconds)
    with reading(way):
        return text(answer["host"]), list_of(dict, answer["kernels"])


def ask_agent(kernel: RunningKernel, do: str) -> dict[str, Any]:
    """Ask one kernel's agent to do something; return its state. Raises NoSuchKernel when it has ended meanwhile."""
    _, states = ask_agents(kernel.way, do, kernel.id)
    if not states:
        raise NoSuchKernel(f"the kernel {kernel.id} is no longer on {kernel.host}", "see 'remote_kernel ps'")
    state = states[0]
    if "unreadable" in state:
        raise RemoteError(f"the agent of kernel {kernel.id} on {kernel.host} does not answer", "try again")
    return state


def stop_kernel(kernel: RunningKernel) -> None:
    """End a kernel and wait until nothing of it is left on its host. Raises NoSuchKernel, RemoteError."""
    ask_agent(kernel, "stop")
    deadline = time.monotonic() + STOP_SECONDS
    while ask_agents(kernel.way, "", kernel.id)[1]:
        if time.monotonic() > deadline:
            raise RemoteError(
                f"the kernel {kernel.id} on {kernel.host} was told to end and has not",
                f"look at it there: ps {kernel.id}",
            )
        time.sleep(0.1)  # there is no event for it on this side
    forget_kernel(kernel.id)


class _State(NamedTuple):
    """What an agent says of itself; one of an earlier version says less."""

    id: str
    kernel: str = ""
    language: str = ""
    interrupt_mode: str = "signal"
    ended: bool = False
    connected: bool = False
    busy: bool = False
    keep: bool = False
    launchers: int = 0
    since: float = 0.0
    memory: int = 0
    version: int = 0
    launched_by: str = ""
    fingerprint: str = ""


def _kernel(way: LaunchOptions, host: str, state: dict[str, Any], specs: Iterable[Kernelspec]) -> RunningKernel:
    """Return what an agent's state is of. Raises MALFORMED."""
    found = row(_State, state)
    if not _ID.fullmatch(found.id) or not 0 <= found.since < _LAST_SECOND:
        raise ValueError("no id, or no time")
    spec = next(
        (
            s
            for s in specs
            if s.options and not s.options.resume and bootstrap.fingerprint(s.options) == found.fingerprint
        ),
        None,
    )
    return RunningKernel(
        host=host,
        way=way,
        slug=spec.slug if spec else "",
        display_name=spec.display_name if spec else "",
        state="unreadable" if "unreadable" in state else _state(found),
        **{name: getattr(found, name) for name in _State._fields if name in RunningKernel._fields},
    )


def _kernel_or_unreadable(
    way: LaunchOptions, host: str, said: dict[str, Any], specs: Iterable[Kernelspec]
) -> RunningKernel:
    """Return what an agent's state is of, even where only its id can be read. Raises MALFORMED."""
    try:
        return _kernel(way, host, said, specs)
    except MALFORMED:
        return _kernel(way, host, {"id": said["id"], "unreadable": "its answer cannot be read"}, specs)


def _state(found: _State) -> str:
    if found.ended:
        return "ended"
    if found.connected:
        return "connected"
    return "kept" if found.keep and not found.launchers else "away"


def _forget_gone(way: LaunchOptions, host: str, alive: set[str], specs: Iterable[Kernelspec]) -> None:
    for spec in specs:
        # A name of several login nodes leads to another of them each time: only the kernel's own knows that it is gone.
        resumes = spec.options.resume if spec.options and spec.host == host else ""
        if resumes and resumes not in alive and spec.options and _same_way(spec.options, way):
            forget_kernel(resumes)


def _way(options: LaunchOptions) -> LaunchOptions:
    return LaunchOptions(
        options.endpoint,
        options.jumps,
        python=options.python,
        transport=options.transport,
        ssh_config=options.ssh_config,
    )


def _same_way(one: LaunchOptions, other: LaunchOptions) -> bool:
    return _way(one)._replace(python="") == _way(other)._replace(python="")


def _unique(found: Iterable[LaunchOptions]) -> list[LaunchOptions]:
    """Leave out what leads to the same place with another interpreter."""
    return list({way._replace(python=""): way for way in reversed(list(found))}.values())[::-1]


def _name(way: LaunchOptions) -> str:
    return f"{way.endpoint} (through {print_jumps(way.jumps)})" if way.jumps else str(way.endpoint)
