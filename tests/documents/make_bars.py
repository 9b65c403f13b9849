"""Makes docs/pictures/bars.svg, what `ParallelEventPrinter` draws: `python -m tests.documents.make_bars`."""

from __future__ import annotations

import asyncio
import io
import random
import re
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from rh_agents import ExecutionState, agent, parallel, tool
from rh_agents.display.board import Board
from rh_agents.display.rows import board_rows

PICTURE: Final = Path(__file__).parents[2] / "docs" / "pictures" / "bars.svg"
WIDTH, HEIGHT = 96, 9
CHANCE: Final = random.Random(3)


@tool(retry=3)
async def read(book: str) -> int:
    """The letters of a book, in most cases."""
    await asyncio.sleep(0.02 + CHANCE.random() * 0.1)
    if CHANCE.random() < 0.02:
        raise ValueError(f"a page of {book} is missing")
    return len(book)


@agent
async def shelf(subject: str, books: int) -> int:
    """All books of a shelf."""
    async with parallel(max_workers=12, name=subject) as p:
        p.map(read, [f"{subject} {number}" for number in range(books)], name=str)
        return sum(result.ok for result in await p.gather())


async def library() -> None:
    """Three shelves side by side."""
    async with parallel(max_workers=3, name="library") as p:
        for subject, books in (("history", 400), ("physics", 250), ("poetry", 700)):
            p.add(shelf(subject, books), name=subject)
        await p.gather()


async def main() -> None:
    """Draw what is seen two seconds after the beginning."""
    board = Board()
    async with ExecutionState() as state:
        state.event_bus.subscribe(lambda event: void(board.apply(event, time.monotonic())))
        task = asyncio.create_task(library())
        await asyncio.sleep(2)
        rows = board_rows(board, time.monotonic(), WIDTH, HEIGHT)
        await task
    console = Console(record=True, width=WIDTH + 2, file=io.StringIO(), force_terminal=True)
    for row in rows:
        console.print(row)
    drawn = console.export_svg(title="python library.py")
    PICTURE.parent.mkdir(exist_ok=True)
    without_fonts = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # they would come from elsewhere
    PICTURE.write_text("\n".join(line.rstrip() for line in without_fonts.splitlines()) + "\n", encoding="utf-8")


def void(_: object) -> None:
    """What a subscriber gives back."""


if __name__ == "__main__":
    asyncio.run(main())
