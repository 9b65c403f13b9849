"""Calls with a second outcome, put into a database by somebody else: everybody sees the run as it was before.

There is no index over keys that would refuse such a row, so whoever reads a journal has to take the first outcome of a
call: those who fold it, and those who only show, plan, export or compare.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rh_agents import Budget, BudgetExceeded, ExecutionState, agent, open_store, parallel, report_usage, run, tool
from rh_agents.cli import main
from rh_agents.core.errors import CallCancelled, StoreError
from rh_agents.core.events import Fact
from rh_agents.core.history import fact_of_event
from rh_agents.core.ports import RunRequest
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.stores._backend.rows import Batch
from rh_agents.stores._rows import encode_outcome, event_row, outcome_row
from rh_agents.stores._store import SqlStore
from rh_agents.testing._records import listed

STARTED, RETRYING = ExecutionStatus.STARTED, ExecutionStatus.RETRYING
COMPLETED, FAILED, CANCELLED = ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED
RUN = "monday"
calls: list[str] = []


@tool
async def fetch(url: str) -> str:
    calls.append(url)
    report_usage(Usage(input_tokens=10, requests=1, cost=0.5))
    if "bad" in url:
        raise ValueError(f"cannot fetch {url}")
    return url.upper()


@agent
async def survey(urls: list[str]) -> list[str | None]:
    async with parallel(name="pages") as p:
        for url in urls:
            p.add(fetch(url))
        found = [each.result for each in await p.gather()]
    return [*found, await fetch("last")]


URLS = ["one", "bad", "three"]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlStore]:
    store = open_store(url)
    assert isinstance(store, SqlStore)
    try:
        yield store
    finally:
        await store.aclose()


async def some_pages(store: SqlStore) -> list[str | None]:
    """A run that is killed when its group has ended."""
    async with ExecutionState(store=store, run_id=RUN) as state:
        async with parallel(name="pages") as p:
            p.map(fetch, URLS)
            found = [each.result for each in await p.gather()]
        await state.end(STARTED)
    return found


async def whole_survey(store: SqlStore, **options: Any) -> list[str | None]:
    return await run(survey, URLS, store=store, run_id=RUN, **options)


async def plant(store: SqlStore, fact: Fact, given: Outcome | None) -> None:
    """Add a row behind all others, as a program would that does not know that the call has an outcome."""
    run = await store.engine.read(lambda session: session.find_run(RUN))
    assert run is not None
    sequence = run.last_sequence + 1
    row = event_row(sequence, fact, None if given is None else given.error is None)
    its = [] if given is None else [outcome_row(sequence, given, row, encode_outcome(given), None, None)]
    batch = Batch(run.number, run.fence, run.last_sequence, [row], its)
    (state,) = await store.engine.writer.done(lambda session: session.write([batch], run.updated_at))
    assert state.is_ours


async def plant_others(store: SqlStore) -> int:
    """Every call begins once more, fails, and comes to another end than it has; returns how many there are."""
    outcomes = await listed(store.outcomes(RUN))
    facts = [fact_of_event(each.event) for each in await listed(store.events(RUN))]
    ends = {fact.key: fact for fact in facts if fact.seconds}
    for number, outcome in enumerate(outcomes):
        end = ends[outcome.key]
        for status in (STARTED, RETRYING):
            again = end.with_more(usage=None)._replace(status=status, attempt=7, message="once more", result=None)
            await plant(store, again, None)
        error = [None, ValueError("another end"), CallCancelled("cut off")][number % 3]
        if outcome.error is not None:
            error = None
        status = COMPLETED if error is None else CANCELLED if isinstance(error, CallCancelled) else FAILED
        other = outcome._replace(value="another" if error is None else None, error=error, made_in=(0, 5, 5))
        changed = end._replace(status=status, seconds=9.0, message="another end", attempt=9)
        await plant(store, changed._replace(timestamp=end.timestamp + 100), other)
    return len(outcomes)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RH_AGENTS_CHECK", "")  # else the database would refuse them
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs.db'}"
    return str(request.getfixturevalue("postgresql_url"))


class Seen:
    """What the commands and the readers say of a run."""

    def __init__(self, url: str, capfd: pytest.CaptureFixture[str], run_id: str = RUN) -> None:
        def output(*words: str) -> str:
            assert main([words[0], run_id, *words[1:], "--store", url]) == 0
            return capfd.readouterr().out

        self.shown = json.loads(output("show", "--json"))
        self.tree = output("show", "--all").splitlines()
        self.plan = json.loads(output("plan", "--json")) | {"run_id": RUN}
        self.kept = json.loads(output("plan", "--json", "--no-retry-failed")) | {"run_id": RUN}
        self.outcomes = output("export", "--outcomes")
        self.events = [json.loads(line) for line in output("export").splitlines()]
        self.found = asyncio.run(self._read(url, run_id))

    async def _read(self, url: str, run_id: str) -> list[str]:
        async with opened(url) as store:
            return [repr(each) for each in await listed(store.outcomes(run_id))]


Recorded = Callable[[SqlStore], Awaitable[object]]


async def written(url: str, work: Recorded) -> Any:
    async with opened(url) as store:
        return await work(store)


@pytest.mark.parametrize("work", [whole_survey, some_pages])
def test_a_run_with_planted_outcomes_is_shown_planned_and_exported_as_before(
    work: Recorded, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(written(url, work))
    before = Seen(url, capfd)
    count = asyncio.run(written(url, plant_others))
    after = Seen(url, capfd)
    assert (after.plan, after.kept) == (before.plan, before.kept)
    assert (after.outcomes, after.found) == (before.outcomes, before.found)
    assert (after.shown["tree"], after.shown["calls"]) == (before.shown["tree"], count)
    assert after.tree[-count:] == before.tree[-count:]
    old, new = after.events[: len(before.events)], after.events[len(before.events) :]
    assert old == before.events
    assert [each.get("repeated", False) for each in new] == [False, False, True] * count, "what happened is told"


def test_a_journal_with_planted_outcomes_is_folded_as_before(url: str) -> None:
    async def folded(store: SqlStore) -> dict[str, Any]:
        journal = await store.open_run(RunRequest(RUN, "me"))
        recorded = journal.recorded
        await journal.close(STARTED)
        assert len(recorded.repeated) in (0, 3)
        told = {field.name: getattr(recorded, field.name) for field in fields(recorded)}
        return {name: it for name, it in told.items() if name not in ("repeated", "events", "spent")}

    asyncio.run(written(url, some_pages))
    before = asyncio.run(written(url, folded))
    asyncio.run(written(url, plant_others))
    assert asyncio.run(written(url, folded)) == before


def test_what_was_paid_twice_is_spent_twice_wherever_that_is_said(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    asyncio.run(written(url, some_pages))
    before = Seen(url, capfd).shown["usage"]
    assert before == {"input_tokens": 30, "requests": 3, "cost": 1.5}
    asyncio.run(written(url, plant_others))
    seen = Seen(url, capfd)
    twice = {name: 2 * amount for name, amount in before.items()}
    assert (seen.shown["usage"], seen.shown["usage_by_actor"]) == (twice, {"fetch": twice})
    assert any(line.startswith("spent: 6 calls, 60 tokens, $3.0000") for line in seen.tree)

    async def resumed(store: SqlStore) -> None:
        async with ExecutionState(store=store, run_id=RUN, budget=Budget(cost=3.2)) as state:
            assert (state.spent.calls, state.spent.usage.as_json()) == (6, twice)
            await fetch("new")
            with pytest.raises(BudgetExceeded, match=r"cost=3\.2"):
                await fetch("newer")

    with pytest.raises(BudgetExceeded):
        asyncio.run(written(url, resumed))


@pytest.mark.parametrize("work", [whole_survey, some_pages])
def test_a_run_with_planted_outcomes_is_replayed_as_before_and_says_so_once(
    work: Callable[..., Awaitable[object]], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = asyncio.run(written(url, work))
    asyncio.run(written(url, plant_others))
    calls.clear()
    again = partial(work, retry_failed=False) if work is whole_survey else work
    assert asyncio.run(written(url, again)) == first
    assert calls == []
    (said,) = [record.getMessage() for record in caplog.records if "has two outcomes" in record.getMessage()]
    assert "the first one counts" in said


def test_a_run_with_planted_outcomes_is_validated_against_the_first_ones(url: str) -> None:
    asyncio.run(written(url, whole_survey))
    asyncio.run(written(url, plant_others))

    async def validated(store: SqlStore) -> None:
        options: dict[str, Any] = {"replay_mode": "validation", "budget": Budget(calls=5)}
        async with ExecutionState(store=store, run_id=RUN, **options) as state:
            await survey(URLS)
        assert state.differences == []

    asyncio.run(written(url, validated))


@pytest.mark.parametrize("work", [whole_survey, some_pages])
def test_a_copy_of_a_run_with_planted_outcomes_is_like_one_of_the_run_before(
    work: Recorded, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(written(url, work))
    asyncio.run(written(url, lambda store: store.fork_run(RUN, "before", [], [])))
    asyncio.run(written(url, plant_others))
    asyncio.run(written(url, lambda store: store.fork_run(RUN, "after", [], [])))
    before, after = (Seen(url, capfd, name) for name in ("before", "after"))
    assert (after.plan, after.kept, after.found) == (before.plan, before.kept, before.found)
    assert (after.shown["tree"], after.outcomes) == (before.shown["tree"], before.outcomes)
    assert after.shown["usage"]["cost"] == 2 * before.shown["usage"]["cost"]


def test_where_databases_are_to_hold_that_a_call_has_one_outcome_they_say_that_it_has_two(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(written(url, some_pages))
    asyncio.run(written(url, plant_others))
    monkeypatch.setenv("RH_AGENTS_CHECK", "keys")
    with pytest.raises(StoreError, match=r"there is a call that has two: `rh-agents check` names it"):
        asyncio.run(written(url, some_pages))
    assert main(["check", "--store", url]) == 1
    assert capfd.readouterr().out.count("has another outcome at event") == 3
