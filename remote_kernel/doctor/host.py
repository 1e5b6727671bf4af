"""Judge from what the program on the remote host has seen whether a kernel can start and stay there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from remote_kernel import advice
from remote_kernel.doctor.finding import Finding, failed, ok, unknown, warning
from remote_kernel.errors import KernelNotInstalled, by_name
from remote_kernel.launcher.on_start import missing
from remote_kernel.options import LaunchOptions, print_size

SCARCE_BYTES = 256 << 20
SKEW_SECONDS = 5.0
_OLDEST_IPYKERNEL = (6, 20)


def look(options: LaunchOptions, found: dict[str, Any], noise: str, asked: float, answered: float) -> Iterator[Finding]:
    """Yield the findings of everything that `checkup` tells; `asked` and `answered` are the wall clock's here."""
    took: dict[str, float] = {**found["seconds"], "ipykernel": found["seconds"].get("python", 0.0)}
    for finding in _all(options, found, noise, asked, answered):
        yield finding._replace(seconds=took.get(finding.step, 0.0))


def _all(options: LaunchOptions, found: dict[str, Any], noise: str, asked: float, answered: float) -> Iterator[Finding]:
    errors = {
        step: by_name(name, message, advice.unquoted_home(options, message) or hint)
        for step, (name, message, hint) in found["errors"].items()
    }
    shown = noise.strip().splitlines()[:1]
    yield ok("shell", f"it prints text when it starts ('{shown[0][:60]}'), which is skipped" if shown else "quiet")
    yield _init(options, found.get("init"))
    if "python" in errors:
        yield failed("python", errors["python"])
    else:
        yield from _kernel(options, found, errors)
    if options.on_start and not os.path.isdir(options.on_start):
        yield failed("folder", missing(options.on_start))
    elif "folder" in errors and not options.on_start:  # else the push makes it
        yield failed("folder", errors["folder"])
    elif "python" not in errors and "kernelspec" not in errors:
        pushed = f", once '{options.on_start}' has been pushed there" if options.on_start else ""
        yield ok("folder", f"starts in {options.workdir or 'the home folder'}{pushed}")
    if "sockets" in errors:
        yield failed("sockets", errors["sockets"])
    else:
        yield ok("sockets", f"{found['folder'].rpartition('/')[0]} takes the connection file and Unix sockets (ipc)")
    yield _disk(found["disks"], found.get("refused", {}))
    yield _logout(found)
    yield _clock(float(found["clock"]), asked, answered)


def _init(options: LaunchOptions, ended: tuple[int, str] | None) -> Finding:
    if ended is None:
        return ok("init", "there is no --init")
    status, last = ended
    if status == 0:
        return ok("init", f"'{options.init}' runs")
    text = f"'{options.init}' ended with status {status}{': ' + last if last else ''}"
    return warning(
        "init", text, "try it there in a login shell, and correct --init; kernels start in spite of the error"
    )


def _kernel(options: LaunchOptions, found: dict[str, Any], errors: dict[str, Any]) -> Iterator[Finding]:
    """Look at the interpreter, and at ipykernel or the kernelspec that takes its place."""
    if "kernelspec" in errors:
        yield ok("python", f"{options.remote_python()} runs")
        yield failed("ipykernel", errors["kernelspec"])
        return
    survey = found["survey"]
    python = survey["python"]
    yield ok("python", f"Python {survey['python_version']} ({python})")
    spec, version = survey["kernelspec"], survey["ipykernel_version"]
    if spec:
        yield ok("ipykernel", f"not needed: kernelspec {spec['name']} ({spec['display_name']}, {spec['language']})")
    elif not version:
        hint = _to_install(options, survey)
        yield failed("ipykernel", KernelNotInstalled(f"{python} on {options.endpoint} has no ipykernel", hint))
    elif _numbers(version) < _OLDEST_IPYKERNEL:
        text = f"ipykernel {version} is older than any that remote_kernel is tried with"
        yield warning("ipykernel", text, _to_install(options, survey))
    else:
        yield ok("ipykernel", f"ipykernel {version}")


def _to_install(options: LaunchOptions, survey: dict[str, Any]) -> str:
    """Return how the interpreter gets an ipykernel, or a newer one."""
    if survey["is_the_systems"]:
        make = advice.new_environment(options, survey["python"], survey["new_environment"])
        return f"it is the system's own; see which interpreters have one: {advice.discover_command(options)}; or {make}"
    return f"run: {advice.install_command(options, survey['python'], upgrade=bool(survey['ipykernel_version']))}"


def _disk(disks: list[tuple[str, int]], refused: dict[str, str]) -> Finding:
    if refused:
        shown = "; ".join(f"{place}: {reason}" for place, reason in refused.items())
        return warning("disk", f"nothing can be written to {shown}", "make room there; 'df' and 'quota' show more")
    if not disks:
        return unknown("disk", "none of the usual folders is there")
    shown = ", ".join(f"{place} {_size(free)}" for place, free in disks)
    if min(free for _, free in disks) < SCARCE_BYTES:
        return warning("disk", f"little is free: {shown}", "make room there: output that waits needs it")
    return ok("disk", f"free: {shown}")


def _size(count: int) -> str:
    return print_size(count >> 20 << 20) if count < 10 << 30 else print_size(count >> 30 << 30)


def _logout(found: dict[str, Any]) -> Finding:
    if not found["systemd"]:
        return ok("logout", "no systemd there that could end processes at logout")
    if not found["kills"]:
        return ok("logout", "processes outlive a logout")
    if not found["scope"]:
        return ok("logout", "processes of this session outlive a logout")
    if found["lingers"]:
        return ok("logout", "logind ends processes at logout; kernels move out of its reach")
    text = "the host ends your processes at logout, so a lost connection would end the kernel"
    return warning("logout", text, "run 'loginctl enable-linger' there once")


def _clock(there: float, asked: float, answered: float) -> Finding:
    """Compare the clocks: what was told lies between question and answer if they agree."""
    skew = there - answered if there > answered else min(0.0, there - asked)
    if abs(skew) > SKEW_SECONDS:
        ahead = "ahead of" if skew > 0 else "behind"
        text = f"the clock there is {abs(skew):.0f} s {ahead} this one"
        return warning("clock", text, "set it: files and 'ps' show its times; kernels do not mind")
    return ok("clock", "agrees with this one")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
