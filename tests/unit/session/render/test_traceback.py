"""Tracebacks as kernels write them, trimmed to the frames of the one who wrote the code."""

from __future__ import annotations

import pytest

from remote_kernel.session.render.ansi import strip
from remote_kernel.session.render.traceback import trim

RULER = "\x1b[31m" + "-" * 75 + "\x1b[39m"
HEADER = "\x1b[31mValueError\x1b[39m                                Traceback (most recent call last)"
CELL = "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[5]\x1b[39m\x1b[32m, line 2\x1b[39m\n----> 2 a.b()\n"
LIBRARY = (
    "File \x1b[32m/env/lib/python3.11/site-packages/{}/x.py:7\x1b[39m, in \x1b[36mf\x1b[39m\x1b[34m(a, b)\x1b[39m\n"
    "      6 a\n----> 7 b\n      8 c\n"
)
END = "\x1b[31mValueError\x1b[39m: no"


def trimmed(*texts: str) -> list[str]:
    return strip("\n".join(text.strip("\n") for text in trim(texts))).split("\n")


def test_run_of_library_frames_becomes_one_line() -> None:
    parts = [LIBRARY.format(name) for name in ("torch", "torch", "numpy")]

    assert trimmed(RULER, HEADER, CELL, *parts, "Cell In[5], line 1\n----> 1 callback()\n", END) == [
        "ValueError  Traceback (most recent call last)",
        *strip(CELL).strip("\n").split("\n"),
        "... 3 frames in torch, numpy left out (--full-traceback shows them)",
        "Cell In[5], line 1",
        "----> 1 callback()",
        "ValueError: no",
    ]


def test_last_frame_keeps_its_place_though_it_is_a_librarys() -> None:
    assert trimmed(RULER, HEADER, CELL, LIBRARY.format("torch"), LIBRARY.format("torch"), END)[-4:] == [
        "... 1 frame in torch left out (--full-traceback shows them)",
        "File /env/lib/python3.11/site-packages/torch/x.py:7, in f",
        "----> 7 b",
        "ValueError: no",
    ]


def test_frames_of_the_standard_library_are_a_librarys() -> None:
    standard = "File ~/.pyenv/versions/3.11.7/lib/python3.11/json/decoder.py:337, in decode(s)\n--> 337 x\n"
    frozen = "File <frozen importlib._bootstrap>:1204, in _gcd_import(name)\n"

    assert "... 2 frames in json, importlib left out (--full-traceback shows them)" in trimmed(
        HEADER, CELL, standard, frozen, CELL, END
    )


def test_users_own_files_stay_whole() -> None:
    own = "File ~/project/lib/model.py:3, in forward(x)\n      2 y\n----> 3 z\n"

    assert own.strip("\n") in "\n".join(trimmed(HEADER, CELL, own, END))


def test_frames_of_ipython_7_are_known() -> None:
    cell = "\x1b[0;32m/tmp/ipykernel_12/345.py\x1b[0m in \x1b[0;36m<module>\x1b[0;34m\x1b[0m\n\x1b[0;32m----> 1 f()"
    older = "\x1b[0;32m<ipython-input-1-9e16>\x1b[0m in \x1b[0;36m<module>\x1b[0;34m\x1b[0m\n----> 1 f()"
    library = "\x1b[0;32m/usr/lib/python3.6/json/decoder.py\x1b[0m in \x1b[0;36mdecode\x1b[0;34m(s)\x1b[0m\n--> 9 x"

    for first in (cell, older):
        lines = trimmed(HEADER, first, library, library, END)
        assert "... 1 frame in json left out (--full-traceback shows them)" in lines
        assert strip(first).split("\n")[0] in lines


def test_traceback_of_python_itself_is_taken_apart() -> None:
    whole = (
        "Traceback (most recent call last):\n"
        '  File "<stdin>", line 1, in <module>\n'
        '  File "/usr/lib/python3.11/json/__init__.py", line 346, in loads\n    return decode(s)\n'
        '  File "/usr/lib/python3.11/json/decoder.py", line 337, in decode\n    raise error\n'
        "json.JSONDecodeError: no\n"
    )

    assert trimmed(whole) == [
        "Traceback (most recent call last):",
        '  File "<stdin>", line 1, in <module>',
        "... 1 frame in json left out (--full-traceback shows them)",
        '  File "/usr/lib/python3.11/json/decoder.py", line 337, in decode',
        "    raise error",
        "json.JSONDecodeError: no",
    ]


def test_other_forms_stay_whole() -> None:
    rust = ["error[E0425]: cannot find value `x`", " --> src/lib.rs:2:1", "  |"]

    assert trim(rust) == rust
    assert trim([]) == []


def test_full_traceback_is_as_it_came() -> None:
    texts = [RULER, HEADER, CELL, LIBRARY.format("torch"), END]

    assert trim(texts, full=True) == texts


def test_deep_recursion_is_shown_once() -> None:
    frame = "Cell In[1], line 1, in f(n)\n----> 1 def f(n): return f(n + 1)\n"
    lines = trimmed(HEADER, CELL, *[frame] * 2975, END)

    assert lines[-2:] == ["... the same frame 2,974 more times", "ValueError: no"]
    assert len(lines) < 12


def test_frames_that_take_turns_in_a_deep_recursion_are_few() -> None:
    frames = [f"Cell In[1], line {number % 2}, in f(n)\n" for number in range(3000)]
    lines = trimmed(HEADER, *frames, END)

    assert "... 2,970 frames left out (--full-traceback shows them)" in lines
    assert len(lines) < 40


