"""What goes wrong with asyncio.gather, counted: python examples/why.py

A hundred calls of a paid service, twenty at a time. Each call that is made is written to a ledger, so that nothing here
depends on what a library says of itself. First one item of the hundred is bad; then the process is killed after sixty
calls, and started again. Both are done with `asyncio.gather` and a semaphore, and with a group of this library.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from rh_agents import parallel, run, tool

ITEMS, WIDTH = 100, 20


class Service:
    """Answers after 10 ms, and wants to be paid for each call."""

    def __init__(self, ledger: Path, bad: int | None = None, dies_after: int | None = None) -> None:
        self.ledger = ledger
        self.bad = bad
        self.dies_after = dies_after

    async def ask(self, item: int) -> int:
        """An answer. The ledger knows of the call, whatever becomes of it."""
        with self.ledger.open("a") as file:
            file.write(f"{item}\n")
        await asyncio.sleep(0.01)
        if self.dies_after is not None and self.paid >= self.dies_after:
            os._exit(9)  # as kill -9, or a power cut
        if item == self.bad:
            raise ValueError(f"item {item} is bad")
        return item * item

    @property
    def paid(self) -> int:
        """How many calls were made."""
        return len(self.ledger.read_text().splitlines()) if self.ledger.exists() else 0


async def with_gather(service: Service, folder: Path) -> Sequence[object]:
    """A semaphore and a task for each item: what most people write."""
    semaphore = asyncio.Semaphore(WIDTH)

    async def one(item: int) -> int:
        async with semaphore:
            return await service.ask(item)

    return await asyncio.gather(*[one(item) for item in range(ITEMS)])


async def with_group(service: Service, folder: Path) -> Sequence[object]:
    """A group in a run that is recorded."""

    @tool
    async def ask(item: int) -> int:
        return await service.ask(item)

    async def program() -> list[object]:
        async with parallel(max_workers=WIDTH, name="items") as p:
            p.map(ask, range(ITEMS))
            return [result.result for result in await p.gather() if result.ok]

    return await run(program, store=str(folder / "runs.db"), run_id="items")


PROGRAMS: dict[str, Callable[[Service, Path], Awaitable[Sequence[object]]]] = {
    "gather and a semaphore": with_gather,
    "a recorded group": with_group,
}


async def one_bad_item(name: str, folder: Path) -> str:
    """What a program has after a failure, and what it has paid."""
    service = Service(folder / "bad", bad=40)
    try:
        got = len(await PROGRAMS[name](service, folder / "one"))
    except ValueError:
        got = 0
    seen = service.paid
    await asyncio.sleep(0.2)
    unseen = service.paid - seen
    return f"{got} answers for {service.paid} calls" + (
        f", {unseen} of them after the program had gone on" * bool(unseen)
    )


def killed_and_started_again(name: str, folder: Path) -> str:
    """What a program has paid that was killed after sixty calls and started again."""
    service = Service(folder / "killed")
    for dies_after in ("60", "never"):
        subprocess.run([sys.executable, __file__, name, str(folder), dies_after], check=False)
    return f"{service.paid} calls for {ITEMS} answers"


async def child(name: str, folder: Path, dies_after: str) -> None:
    """The program that is killed."""
    await PROGRAMS[name](
        Service(folder / "killed", dies_after=int(dies_after) if dies_after != "never" else None), folder
    )


def main() -> None:
    if len(sys.argv) == 4:
        asyncio.run(child(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
        return
    for title in ("One bad item of 100", "Killed after 60 calls, and started again"):
        print(f"{title}:")
        for name in PROGRAMS:
            with tempfile.TemporaryDirectory() as made:
                folder = Path(made)
                (folder / "one").mkdir()
                if title.startswith("One"):
                    print(f"  {name:<23} {asyncio.run(one_bad_item(name, folder))}")
                else:
                    print(f"  {name:<23} {killed_and_started_again(name, folder)}")


if __name__ == "__main__":
    main()
