"""`remote_kernel --version`: the version, and the settings in force with where each comes from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from remote_kernel import __version__
from remote_kernel.endpoint import Endpoint
from remote_kernel.kernelspec.folders import kernels_folder
from remote_kernel.options import LaunchOptions
from remote_kernel.transport.ssh_config import ssh_program, transport_name

# Those of docs/kernelspecs.md.
_VARIABLES = (
    "REMOTE_KERNEL_PYTHON",
    "REMOTE_KERNEL_SSH",
    "REMOTE_KERNEL_TRANSPORT",
    "LOCAL_KERNELS_DIR",
    "REMOTE_CONN_DIR",
)


def version_lines() -> list[str]:
    """Return the lines to print; asks the ssh program for its version, connects to nothing."""
    from jupyter_core.paths import jupyter_runtime_dir

    options = LaunchOptions(Endpoint("any"))
    program = ssh_program()
    ssh = shutil.which(program)
    settings = {
        "python here": f"{sys.executable} ({sys.version.split()[0]})",
        "transport": transport_name(options),
        "ssh": f"{ssh} ({_ssh_version(ssh)})" if ssh else f"{program}: not found",
        "kernels folder": str(kernels_folder()),
        "runtime folder": jupyter_runtime_dir(),
        "remote python": options.remote_python(),
    }
    for name in _VARIABLES:
        settings[name] = os.environ.get(name) or "not set"
    width = max(map(len, settings))
    return [f"remote_kernel {__version__}", *(f"  {name:<{width}}  {value}" for name, value in settings.items())]


def _ssh_version(program: str) -> str:
    try:
        asked = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "does not say its version"
    # OpenSSH answers on stderr, with the version of OpenSSL after a comma.
    return (asked.stderr or asked.stdout).strip().partition(",")[0] or "does not say its version"
