"""Here: the kernels that run on the hosts of the kernelspecs, and how one is attached again."""
