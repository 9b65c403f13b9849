"""A program whose `map` is cut into shards: `python -m tests.runtime.sharded_work STORE LEDGER COUNT SHARD`.

Each call is a line in the ledger before it ends, which no crash of ours takes back.
"""

from __future__ import annotations

import asyncio
import os
import sys

from rh_agents import current, parallel, run, tool

__all__ = ["look", "work"]


def _note(*words: object) -> None:
    line = " ".join(map(str, (*words, os.getpid())))
    with open(os.environ["LEDGER"], "a", encoding="utf-8") as ledger:
        ledger.write(f"{line}\n")


@tool
async def look(number: int) -> int:
    _note("look", number, current().idempotency_key)
    return number


@tool
async def step(number: int) -> int:
    await look(number)
    await asyncio.sleep(0.02)
    _note("step", number, current().idempotency_key)
    return 2 * number


async def work(count: int, shard: int) -> int:
    where = {"shard": shard, "workers": 2} if shard else {}
    async with parallel(max_workers=5, name="items") as p:
        p.map(step, range(count), **where)  # type: ignore[call-overload]
        return sum([result.unwrap() async for result in p.stream()])


if __name__ == "__main__":
    store, os.environ["LEDGER"], count, shard = sys.argv[1:]
    sys.stdout.write(f"{asyncio.run(run(work, int(count), int(shard), store=store, run_id='monday', reuse=True))}\n")
