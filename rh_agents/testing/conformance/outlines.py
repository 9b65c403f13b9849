"""A run without what there is too much of, compared with the same made of its events one by one."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rh_agents.core.actors import BaseActor
from rh_agents.core.ports import Store
from rh_agents.core.ports.outline import RunOutline, outline_of_run
from rh_agents.core.ports.summary import summary_of_run
from rh_agents.core.usage import Usage
from rh_agents.testing._journals import Step, steps, write
from rh_agents.testing._records import (
    COMPLETED,
    FETCH,
    ODD_TEXTS,
    RUN,
    STARTED,
    Written,
    about_group,
    completed,
    fact,
    outcome,
    request,
)
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop

__all__ = ["OutlineConformance"]


class OutlineConformance(StoreSuite):
    """`outline_of_run`, with or without help of the store. Duplicates need the hook `plant`.

    Attributes:
        outlines: how many random journals are tried.
    """

    outlines: int = 40

    def test_an_outline_is_what_the_events_one_by_one_say(self) -> None:
        """Random journals."""
        self._try_examples(self.outlines, steps(), self._compare_outlines)

    async def _compare_outlines(self, run_id: str, chosen: Sequence[Step]) -> None:
        store, written = self._stores[-1], Written(run_id)
        journal = await store.open_run(request(run_id))
        await write(journal, written, chosen)
        await journal.flush()
        outline = await outline_of_run(store, run_id)
        assert outline.last == len(written.entries)
        assert await _facts(outline) == await _facts(await outline_of_run(_journals_only(store), run_id))
        await journal.close(STARTED)

    @on_an_event_loop
    async def test_members_with_nothing_to_say_are_left_out_but_for_a_few(self, store: Store) -> None:
        sequences = await self._thirty(store)
        assert sequences == [1, *range(2, 22), 60, 61]

    @on_an_event_loop
    async def test_a_member_with_another_outcome_is_given_with_all_its_events(self, store: Store) -> None:
        await self._thirty(store)
        other = outcome(25, "another", group_id="pages")
        if not await self.plant(store, _numbered(completed(RUN, other), 25), other):
            pytest.skip("plant() puts no second outcome into a journal")
        assert await _sequences(store) == [1, *range(2, 22), 52, 53, 60, 61, 62]

    @on_an_event_loop
    async def test_members_of_an_actor_stand_together_whatever_texts_it_and_they_have(self, store: Store) -> None:
        journal = await store.open_run(request())
        journal.note(about_group(RUN, "pages", cast("Any", "running")))
        kinds = [(text, version) for text in ODD_TEXTS for version in (text, "1")]
        for name, version in kinds:
            odd = BaseActor.model_construct(name=name, version=version, handler=FETCH.handler)
            for number in range(12):
                call = outcome(f"{name} {version} {number}", number, name=name, group_id="pages")
                for told in (fact(RUN, STARTED, call), completed(RUN, call)):
                    marked = told._replace(actor=odd, kind=odd.event_type).with_more(tag=f"{name} {number}")
                    journal.note(marked, call if marked.status is COMPLETED else None)
        await journal.flush()
        await journal.close(STARTED)
        outline = await outline_of_run(store, RUN)
        assert await _facts(outline) == await _facts(await outline_of_run(_journals_only(store), RUN))
        assert sorted((each.name, each.version) for each in outline.plain) == sorted(kinds)

    @on_an_event_loop
    async def test_marks_may_have_numbers_that_json_cannot_represent(self, store: Store) -> None:
        journal = await store.open_run(request())
        journal.note(about_group(RUN, "pages", cast("Any", "running")))
        for name in ("fetch", "NaN", 'score: NaN, "-Infinity": Infinity', 'a\\" NaN "'):
            actor = BaseActor.model_construct(name=name, version=f"{name}: NaN", handler=FETCH.handler)
            for number in range(12):
                call = outcome(f"{name} {number}", number, name=f"{name} {number}", group_id="pages")
                metadata = {"NaN": [float("nan"), float("-inf")], name: float("inf"), "text": f'\\"{name}\\\\'}
                marks = {"tag": name, "metadata": metadata, "usage": Usage(requests=1)}
                for told in (fact(RUN, STARTED, call), completed(RUN, call)):
                    marked = told._replace(actor=actor).with_more(**marks)
                    journal.note(marked, call if marked.status is COMPLETED else None)
        await journal.flush()
        await journal.close(STARTED)
        others = _journals_only(store)
        assert await _facts(await outline_of_run(store, RUN)) == await _facts(await outline_of_run(others, RUN))
        assert await summary_of_run(store, RUN) == await summary_of_run(others, RUN)

    async def _thirty(self, store: Store) -> list[int]:
        """A group of thirty members; the sequences of what is given by itself."""
        journal = await store.open_run(request())
        journal.note(about_group(RUN, "pages", cast("Any", "running")))
        for number in range(30):
            call = outcome(number, number, group_id="pages")
            journal.note(_numbered(fact(RUN, STARTED, call), number))
            journal.note(_numbered(completed(RUN, call), number), call)
        await journal.flush()
        await journal.close(STARTED)
        return await _sequences(store)


def _numbered(event: Any, number: int) -> Any:
    return event._replace(parallel_index=number)


async def _sequences(store: Store) -> list[int]:
    outline = await outline_of_run(store, RUN)
    return [each.recorded.sequence async for each in outline.read(False)]


async def _facts(outline: RunOutline) -> tuple[list[Any], list[Any]]:
    plain = [
        (each.group_id, each.name, each.version, each.parent, *its)
        for each in outline.plain
        for its in zip(each.all_keys(), each.begins, each.ends, each.indexes, strict=True)
    ]
    events = [
        (
            each.recorded.sequence,
            each.recorded.has_outcome,
            each.recorded.event.key,
            repr(each.recorded.event.result),
            each.outcome,
        )
        async for each in outline.read(True)
    ]
    return sorted(plain), events


def _journals_only(store: Store) -> Store:
    """The store as one that makes no outlines itself."""
    return cast("Store", SimpleNamespace(events=store.events, unread_outcomes=store.unread_outcomes))
