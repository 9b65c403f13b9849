"""A tick is green only where nothing failed: not in what ended, and not inside of it."""

from __future__ import annotations

import asyncio

from rh_agents import EventPrinter, ParallelEventPrinter, agent, parallel, run, tool
from tests.adapters.display_kit import terminal, written


@tool
async def fetch(url: str) -> str:
    if "bad" in url:
        raise ValueError("it is down")
    return url


@agent
async def crawl(urls: list[str]) -> int:
    async with parallel(name="pages") as p:
        p.map(fetch, urls)
        return sum(result.ok for result in await p.gather())


@agent
async def survey(urls: list[str]) -> int:
    return await crawl(urls)


@agent(retry=2)
async def stubborn(tries: list[int]) -> int:
    tries.append(1)
    return await crawl(["a"]) if len(tries) > 1 else len(await fetch("bad"))


async def sites() -> None:
    async with parallel(name="sites") as p:
        p.map(survey, [["a", "bad"], ["c"], ["bad", "bad"]])
        await p.gather()


def lines_of(printer: type[EventPrinter], flow: object, *args: object) -> list[str]:
    console = terminal(160)
    show = printer(console=console, show_timestamp=False)
    asyncio.run(run(flow, *args, subscribers=[show]))  # type: ignore[call-overload]
    show.close()
    return [line.strip() for line in written(console).splitlines()]


def test_what_ended_well_with_failures_inside_has_no_tick() -> None:
    lines = lines_of(EventPrinter, survey, ["a", "bad", "bad"])
    (group,) = [line for line in lines if line.startswith("✗ survey::crawl::pages ")]
    assert "1 succeeded  2 failed" in group
    for name in ("survey", "survey::crawl"):
        (line,) = [line for line in lines if line.startswith(f"! {name} ")]
        assert "2 failed inside" in line


def test_without_failures_all_ticks_are_there() -> None:
    lines = lines_of(EventPrinter, survey, ["a", "b"])
    assert [line for line in lines if line.startswith("✓ survey  completed")]
    assert not [line for line in lines if "inside" in line or line[0] in "!✗"]


def test_the_line_of_a_group_says_what_failed_in_groups_inside_of_it() -> None:
    (line,) = [line for line in lines_of(ParallelEventPrinter, sites) if "sites" in line and "3 done" in line]
    assert line.startswith("! sites")
    assert "3 failed inside" in line


def test_what_failed_in_an_attempt_that_was_made_again_does_not_count() -> None:
    lines = lines_of(EventPrinter, stubborn, [])
    assert [line for line in lines if line.startswith("↻ stubborn")]
    assert [line for line in lines if line.startswith("✓ stubborn  completed")]


def test_a_failure_that_another_one_caused_counts_once() -> None:
    @agent
    async def careful() -> str:
        try:
            return str(await broken())
        except ValueError:
            return "it did not work"

    @agent
    async def broken() -> str:
        return await fetch("bad")

    (line,) = [line for line in lines_of(EventPrinter, careful) if line.startswith("! careful ")]
    assert "1 failed inside" in line
