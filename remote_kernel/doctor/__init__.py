"""Check every step from here to a running kernel, and say for each that fails what to do.

    here        the ssh program, its configuration, the first host's name and port     (route)
    on the way  host keys, the login, the login shell: one connection, that kernels use (hop_login)
    there       interpreter, ipykernel, folders, disks, logout, clock: one program      (host)
    all of it   a kernel's start, a cell, and whether VS Code shows the kernelspec      (steps)

A step that fails ends what depends on it; that is then not examined, and never called good.
"""
