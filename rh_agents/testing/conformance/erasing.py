"""Erasing the contents of a run, while its counts stay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

import pytest

from rh_agents.core._limits.steering import control_fact
from rh_agents.core.errors import RecordedError, RunIsLive, ValuesErased
from rh_agents.core.groups import EndingCause, GroupEnding, GroupStatus
from rh_agents.core.ports import CacheEntry, Question, Store
from rh_agents.core.ports.keeping import Erasing, erase_values_of_run, erasure_of
from rh_agents.core.ports.outline import outline_of_run
from rh_agents.core.ports.summary import summary_of_run
from rh_agents.core.results import Outcome
from rh_agents.core.usage import Usage
from rh_agents.core.values import encode
from rh_agents.testing._records import (
    COMPLETED,
    RETRYING,
    RUN,
    STARTED,
    Written,
    about_group,
    completed,
    fact,
    found_run,
    key,
    listed,
    outcome,
    request,
)
from rh_agents.testing.conformance.suite import StoreSuite, expect_refusals, on_an_event_loop, written_run

__all__ = ["ErasingConformance"]

SECRET = "the name of a patient"
"""Stands in everything that has contents."""


class ErasingConformance(StoreSuite):
    """`erase_values`: contents go, counts stay, and nothing is taken for damage. Skipped for stores that cannot."""

    operations: ClassVar[tuple[str, ...]] = ()

    @on_an_event_loop
    async def test_only_a_run_that_is_there_and_not_executed_is_erased(self, store: Store) -> None:
        _expect_able(store)
        await expect_refusals(store, lambda: erase_values_of_run(store, RUN))

    @on_an_event_loop
    async def test_a_run_that_is_executed_keeps_its_values(self, store: Store) -> None:
        _expect_able(store)
        journal, written = await store.open_run(request()), Written(RUN)
        await written.call(journal, outcome(1, "kept"))
        with pytest.raises(RunIsLive, match=RUN):
            await erase_values_of_run(store, RUN)
        await written.check_journal(journal)
        await journal.close(COMPLETED)
        assert erasure_of(await found_run(store, RUN)) is None

    @on_an_event_loop
    async def test_contents_go_and_counts_stay(self, store: Store) -> None:
        _expect_able(store)
        await _write(store)
        before = await found_run(store, RUN)
        summary, outline = await summary_of_run(store, RUN), await outline_of_run(store, RUN)
        events = [each.event for each in await listed(store.events(RUN))]
        assert SECRET in repr(events)
        erased = await erase_values_of_run(store, RUN)
        assert erased.values == 4

        info = await found_run(store, RUN)
        assert erasure_of(info) is not None
        assert (info.input, info.reason) == (None, None)
        for name in ("status", "epoch", "workflow", "input_digest", "tags", "created_at", "ended_at", "outcomes"):
            assert getattr(info, name) == getattr(before, name), name
        found = await summary_of_run(store, RUN)
        assert (found.actors, found.groups, found.outcomes, found.usage) == (
            summary.actors, summary.groups, summary.outcomes, summary.usage,
        )  # fmt: skip
        assert (await outline_of_run(store, RUN)).plain == outline.plain
        left = [each.event for each in await listed(store.events(RUN))]
        for old, new in zip(events, left, strict=True):
            assert (old.execution_status, old.name, old.address, old.key, old.timestamp, old.usage, old.tag) == (
                new.execution_status, new.name, new.address, new.key, new.timestamp, new.usage, new.tag,
            )  # fmt: skip
        assert "Zoe" not in repr(left), "reasons of people go as well"
        assert SECRET not in repr([info, left, await listed(store.outcomes(RUN, unknown_ok=True))])
        assert await store.questions(RUN, is_open=False) == []
        assert await store.check() == []

    @on_an_event_loop
    async def test_of_an_error_its_class_is_left(self, store: Store) -> None:
        _expect_able(store)
        await _write(store)
        await erase_values_of_run(store, RUN)
        found = {each.key: each for each in await listed(store.outcomes(RUN, unknown_ok=True))}
        error = found[key(2)].error
        assert isinstance(error, RecordedError)
        assert (str(error), error.kind) == ("", "ValueError")
        messages = {each.event.message for each in await listed(store.events(RUN))}
        assert {"ValueError", "KeyError"} <= messages
        assert repr(found[key(1)].value) == "<erased>"

    @on_an_event_loop
    async def test_no_value_is_given_any_more_and_nothing_goes_on_with_what_is_left(self, store: Store) -> None:
        _expect_able(store)
        await _write(store)
        await erase_values_of_run(store, RUN)
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda: store.open_run(request()),
            lambda: store.supersede(RUN, [key(1)]),
            lambda: store.fork_run(RUN, "copy", [], []),
            lambda: listed(store.outcomes(RUN)),
        ]
        for attempt in attempts:
            with pytest.raises(ValuesErased, match="erased"):
                await attempt()
        for unread in await listed(store.unread_outcomes(RUN)):
            with pytest.raises(ValuesErased):
                unread.read()
        assert await store.find_run("copy") is None
        assert (await found_run(store, RUN)).owner is None

    @on_an_event_loop
    async def test_copies_other_runs_and_what_only_they_have_in_the_cache_stay(self, store: Store) -> None:
        _expect_able(store)
        written = await _write(store)
        other = await written_run(store, 1, run_id="other")
        await store.fork_run(RUN, "copy", [], [])
        for number, (value, run_id) in enumerate([(SECRET, None), ("other", None), ("mine", RUN)]):
            await store.put_cached(CacheEntry(key(number), encode(value), "fetch", 1.0, None, run_id))
        assert (await erase_values_of_run(store, RUN)).cached == 1
        kept = [await store.find_cached(key(number), now=2.0) for number in range(3)]
        assert [entry is not None for entry in kept] == [False, True, False]
        copied = [(given._replace(run_id="copy"), result) for given, result in written.entries]
        await Written("copy", copied).check(store)
        await other.check(store)

    @on_an_event_loop
    async def test_erasing_once_more_changes_nothing_and_a_run_without_values_can_be_deleted(
        self, store: Store
    ) -> None:
        _expect_able(store)
        await _write(store)
        await erase_values_of_run(store, RUN)
        before = await found_run(store, RUN), [each.event for each in await listed(store.events(RUN))]
        again = await erase_values_of_run(store, RUN)
        assert (again.values, again.cached, again.artifacts) == (0, 0, 0)
        after = await found_run(store, RUN), [each.event for each in await listed(store.events(RUN))]
        assert erasure_of(before[0]) == erasure_of(after[0])
        assert repr(before) == repr(after)
        await store.delete_run(RUN)
        assert await store.find_run(RUN) is None
        await written_run(store, 1)

    @on_an_event_loop
    async def test_an_empty_run_is_erased_too(self, store: Store) -> None:
        _expect_able(store)
        await (await store.open_run(request(input=encode(SECRET)))).close(STARTED)
        assert (await erase_values_of_run(store, RUN)).values == 0
        with pytest.raises(ValuesErased):
            await store.open_run(request())

    @on_an_event_loop
    async def test_large_values_go_unless_another_run_has_them(self, store: Store) -> None:
        _expect_able(store)
        journal = await store.open_run(request())
        for number, value in enumerate(["x" * 100_000, "y" * 100_000]):
            await journal.append(completed(RUN, outcome(number, value)), outcome(number, value))
        await journal.close(COMPLETED)
        await store.fork_run(RUN, "copy", [key(0)], [])
        await erase_values_of_run(store, RUN)
        (kept,) = await listed(store.outcomes("copy"))
        assert kept.value == "y" * 100_000
        assert await store.check() == []
        assert await store.collect_garbage(min_age=0.0) == 0, "what nobody uses was deleted"


def _expect_able(store: Store) -> None:
    if not isinstance(store, Erasing):
        pytest.skip("the store cannot erase values")


async def _write(store: Store) -> Written:
    """A run with `SECRET` wherever contents can be."""
    written = Written(RUN)
    journal = await store.open_run(
        request(
            workflow="survey", input=encode(SECRET), input_digest=key("input"), tags=("night",),
            facts={"command": f'["run", "{SECRET}"]'},
        )
    )  # fmt: skip
    usage = Usage(input_tokens=10, requests=1, cost=0.5)
    first: Outcome = outcome(1, SECRET, group_id="pages", usage=usage)
    await written.append(journal, fact(RUN, STARTED, first))
    ended = fact(RUN, COMPLETED, first, result=SECRET, usage=usage, metadata={"who": SECRET}, tag="kept")
    await written.append(journal, ended, first)
    failed = outcome(2, error=ValueError(SECRET), group_id="pages")
    await written.append(journal, fact(RUN, RETRYING, failed, message=f"KeyError: {SECRET}", attempt=1))
    await written.call(journal, failed)
    await written.call(journal, outcome(3, [SECRET] * 10_000))
    await written.call(journal, outcome(4, None))
    ending = GroupEnding(cause=EndingCause.LEFT, outcomes=2, message=f"ValueError: {SECRET}")
    await written.append(journal, about_group(RUN, "pages", GroupStatus.RUNNING, ending))
    refused = {
        "id": "1",
        "verb": "pause",
        "arguments": {},
        "author": "ann",
        "asked_at": 1.0,
        "answer": {"refused": "it had ended"},
    }
    await written.append(journal, control_fact(refused, "Zoe: it is late", RUN, 2.0))
    await journal.ask(Question(RUN, "q", "survey", f"Is it {SECRET}?", asked_at=1.0))
    await store.answer(RUN, "q", encode(SECRET), by="somebody")
    await journal.close(COMPLETED, SECRET)
    return written
