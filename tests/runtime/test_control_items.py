"""Making failed calls of a run again, and cancelling members by name, while it is executed and between executions."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rh_agents import (
    ConcurrencyLimit,
    ErrorStrategy,
    EventType,
    ExecutionState,
    ReplayMode,
    agent,
    parallel,
)
from rh_agents.core.errors import ControlRefused, RunStopped
from rh_agents.core.plan import Fate
from rh_agents.core.ports.control import RunControl, Verb
from tests.properties.virtual import run_virtually
from tests.runtime.steering_kit import control, controls, later, planned
from tests.runtime.worlds import RUN, Crash, KeepingStore, World, crash


@pytest.fixture
def world() -> World:
    return World()


def read(results: list[Any]) -> list[Any]:
    return [result.result if result.ok else type(result.error).__name__ for result in results]


async def pages(fetch: Any, items: Any, **options: Any) -> list[Any]:
    async with parallel(name="pages", **options) as p:
        p.map(fetch, list(items) if isinstance(items, str) else items, name=str)
        return read(await p.gather())


async def pages_with_errors(fetch: Any, items: Any) -> list[str | None]:
    async with parallel(name="pages") as p:
        p.map(fetch, list(items) if isinstance(items, str) else items, name=str)
        return [result.error_message for result in await p.gather()]


async def streamed(fetch: Any, items: Any, **options: Any) -> list[Any]:
    async with parallel(name="pages", **options) as p:
        p.map(fetch, list(items) if isinstance(items, str) else items, name=str)
        return read([result async for result in p.stream()])


# -- requeue ----------------------------------------------------------------------------------------------------------


def test_a_failure_that_the_program_has_not_received_is_replaced(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"slow": 10}

    async def main() -> None:
        async def mend() -> Any:
            world.down = []
            return await control(world).requeue(failed=True)

        async with world.again():
            asked = later(2, mend)
            assert await pages(fetch, ["a", "b", "slow"]) == ["a", "b", "slow"]
            (result,) = await asked
        assert (result.calls, result.text) == (1, "1 now, 0 at the next start")
        assert world.forget() == ["a", "b", "a", "slow"]
        async with world.again(retry_failed=False):
            assert await pages(fetch, ["a", "b", "slow"]) == ["a", "b", "slow"]
        assert world.calls == []

    run_virtually(main)


def test_a_failure_of_what_an_earlier_execution_had_cut_off_is_replaced(world: World) -> None:
    """It is made again because its group has other members now, so that it does not end as it did."""
    fetch = world.make_fetch()
    world.seconds = {"slow": 10}

    async def ended_early() -> None:
        async with parallel(name="pages") as p:
            p.map(fetch, ["a", "b"], name=str)
            await asyncio.sleep(0.5)
            p.cancel()
            assert await p.gather() == []

    async def main() -> None:
        async def mend() -> Any:
            world.down = []
            return await control(world).requeue(["b"])

        await crash(world.again(), ended_early)
        world.down = ["b"]
        async with world.again():
            asked = later(2, mend)
            assert await pages(fetch, ["b", "slow"]) == ["b", "slow"]
            (result,) = await asked
        assert result.text == "1 now, 0 at the next start"
        assert world.forget() == ["b", "b", "slow"]
        async with world.again(retry_failed=False):
            assert await pages(fetch, ["b", "slow"]) == ["b", "slow"]
        assert world.calls == []

    run_virtually(main)


def test_what_the_program_has_received_is_for_the_next_start_with_the_calls_around_it(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["a"]

    @agent
    async def survey() -> list[Any]:
        return await pages(fetch, "ab")

    async def main() -> None:
        async with world.again():
            assert await survey() == ["ConnectionError", "b"]
            result = await control(world).requeue(["a"])
            assert result.text == "0 now, 1 at the next start"
            with pytest.raises(ControlRefused, match="nothing is left to be made again"):
                await control(world).requeue(["a"])
        fates = await planned(world.store)
        assert fates["survey"] is fates["survey::pages[0]::a"] is Fate.SUPERSEDED, fates
        assert fates["survey::pages[1]::b"] is Fate.REUSED
        world.down = []
        world.forget()
        async with world.again(retry_failed=False):
            assert await survey() == ["a", "b"]
        assert world.forget() == ["a"]
        async with world.again(retry_failed=False):
            assert await survey() == ["a", "b"]
        assert world.calls == []

    run_virtually(main)


def test_a_stream_is_given_only_what_replaced_a_failure_in_every_execution(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["b"], {"a": 1, "b": 1, "c": 5}

    async def main() -> None:
        async def mend() -> Any:
            world.down = []
            return await control(world).requeue(["b"])

        async with world.again():
            asked = later(1.5, mend)
            async with parallel(name="pages") as p:
                p.map(fetch, list("abc"), name=str)
                stream = p.stream(ordered=True)
                got = [await anext(stream)]
                await asyncio.sleep(2)  # the reader is busy, so that nothing more is given
                got += [result async for result in stream]
            assert read(got) == ["a", "b", "c"]
            (result,) = await asked
            assert result.text == "1 now, 0 at the next start"
        world.forget()
        async with world.again(retry_failed=False):
            assert await streamed(fetch, "abc") == ["a", "b", "c"]
        assert world.calls == []

    run_virtually(main)


def test_a_run_that_nobody_executes_makes_it_again_at_its_next_start(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["a"]

    async def main() -> None:
        async def work() -> None:
            assert await pages(fetch, "ab") == ["ConnectionError", "b"]

        await crash(world.again(), work)
        preview = await control(world).requeue(failed=True, dry_run=True)
        assert (preview.calls, preview.price) == (1, 0.0)
        assert preview.text == "requeue monday: 1 call; all at the next start"
        result = await control(world).requeue(failed=True)
        assert (result.text, result.is_applied) == (
            "monday is not executed now: from its next start on 1 call is made again",
            False,
        )
        world.down = []
        world.forget()
        async with world.again():
            assert await pages(fetch, "ab") == ["a", "b"]
        assert world.calls == ["a"]

    run_virtually(main)


def test_what_has_not_failed_or_is_not_there_is_one_sentence(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again():
            await pages(fetch, ["page one"])
            for given, said in {
                (): "name calls to be made again",
                ("page one",): "'page one' has succeeded",
                ("page on",): "did you mean 'page one'",
            }.items():
                with pytest.raises(ControlRefused, match=said):
                    await control(world).requeue(given)
            with pytest.raises(ControlRefused, match="no call of run 'monday' has failed"):
                await control(world).requeue(failed=True)

    run_virtually(main)


# -- cancel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [ErrorStrategy.FAIL_SLOW, ErrorStrategy.FAIL_FAST])
def test_members_are_cancelled_by_name_whether_they_run_or_wait_and_cost_no_sibling(
    world: World, strategy: ErrorStrategy
) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 1000}

    async def main() -> None:
        async with world.again():
            asked = later(0.5, lambda: control(world).cancel(["slow", "last"], author="ann", reason="enough"))
            found = await pages(fetch, ["slow", "b", "last", "c"], max_workers=2, error_strategy=strategy)
            assert found == ["CallCancelled", "b", "CallCancelled", "c"]
            (result,) = await asked
        assert result.text == "1 cancelled now, the others when their turn comes"
        assert world.forget() == ["b", "c"]
        assert asyncio.get_running_loop().time() < 3
        errors = [o.error async for o in world.store.outcomes(RUN) if o.error is not None]
        assert sorted(map(str, errors)) == ["last was cancelled by ann: enough", "slow was cancelled by ann: enough"]
        for options in ({}, {"retry_failed": False}):
            async with world.again(**options):
                assert await pages(fetch, ["slow", "b", "last", "c"], max_workers=2) == found
        assert world.forget() == []
        await control(world).requeue(["last"])
        async with world.again():
            assert await pages(fetch, ["slow", "b", "last", "c"]) == ["CallCancelled", "b", "last", "c"]
        assert world.forget() == ["last"], "only a request that names it undoes it"

    run_virtually(main)


def test_a_cancelled_member_that_makes_calls_ends_with_them_and_its_cleanup_runs(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"deep": 1000}
    seen: list[str] = []

    @agent
    async def survey(name: str) -> str:
        try:
            return str(await fetch(name))
        finally:
            seen.append(name)

    async def main() -> None:
        async with world.again():
            later(0.5, lambda: control(world).cancel(["deep"]))
            assert await pages(survey, ["deep", "b"]) == ["CallCancelled", "b"]
        assert seen == ["deep", "b"]

    run_virtually(main)


def test_requests_to_cancel_what_has_ended_are_refused_and_failures_do_not_hide_it(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again():
            await pages(fetch, "a")
            with pytest.raises(ControlRefused, match="'a': nothing is left to be cancelled, it has ended"):
                await control(world).cancel(["a"])
            preview = await control(world).cancel(["b"], dry_run=True)
            assert preview.text == (
                "cancel monday: 1 item; nothing is called 'b' so far: what begins under such a name is cancelled then"
            )
            assert preview.calls == 1
            asked = await control(world).cancel(["b"])
            assert asked.text == "none of these names runs now; what begins under one of them is cancelled"

    run_virtually(main)


def test_the_whole_run_is_cancelled_for_good_and_the_journal_says_by_whom(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        with pytest.raises(RunStopped, match="cancelled by ann: enough"):
            async with world.again(durability="sync"):
                later(0.5, lambda: control(world).cancel(author="ann", reason="enough"))
                await pages(fetch, "abc", max_workers=1)
        info = await world.info()
        assert (info.status.value, info.reason) == ("cancelled", "cancelled by ann: enough")
        assert [each["verb"] for each in await controls(world.store)] == ["cancel"]
        assert world.calls == ["a"]

    run_virtually(main)


def test_cancelled_members_are_recovered_by_a_validation_and_planned_as_what_they_are(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"deep": 1000}

    @agent
    async def survey(name: str) -> list[Any]:
        return [await fetch(f"first of {name}"), await fetch(name)]

    async def main() -> None:
        async with world.again():
            asked = later(1.5, lambda: control(world).cancel(["deep", "last"], author="ann"))
            found = await pages(survey, ["deep", "b", "last"], max_workers=2)
            await asked
        assert found == ["CallCancelled", ["first of b", "b"], "CallCancelled"]
        fates = await planned(world.store)
        assert fates["pages[0]::deep"] is fates["pages[2]::last"] is Fate.REPEATED
        world.forget()
        state = world.again(replay_mode=ReplayMode.VALIDATION)
        async with state:
            assert await pages(survey, ["deep", "b", "last"], max_workers=2) == found
        assert state.differences == []
        assert world.forget() == ["first of b", "b"], "nothing is called that somebody has cancelled"

    run_virtually(main)


def test_of_a_run_that_nobody_executes_it_is_said_which_names_nothing_has_so_far(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async def work() -> None:
            await pages(fetch, ["a", "b"])
            raise Crash

        await crash(world.again(), work)
        said = "nothing with an outcome is called 'c' so far: what begins under such a name is cancelled then"
        assert (await control(world).cancel(["c"], dry_run=True)).text == f"cancel monday: 1 item; {said}"
        asked = await control(world).cancel(["c"])
        when = "monday is not executed now: from its next start on 1 cancelled when their turn comes"
        assert (asked.text, asked.is_applied) == (f"{when}; {said}", False)

    run_virtually(main)


def test_what_was_cancelled_and_has_no_outcome_yet_is_planned_as_cancelled(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again():
            later(0.5, lambda: control(world).cancel(["a"]))
            await pages(fetch, "ab")
        store = world.store
        assert isinstance(store, KeepingStore)
        applied = next(n for n, (fact, _) in enumerate(store.entries, 1) if fact.kind is EventType.CONTROL)
        left = await store.after_the_first(applied)
        assert await planned(left) == {"pages[0]::a": Fate.WITHDRAWN, "pages[1]::b": Fate.UNKNOWN}

    run_virtually(main)


def test_failures_alone_are_asked_for_and_what_they_kept_from_being_made_is_made_anyway(world: World) -> None:
    fetch = world.make_fetch()
    world.down, world.seconds = ["a"], {"b": 10, "c": 10}

    async def main() -> None:
        with pytest.raises(ConnectionError):
            async with world.again():
                await pages(fetch, "abcd", max_workers=3, error_strategy=ErrorStrategy.FAIL_FAST)
        preview = await control(world).requeue(failed=True, dry_run=True)
        assert preview.calls == 1
        assert preview.text == (
            "requeue monday: 1 call; all at the next start; "
            "2 calls that a failure kept from being made are made then anyway"
        )
        assert (await control(world).requeue(failed=True)).calls == 1
        world.down = []
        world.forget()
        async with world.again(retry_failed=False):
            assert await pages(fetch, "abcd", max_workers=3, error_strategy=ErrorStrategy.FAIL_FAST) == list("abcd")
        assert sorted(world.forget()) == list("abcd")

    run_virtually(main)


# -- requests that come at a bad moment -------------------------------------------------------------------------------


def test_limits_and_groups_can_be_set_while_nobody_executes_the_run(world: World) -> None:
    limit = ConcurrencyLimit(2, name="server")
    fetch = world.make_fetch(limits=[limit])

    async def main() -> None:
        await crash(world.again(), lambda: pages(fetch, "ab"))
        result = await control(world).set({"limit.server.limit": 1, "max-workers.pages": 1})
        assert not result.is_applied
        async with world.again():
            (request,) = await control(world).requests()
            assert request.answer == {"text": "limit.server.limit=1, max-workers.pages=1 from now on"}
            await pages(fetch, "abc")
            assert limit.limit == 1
        assert limit.limit == 2

    run_virtually(main)


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.SET, Verb.CANCEL])
def test_what_was_asked_too_late_of_a_run_that_has_ended_is_not_done_to_its_next_execution(
    world: World, verb: Verb
) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        store = world.store
        async with world.again():
            await pages(fetch, "a")
            epoch = (await world.info()).epoch
        more: dict[Verb, dict[str, Any]] = {
            Verb.SET: {"settings": {"retry": 1}},
            Verb.CANCEL: {"items": [], "why": "enough"},
        }
        # Between the last look of its owner and its end:
        await store.request_control(RUN, verb, {**more.get(verb, {}), "epoch": epoch})
        async with asyncio.timeout(50), world.again():
            assert await pages(fetch, "ab") == ["a", "b"]
        (request,) = await control(world).requests()
        assert request.answer == {"refused": "run 'monday' had ended before that was applied"}

    run_virtually(main)


def test_a_run_that_nobody_executes_is_cancelled_and_its_journal_says_by_whom(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        await crash(world.again(), lambda: pages(fetch, "a"))
        result = await control(world).cancel(author="ann", reason="enough")
        assert (result.text, result.is_applied) == ("monday is cancelled", True)
        info = await world.info()
        assert (info.status.value, info.owner, info.reason) == ("cancelled", None, "cancelled by ann: enough")
        (trail,) = await controls(world.store)
        assert result.request is not None
        assert (trail["id"], trail["verb"], trail["author"]) == (result.request.id, "cancel", "ann")
        assert [each.is_open for each in await control(world).requests()] == [False]
        with pytest.raises(ControlRefused, match="has ended: it is cancelled"):
            await control(world).cancel()
        world.forget()
        async with world.again():
            assert await pages(fetch, "ab") == ["a", "b"]
        assert world.calls == ["b"]

    run_virtually(main)


def test_who_cancels_a_run_and_dies_before_it_has_ended_leaves_it_to_the_next_start(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        await crash(world.again(), lambda: pages(fetch, "a"))
        info = await world.info()
        arguments = {"items": [], "why": "cancelled by ann: enough", "epoch": info.epoch}
        await world.store.request_control(RUN, Verb.CANCEL, arguments, author="ann")
        world.forget()
        with pytest.raises(RunStopped, match="cancelled by ann: enough"):
            async with world.again():
                await pages(fetch, "ab")
        assert (world.begun, (await world.info()).status.value) == ([], "cancelled")
        assert [each["verb"] for each in await controls(world.store)] == ["cancel"]

    run_virtually(main)


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.SET, Verb.CANCEL, Verb.REQUEUE])
def test_what_is_asked_while_the_run_ends_is_answered_and_stands_in_its_journal(world: World, verb: Verb) -> None:
    fetch = world.make_fetch()
    world.down = ["a"]

    async def main() -> None:
        state = world.again()
        async with state:
            await pages(fetch, "ab")
            journal: Any = state.journal
            journal.when_asked(lambda: None)  # the owner sees it only when it looks for the last time
            asking = RunControl(world.store, RUN, patience=100)
            ask: dict[Verb, Callable[[], Coroutine[Any, Any, Any]]] = {
                Verb.PAUSE: asking.pause,
                Verb.SET: lambda: asking.set({"retry": 1}),
                Verb.CANCEL: asking.cancel,
                Verb.REQUEUE: lambda: asking.requeue(failed=True),
            }
            asked = asyncio.create_task(ask[verb]())
            await asyncio.sleep(1)
        if verb is Verb.REQUEUE:
            assert (await asked).text == "0 now, 1 at the next start"
        else:
            with pytest.raises(ControlRefused, match="has ended: it is completed"):
                await asked
        assert [each["verb"] for each in await controls(world.store)] == [verb.value]
        assert [each.is_open for each in await control(world).requests()] == [False]
        assert (await world.info()).status.value == "completed"
        world.down = []
        world.forget()
        async with asyncio.timeout(50), world.again(retry_failed=False):
            assert await pages(fetch, "ab") == ["a" if verb is Verb.REQUEUE else "ConnectionError", "b"]
        assert world.calls == ["a"] * (verb is Verb.REQUEUE)

    run_virtually(main)


def test_what_people_read_of_a_request_shows_no_credential_whatever_names_it(world: World) -> None:
    fetch = world.make_fetch()
    key, other = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789", f"ghp_{'Z9' * 18}"

    async def main() -> None:
        async with world.again():
            await pages(fetch, [key])
            with pytest.raises(ControlRefused) as refused:
                await control(world).cancel([key], author=key)
            with pytest.raises(ControlRefused) as unknown:
                await control(world).requeue([key])
            later(0.5, lambda: control(world).cancel([other, "b"], author=f"me {key}", reason=f"for {key}"))
            (_, error) = await pages_with_errors(fetch, ["a", "b"])
        assert key not in f"{refused.value} {unknown.value} {error}"
        (request,) = await control(world).requests()
        assert request.author is not None
        assert key not in f"{request.author} {request.reason} {request.arguments['why']} {request.answer}"
        (event,) = [e.event async for e in world.store.events(RUN) if e.event.event_type is EventType.CONTROL]
        assert key not in str(event)
        assert other not in f"{event} {request.answer}"

    run_virtually(main)


def test_a_run_that_was_cancelled_stays_so_though_its_owner_died_before_it_had_ended(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        async def work() -> None:
            await pages(fetch, "a")
            assert (await control(world).cancel(reason="enough")).is_applied

        await crash(world.again(), work)
        world.forget()
        with pytest.raises(RunStopped, match="cancelled by somebody: enough"):
            async with world.again():
                await pages(fetch, "ab")
        assert (world.begun, (await world.info()).status.value) == ([], "cancelled")
        async with world.again():
            assert await pages(fetch, "ab") == ["a", "b"]

    run_virtually(main)


def test_a_request_that_is_not_understood_is_refused_and_keeps_no_other_from_being_applied(world: World) -> None:
    async def main() -> None:
        async with world.again():
            asked: list[tuple[Verb, dict[str, Any]]] = [
                (Verb.SET, {}),
                (Verb.SET, {"settings": {"max-workers": "few"}}),
                (Verb.REQUEUE, {"items": [], "keys": ["zz"]}),
                (Verb.CANCEL, {}),
            ]
            for verb, arguments in asked:
                await world.store.request_control(RUN, verb, arguments)
            assert (await control(world).pause()).is_applied
        assert ["refused" in (each.answer or {}) for each in await control(world).requests()] == [*[True] * 4, False]
        async with world.again():
            pass

    run_virtually(main)


def test_a_cancelled_member_that_was_asked_for_by_another_name_stays_so_when_it_fails(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["a"]

    async def main() -> None:
        async with world.again():
            await control(world).cancel(["a"])
            assert await pages(fetch, "ab") == ["CallCancelled", "b"]
        await control(world).requeue(["pages[0]::a"])
        async with world.again():
            assert await pages(fetch, "ab") == ["ConnectionError", "b"]
        world.down = []
        async with world.again():
            assert await pages(fetch, "ab") == ["a", "b"]

    run_virtually(main)


def test_a_member_can_be_cancelled_once_more_while_it_waits_to_be_made_again(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 10}

    async def main() -> None:
        async def change_mind() -> None:
            await control(world).requeue(["a"])
            await control(world).cancel(["a"])

        async with world.again():
            await control(world).cancel(["a"])
            asked = later(1, change_mind)
            assert await pages(fetch, ["a", "slow"], max_workers=1) == ["CallCancelled", "slow"]
            await asked
        assert world.calls == ["slow"]

    run_virtually(main)


# -- wherever the process dies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["cancel", "requeue now", "requeue later"])
def test_whichever_write_the_process_dies_after_nothing_is_lost_and_each_request_is_applied_once(verb: str) -> None:
    world = World()
    fetch = world.make_fetch()
    world.seconds = {"slow": 20}

    async def program() -> Any:
        first = await pages(fetch, ["first", "x"]) if verb == "requeue later" else []
        return [*first, *await pages(fetch, ["a", "b", "slow", "d"], max_workers=2)]

    async def ask() -> Any:
        if verb == "cancel":
            return await control(world).cancel(["slow", "d"])
        world.down = []
        return await control(world).requeue(failed=True)

    async def record() -> None:
        world.down = ["a", "first"] if verb == "requeue later" else ["a"]
        async with world.again():
            asked = later(1.5 if verb == "cancel" else 3.5, ask)
            await program()
        requests.append(dataclasses.replace((await asked)[0].request, applied_at=None, answer=None))

    requests: list[Any] = []
    run_virtually(record)
    store = world.store
    assert isinstance(store, KeepingStore)
    expected = {
        "cancel": ["ConnectionError", "b", "CallCancelled", "CallCancelled"],
        "requeue now": ["a", "b", "slow", "d"],
        "requeue later": ["first", "x", "a", "b", "slow", "d"],
    }[verb]
    for length in range(1, len(store.entries) + 1):

        async def resume(length: int = length) -> None:
            left = await store.after_the_first(length)
            world.down = ["a"] if verb == "cancel" else []
            world.forget()
            applied = {each["id"] for each in await controls(left)}
            kept: Any = left._runs[RUN]
            for request in requests:
                if request.id not in applied:
                    kept.requests[request.id] = request
            done = {o.name async for o in left.outcomes(RUN) if o.error is None}
            async with ExecutionState(store=left, run_id=RUN):
                found = await program()
            assert found == expected
            assert done.isdisjoint(world.forget()), "nothing finished is made again"
            answered = [each["id"] for each in await controls(left) if each["asked_at"] == requests[0].asked_at]
            assert answered == [requests[0].id]
            async with ExecutionState(store=left, run_id=RUN):
                assert await program() == expected
            made = set(world.forget())
            assert made <= {"a"} if verb == "cancel" else not made

        run_virtually(resume)


def test_a_name_that_is_nearly_one_is_refused_when_all_members_have_begun_and_waits_for_its_turn_before(
    world: World,
) -> None:
    fetch = world.make_fetch()

    async def typo() -> str:
        try:
            return (await control(world).cancel(["page-22"])).text
        except ControlRefused as refused:
            return str(refused)

    async def refusals(count: int) -> list[str]:
        async with world.again():
            asked = later(1.5, typo)
            async with parallel(name="pages", max_workers=count) as p:
                for number in (1, 2, 3):
                    p.add(fetch(f"page-{number}"), name=f"page-{number}")
                await asked
                await p.gather()
            return [str(each) for each in await asked]

    async def main() -> None:
        (refused,) = await refusals(3)
        assert refused == (
            "'page-22' names no call of run 'monday', and all members of its groups have begun; did you mean 'page-2'?"
        )

    run_virtually(main)
