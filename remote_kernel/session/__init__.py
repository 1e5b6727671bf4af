"""Sessions: a name, a kernel, a host process that stays with it, and a notebook of all that ran in it.

rkernel exec ──┐ Unix socket, JSON lines          ZMQ, five ports
rkernel tail ──┼──────────────────────▶ host ──────────────────────▶ kernel (through its launcher, or local)
a script ──────┘                         │
                                         ├─▶ cells/*.jsonl   what each cell gave, as it came
                                         └─▶ NAME.ipynb      the same for people

A cell's way: client.py sends a request (protocol.py) to host/request_server.py; host/queue.py gives it a number and a
journal, and host/engine.py the kernel's messages; each becomes an event (events.py), which goes into the journal and,
through host/recording.py, into the notebook (notebook/log.py). Clients get the journal's lines, and render/ shows them.
host_process.py starts the host, and ends it; paths.py says where everything is.
"""
