"""How long `remote_kernel sync` takes for files, beside `rsync -a` and `scp -r` on the same data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.world import ROUND_TRIP_SECONDS, Row, World, medians, timed

SMALL_FILES = 10_000
LARGE_BYTES = 2 << 30
_BLOCK = 1 << 20


def rows(world: World, runs: int) -> Iterator[Row]:
    """Measure many small files, both ways, one large one, and nothing to do; near, and small files at 50 ms."""
    runs = min(runs, 3)
    small, large = world.folder / "small", world.folder / "large"
    make_small(small, SMALL_FILES)
    make_large(large, LARGE_BYTES)
    for title, data in ((f"{SMALL_FILES:,} small files", small), (f"{LARGE_BYTES >> 30} GiB in one file", large)):
        ours, rsync, scp = medians(
            runs,
            lambda data=data: fresh(world, lambda: ours_seconds(world, "target", data)),
            lambda data=data: fresh(world, lambda: rsync_seconds(world, "target", data)),
            lambda data=data: fresh(world, lambda: scp_seconds(world, "target", data)),
        )
        yield Row(f"sync {title}, beside rsync -a", ours, rsync, rsync * 1.1, "s")
        yield Row(f"sync {title}, beside scp -r", ours, scp, max(scp, rsync * 1.1), "s")
    ours_seconds(world, "target", small)
    back = world.folder / "back"
    (world.folder / "aside").mkdir()
    ours, rsync = medians(
        runs,
        lambda: emptied(back, lambda: ours_seconds(world, "target", Path("remote:copy/small"), to=str(back))),
        lambda: emptied(back, lambda: rsync_seconds(world, "target", Path("copy/small"), str(back))),
    )
    yield Row(f"sync {SMALL_FILES:,} small files back here, beside rsync -a", ours, rsync, rsync * 1.1, "s")
    again, rsync_again = medians(
        runs, lambda: ours_seconds(world, "target", small), lambda: rsync_seconds(world, "target", small)
    )
    yield Row(f"sync {SMALL_FILES:,} unchanged files, beside rsync -a", again, rsync_again, rsync_again + 0.5, "s")
    far, rsync_far = medians(
        runs,
        lambda: fresh(world, lambda: ours_seconds(world, "far", small)),
        lambda: fresh(world, lambda: rsync_seconds(world, "far", small)),
    )
    yield Row(f"sync {SMALL_FILES:,} small files at 50 ms, beside rsync -a", far, rsync_far, rsync_far * 1.1, "s")
    # At 50 ms, one round trip for each file would be 500 s; what is pipelined costs a hundred of them at most.
    over_sftp, over_sftp_near = medians(
        runs,
        lambda: fresh(world, lambda: ours_seconds(world, "far", small, "--sftp")),
        lambda: fresh(world, lambda: ours_seconds(world, "target", small, "--sftp")),
    )
    budget = over_sftp_near + 100 * ROUND_TRIP_SECONDS
    yield Row(f"sync --sftp {SMALL_FILES:,} at 50 ms, beside none", over_sftp, over_sftp_near, budget, "s")
    for data in (small, large, back, world.folder / "aside"):
        shutil.rmtree(data)
    world.ssh("target", "rm -rf copy aside")


def make_small(folder: Path, count: int) -> None:
    """Fill a folder with small files, 100 to a folder."""
    for number in range(count):
        inner = folder / f"{number // 100:03}"
        if number % 100 == 0:
            inner.mkdir(parents=True)
        (inner / f"file{number}.py").write_bytes(os.urandom(200 + number % 4000))


def make_large(folder: Path, size: int) -> None:
    """Put one file of random bytes into a folder."""
    folder.mkdir()
    with (folder / "data").open("wb") as file:
        for _ in range(size // _BLOCK):
            file.write(os.urandom(_BLOCK))


def fresh(world: World, action: Callable[[], float]) -> float:
    """Time a copy to where nothing is.

    What was there goes aside, but for a large file: where many files were removed within the last minute, ext4 takes
    ten times as long to make new ones, and whoever comes first pays for that.
    """
    large = f"find copy -size +{LARGE_BYTES >> 21}M -delete"
    world.ssh("target", f"if [ -e copy ]; then mkdir -p aside && {large} && mv copy aside/$$; fi && mkdir copy")
    return action()


def emptied(folder: Path, action: Callable[[], float]) -> float:
    """Time a copy into an empty folder here; what was there goes aside, as in `fresh`."""
    if folder.exists():
        folder.rename(folder.parent / "aside" / str(time.monotonic_ns()))
    folder.mkdir()
    return action()


def ours_seconds(world: World, host: str, data: Path, *more: str, to: str = "remote:copy") -> float:
    """Time our command, the program's start and the login included."""
    world.cool(host)
    words = [sys.executable, "-m", "remote_kernel", "sync", host, str(data), to, "--no-ignore"]
    words += ["--ssh-config", str(world.ssh_config), *more]
    return timed(lambda: subprocess.run(words, check=True, capture_output=True, timeout=600))


def rsync_seconds(world: World, host: str, data: Path, to: str = "") -> float:
    """Time `rsync -a`, there or, with `to`, back here."""
    ends = [f"{host}:{data}", to] if to else [str(data), f"{host}:copy/"]
    words = ["rsync", "-a", "-e", f"ssh -F {world.ssh_config}", *ends]
    return timed(lambda: subprocess.run(words, check=True, capture_output=True, timeout=600))


def scp_seconds(world: World, host: str, data: Path) -> float:
    """Time `scp -r`."""
    words = ["scp", "-q", "-r", "-p", "-F", str(world.ssh_config), str(data), f"{host}:copy/"]
    return timed(lambda: subprocess.run(words, check=True, capture_output=True, timeout=600))
