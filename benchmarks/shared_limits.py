"""A limit that processes share: what it reaches of its number, and what one admission takes.

`python -m benchmarks.shared_limits STORE`, with a file or the URL of a PostgreSQL database that may be written to.
Four processes ask side by side under `RateLimit(requests=1000, per=1.0, shared=True)`; then one process asks for
admissions one at a time, without blocks, while 10,000 are in the window.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
import uuid
from functools import partial
from typing import Any

from rh_agents import ExecutionState, RateLimit, open_store
from rh_agents.core._limits.admission import Permits
from rh_agents.core.policies.sharing.rates import BlockReport, RateAnswer, RateAsk, ask_for_permits
from rh_agents.core.policies.sharing.windows import RateWindow

PROCESSES = 4
RATE = 1000.0
SIDE_BY_SIDE = 100
SECONDS = 6.0
WARM_UP = 2.0
IN_WINDOW = 10_000
ASKED = 200


def admitted_here(url: str, name: str, rate: float, seconds: float) -> list[float]:
    """Be admitted under the limit for so many seconds, from when a line is read; when each was admitted."""
    limit = RateLimit(requests=rate, per=1.0, name=name, shared=True)
    moments: list[float] = []
    begins = 0.0

    async def ask(state: ExecutionState) -> None:
        while time.time() < begins + seconds:
            permits = Permits(state.parts, [limit], _ignore)
            await permits.enter({"requests": 1.0})
            moments.append(time.time())
            await permits.leave({"requests": 1.0}, None)

    async def main() -> None:
        async with ExecutionState(store=url) as state:
            nonlocal begins
            print("ready", flush=True)
            sys.stdin.readline()
            begins = time.time()
            await asyncio.gather(*(ask(state) for _ in range(SIDE_BY_SIDE)))

    asyncio.run(main())
    return moments


async def _ignore(*_: object) -> None:
    """Nobody wants to know who waits."""


def reached(url: str, rate: float = RATE, processes: int = PROCESSES, seconds: float = SECONDS) -> list[list[float]]:
    """When several processes were admitted, each by itself."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.shared_limits",
        "--one",
        json.dumps([url, uuid.uuid4().hex, rate, seconds]),
    ]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, **pipes) for _ in range(processes)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [json.loads(process.communicate(timeout=120)[0]) for process in started]


def share_of(moments: list[list[float]], rate: float = RATE) -> float:
    """Which part of the rate was reached, when the first seconds are over."""
    ordered = sorted(moment for each in moments for moment in each)
    begin, end = ordered[0] + WARM_UP, min(max(each) for each in moments) - 0.2
    return sum(begin <= moment < end for moment in ordered) / (end - begin) / rate


async def admissions(url: str) -> list[float]:
    """Seconds that each of some admissions took, with many in the window."""
    store = open_store(url)
    window = RateWindow(uuid.uuid4().hex, 60.0, {"requests": 1e6})

    def step(ask: RateAsk, state: dict[str, Any], now: float) -> RateAnswer:
        return ask_for_permits(state, ask, now)

    async def say(ask: RateAsk) -> RateAnswer:
        return await store.share(f"rate:{window.name}", partial(step, ask))

    at = (await say(RateAsk(window, "p", "first", {"requests": 1.0}))).at
    used = [(at - number * 50.0 / IN_WINDOW, {"requests": 1.0}) for number in range(IN_WINDOW)]
    await say(RateAsk(window, "p", "used", reports=[BlockReport(None, used)]))
    took = []
    for number in range(ASKED):
        began = time.perf_counter()
        assert (await say(RateAsk(window, "p", str(number), {"requests": 1.0}))).count == 1
        took.append(time.perf_counter() - began)
    await store.aclose()
    return took


def main() -> None:
    """Print both."""
    if sys.argv[1] == "--one":
        print(json.dumps(admitted_here(*json.loads(sys.argv[2]))))
        return
    url = sys.argv[1]
    moments = reached(url)
    counts = ", ".join(str(len(each)) for each in moments)
    print(f"{PROCESSES} processes under {RATE:g} a second reach {share_of(moments):.1%} of it; calls of each: {counts}")
    took = asyncio.run(admissions(url))
    middle, last = statistics.median(took), sorted(took)[int(len(took) * 0.95)]
    print(f"a question with {IN_WINDOW:,} in the window: median {middle * 1e3:.2f} ms, 95 % within {last * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
