"""Questions to people: the run waits for those who are not there, and everything else goes on without them."""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel

from rh_agents import ExecutionState, ExecutionStatus, RetryPolicy, agent, current, parallel, run
from rh_agents.core.errors import DefinitionError, InputError, RunAwaiting, RunStopped, StoreError, UsageError
from rh_agents.core.ports import Question
from tests.properties.virtual import run_virtually, tasks_besides_this_one
from tests.runtime.worlds import RUN, World, crash, statuses


@pytest.fixture
def world() -> World:
    return World()


async def ask(text: str, schema: Any = None, **options: Any) -> Any:
    """Ask in the run that is under way."""
    state = current().run
    assert isinstance(state, ExecutionState)
    return await state.ask(text, schema, **options)


async def suspend(state: ExecutionState, work: Callable[[], Any]) -> RunAwaiting:
    """Execute the run until it waits for answers."""
    with pytest.raises(RunAwaiting) as caught:
        async with state:
            await work()
    assert tasks_besides_this_one() == set()
    return caught.value


async def answer(world: World, text: str, value: Any, by: str | None = None) -> None:
    """Answer the one open question of this text."""
    (question,) = [question for question in await world.store.questions(RUN) if question.text == text]
    await world.store.answer(RUN, question.id, json.dumps(value).encode(), by)


# -- one question -----------------------------------------------------------------------------------------------------


def test_a_run_with_a_question_that_nobody_answers_waits_and_goes_on_behind_it(world: World) -> None:
    fetch = world.make_fetch()

    async def work() -> str:
        page = await fetch("a")
        decision = await ask("Publish?", Literal["yes", "no"])
        return f"{page}: {decision}, {await fetch('b')}"

    async def main() -> None:
        state = world.again()
        waiting = await suspend(state, work)
        (question,) = await world.store.questions(RUN)
        assert waiting.questions == (question.id,)
        assert question.id in str(waiting)
        assert "Publish?" in str(waiting)
        assert "1 answer:" in str(waiting)
        assert (state.status, (await world.info()).status) == (ExecutionStatus.AWAITING,) * 2
        assert [question.text for question in state.questions] == ["Publish?"]
        assert json.loads(question.schema or "")["enum"] == ["yes", "no"]
        await suspend(world.again(), work)  # still nobody
        assert world.calls == ["a"]
        await answer(world, "Publish?", "yes", by="Ada")
        async with world.again() as state:
            assert (await work(), state.epoch, state.questions) == ("a: yes, b", 0, [])
        assert world.forget() == ["a", "b"]
        assert (await world.info()).status is ExecutionStatus.COMPLETED
        async with world.again():
            assert await work() == "a: yes, b"
        assert world.calls == []

    run_virtually(main)


def test_what_happens_to_a_question_is_told(world: World) -> None:
    async def work() -> Any:
        return await ask("Publish?")

    async def main() -> None:
        await suspend(world.again(), work)
        await answer(world, "Publish?", "yes", by="Ada")
        async with world.again():
            await work()
        told = await statuses(world.store)
        assert told == ["started", "awaiting", "started", "human_intervention", "completed"]
        messages = [entry.event.message async for entry in world.store.events(RUN)]
        assert messages[1] == "Publish?"
        assert messages[3] == "Ada"

    run_virtually(main)


def test_a_question_can_be_the_first_and_the_last_thing(world: World) -> None:
    async def work() -> Any:
        return await ask("Shall I?", bool)

    async def main() -> None:
        with pytest.raises(RunAwaiting):
            await run(work, store=world.store, run_id=RUN)
        await answer(world, "Shall I?", True)
        assert await run(work, store=world.store, run_id=RUN) is True

    run_virtually(main)


class Verdict(BaseModel):
    """What a person decides."""

    is_good: bool
    why: str = ""


