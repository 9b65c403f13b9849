"""A run without what there is too much of, compared with the same made of its events one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rh_agents.core.actors import BaseActor
from rh_agents.core.events import Fact
from rh_agents.core.ports import Store
from rh_agents.core.ports.outline import RunOutline, outline_of_run
from rh_agents.core.ports.summary import summary_of_run
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
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
    async def test_a_member_of_which_there_is_more_to_say_is_given_with_all_its_events(self, store: Store) -> None:
        call = outcome(25, 25, group_id="pages")
        inner = outcome("inner", error=ValueError("oops"), address=f"{call.address}::inner", parent=call.key)
        begun, ended = fact(RUN, STARTED, call), completed(RUN, call)
        said: dict[str, list[tuple[Fact, Outcome | None]]] = {
            "nothing more": [(begun, None), (ended, call)],
            "superseded": [(begun, None), (ended, call), (fact(RUN, ExecutionStatus.SUPERSEDED, call), None)],
            "retried": [(begun, None), (fact(RUN, ExecutionStatus.RETRYING, call), None), (ended, call)],
            "begun in another group": [(begun._replace(group_id="inner"), None), (ended, call)],
            "begun again elsewhere": [(begun, None), (begun._replace(parallel_index=7), None), (ended, call)],
            "begun again afterwards": [(begun, None), (ended, call), (begun, None)],
            "with a failure below": [(begun, None), (completed(RUN, inner), inner), (ended, call)],
        }
        found = {}
        for name, its in said.items():
            journal = await store.open_run(request(name))
            journal.note(about_group(name, "pages", cast("Any", "running")))
            for number in range(30):
                plain = outcome(number, number, group_id="pages")
                usual = [(fact(name, STARTED, plain), None), (completed(name, plain), plain)]
                for told, result in its if number == 25 else usual:
                    is_numbered = told.parallel_index is None and told.group_id is not None
                    told = told._replace(run_id=name, parallel_index=number if is_numbered else told.parallel_index)
                    journal.note(told, result)
            await journal.flush()
            await journal.close(STARTED)
            outline = await outline_of_run(store, name)
            assert await _facts(outline) == await _facts(await outline_of_run(_journals_only(store), name)), name
            found[name] = any(call.key in each.all_keys() for each in outline.plain)
        assert [name for name, is_plain in found.items() if is_plain] == ["nothing more", "retried"]

    @on_an_event_loop
    async def test_calls_below_plain_members_are_left_out_with_them_unless_more_is_to_say(self, store: Store) -> None:
        outer = outcome(25, 25, group_id="pages")
        inner = outcome("inner", 1, address=f"{outer.address}::inner", parent=outer.key)
        leaf = outcome("leaf", 1, address=f"{inner.address}::leaf", parent=inner.key)
        lost = outcome("leaf", error=ValueError("oops"), address=leaf.address, parent=inner.key)
        top = outcome("top", 1, address="top")
        begun = {each.key: fact(RUN, STARTED, each) for each in (outer, inner, leaf, top)}
        retrying = fact(RUN, ExecutionStatus.RETRYING, leaf)
        said: dict[str, list[Fact | Outcome]] = {
            "nothing more": [begun[outer.key], begun[inner.key], begun[leaf.key], leaf, inner, outer],
            "retried": [begun[outer.key], begun[inner.key], begun[leaf.key], retrying, leaf, inner, outer],
            "not begun": [begun[outer.key], begun[inner.key], leaf, inner, outer],
            "failed": [begun[outer.key], begun[inner.key], begun[leaf.key], lost, inner, outer],
            "without an end": [begun[outer.key], begun[inner.key], begun[leaf.key], inner, outer],
            "ended later": [begun[outer.key], begun[inner.key], begun[leaf.key], inner, leaf, outer],
            "begun earlier": [begun[outer.key], begun[leaf.key], begun[inner.key], leaf, inner, outer],
            "begun again": [begun[outer.key], begun[inner.key], begun[leaf.key], leaf, begun[leaf.key], inner, outer],
            "below a call outside": [begun[top.key], begun[inner.key], inner._replace(parent=top.key), top],
            "below nothing": [begun[inner.key], inner._replace(parent=b"")],
        }
        found = {}
        for name, its in said.items():
            journal = await store.open_run(request(name))
            journal.note(about_group(name, "pages", cast("Any", "running")))
            for number in range(30):
                call = outcome(number, number, group_id="pages")
                for told in its if number == 25 else [fact(name, STARTED, call), call]:
                    made = told if isinstance(told, Outcome) else None
                    event = cast("Fact", told) if made is None else completed(name, made)
                    event = event._replace(run_id=name, parallel_index=None if event.group_id is None else number)
                    journal.note(event, made)
            await journal.flush()
            await journal.close(STARTED)
            outline = await outline_of_run(store, name)
            assert await _facts(outline) == await _facts(await outline_of_run(_journals_only(store), name)), name
            found[name] = sum(each.number for each in outline.below)
        assert {name: number for name, number in found.items() if number} == {
            "nothing more": 2, "retried": 2, "not begun": 2,
        }  # fmt: skip

    @on_an_event_loop
    async def test_groups_inside_of_members_are_left_out_with_them_unless_more_is_to_say(self, store: Store) -> None:
        found = {}
        for how, is_outer in product(range(10), (0, 1)):
            name = f"{how} {is_outer}"
            journal = await store.open_run(request(name))
            chosen = [Step(0, "group", group="pages"), Step(is_outer, "grouped", is_outer, how)]
            await write(journal, Written(name), chosen)
            await journal.close(STARTED)
            outline = await outline_of_run(store, name)
            assert await _facts(outline) == await _facts(await outline_of_run(_journals_only(store), name)), name
            found[name] = outline.groups_below["pages"]
        assert max(found.values()) == 9
        assert [name for name, number in found.items() if number == 9] == ["6 0", "6 1", "9 0", "9 1"]

    @on_an_event_loop
    async def test_a_call_with_another_outcome_is_given_with_the_member_that_it_is_below(self, store: Store) -> None:
        journal = await store.open_run(request())
        journal.note(about_group(RUN, "pages", cast("Any", "running")))
        for number in range(30):
            call, inner = outcome(number, group_id="pages"), _inner(number, "pages")
            journal.note(_numbered(fact(RUN, STARTED, call), number))
            journal.note(fact(RUN, STARTED, inner))
            journal.note(completed(RUN, inner), inner)
            if number not in (25, 29):
                journal.note(_numbered(completed(RUN, call), number), call)
        await journal.flush()
        await journal.close(STARTED)
        other = _inner(25, "pages", "another")
        if not await self.plant(store, completed(RUN, other), other):
            pytest.skip("plant() puts no second outcome into a journal")
        for number in (25, 29):  # the one that ended last is shown in any case
            call = outcome(number, group_id="pages")
            await self.plant(store, _numbered(completed(RUN, call), number), call)
        assert await _sequences(store) == [1, *range(2, 42), *range(102, 105), *range(117, 123)]

    @on_an_event_loop
    async def test_what_is_at_the_address_of_a_member_that_is_given_is_given_with_what_is_below_it(
        self, store: Store
    ) -> None:
        journal = await store.open_run(request())
        journal.note(about_group(RUN, "pages", cast("Any", "running")))
        for group in ("pages", "never begun"):
            for number in range(20):
                call = outcome(f"{group} {number}", group_id=group, address=f"pages[{number}]::fetch")
                inner = outcome(f"{group} inner {number}", address=f"{call.address}::inner", parent=call.key)
                journal.note(_numbered(fact(RUN, STARTED, call), number))
                journal.note(completed(RUN, inner), inner)
                journal.note(_numbered(completed(RUN, call), number), call)
        await journal.flush()
        await journal.close(STARTED)
        outline = await outline_of_run(store, RUN)
        assert await _facts(outline) == await _facts(await outline_of_run(_journals_only(store), RUN))
        assert outline.left_out == 0

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


def _inner(number: int, group: str, value: Any = None) -> Outcome:
    """A call that the member with this number made."""
    outer = outcome(number, group_id=group)
    return outcome(f"inner {number}", value, address=f"{outer.address}::inner", parent=outer.key)


def _numbered(event: Any, number: int) -> Any:
    return event._replace(parallel_index=number)


async def _sequences(store: Store) -> list[int]:
    outline = await outline_of_run(store, RUN)
    return [each.recorded.sequence async for each in outline.read(False)]


async def _facts(outline: RunOutline) -> tuple[list[Any], list[Any], dict[str, int], list[Any]]:
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
    return sorted(plain), sorted(outline.below), dict(outline.groups_below), events


def _journals_only(store: Store) -> Store:
    """The store as one that makes no outlines itself."""
    return cast("Store", SimpleNamespace(events=store.events, unread_outcomes=store.unread_outcomes))
