"""`remote_kernel add --discover`: show what a host has for kernels, and add what is chosen of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

from remote_kernel.cli.check import ask_host, ask_until_clear, start_once
from remote_kernel.cli.edge import complain, note, say, say_json
from remote_kernel.cli.table import print_rows
from remote_kernel.errors import RemoteKernelError, UsageError
from remote_kernel.kernelspec.discovery import Discovery, Environment, discover
from remote_kernel.kernelspec.installed import list_kernelspecs
from remote_kernel.kernelspec.names import check_free, make_slug
from remote_kernel.kernelspec.writing import Draft, write_kernelspec
from remote_kernel.options import LaunchOptions

COLUMNS = ("NR", "NAME", "KIND", "PYTHON", "IPYKERNEL", "TORCH", "JAX", "WHERE", "HERE")


class Addable(NamedTuple):
    """One thing that can be added: its row without the number, and the draft that it makes."""

    row: tuple[str, ...]
    draft: Draft
    lacks_ipykernel: bool
    is_the_systems: bool
    slug: str
    """The kernelspec here that starts it already; empty for none."""


def add_found(
    options: LaunchOptions, kernels: Path, *, everything: bool, as_json: bool, install: bool, check: bool
) -> int:
    """Look, show, ask, add; return the exit status: that of the first that could not be added."""
    note(f"looking for interpreters and kernels on {options.endpoint} ...")
    found = discover(options)
    offers = _offers(found, options)
    if as_json:
        say_json(_as_object(found, offers))
        return 0
    if not offers:
        note(f"there is no Python and no kernel on {found.host}")
        return 0
    print_rows(COLUMNS, [(str(number), *offer.row) for number, offer in enumerate(offers, 1)])
    note(f"GPUs of {found.host}: {', '.join(found.gpus)}" if found.gpus else f"no GPU is seen on {found.host}")
    for path in found.silent:
        note(f"note: {path} does not answer in time")
    for path in found.foreign:
        note(f"note: {path} was not run, because other users can change it; if you trust it, give it as --python")
    status = 0
    for offer in _chosen(offers, everything=everything, install=install):
        try:
            _add(offer.draft, kernels, install=install, check=check)
        except RemoteKernelError as error:  # the others are still to be added
            complain("remote_kernel", str(error))
            status = status or error.exit_status
    return status


def _offers(found: Discovery, options: LaunchOptions) -> list[Addable]:
    pythons, kernels = _here(found, options)
    offers = []
    for one in found.environments:
        slug = pythons.get(one.python, "")
        row = (one.name, one.kind, one.version, one.ipykernel or "no", one.torch or "-", one.jax or "-", one.python)
        draft = Draft(f"{one.name} ({options.endpoint})", options._replace(python=one.python))
        offers.append(Addable((*row, slug or "-"), draft, not one.ipykernel, one.kind == "system", slug))
    for spec in found.kernelspecs:
        slug = kernels.get(spec.name, "")
        row = (spec.display_name, "kernelspec", "-", "-", "-", "-", spec.name)
        draft = Draft(f"{spec.display_name} ({options.endpoint})", options._replace(kernel=spec.name), spec.language)
        offers.append(Addable((*row, slug or "-"), draft, False, False, slug))
    return _apart(offers)


def _here(found: Discovery, options: LaunchOptions) -> tuple[dict[str, str], dict[str, str]]:
    """Return the slugs of this host's kernelspecs here, by the interpreter's path there and by the kernelspec there."""
    pythons: dict[str, str] = {}
    kernels: dict[str, str] = {}
    for spec in list_kernelspecs():
        if spec.options is None or spec.options.resume or spec.options.endpoint != options.endpoint:
            continue
        if spec.options.kernel:
            kernels.setdefault(spec.options.kernel, spec.slug)
        else:
            pythons.setdefault(found.path_of(spec.options.python), spec.slug)
    return pythons, kernels


def _apart(offers: list[Addable]) -> list[Addable]:
    """Return the offers with names that make different slugs: by folder, interpreter or kernelspec, else by number."""
    slugs = [make_slug(offer.draft.display_name) for offer in offers]
    apart: list[Addable] = []
    taken: set[str] = set()
    for number, (offer, slug) in enumerate(zip(offers, slugs, strict=True), 1):
        draft, where = offer.draft, Path(offer.row[6])
        if slugs.count(slug) > 1:
            place = where.name if offer.row[1] in ("system", "python", "kernelspec") else where.parent.parent
            draft = _renamed(offer, str(place))
            if make_slug(draft.display_name) in taken:  # `a-b` and `a_b`
                draft = _renamed(offer, str(number))
        taken.add(make_slug(draft.display_name))
        apart.append(offer._replace(draft=draft))
    return apart


def _renamed(offer: Addable, more: str) -> Draft:
    options = offer.draft.options
    return Draft(f"{offer.row[0]} {more} ({options.endpoint})"[-100:], options, offer.draft.language)


def _chosen(offers: list[Addable], *, everything: bool, install: bool) -> list[Addable]:
    """Return what to add: all that can be, or what a person says at the terminal; nothing elsewhere.

    Nobody is asked where nothing can be added.
    """
    if everything or all(_why_not(offer, install=install) for offer in offers):
        return _addable(offers, install=install)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        note("nothing is added: give --all, or name one with 'remote_kernel add HOST --python PATH'")
        return []
    return ask_until_clear(
        "add which? (numbers, 'all' or 'none')", lambda answer: _picked(answer, offers, install=install)
    )


def _picked(answer: str, offers: list[Addable], *, install: bool) -> list[Addable]:
    words = answer.replace(",", " ").split()
    if words in ([], ["none"]):
        return []
    if words == ["all"]:
        return _addable(offers, install=install)
    numbers = {str(number): offer for number, offer in enumerate(offers, 1)}
    if not numbers.keys() >= set(words):
        raise UsageError(f"'{answer}' is not a choice", f"write numbers from 1 to {len(offers)}, 'all' or 'none'")
    return [numbers[word] for word in dict.fromkeys(words)]


def _addable(offers: list[Addable], *, install: bool) -> list[Addable]:
    """Return what `all` means, and say why the others are not among them."""
    left_out = [reason for offer in offers if (reason := _why_not(offer, install=install))]
    for reason in left_out:
        note(reason)
    if len(left_out) == len(offers):
        note("nothing is added")
    return [offer for offer in offers if not _why_not(offer, install=install)]


def _why_not(offer: Addable, *, install: bool) -> str:
    """Return why `--all` leaves this one out; empty where it adds it."""
    where = offer.row[6]
    if offer.slug:
        return f"{where} is here already, as {offer.slug}"
    if offer.lacks_ipykernel and offer.is_the_systems:
        make = offer.draft.options.command_line("add", "--python", where, "--install")
        return f"{where} is the system's own and has no ipykernel: {make} makes a new environment"
    if offer.lacks_ipykernel and not install:
        return f"{where} has no ipykernel: give --install to put it there"
    return ""


def _add(draft: Draft, kernels: Path, *, install: bool, check: bool) -> None:
    check_free(draft.display_name, kernels, replace=False)
    if check:
        draft, _ = ask_host(draft, install=install)
        start_once(draft)
    spec = write_kernelspec(draft, kernels)
    say(f"added '{spec.display_name}' as {spec.slug} in {spec.folder}")


def _as_object(found: Discovery, offers: list[Addable]) -> dict[str, Any]:
    def as_object(environment: Environment, offer: Addable) -> dict[str, Any]:
        return {
            **{name: value or None for name, value in environment._asdict().items()},
            "display_name": offer.draft.display_name,
            "slug": offer.slug or None,
        }

    return {
        "host": found.host,
        "gpus": found.gpus,
        "environments": [as_object(*pair) for pair in zip(found.environments, offers, strict=False)],
        "kernelspecs": [spec._asdict() for spec in found.kernelspecs],
        "silent": found.silent,
        "foreign": found.foreign,
    }
