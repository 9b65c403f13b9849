"""Peak memory, each case in a process of its own."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks import peers

_CASES = {
    "tasks and a semaphore": ("semaphore_tasks", 100_000),
    "group, coroutines added": ("group_add", 100_000),
    "group, `map` over a function": ("group_map", 100_000),
    "recorded tool: key, events, outcome": ("recorded_tool", 100_000),
    "group, `map` streamed": ("streamed_map", 1_000_000),
}


def table(*, quick: bool) -> str:
    """What the process grew by, from after the imports to its peak."""
    lines = ["\n## Memory\n", "Growth of the process to its peak.\n", "| | items | growth |", "|---|---:|---:|"]
    for name, (case, count) in _CASES.items():
        items = count // 10 if quick else count
        lines.append(f"| {name} | {items:,} | {_growth(case, items):.1f} MB |")
    return "\n".join(lines) + "\n"


def _growth(case: str, count: int) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", case, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_megabytes() -> float:
    """Megabytes. On Linux from the process's own status, because what getrusage says is inherited from the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    run_case = getattr(peers, sys.argv[1])
    asyncio.run(run_case(100))  # what is loaded at the first use belongs to no item
    before = peak_megabytes()
    asyncio.run(run_case(int(sys.argv[2])))
    sys.stdout.write(f"{peak_megabytes() - before:.1f}\n")
