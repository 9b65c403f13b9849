"""Journals that earlier versions wrote: every version goes on with them, and pays for nothing that is in them."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rh_agents import ExecutionStatus, open_store, run
from rh_agents.core.errors import RunAwaiting
from rh_agents.core.ports import Store
from rh_agents.stores._sql import read_migrations
from tests.stress import databases
from tests.stress.golden.workflow import EXPECTED, approve, made, survey

GOLDEN = sorted((Path(__file__).parent / "golden").glob("schema_*.tar.gz"))


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name.partition(".")[0])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """The journal, unpacked."""
    with tarfile.open(request.param) as tar:
        tar.extractall(tmp_path, filter="data")
    made.clear()
    yield open_store(f"sqlite:///{tmp_path}/runs.db")
    assert databases.findings(databases.read_sqlite(f"{tmp_path}/runs.db")) == []


async def end_all(store: Store) -> None:
    """Execute the runs of the journal to their ends, so that the database can be judged."""
    await run(survey, [1, 2, 3], store=store, run_id="killed", retry_failed=False)
    (question,) = await store.questions("asks")
    await store.answer("asks", question.id, b"true")
    assert await run(approve, store=store, run_id="asks") is True
    assert await store.check() == []
    await store.aclose()


def test_there_is_a_golden_journal_for_every_version_of_the_schema() -> None:
    numbers = [migration.number for migration in read_migrations("sqlite")]
    assert [path.name for path in GOLDEN] == [f"schema_{number}.tar.gz" for number in numbers]


def test_a_run_that_had_ended_is_replayed_without_a_call(store: Store) -> None:
    async def main() -> None:
        assert await store.check() == []
        assert await run(survey, [1, 2, 3], store=store, run_id="ended", retry_failed=False) == EXPECTED
        assert made == []
        await end_all(store)

    asyncio.run(main())


def test_failed_calls_of_a_run_that_had_ended_are_tried_again_and_only_those(store: Store) -> None:
    async def main() -> None:
        assert await run(survey, [1, 2, 3], store=store, run_id="ended") == EXPECTED
        assert made == ["classify 3"]
        await end_all(store)

    asyncio.run(main())


def test_a_run_that_was_killed_goes_on_with_the_call_that_it_was_in(store: Store) -> None:
    async def main() -> None:
        assert await run(survey, [1, 2, 3], store=store, run_id="killed") == EXPECTED
        assert made == ["finish"]
        await end_all(store)

    asyncio.run(main())


def test_a_question_that_was_asked_can_be_answered(store: Store) -> None:
    async def main() -> None:
        info = await store.find_run("asks")
        assert info is not None
        assert info.status is ExecutionStatus.AWAITING
        with pytest.raises(RunAwaiting):
            await run(approve, store=store, run_id="asks")
        await end_all(store)
        assert made == ["finish"], "the call before the question is not made again, but for the run that was killed"

    asyncio.run(main())


def test_everything_that_was_recorded_can_be_read(store: Store) -> None:
    async def main() -> None:
        infos = {info.run_id: info for info in await store.runs()}
        assert {name: (info.status, info.tags) for name, info in infos.items()} == {
            "ended": (ExecutionStatus.COMPLETED, ("golden",)),
            "killed": (ExecutionStatus.STARTED, ("golden",)),
            "asks": (ExecutionStatus.AWAITING, ()),
        }
        outcomes = [outcome async for outcome in store.outcomes("ended")]
        events = [recorded async for recorded in store.events("ended")]
        assert [each.sequence for each in events] == list(range(1, len(events) + 1))
        assert len(outcomes) == infos["ended"].outcomes == 14
        assert {type(outcome.error).__name__ for outcome in outcomes if outcome.error is not None} == {"Refused"}
        await end_all(store)

    asyncio.run(main())
