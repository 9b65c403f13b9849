"""Batches, whoever runs them: nothing is paid twice, whatever fails and whenever the process dies."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from rh_agents import ChatModel, ConcurrencyLimit, ExecutionState, MemoryStore, Price, RateLimit, RetryPolicy
from rh_agents.core.chat import Fallback
from rh_agents.core.errors import (
    AccessDenied,
    InvalidRequest,
    ModelError,
    ModelOverloaded,
    ModelTimeout,
    UnreadableAnswer,
)
from rh_agents.core.policies.budget import Budget
from rh_agents.llms._batch_api import BatchApi, Marks
from rh_agents.llms._batch_results import FETCHES, PATIENCE, read_lines
from rh_agents.llms._batches import Batches, in_batches
from rh_agents.testing import JumpingClock
from tests.runtime.worlds import RUN, Crash, KeepingStore
from tests.services.memory_batches import Batch, MemoryApi, Provider, gone, lost, refuse

QUESTIONS = ["a", "b", "c"]
BOTH = pytest.mark.parametrize("keeps_marks", [True, False], ids=["with marks", "without marks"])


class BatchedModel(ChatModel):
    """A model whose requests can be sent as batches."""

    def batch_api(self) -> BatchApi:
        return MemoryApi(World.provider)


class World:
    """What a test can see and spoil. Time goes on from one execution of the run to the next."""

    provider: Provider

    def __init__(self, *, keeps_marks: bool = True) -> None:
        self.clock = JumpingClock()
        self.provider = World.provider = Provider(keeps_marks=keeps_marks)
        self.provider.now = self.clock
        self.provider.takes = 100.0
        self.store: MemoryStore = KeepingStore(clock=self.clock)
        self.told: list[str] = []
        self.spent = 0.0

    def run(self, questions: list[str] | None = None, *, workers: int = 100, **settings: Any) -> list[Any]:
        """What comes of the questions, all at once: texts, or errors."""

        async def main() -> list[Any]:
            batch_options = {name: settings.pop(name) for name in ("most", "wait_for_room") if name in settings}
            model = BatchedModel(model="m", **{"retry": None, "price": Price(1.0, 1.0), **settings})
            state = ExecutionState(store=self.store, run_id=RUN, clock=self.clock)
            with in_batches(Batches(tell=self.told.append, **batch_options)):
                async with state, state.parallel(max_workers=workers) as group:
                    for each in QUESTIONS if questions is None else questions:
                        group.add(model.ask(each))
                    results = await group.gather()
            self.spent = state.spent.usage.cost
            return [each.result if each.ok else each.error for each in results]

        return self.clock.run(asyncio.wait_for(main(), 1e7))

    def crash(self, **settings: Any) -> None:
        """Begin, and die where the provider says so."""
        with pytest.raises(Crash):
            self.run(**settings)


def at(number: int, error: Callable[[], BaseException]) -> Callable[[int, str], None]:
    """Fails at this operation."""

    def fail(current: int, _: str) -> None:
        if current == number:
            raise error()

    return fail


def always(name: str, error: Callable[[], BaseException], times: float = float("inf")) -> Callable[[int, str], None]:
    """Fails at operations of this name, so often."""
    left = itertools.count(1)

    def fail(_: int, current: str) -> None:
        if current == name and next(left) <= times:
            raise error()

    return fail


def nothing(_: int, __: str) -> None:
    """Nothing goes wrong."""


def test_models_that_stand_in_for_each_other_have_the_patience_of_a_batch() -> None:
    """And a batch is made of the requests of all, whatever limits each of them has otherwise."""
    world = World()
    limits = (ConcurrencyLimit(1), RateLimit(requests=1, per=1e9))

    async def main() -> tuple[list[Any], float]:
        first, second = (BatchedModel(model=name, retry=None, price=Price(1.0, 1.0), limits=limits) for name in "ab")
        model = Fallback(first, second, timeout=10.0)
        with in_batches(Batches()):
            async with ExecutionState() as state, state.parallel(max_workers=10) as group:
                for each in QUESTIONS:
                    group.add(model.ask(each))
                return [result.error for result in await group.gather()], state.spent.usage.cost

    errors, _ = world.clock.run(asyncio.wait_for(main(), 1e7))
    assert errors == [None] * len(QUESTIONS)
    assert len(world.provider.batches) == 1


WRONG = {
    "a crash before": ("before", Crash),
    "a crash after": ("after", Crash),
    "no connection": ("before", lost),
    "no answer": ("after", lost),
    "404": ("before", gone),
    "401": ("before", lambda: AccessDenied("no", status=401)),
}
"""What goes wrong, before or after the provider has done what it was asked to."""


@BOTH
@pytest.mark.parametrize(("moment", "error"), WRONG.values(), ids=WRONG.keys())
def test_whatever_fails_at_whichever_operation_nothing_is_paid_twice(
    keeps_marks: bool, moment: str, error: Callable[[], BaseException]
) -> None:
    undisturbed = World(keeps_marks=keeps_marks)
    assert undisturbed.run() == ["A", "B", "C"]
    for number in range(len(undisturbed.provider.operations)):
        world = World(keeps_marks=keeps_marks)
        setattr(world.provider, moment, at(number, error))
        results: list[Any] = []
        try:
            results = world.run()
        except Crash:
            assert error is Crash
        setattr(world.provider, moment, nothing)
        if results != ["A", "B", "C"]:
            results = world.run()
        assert results == ["A", "B", "C"], (number, world.provider.operations)
        assert Counter(world.provider.done) == Counter("abc"), (number, world.provider.operations)


@BOTH
def test_a_kill_after_any_write_to_the_store_makes_no_second_batch(keeps_marks: bool) -> None:
    world = World(keeps_marks=keeps_marks)
    world.run()
    assert isinstance(world.store, KeepingStore)
    recorded = world.store
    for count in range(len(recorded.entries) + 1):
        world.store = asyncio.run(recorded.after_the_first(count))
        began = count >= next(
            number for number, (event, _) in enumerate(recorded.entries, 1) if event.actor.name == "submit_to_batch"
        )
        if keeps_marks or began:  # without marks, a batch is looked for if the store knows that one may have been made
            assert world.run() == ["A", "B", "C"]
    assert len(world.provider.batches) == 1


@BOTH
def test_a_batch_is_found_again_whatever_the_requests_are_gathered_with_now(keeps_marks: bool) -> None:
    world = World(keeps_marks=keeps_marks)
    world.provider.after = always("create", Crash)
    world.crash()
    world.provider.after = nothing
    assert world.run(["d", "c", "a"], workers=2) == ["D", "C", "A"]
    assert world.run(["a", "b", "c", "d"], workers=1) == ["A", "B", "C", "D"]
    assert Counter(world.provider.done) == Counter("abcd")


def test_a_batch_that_got_no_answer_and_comes_into_the_list_late_is_not_paid_for_twice() -> None:
    world = World()
    unlisted: list[Batch] = []

    def hide_the_first(_: int, name: str) -> None:
        if name != "create":
            return
        if not unlisted:
            unlisted.append(world.provider.batches.pop("batch_0"))
            raise lost()
        world.provider.batches = {"first": unlisted[0], **world.provider.batches}
        unlisted[0].id = "first"

    world.provider.after = hide_the_first
    assert world.run() == ["A", "B", "C"]
    assert Counter(world.provider.done) == Counter("abc")
    assert any("has the same requests" in line for line in world.told)


def test_a_batch_that_was_looked_for_in_vain_is_looked_for_again_by_the_next_attempt() -> None:
    world = World()
    unlisted: list[Batch] = []
    world.provider.before = always("create", lost, times=3)

    def hide(_: int, name: str) -> None:
        if name == "create":
            unlisted.append(world.provider.batches.pop("batch_0"))
            raise lost()

    world.provider.after = hide
    assert [type(each) for each in world.run()] == [ModelTimeout] * 3
    world.provider.after = nothing
    world.provider.batches["batch_0"] = unlisted[0]
    assert world.run() == ["A", "B", "C"]
    assert Counter(world.provider.done) == Counter("abc")


def test_a_batch_that_may_have_been_made_is_looked_for_as_far_back_as_the_run_goes() -> None:
    world = World()
    world.provider.after = always("create", Crash)
    world.crash()
    world.provider.after = nothing
    for number in range(250):
        world.provider.create({f"x{number}": {"prompt": "x"}}, Marks("somebody", str(number)))
    assert world.run() == ["A", "B", "C"]
    assert Counter(world.provider.done) == Counter({"x": 250, "a": 1, "b": 1, "c": 1})


@BOTH
def test_a_look_that_fails_for_hours_is_repeated(keeps_marks: bool) -> None:
    world = World(keeps_marks=keeps_marks)
    world.provider.before = always("retrieve", lost, times=1_000)
    assert world.run() == ["A", "B", "C"]
    assert len(world.provider.batches) == 1
    assert any("looking failed: no answer" in line for line in world.told)


def test_a_batch_that_is_said_not_to_exist_is_looked_for_patiently() -> None:
    world = World()
    world.provider.before = always("retrieve", gone, times=PATIENCE - 1)
    assert world.run() == ["A", "B", "C"]
    assert len(world.provider.batches) == 1


def test_a_batch_that_cannot_be_asked_for_good_is_the_first_that_is_asked_next_time() -> None:
    world = World()
    world.provider.before = always("content", lambda: AccessDenied("wrong key", status=401))
    first = world.run()
    assert [type(each) for each in first] == [AccessDenied] * 3
    assert "batch_0 cannot be read now" in str(first[0])
    assert [type(each) for each in world.run()] == [AccessDenied] * 3
    world.provider.before = nothing
    assert world.run() == ["A", "B", "C"]
    assert len(world.provider.batches) == 1


def test_a_batch_that_is_gone_is_made_again_by_another_execution_only() -> None:
    world = World()
    world.provider.before = lambda _, name: always(name, gone)(0, name) if name == "retrieve" else None
    assert [type(each) for each in world.run(retry=RetryPolicy(max_attempts=3))] == [InvalidRequest] * 3
    assert len(world.provider.batches) == 1
    world.provider.before = lambda _, name: None
    original = world.provider.batches.pop("batch_0")
    world.provider.batches["batch_9"] = original
    original.marks = type(original.marks)("", "")
    world.provider.before = always("retrieve", gone, times=PATIENCE)
    assert world.run() == ["A", "B", "C"]
    assert world.run() == ["A", "B", "C"]


def test_an_answer_that_came_out_of_a_left_batch_and_was_not_good_enough_is_asked_for_anew() -> None:
    world = World()
    world.provider.before = always("content", lambda: AccessDenied("wrong key", status=401))
    assert isinstance(world.run(["a"], output_retries=0)[0], AccessDenied)
    world.provider.before = nothing

    def wrong(content: bytes) -> bytes:
        return content.replace(b'"A"', b"null")

    world.provider.spoil = wrong
    assert isinstance(world.run(["a"])[0], Exception)
    world.provider.spoil = lambda content: content
    assert world.run(["a"]) == ["A"]
    assert len(world.provider.batches) == 2


def test_a_line_that_cannot_be_read_is_the_failure_of_its_request_and_counts_as_an_estimate() -> None:
    world = World()
    world.provider.spoil = lambda content: b"\n".join(
        line[:-3] if b'"B"' in line else line for line in content.split(b"\n")
    )
    results = world.run(retry=RetryPolicy(max_attempts=5))
    assert results[0] == "A"
    assert results[2] == "C"
    assert isinstance(results[1], UnreadableAnswer)
    assert results[1].usage is not None
    assert results[1].usage.estimates == 1
    assert world.spent > 2 * 15 / 1e6 / 2
    assert len(world.provider.batches) == 1
    assert world.provider.operations.count("content") == FETCHES


def test_a_line_that_does_not_even_say_whose_it_is_is_not_paid_for_again() -> None:
    world = World()
    world.provider.spoil = lambda content: content.replace(b"custom_id", b"kustom_id", 1)
    results = world.run(retry=RetryPolicy(max_attempts=5))
    (error,) = [each for each in results if isinstance(each, Exception)]
    assert isinstance(error, UnreadableAnswer)
    assert len(world.provider.batches) == 1


def test_a_file_that_came_damaged_once_is_fetched_again() -> None:
    world = World()
    came: list[bytes] = []

    def cut(content: bytes) -> bytes:
        came.append(content)
        return content[:30] if len(came) == 1 else content

    world.provider.spoil = cut
    assert world.run() == ["A", "B", "C"]
    assert len(world.provider.batches) == 1


def test_a_batch_for_which_there_is_no_room_is_submitted_again_later_and_in_the_end_everything_is_done() -> None:
    world = World()
    world.provider.room = 4
    questions = [f"q{number}" for number in range(10)]
    assert world.run(questions, most=3, wait_for_room=300.0) == [each.upper() for each in questions]
    assert Counter(world.provider.done) == Counter(questions)
    assert any("submitting it again in 300 s" in line for line in world.told)
    assert world.clock.elapsed >= 3 * world.provider.takes


def test_a_batch_that_is_too_large_even_alone_is_submitted_in_smaller_ones() -> None:
    world = World()
    world.provider.room = 3
    questions = [f"q{number}" for number in range(10)]
    assert world.run(questions) == [each.upper() for each in questions]
    assert Counter(world.provider.done) == Counter(questions)


def test_one_request_that_is_too_large_even_alone_fails() -> None:
    world = World()
    world.provider.room = 0
    (result,) = world.run(["a"])
    assert isinstance(result, InvalidRequest)
    assert "one request alone is too large" in str(result)


def test_a_run_that_dies_while_there_is_no_room_submits_nothing_twice() -> None:
    undisturbed = World()
    undisturbed.provider.room = 2
    undisturbed.run(most=2)
    for number in range(len(undisturbed.provider.operations)):
        world = World()
        world.provider.room = 2
        world.provider.after = at(number, Crash)
        world.crash(most=2)
        world.provider.after = nothing
        assert world.run(most=2) == ["A", "B", "C"]
        assert Counter(world.provider.done) == Counter("abc"), number


def test_a_provider_that_takes_no_more_batches_for_now_is_waited_for() -> None:
    world = World()
    world.provider.before = always("create", lambda: refuse(77.0), times=3)
    assert world.run() == ["A", "B", "C"]
    assert len(world.provider.batches) == 1
    assert world.clock.elapsed >= 3 * 77


def test_a_request_for_which_its_whole_batch_was_refused_does_not_cost_its_siblings() -> None:
    world = World()
    world.provider.refuses = {"b"}
    results = world.run()
    assert (results[0], results[2]) == ("A", "C")
    assert isinstance(results[1], InvalidRequest)
    assert "not to our taste" in str(results[1])
    assert Counter(world.provider.done) == Counter("ac")


@BOTH
@pytest.mark.parametrize("status", ["expired", "cancelled", "failed"])
def test_a_batch_that_ends_early_keeps_what_is_done_and_only_the_rest_is_submitted_again(
    keeps_marks: bool, status: str
) -> None:
    world = World(keeps_marks=keeps_marks)
    world.provider.ends = (status, 2)
    results = world.run()
    assert results[:2] == ["A", "B"]
    assert isinstance(results[2], ModelTimeout)
    world.provider.ends = ("done", None)
    assert world.run() == ["A", "B", "C"]
    assert Counter(world.provider.done) == Counter("abc")


@BOTH
def test_a_batch_that_ended_early_after_the_process_had_died_keeps_what_is_done(keeps_marks: bool) -> None:
    world = World(keeps_marks=keeps_marks)
    world.provider.ends = ("expired", 2)
    world.provider.after = always("create", Crash)
    world.crash()
    world.provider.after = nothing
    world.clock.advance(10_000)
    world.provider.tick()
    world.provider.ends = ("done", None)
    assert world.run() == ["A", "B", "C"]
    assert Counter(world.provider.done) == Counter("abc")


def test_without_marks_a_batch_of_somebody_else_is_not_taken_for_ours() -> None:
    world = World(keeps_marks=False)
    world.provider.after = always("prepare", Crash)
    world.crash()
    world.provider.after = nothing
    other = world.provider.create({"x-0": {"prompt": "x"}}, None)  # type: ignore[arg-type]
    assert world.run() == ["A", "B", "C"]
    assert Counter(world.provider.done) == Counter("xabc")
    assert other.status == "done"


def test_a_budget_in_money_counts_half_the_price() -> None:
    world = World()
    assert world.run(budget=Budget(cost=1.0)) == ["A", "B", "C"]
    assert world.spent == pytest.approx(3 * 15 / 1e6 / 2)


def test_lines_end_with_line_feeds_alone_and_halves_of_surrogate_pairs_are_replaced() -> None:
    content = '{"custom_id": "1", "text": "a\u2028b\u0085c"}\n\n{"custom_id": "2", "text": "half \\ud83d"}\r\n'.encode()
    lines = read_lines(content)
    assert [line["text"] for line in lines.good.values()] == ["a\u2028b\u0085c", "half \ufffd"]
    assert not lines.has_gaps


def test_wherever_a_file_is_cut_off_the_lines_before_it_are_read() -> None:
    content = b"\n".join(b'{"custom_id": "%d", "text": "t"}' % number for number in range(3))
    for length in range(len(content)):
        lines = read_lines(content[:length])
        whole = content[:length].count(b"}")
        assert len(lines.good) == whole
        assert len(lines.good) + len(lines.damaged) + lines.nameless == len(content[:length].strip().split(b"\n")) - (
            length == 0
        )


def test_an_error_of_ours_reaches_everybody_who_waits() -> None:
    world = World()
    world.provider.before = always("prepare", lambda: ModelOverloaded("busy"))
    assert [type(each) for each in world.run()] == [ModelOverloaded] * 3
    assert issubclass(ModelOverloaded, ModelError)
