"""What happens when calls fail: python examples/parallel_error_handling.py

Failures are results like any other, unless you say when they should end the group; retries, timeouts and a circuit
breaker keep them rare and cheap.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from rh_agents import (
    CircuitBreaker,
    ErrorStrategy,
    GroupTimeout,
    RetryPolicy,
    TooManyFailures,
    agent,
    parallel,
    run,
    tool,
)

attempts: Counter[str] = Counter()


@tool
async def order(dish: str) -> str:
    """Some dishes never come."""
    await asyncio.sleep(0.05)
    if dish.startswith("burnt"):
        raise RuntimeError(f"the {dish.removeprefix('burnt ')} is burnt")
    return f"{dish}, please"


@tool
async def slow(dish: str, seconds: float) -> str:
    """Some take their time."""
    await asyncio.sleep(seconds)
    return dish


@tool(retry=RetryPolicy(max_attempts=3, initial_delay=0.05))
async def moody(dish: str) -> str:
    """Some come only when asked a third time."""
    attempts[dish] += 1
    if attempts[dish] < 3:
        raise ConnectionError("the cook did not listen")
    return dish


DISHES = ["soup", "burnt toast", "rice", "burnt pie", "cake"]


async def fail_slow() -> None:
    """The default: every call runs, and every result says how it went."""
    async with parallel(name="menu") as p:
        p.map(order, DISHES)
        for result in await p.gather():
            print(f"   {result.result if result.ok else result.error_message}")


async def fail_fast() -> None:
    """The first failure cancels the others, and is raised as it is."""
    menu = parallel(error_strategy=ErrorStrategy.FAIL_FAST, name="set menu")
    try:
        async with menu as p:
            p.add(slow("stew", 60))
            p.add(order("burnt toast"))
            await p.gather()
    except RuntimeError as error:
        print(f"   {error}; {menu.group.cancelled} call was cancelled, nobody waited for the stew")


async def fail_after() -> None:
    """Some failures are normal. Too many are not."""
    try:
        async with parallel(max_workers=1, fail_after=2, name="buffet") as p:
            p.map(order, DISHES * 100)
            await p.gather()
    except TooManyFailures as error:
        print(f"   {error}")
        print(f"   what had finished is not lost: {sum(result.ok for result in error.results)} dishes")


async def timeouts() -> None:
    """For each item, and for the whole group."""
    async with parallel(item_timeout=0.3, name="snacks") as p:
        p.add(slow("nuts", 0.01))
        p.add(slow("fondue", 60))
        for result in await p.gather():
            print(f"   {result.result if result.ok else result.error_message}")
    try:
        async with parallel(timeout=0.3, name="lunch break") as p:
            p.add(slow("nuts", 0.01))
            p.add(slow("fondue", 60))
            await p.gather()
    except GroupTimeout as error:
        print(f"   {error}")


async def retries() -> None:
    """`retry=` on the tool, or for all members of a group."""
    async with parallel(name="moods") as p:
        p.map(moody, ["pasta", "salad"])
        for result in await p.gather():
            print(f"   {result.unwrap()} came at attempt {result.attempts}")


async def circuit_breaker() -> None:
    """After three failures in a row nobody asks for a while; then one probe shows whether all is well again."""
    breaker = CircuitBreaker(failure_threshold=3, reset_timeout=0.2, name="kitchen")
    async with parallel(max_workers=1, breaker=breaker, name="queue") as p:
        for number in range(1, 6):
            p.add(order(f"burnt pancake {number}"))
        for result in await p.gather():
            print(f"   asked {result.attempts} time(s): {result.error_message}")
        await asyncio.sleep(0.2)
        p.add(order("fresh pancake"))
        probe = (await p.gather())[-1]
    print(f"   after a while: {probe.unwrap()}; the breaker is {breaker.state.value}")


@agent
async def tour() -> None:
    """All of them in a row."""
    parts: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        ("FAIL_SLOW gives every result", fail_slow),
        ("FAIL_FAST ends at the first failure", fail_fast),
        ("fail_after=2 ends at the second", fail_after),
        ("Timeouts", timeouts),
        ("Retries", retries),
        ("A circuit breaker", circuit_breaker),
    ]
    for number, (title, part) in enumerate(parts, 1):
        print(f"{number}. {title}:")
        await part()


if __name__ == "__main__":
    asyncio.run(run(tour))
