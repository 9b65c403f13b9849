"""What `add` and `map` give: indexes as ever, and the way to the results of just these members."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import AsyncIterator
from typing import Any

import detangle
import pytest

from rh_agents import (
    CallCancelled,
    ErrorStrategy,
    ExecutionResult,
    ExecutionState,
    GroupTimeout,
    MemoryStore,
    TooManyFailures,
    parallel,
    tool,
)
from rh_agents.core.errors import DefinitionError, UsageError
from rh_agents.core.parallel import MemberResult
from rh_agents.core.values import encode_any
from rh_agents.core.values.inputs import canonical
from rh_agents.errors import UnreadFailures


class Broken(Exception):
    pass


@tool
async def double(number: int) -> int:
    await asyncio.sleep(1 / (abs(number) + 1))
    if number < 0:
        raise Broken(number)
    return number * 2


@tool
async def describe(number: int) -> str:
    return f"n={number}"


@tool
async def fail() -> int:
    raise Broken("on purpose")


@tool
async def never() -> int:
    await asyncio.sleep(1e6)
    return 0


def test_a_handle_is_the_index_of_its_member() -> None:
    async def main() -> None:
        async with parallel() as p:
            first, second = p.add(double(1)), p.add(describe(2))
            assert (first, second) == (0, 1)
            assert isinstance(second, int)
            assert {1: "b"}[second] == "b"
            assert json.dumps([first, second]) == "[0, 1]"
            assert f"{second}" == "1"
            assert repr(second) == "<member 1 of group 'parallel'>"
            assert type(pickle.loads(pickle.dumps(second))) is int
            assert type(copy.copy(second)) is int
            assert type(second.index) is int
            results = await p.gather()
            assert results[second].result == "n=2"

    detangle.run(main)


def test_members_of_different_kinds_are_awaited_by_their_handles() -> None:
    async def main() -> None:
        async with parallel(max_workers=1) as p:
            number, text = p.add(double(2)), p.add(describe(3))
            assert await text == "n=3"
            assert await number == 4
            later = p.add(lambda: double(5))
            assert await later == 10
            assert (await later.outcome()).attempts == 1
        assert (number.result(), await text) == (4, "n=3")

    detangle.run(main)


def test_a_handle_raises_what_its_member_raised_and_that_counts_as_read() -> None:
    async def main() -> None:
        async with parallel() as p:
            broken, good = p.add(fail()), p.add(double(1))
            with pytest.raises(Broken, match="on purpose"):
                await broken
            assert await good == 2
        with pytest.raises(Broken):
            broken.result()

    detangle.run(main)


def test_a_failure_that_no_handle_was_asked_for_is_still_unread() -> None:
    async def main() -> None:
        with pytest.raises(UnreadFailures, match="1 of 2 calls"):
            async with parallel() as p:
                p.add(fail())
                assert await p.add(double(1)) == 2

    detangle.run(main)


def test_a_failure_given_by_outcome_counts_as_read() -> None:
    async def main() -> None:
        async with parallel() as p:
            result = await p.add(fail()).outcome()
            assert not result.ok

    detangle.run(main)


def test_a_result_that_is_not_there_yet_says_what_to_await() -> None:
    async def main() -> None:
        async with parallel() as p:
            handle = p.add(double(1))
            with pytest.raises(UsageError, match=r"has no result yet: `await` its handle"):
                handle.result()
            await p.gather()
            assert handle.result() == 2

    detangle.run(main)


def test_a_member_that_was_cancelled_with_its_group_has_no_result() -> None:
    async def main() -> None:
        async with parallel(max_workers=1) as p:
            running, waiting = p.add(never()), p.add(double(1))
            await asyncio.sleep(1)
            p.cancel()
            with pytest.raises(CallCancelled, match="member 0 of group 'parallel'"):
                await running
        with pytest.raises(CallCancelled, match="never began"):
            waiting.result()
        with pytest.raises(CallCancelled):
            await waiting

    detangle.run(main)


def test_a_group_that_ends_early_says_so_to_whoever_awaits_a_handle() -> None:
    async def fast() -> None:
        async with parallel(error_strategy=ErrorStrategy.FAIL_FAST) as p:
            waits = p.add(never())
            p.add(fail())
            await waits

    async def late() -> None:
        async with parallel(timeout=5) as p:
            await p.add(never())

    async def many() -> None:
        async with parallel(fail_after=1) as p:
            waits = p.add(never())
            p.add(fail())
            await waits

    for main, error in ((fast, Broken), (late, GroupTimeout), (many, TooManyFailures)):
        with pytest.raises(error):
            detangle.run(main)


def test_a_member_must_not_wait_for_another_one() -> None:
    async def main() -> None:
        async with parallel(max_workers=1) as p:

            async def ask() -> int:
                await asyncio.sleep(0)  # an eager task is here before there is another member
                return await other

            asking = p.add(ask)
            other = p.add(double(1))
            with pytest.raises(UsageError, match="it would wait for itself"):
                await asking

    detangle.run(main)


def test_results_of_map_know_their_items() -> None:
    async def main() -> None:
        async with parallel() as p:
            doubled = p.map(double, [3, -1, 1])
            results = await doubled
            assert [(each.item, each.index, each.result) for each in results] == [(3, 0, 6), (-1, 1, None), (1, 2, 2)]
        async with parallel() as p:
            p.map(double, [3, 1])
            p.add(double(7))
            assert [each.item for each in await p.gather()] == [3, 1, None]
        async with parallel() as p:
            p.map(double, [3, 1])
            assert sorted([each.item async for each in p.stream()]) == [1, 3]

    detangle.run(main)


def test_the_handle_of_a_map_gives_its_items_alone() -> None:
    async def more() -> AsyncIterator[int]:
        yield 10
        yield 11

    async def main() -> None:
        async with parallel(max_workers=2) as p:
            first = p.map(double, iter([3, 1]))
            p.add(double(5))
            second = p.map(describe, more())
            assert [each.result for each in await first] == [6, 2]
            assert [each.result for each in await second] == ["n=10", "n=11"]

    detangle.run(main)


def test_failures_beside_a_map_are_not_read_with_it() -> None:
    async def main() -> None:
        with pytest.raises(UnreadFailures, match="1 of 3 calls"):
            async with parallel() as p:
                doubled = p.map(double, [-1, 1])
                p.add(fail())
                assert [each.ok for each in await doubled] == [False, True]

    detangle.run(main)


def test_an_iterable_that_raises_is_the_last_result_of_its_map() -> None:
    def numbers() -> Any:
        yield 1
        raise Broken("no more")

    async def main() -> None:
        async with parallel() as p:
            good, bad = await p.map(double, numbers())
            assert (good.item, good.result) == (1, 2)
            assert (bad.item, type(bad.error)) == (None, Broken)

    detangle.run(main)


def test_the_stream_of_a_map_gives_its_items_as_they_come_or_in_their_order() -> None:
    async def main() -> None:
        for ordered, expected in ((False, [9, 4, 0]), (True, [0, 4, 9])):
            async with parallel() as p:
                doubled = p.map(double, [0, 4, 9])
                assert [each.item async for each in doubled.stream(ordered=ordered)] == expected

    detangle.run(main)


def test_the_stream_of_a_map_refuses_other_members() -> None:
    async def before() -> None:
        async with parallel() as p:
            p.add(double(1))
            p.map(double, [2]).stream()

    async def beside() -> None:
        async with parallel() as p:
            doubled = p.map(double, [2])
            p.map(double, [3])
            doubled.stream()

    async def later() -> None:
        async with parallel() as p:
            async for _ in p.map(double, [2]).stream():
                p.add(double(1))

    for main in (before, beside, later):
        with pytest.raises(UsageError, match=r"p\.stream\(\)"):
            detangle.run(main)


def test_a_text_is_no_list_of_items() -> None:
    async def main() -> None:
        async with parallel() as p:
            with pytest.raises(DefinitionError, match=r"write map\(describe, \['abc'\]\), or list\('abc'\)"):
                p.map(describe, "abc")  # type: ignore[arg-type]
            with pytest.raises(DefinitionError, match="one text"):
                p.map(describe, b"abc")

    detangle.run(main)


def test_handles_give_recorded_results_when_the_run_is_executed_again() -> None:
    store, made = MemoryStore(), []

    @tool
    async def work(number: int) -> int:
        made.append(number)
        if number < 0:
            raise Broken(number)
        return number

    async def main() -> None:
        async with (
            ExecutionState(store=store, run_id="r", retry_failed=False),
            parallel(max_workers=2) as p,
        ):
            one, bad = p.add(work(1)), p.add(work(-1))
            with pytest.raises(Broken):
                await bad
            two = p.add(work(await one + 1))
            assert await two == 2
            items = p.map(work, [5, 6])
            assert [(each.item, each.result) for each in await items] == [(5, 5), (6, 6)]

    detangle.run(main)
    detangle.run(main)
    assert sorted(made) == [-1, 1, 2, 5, 6]


def test_an_item_changes_neither_what_is_recorded_of_a_result_nor_its_key() -> None:
    async def main() -> None:
        async with parallel() as p:
            (result,) = await p.map(double, [3])
        assert result.item == 3
        plain = without_item(result)
        assert plain.item is None
        assert result == plain
        assert encode_any(result) == encode_any(plain)
        assert canonical(result) == canonical(plain)
        assert "item" not in result.model_dump()
        assert "item" not in repr(result)

    detangle.run(main)


def test_an_index_is_recorded_as_the_plain_number_that_it_always_was() -> None:
    @tool
    async def same(number: int) -> int:
        return number

    async def main() -> None:
        async with ExecutionState(store=MemoryStore()), parallel() as p:
            first = p.add(double(4))
            assert await same(first) == 0
            assert canonical([first]) == canonical([0])
            assert encode_any({"index": first}) == encode_any({"index": 0})
            await p.gather()

    detangle.run(main)


def without_item(result: ExecutionResult[Any]) -> ExecutionResult[Any]:
    """The same without its item."""
    other = result.model_copy()
    del other.__dict__["item"]
    return other


def test_the_type_of_a_result_can_be_written_in_annotations_that_are_read() -> None:
    assert MemberResult[int, str] is ExecutionResult[int]
    assert MemberResult[int] is ExecutionResult[int]
