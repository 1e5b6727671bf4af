"""Break a kernel's connection every few seconds for some minutes, and count what is lost and what grows.

A cell prints numbers without pause while requests go round on the control channel; the connection is cut, frozen
or taken away in turn. At the end: numbers lost or out of order, requests unanswered, and how memory and open
descriptors of the launcher and the agent have moved.

    python -m tests.soak --minutes 60 --every 20
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from pathlib import Path

import psutil
from jupyter_client.blocking.client import BlockingKernelClient

from tests.support.account import remote_account
from tests.support.ends import agent_of, kernels_on, launcher_of, log_of, nothing_there
from tests.support.interpreters import KERNEL, environment
from tests.support.isolation import isolated_environment
from tests.support.kernels import options_for, running_kernel
from tests.support.relay import Relay, relay_to
from tests.support.servers import Server, running_servers

PRINT = """
import time
n, until = 0, time.time() + {seconds}
while time.time() < until:
    print(n, flush=True)
    n += 1
    time.sleep(0.02)
"""


class Tally:
    """What has come through so far."""

    def __init__(self) -> None:
        self.numbers = self.lost = self.requests = self.unanswered = 0
        self.longest = 0.0
        self.sizes: list[tuple[int, ...]] = []


def read(client: BlockingKernelClient, request: str, tally: Tally, patience_seconds: float) -> None:
    """Read the cell's output to its idle, and count numbers that do not follow their predecessor."""
    rest = ""
    while True:
        message = client.get_iopub_msg(timeout=patience_seconds)
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "stream":
            *lines, rest = (rest + message["content"]["text"]).split("\n")
            for line in lines:
                tally.lost += int(line) != tally.numbers
                tally.numbers += 1
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return


def ask(client: BlockingKernelClient, done: threading.Event, tally: Tally) -> None:
    """Send one request after the other on the control channel."""
    while not done.wait(0.05):
        started = time.monotonic()
        tally.requests += 1
        client.session.send(client.control_channel.socket, "kernel_info_request")
        try:
            client.get_control_msg(timeout=90)
        except Exception as error:
            print(f"no answer: {error!r}", flush=True)
            tally.unanswered += 1
        tally.longest = max(tally.longest, time.monotonic() - started)


def disturb(target: Server, relay: Relay, chance: random.Random) -> str:
    """Break the connection in one of the ways there are."""
    way = chance.choices(["cut", "reset", "away", "freeze"], [4, 4, 2, 1])[0]
    if way == "cut":
        target.kill_sessions()
    elif way == "reset":
        relay.cut()
    elif way == "away":
        target.stop()
        target.kill_sessions()
        time.sleep(chance.uniform(0, 5))
        target.start()
    else:
        relay.freeze()
        time.sleep(18)
        relay.thaw()
    return way


def sizes(*processes: psutil.Process) -> tuple[int, ...]:
    """Give resident kilobytes and open descriptors of each."""
    return tuple(n for p in processes for n in (p.memory_info().rss >> 10, p.num_fds()))


def soak(minutes: float, every: float, seed: int) -> int:
    """Run; print the figures; give the exit status."""
    chance, tally, done = random.Random(seed), Tally(), threading.Event()
    disturbances: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        isolated_environment() as isolation,
        remote_account() as account,
        running_servers(account, isolation.marker) as servers,
        relay_to(servers.target, servers.ssh_config, Path(folder)) as (relay, config),
    ):
        target = servers.target
        options = options_for("target", config, environment(*KERNEL))
        with running_kernel(Path(folder), options) as (manager, client):
            launcher, agent = launcher_of(manager), agent_of(kernels_on(target)[0])
            request = client.execute(PRINT.format(seconds=minutes * 60))
            reader = threading.Thread(target=read, args=(client, request, tally, 120))
            asker = threading.Thread(target=ask, args=(client, done, tally))
            reader.start()
            asker.start()
            until = time.monotonic() + minutes * 60
            while time.monotonic() < until:
                way = disturb(target, relay, chance)
                disturbances[way] = disturbances.get(way, 0) + 1
                time.sleep(chance.uniform(0.5, 1.5) * every)
                tally.sizes.append(sizes(launcher, agent))
            reader.join(180)
            done.set()
            asker.join(100)
            again = log_of(manager).count("again after")
            tally.sizes.append(sizes(launcher, agent))
            stuck = reader.is_alive()
        orphans = not nothing_there(target)
    print(f"disturbances {disturbances}, reconnections {again}")
    print(f"numbers {tally.numbers}, lost or out of order {tally.lost}{', NEVER FINISHED' if stuck else ''}")
    print(f"requests {tally.requests}, unanswered {tally.unanswered}, longest wait {tally.longest:.1f} s")
    for name, n in (("launcher", 0), ("agent", 2)):
        rss, fds = [s[n] for s in tally.sizes], [s[n + 1] for s in tally.sizes]
        print(f"{name}: {rss[0]} kB at first, {rss[-1]} at last, {max(rss)} at most; fds {fds[0]} -> {fds[-1]}")
    print("left on the remote side: " + ("SOMETHING" if orphans else "nothing"))
    return int(bool(tally.lost or tally.unanswered or stuck or orphans))


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=20, help="seconds between disturbances")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    return soak(chosen.minutes, chosen.every, chosen.seed)


if __name__ == "__main__":
    raise SystemExit(main())