class Colour(enum.Enum):
    """Something to choose."""

    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("schema", "given", "expected"),
    [
        (Verdict, {"is_good": True}, Verdict(is_good=True)),
        (Literal["a", "b"], "b", "b"),
        (list[int], [1, 2], [1, 2]),
        (list[Verdict], [{"is_good": False, "why": "x"}], [Verdict(is_good=False, why="x")]),
        (Colour, "blue", Colour.BLUE),
        (int | None, None, None),
        (tuple[int, str], [1, "a"], (1, "a")),
        (dict[str, float], {"a": 0.5}, {"a": 0.5}),
        (None, None, None),
        (None, {"any": ["thing", None, 1.5]}, {"any": ["thing", None, 1.5]}),
        (str, "", ""),
    ],
)
def test_answers_have_the_type_that_was_asked_for_now_and_when_replayed(
    world: World, schema: Any, given: Any, expected: Any
) -> None:
    async def work() -> Any:
        return await ask("What?", schema)

    async def main() -> None:
        await suspend(world.again(), work)
        await answer(world, "What?", given)
        for _ in range(2):
            async with world.again():
                value = await work()
            assert value == expected
            assert type(value) is type(expected)

    run_virtually(main)


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        (Verdict, {"is_good": "perhaps"}),
        (Verdict, {"is_good": "true"}),
        (int, "x"),
        (int, "5"),
        (Colour, "green"),
        (list[int], 1),
        (Literal["yes", "no"], "perhaps"),
    ],
)
def test_an_answer_that_does_not_fit_the_schema_is_refused_and_the_question_stays_open(
    world: World, schema: Any, wrong: Any
) -> None:
    async def work() -> Any:
        return await ask("What?", schema)

    async def main() -> None:
        await suspend(world.again(), work)
        with pytest.raises(InputError, match=r"^the answer does not fit: "):
            await answer(world, "What?", wrong)
        (question,) = await world.store.questions(RUN)
        assert (question.answer, question.problem) == (None, None)

    run_virtually(main)


def even(number: int) -> int:
    if number % 2:
        raise ValueError("odd")
    return number


def test_an_answer_that_the_program_does_not_accept_opens_the_question_again_and_says_why(world: World) -> None:
    schema, wrong = Annotated[int, AfterValidator(even)], 5

    async def work() -> Any:
        return await ask("What?", schema)

    async def main() -> None:
        await suspend(world.again(), work)
        await answer(world, "What?", wrong)
        await suspend(world.again(), work)
        (question,) = await world.store.questions(RUN)
        assert question.answer is None
        assert (question.problem or "").startswith("the answer does not fit: ")
        assert await world.values() == []

    run_virtually(main)


def test_an_answer_is_given_once(world: World) -> None:
    async def work() -> Any:
        return await ask("What?")

    async def main() -> None:
        waiting = await suspend(world.again(), work)
        (question_id,) = waiting.questions
        await world.store.answer(RUN, question_id, b"1")
        with pytest.raises(StoreError, match="has been answered"):
            await world.store.answer(RUN, question_id, b"2")
        async with world.again():
            assert await work() == 1

    run_virtually(main)


def test_no_answer_can_be_a_class_without_a_schema(world: World) -> None:
    class Client:
        pass

    async def main() -> None:
        async with world.again() as state:
            with pytest.raises(DefinitionError, match="no answer can be a"):
                await state.ask("Who?", Client)

    run_virtually(main)


def test_a_run_without_a_store_cannot_wait(world: World) -> None:
    async def main() -> None:
        async with ExecutionState() as state:
            with pytest.raises(UsageError, match=r"there is no one to answer 'Well\?'.*give it a store"):
                await state.ask("Well?")

    run_virtually(main)


# -- somebody is there ------------------------------------------------------------------------------------------------


def test_somebody_who_is_there_is_asked_at_once_and_asked_again_after_a_wrong_answer(world: World) -> None:
    seen: list[Question] = []

    async def person(question: Question) -> object:
        seen.append(question)
        await asyncio.sleep(1)
        return "ten" if len(seen) == 1 else 10

    async def main() -> None:
        for state in (world.again(), ExecutionState()):
            seen.clear()
            state.set_answerer(person)
            async with state:
                assert await state.ask("How many?", int) == 10
                assert state.questions == []
            first, second = seen
            assert first.problem is None
            assert (second.text, second.answer) == ("How many?", None)
            assert "valid integer" in (second.problem or "")
        assert await world.values() == [10]
        async with world.again() as state:
            assert await state.ask("How many?", int) == 10

    run_virtually(main)


