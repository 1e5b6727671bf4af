"""Run the benchmarks and print a table of ratios: `python -m tests.bench [--runs N] [NAME …]`.

Every figure stands beside its reference from the same run, as medians of runs in turn; on a shared machine only
the ratio says anything. Exit status 1 when a budget is not met.
"""

from __future__ import annotations

import argparse
import sys

from tests.bench import contact, copying, footprint, recovery, resending, sessions, starting, traffic, transports
from tests.bench.world import Row, world

GROUPS = {
    "starting": starting.rows,
    "traffic": traffic.rows,
    "recovery": recovery.rows,
    "resending": resending.rows,
    "footprint": footprint.rows,
    "transports": transports.rows,
    "copying": copying.rows,
    "contact": contact.rows,
    "sessions": sessions.rows,
}


def print_row(row: Row) -> None:
    """Print one line of the table."""
    ratio = f"{row.ours / row.reference:.2f}" if row.reference else "-"
    sign = ">=" if row.least else "<="
    verdict = "met" if row.met else "NOT MET"
    print(
        f"{row.name:<52} {row.ours:>9.2f} {row.reference:>9.2f} {ratio:>6} {sign}{row.budget:>9.2f} "
        f"{row.unit:<5} {verdict}",
        flush=True,
    )


def main() -> int:
    """Run what the command line names, all of it by default."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="NAME", help=f"any of: {', '.join(GROUPS)}")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, of which the median counts (default 5)")
    arguments = parser.parse_args()
    unknown = set(arguments.groups) - set(GROUPS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(GROUPS)}")
    print(f"{'':<52} {'ours':>9} {'beside':>9} {'ratio':>6}   {'budget':>9}")
    met = True
    with world() as found:
        for name in arguments.groups or GROUPS:
            for row in GROUPS[name](found, arguments.runs):
                print_row(row)
                met = met and row.met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
