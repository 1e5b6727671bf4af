"""Run test functions of plain modules without pytest, which the interpreters of the remote side do not have.

python -I run.py FOLDER MODULE…
"""

from __future__ import annotations

import importlib
import sys
import unittest


def main(folder, names):
    """Run every `test_…` function of the modules and give the exit status."""
    sys.path.insert(0, folder)
    suite = unittest.TestSuite()
    for name in names:
        module = importlib.import_module(name)
        functions = [value for key, value in vars(module).items() if key.startswith("test_") and callable(value)]
        assert functions, f"{name} has no tests"
        suite.addTests(unittest.FunctionTestCase(function, description=function.__name__) for function in functions)
    result = unittest.TextTestRunner(warnings="error").run(suite)
    print(f"{result.testsRun} tests under {sys.version.split()[0]}")
    return 0 if result.wasSuccessful() and not result.skipped else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
