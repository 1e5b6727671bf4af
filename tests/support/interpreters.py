"""Find this machine's Pythons, and build the environments that the remote side runs kernels in."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from tests.support.isolation import ORIGINAL_ENVIRON

OLDEST, NEWEST = (3, 8), (3, 13)

KERNEL = ("ipykernel>=7,<8", "ipywidgets>=8.1", "matplotlib>=3.8")
KERNEL_6 = ("ipykernel>=6.20,<7", "ipywidgets>=8.1", "matplotlib>=3.8")
UV = ("uv>=0.4",)
OLDEST_HERE = (3, 10)
"""What pyproject.toml says of this side's Python."""

_BUILD_SECONDS = 600


def interpreters() -> dict[tuple[int, int], Path]:
    """Give one interpreter for each Python from 3.8 to 3.13 that is here, oldest first.

    pyenv's come first, then `pythonX.Y` on PATH.
    """
    found: dict[tuple[int, int], Path] = {}
    root = Path(ORIGINAL_ENVIRON.get("PYENV_ROOT") or Path(ORIGINAL_ENVIRON.get("HOME", "/"), ".pyenv"))
    for python in sorted(root.glob("versions/*/bin/python")):
        named = re.match(r"(\d+)\.(\d+)\.\d+\Z", python.parts[-3])
        if named and OLDEST <= (version := (int(named[1]), int(named[2]))) <= NEWEST:
            found[version] = python
    # pyenv's shims would answer for versions that are not switched on.
    path = os.pathsep.join(p for p in ORIGINAL_ENVIRON.get("PATH", "").split(os.pathsep) if "/shims" not in p)
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        on_path = shutil.which(f"python3.{minor}", path=path)
        if on_path and (3, minor) not in found:
            found[3, minor] = Path(on_path)
    return dict(sorted(found.items()))


def base_python() -> Path:
    """Give the interpreter to build the remote side's environments from.

    As root it has to be one that another user can run: pyenv's are often under a home that is closed.
    """
    if os.getuid() != 0:
        return Path(sys.executable)
    candidates = [Path("/usr/bin/python3"), Path("/usr/local/bin/python3"), *interpreters().values()]
    for python in candidates:
        if python.exists() and _is_open_to_all(python.resolve()) and _version(python) >= OLDEST:
            return python
    raise RuntimeError("no Python from 3.8 on that another user can run: install python3 and python3-venv")


def environment(*requirements: str) -> Path:
    """Give the Python of a virtual environment with these requirements, built on first use and kept.

    It is kept by Python version and requirements under the user's cache folder, or under /var/tmp where the
    cache is closed to the remote user. Without requirements there is no pip in it either.
    """
    base = base_python()
    key = hashlib.sha256("\n".join((*map(str, _version(base)), str(base), *sorted(requirements))).encode())
    folder = cache_folder() / f"venv-{key.hexdigest()[:16]}"
    python, stamp = folder / "bin" / "python", folder / "complete"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test sessions may want it at once
        if not stamp.exists():
            shutil.rmtree(folder, ignore_errors=True)
            run([str(base), "-m", "venv", *([] if requirements else ["--without-pip"]), str(folder)])
            if requirements:
                run([str(python), "-m", "pip", "install", "--quiet", *requirements])
            stamp.touch()
    return python


def lowest_environment() -> Path:
    """Return the Python of an environment with this project and the lowest versions that pyproject.toml allows.

    Under the oldest Python that it allows; uv gets that where it is not here. Built on first use and kept, as above.
    """
    root = Path(__file__).parents[2]
    key = hashlib.sha256(str(root).encode() + (root / "pyproject.toml").read_bytes())
    folder = cache_folder() / f"lowest-{key.hexdigest()[:16]}"
    python, stamp = folder / "bin" / "python", folder / "complete"
    uv = str(environment(*UV).parent / "uv")
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            base = interpreters().get(OLDEST_HERE) or "{}.{}".format(*OLDEST_HERE)
            run([uv, "venv", "--quiet", "--clear", "--python", str(base), str(folder)])
            install = [uv, "pip", "install", "--quiet", "--python", str(python), "--resolution", "lowest-direct"]
            run([*install, "--editable", str(root)])
            stamp.touch()
    return python


def cache_folder() -> Path:
    own = ORIGINAL_ENVIRON.get("XDG_CACHE_HOME", "")
    if own and (os.getuid() != 0 or _is_open_to_all(Path(own))):
        folder = Path(own) / "remote_kernel-tests"
    else:
        folder = Path(f"/var/tmp/remote_kernel-tests-{os.getuid()}")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to another user")
    return folder


def run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        env=ORIGINAL_ENVIRON,
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
        umask=0o022,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _version(python: Path) -> tuple[int, int]:
    program = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([str(python), "-c", program], capture_output=True, text=True, timeout=30, check=True)
    major, minor = map(int, done.stdout.split())
    return major, minor


def _is_open_to_all(path: Path) -> bool:
    """Tell whether every user can reach the path and run (or enter) it."""
    try:
        return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))
    except OSError:
        return False


def main() -> None:
    """Build every environment now: run by scripts/test, so that no test's timeout covers a download."""
    for requirements in ((), KERNEL, KERNEL_6, UV):
        print(f"{environment(*requirements)}  {' '.join(requirements) or 'bare'}")
    print(f"{lowest_environment()}  the lowest versions that pyproject.toml allows")


if __name__ == "__main__":
    main()
