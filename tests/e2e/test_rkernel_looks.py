"""A look into a kernel, and a cell beside another one, leave what runs there and what it has made as they are."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.rkernel import Rkernel, finish

HOOKS = """\
fired = []
hooks = {}
for event in ("pre_execute", "pre_run_cell", "post_execute", "post_run_cell"):
    hooks[event] = lambda *_, event=event: fired.append(event)
    get_ipython().events.register(event, hooks[event])
"""
NO_HOOKS = "for event in hooks: get_ipython().events.unregister(event, hooks[event])"
DRAW = """\
%matplotlib inline
import matplotlib.pyplot as plt, os, time
figure = plt.figure()
plt.plot([1, 3, 2])
print("drawn", flush=True)
deadline = time.monotonic() + 60
while not os.path.exists({stop!r}) and time.monotonic() < deadline: time.sleep(.02)
plt.savefig({path!r})
print(len(plt.gca().lines), plt.get_fignums())
"""


def draw(rkernel: Rkernel, folder: Path, name: str, *meanwhile: tuple[str, ...]) -> tuple[bytes, str]:
    """Let a cell draw, and save what it has drawn after these commands; give the picture, and what the cell says."""
    stop, path = folder / f"stop-{name}", folder / f"{name}.png"
    command = rkernel.start("exec", "--json", "-c", DRAW.format(stop=str(stop), path=str(path)))
    rkernel.wait_running("drawn")
    for words in meanwhile:
        assert rkernel(*words).status == 0
    stop.touch()
    said = finish(command)
    assert said.status == 0, said
    return path.read_bytes(), said.out


def test_look_beside_a_cell_that_draws_leaves_its_figure_alone(either: Rkernel, tmp_path: Path) -> None:
    plain, said = draw(either, tmp_path, "plain")
    looks = [("vars",), ("inspect", "figure"), ("complete", "figure.sav"), ("status",), ("vars", "fig*")]
    looked_at, said_then = draw(either, tmp_path, "looked-at", *looks)
    assert "1 [1]" in said and "1 [1]" in said_then
    assert looked_at == plain
    assert said_then.count("image/png") == said.count("image/png") == 1


def test_cell_beside_one_that_draws_has_figures_of_its_own(either: Rkernel, tmp_path: Path) -> None:
    plain, _ = draw(either, tmp_path, "plain")
    beside = "plt.plot([5, 4]); plt.title('beside'); print(len(plt.gca().lines), plt.get_fignums())"
    either.exec("own = None")
    both, said = draw(either, tmp_path, "both", ("exec", "--side", "-c", beside), ("exec", "--side", "-c", "plt.gcf()"))
    assert both == plain
    assert "1 [1]" in said


def test_cell_beside_another_shows_its_own_figure(shared: Rkernel, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    code = DRAW.format(stop=str(stop), path=str(tmp_path / "own.png"))
    command = shared.start("exec", "--json", "-c", code)
    shared.wait_running("drawn")
    said = shared.exec("plt.plot([5, 4])\nprint(plt.get_fignums())", "--side", "--json")
    stop.touch()
    assert said.status == 0
    assert "[1]" in said.out and said.out.count("image/png") == 1
    assert finish(command).out.count("image/png") == 1
    assert shared.exec("plt.get_fignums()").out == "[]\n"


def test_cell_beside_none_that_imports_pyplot_shows_its_figure_itself(alone: Rkernel) -> None:
    alone.open()
    said = alone.exec("import matplotlib.pyplot as plt\nlines = plt.plot([1, 2])", "--side", "--json")
    assert said.out.count("image/png") == 1
    assert "image/png" not in alone.exec("plt.get_fignums()", "--json").out


@pytest.mark.parametrize(
    ("either", "busy"),
    [
        pytest.param("ipykernel 7", False, id="7-idle"),
        pytest.param("ipykernel 7", True, id="7-busy"),
        pytest.param("ipykernel 6", False, id="6-idle", marks=pytest.mark.nightly),
        pytest.param("ipykernel 6", True, id="6-busy"),
    ],
    indirect=["either"],
)
def test_look_runs_none_of_the_users_hooks_and_changes_nothing(either: Rkernel, *, busy: bool) -> None:
    assert either.exec(HOOKS).status == 0
    assert either.exec("'the last value'").status == 0
    wait = "import time\nwaiting = True\nwhile waiting: time.sleep(.02)\n" if busy else ""
    command = either.start("exec", "-c", f"fired.clear()\n{wait}print(len(In), _, _i)")
    try:
        if busy:
            either.wait_running()
        else:
            finish(command)
        for words in (
            ("vars",),
            ("inspect", "fired"),
            ("complete", "fir"),
            ("status",),
            ("exec", "--side", "-c", "print()"),
        ):
            assert either(*words).status == 0
        either.exec("waiting = False", "--side")
        number, _, rest = finish(command).out.partition(" ")
        assert rest == "the last value 'the last value'\n"
        later = either.exec("print(fired, len(In), _)").out
        events = "['post_execute', 'post_run_cell', 'pre_execute', 'pre_run_cell']"  # of these two cells
        assert later == f"{events} {int(number) + 1} the last value\n"
    finally:
        either.exec("waiting = False", "--side")
        assert either.exec(NO_HOOKS).status == 0


def test_cell_may_ask_for_input_after_another_ran_beside_it(either: Rkernel, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    wait = f"import os, time\nprint('begun', flush=True)\nwhile not os.path.exists({str(stop)!r}): time.sleep(.02)\n"
    command = either.start("exec", "--answer", "me", "-c", f"{wait}print(input() + '!')")
    either.wait_running("begun")
    assert either.exec("0", "--side").status == 0
    assert either("vars").status == 0
    stop.touch()
    said = finish(command)
    assert (said.status, said.out.splitlines()[-1]) == (0, "me!")


SLOW = """\
import time
class Slow:
    shape = dtype = property(lambda self: time.sleep(20))
    def __len__(self): time.sleep(20)
    __repr__ = __bool__ = __getattr__ = lambda self, *_: time.sleep(20)
