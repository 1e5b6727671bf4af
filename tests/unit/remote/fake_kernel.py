"""Stand in for a kernel where ipykernel is not installed: five sockets that echo, and words on stdout and stderr.

A fake because the interpreters that run it have nothing but the standard library. Real kernels are in tests/e2e.
"""

import json
import os
import signal
import socket
import sys
import threading


def serve(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def echo(connection):
    while True:
        data = connection.recv(1 << 16)
        if not data:
            return
        connection.sendall(data)


def main(path):
    signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
    with open(path, encoding="utf-8") as file:
        connection = json.load(file)
    about = {"version": list(sys.version_info[:2]), "value": os.environ.get("RK_VALUE"), "cwd": os.getcwd()}
    print(json.dumps(about), flush=True)
    print("words on stderr", file=sys.stderr, flush=True)
    if os.environ.get("RK_FAIL"):
        sys.exit(int(os.environ["RK_FAIL"]))
    for channel in ("shell", "iopub", "stdin", "control", "hb"):
        if connection["transport"] == "ipc":
            listener = socket.socket(socket.AF_UNIX)
            listener.bind("{}-{}".format(connection["ip"], connection[channel + "_port"]))
        else:
            listener = socket.socket()
            listener.bind((connection["ip"], connection[channel + "_port"]))
        listener.listen(8)
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[-1])
