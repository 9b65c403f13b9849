"""Measure what a group costs, beside what people write without one: `make bench` prints the table and keeps it.

Every figure that matters is a ratio of two things that were measured in turn, in one process and one run, because the
machines that run this are shared. Times are processor time; each cell is the median over the rounds.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
from pathlib import Path

from benchmarks import durable, lag, latency, memory, models, overhead, page, start_up, watched

README = Path(__file__).with_name("README.md")
_TABLES = re.compile(r"(<!-- tables: begin -->\n).*(<!-- tables: end -->)", re.DOTALL)


def main() -> None:
    """Run all measurements, print the tables, and put them into the README unless told otherwise."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no 100,000 items; for a first look")
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/README.md as it is")
    options = parser.parse_args()
    sections = [
        overhead.table(quick=options.quick),
        durable.table(quick=options.quick),
        memory.table(quick=options.quick),
        latency.table(),
        lag.table(quick=options.quick),
        models.table(quick=options.quick),
        page.table(quick=options.quick),
        watched.table(quick=options.quick),
        start_up.table(),
    ]
    text = "\n".join([_machine(quick=options.quick), *sections])
    sys.stdout.write(text)
    if not options.no_write and not options.quick:
        kept = README.read_text(encoding="utf-8")
        README.write_text(_TABLES.sub(lambda found: found[1] + text + found[2], kept), encoding="utf-8")


def _machine(*, quick: bool) -> str:
    command = "make bench ARGS=--quick" if quick else "make bench"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"Made by `{command}` with {python} on {platform.system()} {platform.machine()}.\n"


if __name__ == "__main__":
    main()
