"""Kernelspecs on disk: what is written, found, refused and removed."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from pathlib import Path

import pytest

from remote_kernel.endpoint import Endpoint
from remote_kernel.errors import NoSuchKernelspec, RemoteKernelError, UsageError
from remote_kernel.kernelspec.folders import kernels_folder
from remote_kernel.kernelspec.installed import Kernelspec, find_kernelspec, list_kernelspecs
from remote_kernel.kernelspec.names import check_display_name, make_slug
from remote_kernel.kernelspec.writing import (
    LOGOS,
    Draft,
    remove_kernelspec,
    replace_document,
    rewrite_kernelspec,
    write_kernelspec,
)
from remote_kernel.options import LaunchOptions

OPTIONS = LaunchOptions(
    Endpoint("gpu1", "me", 2222), (Endpoint("gate"),), python="/opt/bin/python", env=(("A", "1 'x'"),), init="a\nb"
)
SETTINGS = ("JUPYTER_PATH", "LOCAL_KERNELS_DIR", "REMOTE_KERNEL_PYTHON", "REMOTE_KERNEL_TRANSPORT")


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's kernels folder of a machine where nobody has installed anything."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data" / "kernels"


def write(kernels: Path, name: str = "Remote CUDA", *, replace: bool = False, language: str = "python") -> Kernelspec:
    return write_kernelspec(Draft(name, OPTIONS, language), kernels, replace=replace)


def install_foreign(kernels: Path, slug: str, display_name: str) -> Path:
    folder = kernels / slug
    folder.mkdir(parents=True)
    document = {"argv": ["other", "{connection_file}"], "display_name": display_name, "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(document))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_write_makes_what_jupyter_reads(kernels: Path) -> None:
    from jupyter_client.kernelspec import KernelSpecManager

    spec = write(kernels)
    read = KernelSpecManager(kernel_dirs=[str(kernels)]).get_kernel_spec("remote_cuda")
    assert read.argv == [*spec.program, *OPTIONS.to_arguments()]
    assert (read.display_name, read.language, read.interrupt_mode) == ("Remote CUDA", "python", "signal")
    assert read.metadata["debugger"] is True
    assert read.metadata["supported_encryption"] == ["curve"]
    assert read.metadata["remote_kernel"]["version"]


def test_write_reads_back_the_same(kernels: Path) -> None:
    spec = write(kernels)
    assert spec.options == OPTIONS._replace(connection_file="{connection_file}")
    assert spec.was_added
    assert list_kernelspecs() == [spec]


def test_write_brings_logos_and_leaves_nothing_else(kernels: Path) -> None:
    write(kernels)
    assert [folder.name for folder in kernels.iterdir()] == ["remote_cuda"]
    assert set(contents(kernels / "remote_cuda")) == {"kernel.json", *LOGOS}


def test_program_is_an_absolute_path(kernels: Path) -> None:
    assert os.path.isabs(write(kernels).program[0])


def test_other_languages_have_their_own_logo_and_no_debugger(kernels: Path) -> None:
    python, other = write(kernels), write(kernels, "R there", language="R")
    assert contents(python.folder)["logo-svg.svg"] != contents(other.folder)["logo-svg.svg"]
    assert "debugger" not in json.loads((other.folder / "kernel.json").read_text())["metadata"]


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Remote CUDA", "remote_cuda"),
        ("Remote-Python  (me@gpu1:22)", "remote_python_me_gpu1_22"),
        ("Größe é", "grosse_e"),
        ("../../etc", "etc"),
        ("a..b", "a.b"),
        (".hidden.", "hidden"),
        ("python3 on gpu1", "remote_python3_on_gpu1"),
        ("python", "remote_python"),
        ("Python 3", "remote_python_3"),
        ("🙂 gpu", "gpu"),
    ],
)
def test_slug_of_a_name(name: str, slug: str) -> None:
    assert make_slug(name) == slug


@pytest.mark.parametrize("name", ["远程内核", "ядро", "a/b\\c", "x" * 90, "-_-a", "..a..", "1", "R. . .R"])
def test_slug_is_one_that_jupyter_and_vs_code_take(name: str) -> None:
    slug = make_slug(name)
    assert re.fullmatch(r"[a-z0-9._-]+", slug)
    assert ".." not in slug
    assert not slug.startswith(("python3", ".", "_"))


@pytest.mark.parametrize("name", ["", " ", "🙂", "..", "/"])
def test_slug_refuses_a_name_without_letters(name: str) -> None:
    with pytest.raises(UsageError, match="no letter or digit"):
        make_slug(name)


@pytest.mark.parametrize("name", ["Python 3", "python3", "PYTHON 3.12", "Python 3 (ipykernel)", "Python"])
def test_name_that_vs_code_hides_is_refused(kernels: Path, name: str) -> None:
    with pytest.raises(UsageError, match="VS Code hides"):
        check_display_name(name)


@pytest.mark.parametrize("name", ["", "\n", "a\x1b[31m", "x" * 101])
def test_name_that_cannot_be_shown_is_refused(kernels: Path, name: str) -> None:
    with pytest.raises(UsageError):
        check_display_name(name)


def test_name_of_any_other_kernelspec_is_refused(kernels: Path) -> None:
    install_foreign(kernels, "theirs", "My  Kernel")
    with pytest.raises(UsageError, match="'theirs' is called"):
        write(kernels, "my kernel")
    assert [folder.name for folder in kernels.iterdir()] == ["theirs"]


def test_slug_that_is_taken_is_refused_without_replace(kernels: Path) -> None:
    write(kernels)
    before = contents(kernels)
    with pytest.raises(UsageError, match="exists already"):
        write_kernelspec(Draft("remote-cuda", LaunchOptions(Endpoint("other"))), kernels)
    assert contents(kernels) == before


def test_replace_overwrites_what_add_made(kernels: Path) -> None:
    write(kernels)
    spec = write_kernelspec(Draft("Remote CUDA", LaunchOptions(Endpoint("b"))), kernels, replace=True)
    assert spec.options is not None
    assert spec.options.endpoint.host == "b"


@pytest.mark.parametrize("kind", ["foreign", "garbage", "empty", "file", "link", "dangling"])
def test_replace_spares_what_add_did_not_make(kernels: Path, tmp_path: Path, kind: str) -> None:
    kernels.mkdir(parents=True)
    target = kernels / "mine"
    if kind == "foreign":
        install_foreign(kernels, "mine", "Something else")
    elif kind == "garbage":
        target.mkdir()
        (target / "kernel.json").write_bytes(b"{{\xff")
    elif kind == "empty":
        target.mkdir()
    elif kind == "file":
        target.write_text("precious")
    else:
        elsewhere = tmp_path / "elsewhere"
        if kind == "link":
            target.symlink_to(write(elsewhere, "Mine").folder)
        else:
            target.symlink_to(elsewhere)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="was not made by"):
        write(kernels, "mine", replace=True)
    assert contents(tmp_path) == before


def test_slug_in_another_folder_is_refused(kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "more"))
    write(tmp_path / "more" / "kernels")
    with pytest.raises(UsageError, match="there is a kernelspec 'remote_cuda' in"):
        write(kernels, replace=True)


def test_folder_outside_jupyters_path_is_looked_into(kernels: Path, tmp_path: Path) -> None:
    write(tmp_path / "away")
    with pytest.raises(UsageError, match="exists already"):
        write(tmp_path / "away")


def test_folder_that_cannot_be_written_is_an_error_of_ours(kernels: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RemoteKernelError, match=r"cannot write .*: not a directory"):
        write(tmp_path / "file" / "kernels")


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "make room there"), (errno.EACCES, "see who may write there")]
)
def test_error_of_writing_says_what_would_help(
    number: int, hint: str, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write(kernels)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RemoteKernelError) as told:
        remove_kernelspec(spec)
    assert told.value.hint == hint
    with pytest.raises(RemoteKernelError) as told:
        write(kernels, "Another")
    assert told.value.hint == f"{hint}, or choose another folder with --prefix or LOCAL_KERNELS_DIR"


@pytest.mark.parametrize("placeholder", ["{connection_file}", "{resource_dir}", "{prefix}"])
def test_setting_that_jupyter_would_replace_is_refused(placeholder: str) -> None:
    draft = Draft("x", LaunchOptions(Endpoint("h"), init=f"echo ${placeholder}"))
    with pytest.raises(UsageError, match="Jupyter would replace"):
        draft.argv()


def test_kernels_folder_is_the_users_by_default(kernels: Path) -> None:
    assert kernels_folder() == kernels


def test_kernels_folder_follows_options_then_environment(
    kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "local"))
    assert kernels_folder() == tmp_path / "local"
    assert kernels_folder(user=True) == kernels
    assert kernels_folder(prefix=str(tmp_path)) == tmp_path / "share" / "jupyter" / "kernels"
    assert kernels_folder(sys_prefix=True) == Path(sys.prefix) / "share" / "jupyter" / "kernels"


def test_kernels_folder_takes_one_option(kernels: Path) -> None:
    with pytest.raises(UsageError, match="more than one"):
        kernels_folder(user=True, sys_prefix=True)


def test_list_walks_every_folder_and_passes_over_garbage(
    kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "path"))
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(tmp_path / "local"))
    for folder, name in ((kernels, "B"), (tmp_path / "path" / "kernels", "A"), (tmp_path / "local", "C")):
        write(folder, name)
    install_foreign(kernels, "theirs", "Theirs")
    for number, junk in enumerate(("", "[]", "{", "3", '{"argv": 3, "metadata": []}', "[" * 100_000, "\0")):
        (kernels / f"junk{number}").mkdir()
        (kernels / f"junk{number}" / "kernel.json").write_text(junk)
    (kernels / "folder" / "kernel.json").mkdir(parents=True)
    assert [spec.slug for spec in list_kernelspecs()] == ["a", "b", "c"]


def test_list_shows_a_folder_once(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_KERNELS_DIR", str(kernels))
    write(kernels)
    assert len(list_kernelspecs()) == 1


@pytest.mark.parametrize("program", [["/opt/bin/remote_kernel"], ["python3", "-m", "remote_kernel"]])
def test_kernelspec_written_by_hand_is_listed_but_never_touched(kernels: Path, program: list[str]) -> None:
    folder = install_foreign(kernels, "hand", "By hand")
    argv = [*program, "--endpoint", "gpu1", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "By hand", "language": "python"}))
    spec = find_kernelspec("hand")
    assert spec.options is not None
    assert spec.options.endpoint.host == "gpu1"
    assert not spec.was_added
    with pytest.raises(UsageError, match="was not made by"):
        remove_kernelspec(spec)
    with pytest.raises(UsageError, match="was not made by"):
        rewrite_kernelspec(spec, Draft("x", OPTIONS))
    assert folder.is_dir()


def test_settings_of_another_version_are_a_problem_not_a_crash(kernels: Path) -> None:
    spec = write(kernels)
    file = spec.folder / "kernel.json"
    file.write_text(file.read_text().replace('"--python"', '"--from-the-future"'))
    found = find_kernelspec("remote_cuda")
    assert found.options is None
    assert "--from-the-future" in found.problem
    remove_kernelspec(found)
    assert not spec.folder.exists()


@pytest.mark.parametrize("name", ["remote_cuda", "REMOTE_CUDA", "Remote CUDA", "remote  cuda"])
def test_find_takes_slug_or_name_in_any_case(kernels: Path, name: str) -> None:
    spec = write(kernels)
    assert find_kernelspec(name) == spec


def test_find_offers_near_names(kernels: Path) -> None:
    write(kernels)
    with pytest.raises(NoSuchKernelspec, match="did you mean 'remote_cuda'"):
        find_kernelspec("remot_cuda")


@pytest.mark.parametrize("name", ["../data/kernels/remote_cuda", "remote_cuda/", ".", "..", "", "/"])
def test_find_never_takes_a_path(kernels: Path, name: str) -> None:
    write(kernels)
    with pytest.raises(NoSuchKernelspec):
        find_kernelspec(name)


def test_find_refuses_a_kernelspec_of_others(kernels: Path) -> None:
    install_foreign(kernels, "theirs", "Their Kernel")
    for name in ("theirs", "their kernel"):
        with pytest.raises(UsageError, match="does not run remote_kernel"):
            find_kernelspec(name)


def test_find_refuses_to_choose_between_two_of_a_name(kernels: Path) -> None:
    first, second = write(kernels, "One"), write(kernels, "Two")
    file = second.folder / "kernel.json"
    file.write_text(file.read_text().replace('"Two"', '"Both"'))
    (first.folder / "kernel.json").write_text(file.read_text())
    with pytest.raises(UsageError, match="give one of: one, two"):
        find_kernelspec("both")


def test_remove_takes_the_folder_and_nothing_else(kernels: Path) -> None:
    spec, other = write(kernels), write(kernels, "Other")
    remove_kernelspec(spec)
    assert list(kernels.iterdir()) == [other.folder]


def test_remove_does_not_follow_links(kernels: Path, tmp_path: Path) -> None:
    real = write(tmp_path / "elsewhere").folder
    kernels.mkdir(parents=True)
    (kernels / "remote_cuda").symlink_to(real)
    spec = find_kernelspec("remote_cuda")
    with pytest.raises(UsageError, match="symbolic link"):
        remove_kernelspec(spec)
    assert (real / "kernel.json").exists()


def test_remove_spares_what_a_link_inside_points_to(kernels: Path, tmp_path: Path) -> None:
    spec = write(kernels)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    (spec.folder / "link").symlink_to(precious)
    remove_kernelspec(spec)
    assert (precious / "file").read_text() == "kept"


def test_rewrite_keeps_the_slug_and_what_people_added(kernels: Path) -> None:
    spec = write(kernels)
    file = spec.folder / "kernel.json"
    document = json.loads(file.read_text())
    document["env"] = {"LOCAL": "1"}
    document["metadata"]["mine"] = [1]
    file.write_text(json.dumps(document))
    (spec.folder / "logo-svg.svg").write_text("<svg/>")
    changed = rewrite_kernelspec(spec, Draft("New name", LaunchOptions(Endpoint("b"))))
    after = json.loads(file.read_text())
    assert (changed.slug, changed.display_name) == ("remote_cuda", "New name")
    assert (after["env"], after["metadata"]["mine"]) == ({"LOCAL": "1"}, [1])
    assert (spec.folder / "logo-svg.svg").read_text() == "<svg/>"


def test_rewrite_declares_what_an_earlier_version_did_not(kernels: Path) -> None:
    spec = write(kernels)
    file = spec.folder / "kernel.json"
    document = json.loads(file.read_text())
    del document["metadata"]["supported_encryption"]
    file.write_text(json.dumps(document))
    rewrite_kernelspec(spec, Draft("Remote CUDA", OPTIONS))
    assert json.loads(file.read_text())["metadata"]["supported_encryption"] == ["curve"]


def test_rewrite_to_another_language_changes_logo_and_debugger(kernels: Path) -> None:
    spec = write(kernels)
    before = contents(spec.folder)
    rewrite_kernelspec(spec, Draft("Remote CUDA", OPTIONS, "julia", "message"))
    after = contents(spec.folder)
    assert after["logo-64x64.png"] != before["logo-64x64.png"]
    assert json.loads(after["kernel.json"])["metadata"].keys() == {"remote_kernel"}


def test_rewrite_refuses_a_name_that_another_has(kernels: Path) -> None:
    spec = write(kernels)
    write(kernels, "Other")
    with pytest.raises(UsageError, match="is called 'other' already"):
        rewrite_kernelspec(spec, Draft("other", OPTIONS))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("{", "", "not JSON"),
        ('"argv"', '"arg"', "argv does not run"),
        ("{connection_file}", "file", "argv lacks"),
        ('"--endpoint"', '"--endpont"', "required: --endpoint"),
        ('"Remote CUDA"', "3", "'display_name' is missing"),
        ('"Remote CUDA"', '"Python 3"', "VS Code hides"),
        ('"signal"', '"shout"', "interrupt_mode"),
        ("me@gpu1:2222", "a b", "not an endpoint"),
        ("me@gpu1:2222", "-oProxyCommand=x", "expected one argument"),
    ],
)
def test_document_edited_into_nonsense_changes_nothing(kernels: Path, old: str, new: str, complaint: str) -> None:
    spec = write(kernels)
    before = contents(kernels)
    edited = (spec.folder / "kernel.json").read_text().replace(old, new, 1)
    with pytest.raises(UsageError, match=complaint):
        replace_document(spec, edited)
    assert contents(kernels) == before


def test_document_edited_without_the_mark_gets_it_back(kernels: Path) -> None:
    spec = write(kernels)
    document = json.loads((spec.folder / "kernel.json").read_text())
    del document["metadata"]
    assert replace_document(spec, json.dumps(document)).was_added