def test_an_answerer_may_give_models_and_members_of_enumerations(world: World) -> None:
    answers: list[object] = [Verdict(is_good=True), Colour.RED, (1, 2), {3}]

    async def person(question: Question) -> object:
        return answers.pop(0)

    async def work() -> list[Any]:
        return [
            await ask("1", Verdict),
            await ask("2", Colour),
            await ask("3", tuple[int, int]),
            await ask("4", set[int]),
        ]

    async def main() -> None:
        expected = [Verdict(is_good=True), Colour.RED, (1, 2), {3}]
        assert await run(work, store=world.store, run_id=RUN, answerer=person) == expected
        assert await run(work, store=world.store, run_id=RUN) == expected

    run_virtually(main)


def test_an_answerer_that_gives_nothing_leaves_the_question_open(world: World) -> None:
    async def nobody(question: Question) -> None:
        await asyncio.sleep(1)

    async def work() -> Any:
        return await ask("What?")

    async def main() -> None:
        state = world.again()
        state.set_answerer(nobody)
        await suspend(state, work)
        await answer(world, "What?", "this")
        async with world.again() as state:
            state.set_answerer(nobody)
            assert await work() == "this"

    run_virtually(main)


def test_what_an_answerer_raises_is_the_failure_of_the_question(world: World) -> None:
    async def broken(question: Question) -> object:
        raise EOFError("nobody at the keyboard")

    async def main() -> None:
        state = world.again()
        state.set_answerer(broken)
        with pytest.raises(EOFError, match="nobody at the keyboard"):
            async with state:
                await state.ask("What?")
        assert (await world.info()).status is ExecutionStatus.FAILED
        async with world.again() as state:
            state.set_answerer(lambda question: asyncio.sleep(1, "this"))
            assert await state.ask("What?") == "this"

    run_virtually(main)


def test_an_answer_that_is_no_data_is_a_wrong_answer(world: World) -> None:
    answers: list[object] = [object(), 5]

    async def person(question: Question) -> object:
        await asyncio.sleep(0)
        return answers.pop(0)

    async def main() -> None:
        state = world.again()
        state.set_answerer(person)
        async with state:
            assert await state.ask("How many?", int) == 5

    run_virtually(main)


def test_an_answerer_that_is_always_wrong_can_be_stopped(world: World) -> None:
    tries = 0

    async def stubborn(question: Question) -> object:
        nonlocal tries
        tries += 1
        assert tries < 1000, "nothing else gets its turn"
        return "ten"

    async def main() -> None:
        state = world.again()
        state.set_answerer(stubborn)
        with pytest.raises(RunStopped):
            async with state:
                asyncio.get_running_loop().call_soon(lambda: state.request_interrupt("enough", grace=0))
                await state.ask("How many?", int)

    run_virtually(main)


def test_a_run_that_is_stopped_while_somebody_thinks_asks_again_next_time(world: World) -> None:
    async def slow(question: Question) -> object:
        await asyncio.sleep(1000)
        return "late"

    async def main() -> None:
        state = world.again()
        state.set_answerer(slow)
        with pytest.raises(RunStopped) as caught:
            async with state:
                asyncio.get_running_loop().call_later(1, lambda: state.request_interrupt("a deploy", grace=5))
                await state.ask("What?")
        assert type(caught.value) is RunStopped
        assert asyncio.get_running_loop().time() == 6.0
        assert [question.text for question in await world.store.questions(RUN)] == ["What?"]
        async with world.again() as state:
            state.set_answerer(lambda question: asyncio.sleep(1, "this"))
            assert await state.ask("What?") == "this"

    run_virtually(main)


# -- several at once --------------------------------------------------------------------------------------------------


