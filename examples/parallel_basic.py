"""Many calls side by side: python examples/parallel_basic.py

The three ways to get results (all at once, by name, one by one as they are completed), and `map`, which takes its items
from anything that can be iterated.
"""

import asyncio
from collections.abc import Iterator
from time import perf_counter

from rh_agents import agent, parallel, run, tool

CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Peru": "Lima"}


@tool
async def capital(country: str, seconds: float = 0.2) -> str:
    """Stands for a slow service."""
    await asyncio.sleep(seconds)
    return CAPITALS[country]


@tool
def letters(word: str) -> int:
    """A plain function: it runs in a thread, so it may block."""
    return len(word)


async def all_at_once() -> None:
    """`gather` gives the results in the order in which the calls were added."""
    begun = perf_counter()
    async with parallel(max_workers=4, name="list") as p:
        for country in CAPITALS:
            p.add(capital(country))
        results = await p.gather()
    print("1. A list:", ", ".join(result.unwrap() for result in results))
    print(f"   4 calls of 0.2 s each took {perf_counter() - begun:.1f} s.")


async def by_name() -> None:
    """`gather_dict` gives them by name. One that fails costs the others nothing."""
    async with parallel(name="dict") as p:
        p.add(capital("Japan"), name="east")
        p.add(capital("Atlantis"), name="sunk")
        p.add(capital("Peru"), name="west")
        results = await p.gather_dict()
    print("2. By name:")
    for name, result in results.items():
        print(f"   {name}: {result.result if result.ok else result.error_message}")


async def as_they_are_completed() -> None:
    """`stream` gives each result as soon as it is there."""
    async with parallel(name="stream") as p:
        for country, seconds in (("France", 0.3), ("Japan", 0.1), ("Kenya", 0.2)):
            p.add(capital(country, seconds))
        print("3. A stream:")
        async for result in p.stream():
            print(f"   {result.unwrap()} (number {result.index}) after {result.execution_time:.1f} s")


def words() -> Iterator[str]:
    """Items from anywhere: a file, a database, an endless sensor."""
    for number in range(10_000):
        yield "x" * (number % 10)


async def from_an_iterable() -> None:
    """`map` pulls an item when a worker is free for it, so that memory stays small however many there are."""
    async with parallel(max_workers=8, name="map") as p:
        p.map(capital, CAPITALS)
        total = sum([len(result.unwrap()) async for result in p.stream()])
    print(f"4. Mapped: the four capitals have {total} letters.")

    async with parallel(max_workers=8, name="letters") as p:
        p.map(letters, (word for word in words() if len(word) == 9))
        results = [result async for result in p.stream()]
    print(f"   {len(results)} words of {results[0].unwrap()} letters were counted in threads.")


@agent
async def tour() -> None:
    """A workflow is a function that calls others."""
    await all_at_once()
    await by_name()
    await as_they_are_completed()
    await from_an_iterable()


if __name__ == "__main__":
    asyncio.run(run(tour))