def test_text_of_a_huge_exception_has_head_and_tail() -> None:
    *_, last = trimmed(HEADER, CELL, "ValueError: " + "x" * 10_000_000 + " the end")

    assert last.startswith("ValueError: xxx") and last.endswith("x the end")
    assert "left out" in last and len(last) < 4100


def test_each_of_chained_exceptions_is_trimmed() -> None:
    cause = "\nThe above exception was the direct cause of the following exception:\n"
    library = [LIBRARY.format("torch")] * 2
    lines = trimmed(RULER, HEADER, CELL, *library, END, cause, HEADER, CELL, *library, END)

    assert lines.count("... 1 frame in torch left out (--full-traceback shows them)") == 2
    assert lines.count("ValueError: no") == 2 and cause.strip("\n") in lines


NO_SOURCE = "'Could not get source, probably due dynamically evaluated source code.'"
CAUSED = "\nThe above exception was the direct cause of the following exception:\n"
KEY_HEADER = HEADER.replace("ValueError", "KeyError")
KEY_ERROR = "\x1b[31mKeyError\x1b[39m: 'b'"
PANDAS = "/venv/lib/python3.11/site-packages/pandas/core"


def compiled(path: str, line: int, function: str) -> str:
    return (
        f"\x1b[36mFile \x1b[39m\x1b[32m{path}:{line}\x1b[39m, in \x1b[36m{function}\x1b[39m\x1b[34m()\x1b[39m\n"
        f"\x1b[32m--> \x1b[39m\x1b[32m{line}\x1b[39m \x1b[33m{NO_SOURCE}\x1b[39m\n"
    )


def test_missing_column_of_pandas_is_said_once_and_shortly() -> None:
    # df["b"], as pandas 2.3 and IPython 9 give it
    lookup = f"File {PANDAS}/indexes/base.py:3816, in Index.get_loc(self, key)\n   3815 try:\n-> 3816     return x\n"
    cython = [
        compiled("pandas/_libs/index.pyx", 172, "pandas._libs.index.IndexEngine.get_loc"),
        compiled("pandas/_libs/hashtable_class_helper.pxi", 7726, "pandas._libs.hashtable.PyObjectHashTable.get_item"),
    ]
    frame = f"File {PANDAS}/frame.py:4330, in DataFrame.__getitem__(self, key)\n-> 4330 x.get_loc(k)\n"
    raised = f"File {PANDAS}/indexes/base.py:3823, in Index.get_loc(self, key)\n-> 3823 raise KeyError(k) from err\n"
    cell = "Cell In[1], line 3\n      2 df = pd.DataFrame({'a': [1]})\n----> 3 df['b']\n"

    cause = [RULER, KEY_HEADER, lookup, *cython, KEY_ERROR]
    assert trimmed(*cause, CAUSED, KEY_HEADER, cell, frame, raised, KEY_ERROR) == [
        "KeyError  Traceback (most recent call last)",
        "Cell In[1], line 3",
        "      2 df = pd.DataFrame({'a': [1]})",
        "----> 3 df['b']",
        "... 4 frames in pandas left out (--full-traceback shows them)",
        f"File {PANDAS}/indexes/base.py:3823, in Index.get_loc",
        "-> 3823 raise KeyError(k) from err",
        "KeyError: 'b'",
    ]


def test_cause_within_libraries_is_its_text() -> None:
    lines = trimmed(HEADER, LIBRARY.format("torch"), END, CAUSED, KEY_HEADER, CELL, LIBRARY.format("torch"), KEY_ERROR)

    assert lines[:4] == [
        "ValueError  Traceback (most recent call last)",
        "... 1 frame in torch left out (--full-traceback shows them)",
        "ValueError: no",
        CAUSED.strip("\n"),
    ]
    assert lines[-3].endswith("torch/x.py:7, in f")


@pytest.mark.parametrize(
    "frame",
    [
        compiled("numpy/random/_generator.pyx", 917, "numpy.random._generator.Generator.choice"),
        compiled("_generator.pyx", 917, "numpy.random._generator.Generator.choice"),
        "pandas/_libs/index.pyx in numpy.random._generator.Generator.choice()",
        "File src/numpy/_generator.pyx:917, in numpy.random._generator.Generator.choice()\n",
    ],
)
def test_compiled_frames_without_source_are_a_librarys(frame: str) -> None:
    lines = trimmed(HEADER, CELL, frame, LIBRARY.format("torch"), END)
    assert "... 1 frame in numpy left out (--full-traceback shows them)" in lines

    *_, place, _ = trimmed(HEADER, CELL, frame, END)
    assert place.endswith("in numpy.random._generator.Generator.choice") or place == frame


@pytest.mark.parametrize(
    "own",
    [
        "File ~/.cache/ipython/cython/_cython_magic_1f.pyx:2, in f()\n      1 def f():\n----> 2  g()\n",
        "File <string>:3, in f(x)\n",
    ],
)
def test_users_compiled_code_stays(own: str) -> None:
    assert own.strip("\n") in "\n".join(trimmed(HEADER, CELL, own, LIBRARY.format("torch"), END))


def test_missing_source_is_not_shown() -> None:
    own = f"File <string>:3, in f(x)\n----> 3 {NO_SOURCE}\n"

    assert trimmed(HEADER, CELL, own, END)[-2:] == ["File <string>:3, in f(x)", "ValueError: no"]