class SlowList(list):
    __len__ = __repr__ = lambda self: time.sleep(20)
class Lazy:
    __class__ = property(lambda self: time.sleep(20))
slow, slow_list, lazy, huge, number = Slow(), SlowList([1, 2]), Lazy(), 10 ** 200_000, 41
getattr = isinstance = hasattr = json = type = len = None
"""


def test_vars_runs_no_code_of_the_users_values(either: Rkernel) -> None:
    assert either.exec(SLOW).status == 0
    try:
        begun = time.monotonic()
        listed = {one["name"]: one for one in either.ask("vars")}
        assert time.monotonic() - begun < 5
        assert listed["number"]["value"] == "41"
        assert listed["slow"] == {"name": "slow", "type": "Slow"}
        assert listed["slow_list"] == {"name": "slow_list", "type": "SlowList", "length": 2}
        assert listed["lazy"]["type"] == "Lazy"
        assert listed["huge"]["value"] == "about 2**664386"
    finally:
        names = "getattr, isinstance, hasattr, json, type, len, slow, slow_list, lazy, huge"
        assert either.exec(f"del {names}").status == 0


STUCK = """\
import time
class Frame:
    shape = property(lambda self: time.sleep(20))
Frame.__module__ = "pandas.core.frame"
Frame.__repr__ = Frame.shape.fget
frame, number = Frame(), 41
"""


@pytest.mark.parametrize(
    "either", ["ipykernel 7", pytest.param("ipykernel 6", marks=pytest.mark.nightly)], indirect=True
)
def test_vars_names_the_value_that_keeps_it_and_blocks_no_cell(either: Rkernel) -> None:
    assert either.exec(STUCK).status == 0
    look, inspect = either.start("vars"), either.start("inspect", "frame")
    assert either.exec("number").out == "41\n"
    said = either("interrupt")
    assert "nothing runs" in said.err
    assert inspect.poll() is None  # for 12 s
    said = finish(look)
    assert said.status != 0
    assert "'frame' keeps it for more than 5 s" in said.err
    assert "'frame' keeps it for more than 12 s" in finish(inspect).err
    assert either.exec("del frame").status == 0
    assert [one["name"] for one in either.ask("vars", "numb*")] == ["number"]