def test_several_questions_are_open_at_once_and_answered_in_any_order(world: World) -> None:
    fetch = world.make_fetch()

    @agent
    async def review(page: str) -> str:
        draft = await fetch(f"draft {page}")
        verdict = await ask(f"Is {page} good?", bool)
        return str(await fetch(f"{draft}: {verdict}"))

    async def work() -> list[Any]:
        async with parallel(max_workers=2, name="pages") as p:
            p.map(review, list("abc"))
            p.add(fetch("x"))
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        waiting = await suspend(world.again(), work)
        assert len(set(waiting.questions)) == 3
        assert "3 answers:" in str(waiting)
        assert sorted(world.forget()) == ["draft a", "draft b", "draft c", "x"]
        await answer(world, "Is c good?", True)
        await answer(world, "Is a good?", False)
        waiting = await suspend(world.again(), work)
        assert len(waiting.questions) == 1
        assert sorted(world.forget()) == ["draft a: False", "draft c: True"]
        await answer(world, "Is b good?", True)
        async with world.again():
            assert await work() == ["draft a: False", "draft b: True", "draft c: True", "x"]
        assert world.forget() == ["draft b: True"]
        assert await world.store.questions(RUN) == []

    run_virtually(main)


def test_a_question_below_groups_and_agents_suspends_the_whole_and_only_its_branch_waits(world: World) -> None:
    fetch = world.make_fetch()

    @agent
    async def inner(name: str) -> str:
        async with parallel(name="inner") as p:
            p.add(fetch(f"{name} before"))
            p.add(ask(f"{name}?"), name="question")
            p.add(fetch(f"{name} beside"))
            return str([result.unwrap() for result in await p.gather()])

    @agent
    async def outer() -> list[str]:
        async with parallel(name="outer") as p:
            p.map(inner, ["one", "two"])
            p.add(fetch("alone"))
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        await suspend(world.again(), outer)
        once = sorted(world.forget())
        assert once == ["alone", "one before", "one beside", "two before", "two beside"]
        for name in ("two", "one"):
            await answer(world, f"{name}?", name.upper())
            if name == "two":
                await suspend(world.again(), outer)
        async with world.again():
            assert await outer() == [
                "['one before', 'ONE', 'one beside']",
                "['two before', 'TWO', 'two beside']",
                "alone",
            ]
        assert world.calls == []

    run_virtually(main)


def test_the_same_question_twice_in_one_place_is_two_questions(world: World) -> None:
    async def work() -> list[Any]:
        return [await ask("More?"), await ask("More?")]

    async def main() -> None:
        await suspend(world.again(), work)
        await answer(world, "More?", "yes")
        await suspend(world.again(), work)
        await answer(world, "More?", "no")
        async with world.again():
            assert await work() == ["yes", "no"]

    run_virtually(main)


def test_questions_of_the_same_text_in_tasks_of_ones_own_are_told_apart_by_their_key(world: World) -> None:
    async def work() -> list[Any]:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask("Good?", key=page)) for page in "ab"]
        return [task.result() for task in asked]

    async def main() -> None:
        state = world.again(strict=True)
        state.set_answerer(lambda question: asyncio.sleep(1, question.id))
        async with state:
            first, second = await work()
        assert first != second
        async with world.again(strict=True):
            assert await work() == [first, second]

    run_virtually(main)


@pytest.mark.lazy_tasks("asyncio.TaskGroup leaves a coroutine behind that it refuses")
@pytest.mark.parametrize("how", ["task group", "gather"])
def test_a_question_in_a_task_of_ones_own_suspends_the_run(world: World, how: str) -> None:
    async def work() -> list[Any]:
        if how == "gather":
            return list(await asyncio.gather(ask("a?"), ask("b?")))
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(ask(text)) for text in ("a?", "b?")]
        return [task.result() for task in asked]

    async def main() -> None:
        await suspend(world.again(), work)
        assert (await world.info()).status is ExecutionStatus.AWAITING
        for _ in range(2):
            for question in await world.store.questions(RUN):
                await answer(world, question.text, question.text)
            if len(await world.store.questions(RUN, is_open=False)) < 2:
                await suspend(world.again(), work)
        async with world.again():
            assert await work() == ["a?", "b?"]

    run_virtually(main)


