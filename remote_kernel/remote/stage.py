"""Run first on the remote host: check the interpreter, make the shipped modules importable, run the last of them.

The bootstrap appends a call of `run` with the modules and parameters. This file must compile under any
Python, 2.7 included, so that a too old one can say so.
"""

import sys


def run(text):  # type: ignore[no-untyped-def]
    """Make modules of the sources in `text` (JSON: marker, sources, parameters), run the last one's `main`, answer."""
    import json

    shipped = json.loads(text)
    if sys.version_info < (3, 8):
        version = ".".join(str(part) for part in sys.version_info[:3])
        error = {"error": "PythonNotFound", "message": "%s is Python %s" % (sys.executable, version)}
        error["hint"] = "give --python a Python 3.8 or later"
        _print(shipped["marker"], json.dumps(error))  # type: ignore[no-untyped-call]
        sys.exit(41)
    import types

    for name, source in shipped["sources"]:
        place = "<remote_kernel>/%s.py" % name.replace(".", "/")
        # What linecache.updatecache would store: tracebacks from here show their lines. linecache itself is not
        # imported for it, the entry is made when something asks for a traceback.
        module = types.ModuleType("remote_kernel." + name)
        module.__dict__["__file__"] = place
        module.__dict__["__loader__"] = _Loader(source)  # type: ignore[no-untyped-call]
        sys.modules["remote_kernel." + name] = module
        package, _, last = ("remote_kernel." + name).rpartition(".")
        for parent in ("remote_kernel", package):
            if parent not in sys.modules:
                sys.modules[parent] = types.ModuleType(parent)
        setattr(sys.modules[package], last, module)
        exec(compile(source, place, "exec"), module.__dict__)
    answer = module.main(shipped["marker"], shipped["parameters"])
    if answer is not None:
        _print(shipped["marker"], json.dumps(answer))  # type: ignore[no-untyped-call]


def _print(marker, text):  # type: ignore[no-untyped-def]
    sys.stdout.write("\n%s %s\n" % (marker, text))
    sys.stdout.flush()


class _Loader(object):
    """The source of a shipped module, for linecache, which asks the module's loader."""

    def __init__(self, source):  # type: ignore[no-untyped-def]
        self._source = source

    def get_source(self, name):  # type: ignore[no-untyped-def]
        return self._source
