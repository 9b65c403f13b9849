"""A program whose functions run on a Ray cluster that it starts: `python -m tests.adapters.ray_program FOLDER`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rh_agents import current, parallel, run_sync, tool
from rh_agents.executors.ray import RayExecutor


@tool(engine="ray")
def square(number: int) -> int:
    return number * number


@tool(engine="ray")
async def where() -> tuple[int, str]:
    await asyncio.sleep(0)
    return os.getpid(), current().address


@tool(engine="ray")
def fail(text: str) -> None:
    raise LookupError(text)


@tool(engine="ray")
def die_once(folder: str) -> tuple[int, str]:
    mark = Path(folder) / "died"
    if not mark.exists():
        mark.write_text(current().idempotency_key)
        os.kill(os.getpid(), signal.SIGKILL)
    return current().attempt, current().idempotency_key


@tool(engine="ray", timeout=2)
def hang(folder: str) -> None:
    (Path(folder) / "hanging").write_text(str(os.getpid()))
    time.sleep(60)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def flow(folder: str) -> dict[str, Any]:
    async with parallel(name="numbers") as p:
        p.map(square, range(20))
        squares = [result.unwrap() for result in await p.gather()]
    error = (await fail("nothing there").outcome()).error
    attempt, key = await die_once(folder)
    timeout = (await hang(folder).outcome()).error
    hanging = int((Path(folder) / "hanging").read_text())
    deadline = time.monotonic() + 20
    while _is_alive(hanging) and time.monotonic() < deadline:  # noqa: ASYNC110 - its end sets no event here
        await asyncio.sleep(0.05)
    process, address = await where()
    return {
        "squares": squares,
        "error": repr(error),
        "attempt": attempt,
        "same key": key == (Path(folder) / "died").read_text(),
        "timeout": type(timeout).__name__,
        "is stopped": not _is_alive(hanging),
        "elsewhere": process != os.getpid(),
        "address": address,
        "asks for a token": os.environ.get("RAY_AUTH_MODE") == "token",
    }


if __name__ == "__main__":
    found = run_sync(flow, sys.argv[1], executors={"ray": RayExecutor()}, store=f"{sys.argv[1]}/runs.db", run_id="r")
    sys.stdout.write(json.dumps(found) + "\n")