def test_an_answer_that_comes_while_the_run_goes_on_is_found_the_next_time(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 10}

    async def work() -> list[Any]:
        async with parallel() as p:
            p.add(ask("Well?"), name="question")
            p.add(fetch("slow"))
            return [result.unwrap() for result in await p.gather()]

    async def answer_soon() -> None:
        await asyncio.sleep(5)
        await answer(world, "Well?", "yes")

    async def main() -> None:
        answering = asyncio.ensure_future(answer_soon())
        with pytest.raises(RunAwaiting):
            async with world.again():
                await work()
        await answering
        async with world.again():
            assert await work() == ["yes", "slow"]
        assert world.calls == ["slow"]

    run_virtually(main)


def test_a_crash_after_the_answer_was_read_does_not_lose_it(world: World) -> None:
    async def work() -> str:
        return f"{await ask('Name?')}"

    async def main() -> None:
        await suspend(world.again(), work)
        await answer(world, "Name?", "Ada")

        async def read() -> None:
            assert await work() == "Ada"

        await crash(world.again(), read)
        async with world.again():
            await read()
        assert (await statuses(world.store)).count("human_intervention") == 1

    run_virtually(main)


# -- with retries, failures and groups that end early -----------------------------------------------------------------


def test_a_question_within_a_retried_agent_is_asked_once(world: World) -> None:
    attempts: list[int] = []

    @agent(retry=RetryPolicy(max_attempts=3, initial_delay=1, jitter=False))
    async def moody() -> str:
        attempts.append(current().attempt)
        name = await ask("Name?")
        if current().attempt < 3:
            raise ConnectionError("not yet")
        return f"{name} {await ask('Surname?')}"

    async def main() -> None:
        await suspend(world.again(), moody)
        assert attempts == [1]
        await answer(world, "Name?", "Ada")
        await suspend(world.again(), moody)
        assert attempts == [1, 1, 2, 3], "waiting is no failure of an attempt"
        await answer(world, "Surname?", "Lovelace")
        async with world.again():
            assert await moody() == "Ada Lovelace"
        assert attempts == [1, 1, 2, 3, 3], "attempts that failed before count"
        assert len(await world.store.questions(RUN, is_open=False)) == 2

    run_virtually(main)


