"""Find what a person has written as `env` into the kernel.json that this launcher was started by.

Front ends set these variables for the launcher, which must not hand its whole environment on to another machine. Nor do
they say which kernelspec it is: the one with this command line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from remote_kernel.options import LaunchOptions, split_arguments
from remote_kernel.remote.kernel import kernel_folders, kernelspecs

_MEANT_FOR_US = ("REMOTE_KERNEL_", "REMOTE_CONN_DIR", "LOCAL_KERNELS_DIR", "SSH_")


def with_spec_env(options: LaunchOptions, arguments: Sequence[str]) -> LaunchOptions:
    """Return the options of a launcher with its kernel.json's `env`; `arguments` is its command line.

    Without jupyter_core, which takes 40 ms to import. Of several kernelspecs with this command line it is the first
    whose variables are set here.
    """
    own = list(split_arguments(arguments)[0])
    folders = [folder for folder in (os.environ.get("LOCAL_KERNELS_DIR", ""),) if folder]
    for spec in kernelspecs([*folders, *kernel_folders(sys.executable)]).values():
        words = [word.replace("{connection_file}", options.connection_file) for word in split_arguments(spec.argv)[0]]
        if spec.env and words[-len(own) :] == own and spec.env.keys() <= os.environ.keys():
            pairs = tuple(pair for pair in spec.env.items() if not pair[0].startswith(_MEANT_FOR_US))
            return options._replace(spec_env=pairs)
    return options
