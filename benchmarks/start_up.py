"""How long `import rh_agents` takes, and what it does not load."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

_ROUNDS = 15
_OPTIONAL = ("anyio", "openai", "rich", "typer", "xllamacpp")


def table() -> str:
    """Wall time of a fresh interpreter, less that of one which imports nothing."""
    imports = {
        "nothing": "pass",
        "what it stands on: asyncio, Pydantic's models": "import asyncio; from pydantic import BaseModel, TypeAdapter",
        "`rh_agents`": "import rh_agents",
    }
    seconds: dict[str, list[float]] = {name: [] for name in imports}
    for _ in range(_ROUNDS):
        for name, code in imports.items():
            seconds[name].append(_run(code))
    bare = statistics.median(seconds["nothing"])
    lines = ["\n## Import\n", "| `import` | time |", "|---|---:|"]
    lines += [
        f"| {name} | {(statistics.median(times) - bare) * 1e3:.0f} ms |"
        for name, times in seconds.items()
        if name != "nothing"
    ]
    return "\n".join(lines) + f"\n\nOptional packages that `import rh_agents` loads: {_loaded()}.\n"


def _run(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def _loaded() -> str:
    code = f"import sys, rh_agents; print(', '.join(sorted(set(sys.modules) & set({_OPTIONAL!r}))) or 'none')"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
