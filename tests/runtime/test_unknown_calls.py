"""Calls that a crash left unfinished, so that nobody knows whether they were done."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated, Any

import pytest

from rh_agents import (
    ConcurrencyLimit,
    ExecutionEvent,
    ExecutionState,
    Injected,
    RetryPolicy,
    RunAwaiting,
    Tool,
    agent,
    current,
    parallel,
    run,
    tool,
)
from rh_agents.core.errors import DefinitionError, RunStopped, UnknownOutcomeError
from rh_agents.core.ports import Question
from rh_agents.core.results import Outcome
from rh_agents.core.types import Effect, OnUnknown
from rh_agents.core.values import encode
from tests.properties.virtual import run_virtually
from tests.runtime.worlds import RUN, Crash, KeepingStore, SlowlyAcknowledged, World


@pytest.fixture
def world() -> World:
    return World()


async def crash_within(world: World, work: Callable[[], Any], seconds: float, **options: Any) -> None:
    """Begin to execute the run, and kill the process after so many seconds."""
    with pytest.raises(Crash):
        async with world.again(**options):
            task = asyncio.ensure_future(work())
            await asyncio.wait([task], timeout=seconds)
            world.store = await world.store.after_the_first(len(world.store.entries))  # type: ignore[attr-defined]
            task.cancel()
            await asyncio.wait([task])
            raise Crash


# -- what is asked for ------------------------------------------------------------------------------------------------


def test_an_external_effect_must_say_what_to_do_about_an_unknown_outcome() -> None:
    async def pay(amount: int) -> None: ...

    with pytest.raises(DefinitionError, match=r"pay has an external effect: say what to do.*on_unknown='retry'"):
        tool(effect="external")(pay)
    with pytest.raises(DefinitionError, match="pay has an external effect"):
        Tool(name="pay", handler=pay, effect=Effect.EXTERNAL)
    for choice in ("retry", "fail", "ask"):
        assert tool(effect="external", on_unknown=choice)(pay).actor.is_external
    assert not tool(pay).actor.is_external


def test_an_external_effect_whose_result_is_not_recorded_cannot_be_kept_from_happening_twice() -> None:
    class Client:
        pass

    async def pay(amount: int) -> Annotated[Client, Injected]:
        return Client()

    with pytest.raises(DefinitionError, match="pay"):
        tool(effect="external", on_unknown="fail")(pay)


@pytest.mark.parametrize("option", ["effect", "on_unknown"])
def test_a_word_that_means_nothing_is_refused(option: str) -> None:
    async def pay(amount: int) -> None: ...

    with pytest.raises(ValueError, match=option):
        options: dict[str, Any] = {"effect": "external", "on_unknown": "retry", option: "perhaps"}
        tool(**options)(pay)
    with pytest.raises(ValueError, match="perhaps"):
        ExecutionState(on_unknown="perhaps")


# -- retry, fail, ask -------------------------------------------------------------------------------------------------


def test_by_default_a_call_that_was_cut_off_is_made_again(world: World) -> None:
    fetch = world.make_fetch()

    async def main() -> None:
        await crash_within(world, fetch("a").outcome, 0.5)
        async with world.again():
            assert await fetch("a") == "a"
        assert world.begun == ["a", "a"]

    run_virtually(main)


def test_with_retry_it_is_made_again_with_the_same_idempotency_key(world: World) -> None:
    keys: list[str] = []

    @tool(effect="external", on_unknown="retry")
    async def pay(amount: int) -> str:
        keys.append(current().idempotency_key)
        await asyncio.sleep(1)
        return "paid"

    async def main() -> None:
        await crash_within(world, pay(1).outcome, 0.5)
        async with world.again():
            assert await pay(1) == "paid"
        assert len(keys) == 2
        assert keys[0] == keys[1]

    run_virtually(main)


def test_with_fail_it_fails_and_names_the_idempotency_key(world: World) -> None:
    keys: list[str] = []

    @tool(effect="external", on_unknown="fail")
    async def pay(amount: int) -> str:
        keys.append(current().idempotency_key)
        await asyncio.sleep(1)
        return "paid"

    async def work() -> Any:
        return await pay(1).outcome()

    async def main() -> None:
        await crash_within(world, work, 0.5)
        for _ in range(2):
            with pytest.raises(Crash):
                async with world.again():
                    result = await work()
                    assert isinstance(result.error, UnknownOutcomeError)
                    assert keys[0] in str(result.error)
                    raise Crash
        assert len(keys) == 1

    run_virtually(main)


def test_the_run_can_choose_for_actors_that_do_not_say(world: World) -> None:
    silent = world.make_fetch()
    willing = world.make_fetch(on_unknown="retry")

    async def work() -> list[bool]:
        async with parallel() as p:
            p.add(silent("a"), key="silent")
            p.add(willing("b"), key="willing")
            return [result.ok for result in await p.gather()]

    async def main() -> None:
        await crash_within(world, work, 0.5)
        async with world.again(on_unknown="fail"):
            assert await work() == [False, True]
        assert world.begun == ["a", "b", "b"]

    run_virtually(main)


@pytest.mark.parametrize(("said", "is_made_again"), [("retry", True), ("fail", False)])
def test_with_ask_a_person_decides(world: World, said: str, is_made_again: bool) -> None:
    pay = world.make_fetch(effect="external", on_unknown="ask")

    async def work() -> Any:
        return await pay("a").outcome()

    async def main() -> None:
        await crash_within(world, work, 0.5)
        with pytest.raises(RunAwaiting, match="fetch was in flight when its process"):
            async with world.again():
                await work()
        (question,) = await world.store.questions(RUN)
        await world.store.answer(RUN, question.id, f'"{said}"'.encode())
        async with world.again():
            result = await work()
        assert result.ok is is_made_again
        assert isinstance(result.error, UnknownOutcomeError) is not is_made_again
        assert world.begun == ["a", "a"][: 1 + is_made_again]

    run_virtually(main)


def test_whoever_is_asked_is_asked_again_after_another_crash(world: World) -> None:
    """What a person found out about the first attempt says nothing about the second one."""
    pay = world.make_fetch(effect="external", on_unknown="ask")
    asked: list[str] = []

    async def person(question: Question) -> object:
        asked.append(question.text)
        return "retry" if len(asked) == 1 else "fail"

    async def work() -> Any:
        return await pay("a").outcome()

    async def main() -> None:
        await crash_within(world, work, 0.5)
        state = world.again()
        state.set_answerer(person)
        with pytest.raises(Crash):
            async with state:
                task = asyncio.ensure_future(work())
                await asyncio.wait([task], timeout=0.5)
                assert world.begun == ["a", "a"]
                world.store = await world.store.after_the_first(len(world.store.entries))  # type: ignore[attr-defined]
                task.cancel()
                await asyncio.wait([task])
                raise Crash
        state = world.again()
        state.set_answerer(person)
        async with state:
            result = await work()
        assert len(asked) == 2
        assert isinstance(result.error, UnknownOutcomeError)
        assert world.begun == ["a", "a"]

    run_virtually(main)


def test_several_unknown_calls_are_asked_about_at_once_and_name_their_places(world: World) -> None:
    pay = world.make_fetch(effect="external", on_unknown="ask")

    async def work() -> list[bool]:
        async with parallel(name="payments") as p:
            p.map(pay, list("abc"))
            return [result.ok for result in await p.gather()]

    async def main() -> None:
        await crash_within(world, work, 0.5)
        with pytest.raises(RunAwaiting) as caught:
            async with world.again():
                await work()
        assert len(caught.value.questions) == 3
        for question in await world.store.questions(RUN):
            decision = b'"fail"' if "payments[1]" in question.text else b'"retry"'
            await world.store.answer(RUN, question.id, decision)
        async with world.again():
            assert await work() == [True, False, True]
        assert world.forget() == ["a", "c"]

    run_virtually(main)


def test_a_decision_to_ask_once_more_is_no_decision(world: World) -> None:
    pay = world.make_fetch(effect="external", on_unknown="ask")

    async def main() -> None:
        await crash_within(world, pay("a").outcome, 0.5)
        state = world.again()
        state.set_answerer(lambda question: asyncio.sleep(1, "ask" if question.problem is None else "fail"))
        async with state:
            assert isinstance((await pay("a").outcome()).error, UnknownOutcomeError)
        assert world.begun == ["a"]

    run_virtually(main)


# -- which calls are unknown ------------------------------------------------------------------------------------------


def test_what_a_person_decided_is_read_by_a_program_that_has_asked_nobody() -> None:
    """As whoever looks at the outcomes of a run in another process does."""
    code = "import sys, rh_agents; from rh_agents.core.values import decode; print(repr(decode(sys.argv[1].encode())))"
    written = encode(OnUnknown.FAIL).decode()
    done = subprocess.run([sys.executable, "-c", code, written], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{OnUnknown.FAIL!r}\n", "")


@pytest.mark.parametrize("effect", ["external", "repeatable"])
def test_every_attempt_counts(world: World, effect: str) -> None:
    """A crash within the second attempt leaves as much unknown as one within the first."""
    pay = world.make_fetch(
        effect=effect, on_unknown="fail", retry=RetryPolicy(max_attempts=3, initial_delay=1, jitter=False)
    )
    world.down = ["a"]

    async def main() -> None:
        await crash_within(world, pay("a").outcome, 2.5)
        assert world.begun == ["a", "a"]
        world.down.clear()
        async with world.again():
            assert isinstance((await pay("a").outcome()).error, UnknownOutcomeError)
        assert world.begun == ["a", "a"]

    run_virtually(main)


def test_a_crash_between_two_attempts_leaves_nothing_unknown(world: World) -> None:
    pay = world.make_fetch(
        effect="external", on_unknown="fail", retry=RetryPolicy(max_attempts=2, initial_delay=10, jitter=False)
    )
    world.down = ["a"]

    async def main() -> None:
        await crash_within(world, pay("a").outcome, 5)
        world.down.clear()
        async with world.again():
            result = await pay("a").outcome()
        assert (result.ok, result.attempts) == (True, 2)

    run_virtually(main)


def test_a_call_that_was_never_begun_is_not_unknown(world: World) -> None:
    pay = world.make_fetch(effect="external", on_unknown="fail")

    async def work() -> list[bool]:
        async with parallel(max_workers=1, name="payments") as p:
            p.map(pay, list("ab"))
            return [result.ok for result in await p.gather()]

    async def main() -> None:
        await crash_within(world, work, 0.5)
        async with world.again():
            assert await work() == [False, True]
        assert world.begun == ["a", "b"]

    run_virtually(main)


def test_an_external_call_that_a_stop_cut_off_is_unknown(world: World) -> None:
    pay = world.make_fetch(effect="external", on_unknown="fail")
    world.seconds = {"a": 100}

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                asyncio.get_running_loop().call_later(1, lambda: state.request_interrupt("a deploy", grace=1))
                await pay("a")
        async with world.again():
            assert isinstance((await pay("a").outcome()).error, UnknownOutcomeError)
        assert world.begun == ["a"]

    run_virtually(main)


def test_an_external_agent_that_a_stop_left_in_its_middle_is_unknown(world: World) -> None:
    """It had an effect; that a call within it was refused because of the stop does not undo that."""
    fetch = world.make_fetch()
    sent: list[str] = []

    @agent(effect="external", on_unknown="fail")
    async def announce() -> None:
        sent.append("a mail")
        await fetch("a")
        await fetch("b")

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped):
            async with state:
                asyncio.get_running_loop().call_later(0.5, state.request_interrupt)
                await announce()
        async with world.again():
            assert isinstance((await announce().outcome()).error, UnknownOutcomeError)
        assert sent == ["a mail"]

    run_virtually(main)


def test_an_external_agent_that_waits_for_an_answer_is_entered_again(world: World) -> None:
    sent: list[str] = []

    @agent(effect="external", on_unknown="fail")
    async def announce() -> None:
        state = current().run
        assert isinstance(state, ExecutionState)
        if await state.ask("Send it?", bool):
            sent.append("a mail")

    async def main() -> None:
        with pytest.raises(RunAwaiting):
            async with world.again():
                await announce()
        (question,) = await world.store.questions(RUN)
        await world.store.answer(RUN, question.id, b"true")
        async with world.again():
            await announce()
        assert sent == ["a mail"]

    run_virtually(main)


def test_an_external_call_that_its_callers_timeout_cut_off_is_not_made_again_by_another_attempt(world: World) -> None:
    pay = world.make_fetch(effect="external", on_unknown="fail")
    world.seconds = {"a": 100}

    @agent(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False), timeout=10)
    async def order() -> bool:
        return (await pay("a").outcome()).ok  # type: ignore[no-any-return]

    async def main() -> None:
        async with world.again():
            assert await order() is False
        assert world.begun == ["a"]

    run_virtually(main)


def test_what_a_crash_left_unknown_is_not_made_by_any_later_attempt_of_its_caller(world: World) -> None:
    pay = world.make_fetch(effect="external", on_unknown="fail")

    @agent(retry=RetryPolicy(max_attempts=3, initial_delay=1, jitter=False))
    async def order() -> str:
        return await pay("a")  # type: ignore[no-any-return]

    async def main() -> None:
        state = world.again()
        asyncio.get_running_loop().call_later(0.5, functools.partial(state.request_interrupt, grace=0.0))
        with pytest.raises(RunStopped):
            async with state:
                await order()
        with pytest.raises(UnknownOutcomeError):
            async with world.again():
                await order()
        assert (world.begun, world.calls) == (["a"], [])
        async with world.again():  # a run that had ended is asked for another try
            assert await order() == "a"

    run_virtually(main)


def test_agents_that_were_under_way_are_entered_again_when_the_run_lets_unknown_calls_fail(world: World) -> None:
    """Only the innermost call is unknown: what its callers have done is recorded."""
    fetch = world.make_fetch()

    @agent
    async def survey() -> list[bool]:
        async with parallel(name="pages") as p:
            p.map(fetch, list("ab"))
            first = [result.ok for result in await p.gather()]
        return [*first, (await fetch("c").outcome()).ok]

    async def main() -> None:
        await crash_within(world, survey, 0.5, on_unknown="fail")
        async with world.again(on_unknown="fail"):
            assert await survey() == [False, False, True]

    run_virtually(main)


# -- written ahead ----------------------------------------------------------------------------------------------------


class _AheadStore(KeepingStore):
    """Knows what is on disk: only what somebody has waited for, and what came before it."""

    def __init__(self) -> None:
        super().__init__()
        self.on_disk = 0

    async def before_waiting(self) -> None:
        await asyncio.sleep(5)

    def _make_journal(self, run: Any, info: Any) -> Any:
        journal: Any = super()._make_journal(run, info)
        append, flush = journal.append, journal.flush

        async def waiting_append(event: ExecutionEvent[Any], outcome: Outcome | None = None) -> Outcome | None:
            counts: Outcome | None = await append(event, outcome)
            self.on_disk = len(self.entries)
            return counts

        async def waiting_flush() -> None:
            await flush()
            self.on_disk = len(self.entries)

        journal.append, journal.flush = waiting_append, waiting_flush
        return journal


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize(
    ("actor_says", "run_says"),
    [
        ({"effect": "external", "on_unknown": "retry"}, {}),
        ({"effect": "external", "on_unknown": "fail"}, {}),
        ({"on_unknown": "fail"}, {}),
        ({"on_unknown": "ask"}, {}),
        ({}, {"on_unknown": "fail"}),
        ({}, {"on_unknown": "ask"}),
    ],
    ids=str,
)
def test_that_a_call_begins_is_on_disk_before_it_does_if_it_is_not_simply_made_again(
    actor_says: dict[str, Any], run_says: dict[str, Any], durability: str
) -> None:
    store = _AheadStore()
    seen: list[list[str]] = []

    @tool(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=False), **actor_says)
    async def pay(amount: int) -> None:
        on_disk = [fact for fact, _ in store.entries[: store.on_disk] if fact.name == "pay"]
        seen.append([f"{fact.status.value} {fact.attempt}" for fact in on_disk])
        if current().attempt == 1:
            raise ConnectionError

    async def main() -> None:
        async with ExecutionState(store=store, run_id=RUN, durability=durability, **run_says):
            await pay(1)
        assert seen == [["started 1"], ["started 1", "retrying 1", "started 2"]]

    run_virtually(main)


def test_that_a_repeatable_call_begins_waits_for_nothing() -> None:
    store = _AheadStore()

    @tool
    async def fetch() -> float:
        return asyncio.get_running_loop().time()

    async def main() -> None:
        assert await run(fetch, store=store, run_id=RUN) == 0.0

    run_virtually(main)


def test_a_member_with_an_external_effect_is_written_ahead_too() -> None:
    store = _AheadStore()

    @tool(effect="external", on_unknown="fail")
    async def pay(amount: int) -> int:
        begun = [fact for fact, _ in store.entries[: store.on_disk] if fact.status.value == "started"]
        return len([fact for fact in begun if fact.name == "pay"])

    async def main() -> None:
        async with ExecutionState(store=store, run_id=RUN), parallel(max_workers=2) as p:
            p.map(pay, range(2))
            assert [result.unwrap() for result in await p.gather()] == [1, 2], "each finds its own beginning"

    run_virtually(main)


# -- what was never called --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["interrupted", "timed out", "timed out while its start is recorded"])
@pytest.mark.parametrize("on_unknown", ["ask", "fail"])
def test_nobody_is_asked_about_what_was_cut_off_before_its_function_was_called(
    world: World, how: str, on_unknown: str
) -> None:
    slot = ConcurrencyLimit(1)
    pay = world.make_fetch(effect="external", on_unknown=on_unknown, limits=slot)
    hold = world.make_fetch(limits=slot)
    world.seconds["hold"] = 10.0

    if "recorded" in how:
        world.store = SlowlyAcknowledged()

    async def flow(seconds: float | None) -> None:
        async with parallel() as p:
            p.add(hold("hold"))
            await asyncio.sleep(0.5)
            try:
                async with asyncio.timeout(seconds):
                    await pay("rent")
            except TimeoutError as error:
                raise Crash from error
            await p.gather()

    async def first() -> None:
        async with world.again() as state:
            if how == "interrupted":
                state.set_timeout(3.0, grace=60.0)
            await flow({"interrupted": None, "timed out": 3.0}.get(how, 0.02))

    async def main() -> None:
        with pytest.raises(RunStopped if how == "interrupted" else Crash):
            await first()
        assert "rent" not in world.begun
        async with world.again():
            await flow(None)
        assert world.begun.count("rent") == 1

    run_virtually(main)
