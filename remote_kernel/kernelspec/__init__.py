"""Keep the kernelspecs of remote kernels: write, list, find, change and remove kernel.json.

A kernelspec is a folder `SLUG/` with kernel.json and logos inside one of Jupyter's `kernels`
folders. Its argv is a LaunchOptions written out, and the only record of the settings. Those
that `add` wrote carry `metadata.remote_kernel`; only they are ever changed or removed here.
"""

from remote_kernel.kernelspec.folders import every_folder, jupyter_folders, kernels_folder, read_document
from remote_kernel.kernelspec.installed import (
    Kernelspec,
    did_you_mean,
    find_kernelspec,
    list_kernelspecs,
    read_kernelspec,
    same_name,
)
from remote_kernel.kernelspec.names import check_display_name, check_free, make_slug, unseen_by_vs_code
from remote_kernel.kernelspec.writing import (
    LOGOS,
    Draft,
    check_writable,
    forget_kernel,
    kernel_document,
    program_arguments,
    remove_kernelspec,
    replace_document,
    require_added,
    rewrite_kernelspec,
    write_kernelspec,
)

__all__ = [
    "LOGOS",
    "Draft",
    "Kernelspec",
    "check_display_name",
    "check_free",
    "check_writable",
    "did_you_mean",
    "every_folder",
    "find_kernelspec",
    "forget_kernel",
    "jupyter_folders",
    "kernel_document",
    "kernels_folder",
    "list_kernelspecs",
    "make_slug",
    "program_arguments",
    "read_document",
    "read_kernelspec",
    "remove_kernelspec",
    "replace_document",
    "require_added",
    "rewrite_kernelspec",
    "same_name",
    "unseen_by_vs_code",
    "write_kernelspec",
]
