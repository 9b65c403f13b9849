"""Watch groups run: python examples/parallel_with_printer.py [progress|realtime]

Three shelves are read side by side, each one as a group of its own inside the group "library". On every shelf one book
needs a second try, and one book of all cannot be read, which costs the others nothing. Send standard error to a file to
see what a log gets.
"""

import asyncio
import itertools
import sys

from rh_agents import RetryPolicy, parallel, run, tool
from rh_agents.bus_handlers import ParallelEventPrinter

books_begun = itertools.count()
seen: set[str] = set()


@tool(retry=RetryPolicy(max_attempts=3, initial_delay=0.4))
async def read_book(title: str) -> int:
    """The number of letters in the title, after a while."""
    await asyncio.sleep(0.1 + next(books_begun) % 7 * 0.06)
    if "torn" in title:
        raise ValueError(f"a page of {title!r} is missing")
    if "sticky" in title and title not in seen:
        seen.add(title)
        raise ConnectionError("the pages stick together")
    return len(title)


@tool
async def read_shelf(number: int) -> int:
    """The letters on one shelf; a book that cannot be read does not count."""
    titles = [f"book {number}-{place}" for place in range(10 + 4 * number)]
    titles[2] += " (sticky)"
    if number == 2:
        titles[9] += " (torn)"
    async with parallel(max_workers=3, name=f"shelf {number}") as shelf:
        for title in titles:
            shelf.add(read_book(title), name=title)
        return sum(book.unwrap() for book in await shelf.gather() if book.ok)


async def read_library() -> int:
    """The letters on all shelves."""
    async with parallel(max_workers=3, name="library") as library:
        library.map(read_shelf, range(1, 4))
        return sum(shelf.unwrap() for shelf in await library.gather())


if __name__ == "__main__":
    mode = sys.argv[1] if len(sys.argv) > 1 else None
    with ParallelEventPrinter(mode, show_timestamp=False) as printer:
        letters = asyncio.run(run(read_library, subscribers=[printer]))
    print(f"{letters} letters were read.")
    printer.print_summary()