def test_a_sibling_that_fails_counts_more_than_a_question_that_waits(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["b"]

    async def work() -> None:
        async with parallel(error_strategy="fail_fast") as p:
            p.add(ask("Well?"), name="question")
            p.add(fetch("b"))
            await p.gather()

    async def main() -> None:
        with pytest.raises(ConnectionError, match="b is down"):
            async with world.again():
                await work()
        assert (await world.info()).status is ExecutionStatus.FAILED
        world.down.clear()
        await suspend(world.again(), work)
        await answer(world, "Well?", "yes")
        async with world.again():
            await work()
        assert world.calls == ["b", "b"]

    run_virtually(main)


def test_a_program_that_handles_the_failure_beside_a_question_comes_to_its_end(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["b"]

    async def main() -> None:
        async with world.again() as state:
            with pytest.raises(ConnectionError):
                async with parallel(error_strategy="fail_fast") as p:
                    p.add(ask("Well?"), name="question")
                    p.add(fetch("b"))
                    await p.gather()
            await fetch("c")
        assert (state.status, state.questions) == (ExecutionStatus.COMPLETED, [])

    run_virtually(main)


def test_a_stream_gives_everything_else_before_the_run_waits(world: World) -> None:
    fetch = world.make_fetch()
    given: list[Any] = []

    async def work() -> list[Any]:
        given.clear()
        async with parallel(max_workers=2) as p:
            p.add(ask("Well?"), name="question")
            p.map(fetch, list("abcd"))
            async for result in p.stream():
                given.append(result.unwrap())  # noqa: PERF401 - what was given before it waits is kept
        return given

    async def main() -> None:
        await suspend(world.again(), work)
        assert given == ["a", "b", "c", "d"]
        await answer(world, "Well?", "yes")
        async with world.again():
            assert await work() == ["a", "b", "c", "d", "yes"]
        assert world.calls == ["a", "b", "c", "d"]

    run_virtually(main)


def test_whoever_leaves_a_stream_early_waits_for_nobody(world: World) -> None:
    """The rest is not wanted, so neither is the answer."""
    fetch = world.make_fetch()

    async def main() -> None:
        async with world.again() as state:
            async with parallel(max_workers=3) as p:
                p.add(ask("Well?"), name="question")
                p.map(fetch, list("ab"))
                async for result in p.stream():
                    assert result.unwrap() == "a"
                    break
            await fetch("c")
        assert state.status is ExecutionStatus.COMPLETED

    run_virtually(main)


def test_a_group_that_the_program_cancels_waits_for_nobody(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 100}

    async def main() -> None:
        async with world.again() as state:
            async with parallel(max_workers=3) as p:
                p.add(ask("Well?"), name="question")
                p.map(fetch, ["a", "slow"])
                await asyncio.sleep(5)
                p.cancel()
                assert [result.unwrap() for result in await p.gather()] == ["a"]
            await fetch("c")
        assert state.status is ExecutionStatus.COMPLETED

    run_virtually(main)


def test_a_stop_while_questions_are_open_is_a_stop(world: World) -> None:
    fetch = world.make_fetch()
    world.seconds = {"slow": 10}

    async def work() -> list[Any]:
        async with parallel() as p:
            p.add(ask("Well?"), name="question")
            p.map(fetch, ["slow", "b"])
            return [result.unwrap() for result in await p.gather()]

    async def main() -> None:
        state = world.again()
        with pytest.raises(RunStopped) as caught:
            async with state:
                asyncio.get_running_loop().call_later(5, state.request_interrupt, "a deploy")
                await work()
        assert type(caught.value) is RunStopped
        assert [question.text for question in await world.store.questions(RUN)] == ["Well?"]
        await answer(world, "Well?", "yes")
        async with world.again():
            assert await work() == ["yes", "slow", "b"]
        assert sorted(world.calls) == ["b", "slow"]

    run_virtually(main)


def test_a_failure_that_nobody_reads_is_not_lost_because_somebody_is_asked(world: World) -> None:
    fetch = world.make_fetch()
    world.down = ["b"]

    async def work() -> list[bool]:
        async with parallel() as p:
            p.add(ask("Well?"), name="question")
            p.add(fetch("b"))
            return [result.ok for result in await p.gather()]

    async def main() -> None:
        await suspend(world.again(), work)
        await answer(world, "Well?", "yes")
        async with world.again():
            assert await work() == [True, False]
        assert world.calls == ["b"], "the run had not ended, so the failure is an outcome like any other"

    run_virtually(main)


def test_another_text_is_another_question(world: World) -> None:
    async def main() -> None:
        for text in ("Old?", "New?"):
            with pytest.raises(RunAwaiting):
                async with world.again() as state:
                    await state.ask(text)
        assert [question.text for question in await world.store.questions(RUN)] == ["Old?", "New?"]
        await answer(world, "New?", 1)
        async with world.again() as state:
            assert await state.ask("New?") == 1

    run_virtually(main)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_an_answer_is_kept_however_durable_the_run_is(world: World, durability: str) -> None:
    async def work() -> list[Any]:
        return [await ask("One?"), await ask("Two?")]

    async def main() -> None:
        for text in ("One?", "Two?"):
            await suspend(world.again(durability=durability), work)
            await answer(world, text, text)
        for _ in range(2):
            async with world.again(durability=durability):
                assert await work() == ["One?", "Two?"]

    run_virtually(main)


@pytest.mark.parametrize("on_unknown", ["retry", "fail", "ask"])
def test_a_question_that_a_crash_cut_off_is_asked_again_whatever_becomes_of_other_calls(
    world: World, on_unknown: str
) -> None:
    async def work() -> Any:
        return await ask("Well?")

    async def person(question: Question) -> object:
        assert question.text == "Well?", "whether to ask is no question"
        return question.text

    async def main() -> None:
        await suspend(world.again(), work)
        for count in range(len(world.store.entries) + 1):  # type: ignore[attr-defined]
            left = await world.store.after_the_first(count)  # type: ignore[attr-defined]
            state = world.again(store=left, on_unknown=on_unknown)
            state.set_answerer(person)
            async with state:
                assert await work() == "Well?"

    run_virtually(main)
