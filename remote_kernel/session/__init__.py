"""Sessions: a name, a kernel, a host process that stays with it, and a notebook of all that ran in it.

rkernel exec ──┐ Unix socket, JSON lines          ZMQ, five ports
rkernel tail ──┼──────────────────────▶ host ──────────────────────▶ kernel (through its launcher, or local)
a script ──────┘                         │
                                         ├─▶ cells/*.jsonl   what each cell gave, as it came
                                         └─▶ NAME.ipynb      the same for people
"""
