"""The code that the demonstration runs in the remote kernel."""

from __future__ import annotations

WHO = """\
import os, platform, pwd, socket, sys

user = pwd.getpwuid(os.getuid()).pw_name
print(f"{user} on {socket.gethostname()}: {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs")
print(f"Python {platform.python_version()}, {sys.executable}")
print("SSH_CONNECTION:", os.environ["SSH_CONNECTION"])"""

STATE = "squares = [n * n for n in range(1, 11)]"

STATE_AGAIN = "sum(squares)"

PROGRESS = """\
import math, time

for epoch in range(1, 9):
    time.sleep(0.25)
    loss = math.exp(-epoch / 4)
    print(f"epoch {epoch}/8  loss {loss:.3f}  {'#' * round(40 * loss)}")"""

LONG = """\
for epoch in range(1, 17):
    print(f"epoch {epoch}/16", flush=True)
    time.sleep(0.25)"""
LONG_LINES = 16
CUT_AFTER = "epoch 4/16"

PLOT = """\
import matplotlib.pyplot as plt
import numpy as np

x = np.linspace(0, 12, 400)
layers = [1.1 + np.sin((0.5 + 0.08 * k) * x + 1.7 * k) for k in range(8)]
figure, axes = plt.subplots(figsize=(6.4, 2.8), facecolor="#14142b")
axes.stackplot(x, layers, baseline="sym", colors=plt.cm.plasma(np.linspace(0, 1, 8)))
axes.set_axis_off()
plt.show()"""

PLOT_WITHOUT_MATPLOTLIB = """\
import math, struct, zlib
from IPython.display import Image, display

width, height, empty = 384, 168, bytes((20, 20, 43))
colours = [bytes((13 + 32 * k, 8 + 3 * k * k, 135 + 12 * k - 3 * k * k)) for k in range(8)]

def column(x):
    layers = [round(12 * (1.1 + math.sin((0.5 + 0.08 * k) * x + 1.7 * k))) for k in range(8)]
    drawn = [colour for colour, layer in zip(colours, layers) for _ in range(layer)]
    margin = [empty] * ((height - len(drawn)) // 2)
    return (margin + drawn + margin + [empty])[:height]

def chunk(kind, data):
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

columns = [column(12 * i / width) for i in range(width)]
rows = b"".join(b"\\0" + b"".join(line[j] for line in columns) for j in reversed(range(height)))
head = chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0))
png = b"\\x89PNG\\r\\n\\x1a\\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
display(Image(png))"""

ERROR = """\
def mean(values):
    return sum(values) / len(values)

mean([])"""

INTERRUPT = """\
for second in range(60):
    print(f"working, {second} s")
    time.sleep(1)"""

AFTER_INTERRUPT = "second, mean(squares)"
