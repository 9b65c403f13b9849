"""How identical calls of one frame are numbered, and when nothing defines their order."""

from typing import Any

import detangle
import pytest

from rh_agents import BaseActor, ExecutionState, ExecutionStatus, MemoryStore
from rh_agents.core._replay.identity import Claim, again_key
from rh_agents.core._run.frame import Frame
from rh_agents.core.events import Fact
from rh_agents.core.results import Outcome
from rh_agents.core.types import Generation
from tests.doubles import request


class Task:
    """Somebody who numbers calls."""


OWNER, OTHER, THIRD = Task(), Task(), Task()
X, Y = b"x" * 32, b"y" * 32


@pytest.fixture
def frame() -> Frame:
    frame = Frame(ExecutionState().parts, b"key", "survey")
    frame.owner = OWNER
    return frame


@pytest.mark.parametrize(
    "claims",
    [
        [(OWNER, X, 0, True), (OWNER, X, 1, True), (OWNER, Y, 0, True), (OWNER, X, 2, True)],
        [(OTHER, X, 0, True), (OTHER, X, 1, True)],
        [(OWNER, X, 0, True), (OTHER, Y, 0, True), (OWNER, X, 1, True), (OTHER, Y, 1, True)],
        [(OWNER, X, 0, True), (OTHER, X, 1, False)],
        [(OTHER, X, 0, True), (OWNER, X, 1, False)],
        [(OTHER, X, 0, True), (THIRD, X, 1, False), (OTHER, X, 2, False)],
        [(OTHER, Y, 0, True), (OWNER, X, 0, True), (OTHER, X, 1, False)],
        [(OWNER, X, 0, True), (OWNER, X, 1, True), (OTHER, X, 2, False)],
    ],
    ids=[
        "the owner's calls are numbered in program order",
        "another task's calls too, as long as nobody else makes them",
        "different calls do not disturb each other",
        "the owner's, then another task's",
        "another task's, then the owner's",
        "two other tasks'",
        "the owner's first one after another task's different one",
        "another task's after several of the owner's",
    ],
)
def test_identical_calls_are_numbered_and_their_order_is_defined_only_within_one_task(
    frame: Frame, claims: list[tuple[Any, bytes, int, bool]]
) -> None:
    for claimant, same, occurrence, is_ordered in claims:
        assert frame.claim(same, claimant) == Claim(occurrence, is_ordered)


def test_a_scope_without_an_owner_belongs_to_whoever_calls_first() -> None:
    frame = Frame(ExecutionState().parts, b"", "")
    frame.claim(X, OTHER)
    assert frame.owner is OTHER
    assert frame.claim(Y, OWNER) == Claim(0, True)


def test_another_attempt_numbers_anew(frame: Frame) -> None:
    frame.begin_attempt(1)
    frame.claim(X, OWNER)
    frame.claim(X, OTHER)
    frame.group_began("pages", OTHER)
    frame.begin_attempt(2)
    assert frame.attempt == 2
    assert frame.claim(X, OTHER) == Claim(0, True)
    assert not frame.has_other_open_group("pages", OWNER)


FAILURE = ValueError("bad")


def outcome(key: bytes, error: Exception | None, made_in: Generation) -> Outcome:
    return Outcome(key, "fetch", "survey::fetch", None, error, 1.0, 1, made_in=made_in)


AGAIN = again_key(X)
THIRD_TIME = again_key(AGAIN)


@pytest.mark.parametrize(
    ("recorded", "now", "key", "tries"),
    [
        ([], (0, 0, 1), X, 0),
        ([(X, None, (0, 0, 1))], (0, 5, 5), X, 0),
        ([(X, FAILURE, (0, 0, 1))], (0, 0, 1), X, 0),
        ([(X, FAILURE, (0, 0, 1))], (0, 0, 2), AGAIN, 1),
        ([(X, FAILURE, (0, 0, 3))], (0, 1, 1), AGAIN, 1),
        ([(X, FAILURE, (0, 0, 1)), (AGAIN, FAILURE, (0, 0, 2))], (0, 0, 2), AGAIN, 1),
        ([(X, FAILURE, (0, 0, 1)), (AGAIN, FAILURE, (0, 0, 2))], (0, 0, 3), THIRD_TIME, 2),
        ([(X, FAILURE, (0, 0, 1)), (AGAIN, None, (0, 0, 2))], (0, 0, 3), AGAIN, 1),
        ([(X, FAILURE, (0, 0, 1))], (1, 0, 1), AGAIN, 1),
        ([(X, FAILURE, (0, 0, 1)), (AGAIN, FAILURE, (1, 0, 1))], (1, 0, 1), AGAIN, 1),
    ],
    ids=[
        "never made",
        "a value counts for ever",
        "a failure of this attempt is repeated",
        "another attempt makes it again",
        "so does the first attempt of the caller's second try",
        "the second failure belongs to this attempt",
        "the third attempt makes it a third time",
        "the second time it succeeded",
        "the run has ended and is tried again",
        "in which it failed once more",
    ],
)
def test_a_call_is_made_again_if_it_failed_before_this_generation_of_its_caller(
    recorded: list[tuple[bytes, Exception | None, Generation]], now: Generation, key: bytes, tries: int
) -> None:
    async def main() -> tuple[bytes, int]:
        store = MemoryStore()
        actor = BaseActor(name="fetch", handler=print)
        journal = await store.open_run(request("r"))
        for each in recorded:
            fact = Fact("r", 0.0, ExecutionStatus.COMPLETED, actor.event_type, actor, "fetch", "", each[0])
            journal.note(fact, outcome(*each))
        await journal.close(ExecutionStatus.COMPLETED if now[0] else ExecutionStatus.STARTED)
        state = ExecutionState(store=store, run_id="r")
        await state.open()
        frame = Frame(state.parts, b"key", "survey")
        frame.tries, frame.attempt = now[1:]
        assert frame.generation == now
        return frame.try_of(X)

    assert detangle.run(main) == (key, tries)


def test_two_groups_of_one_name_are_told_apart_only_while_both_are_open(frame: Frame) -> None:
    assert not frame.has_other_open_group("pages", OWNER)
    frame.group_began("pages", OWNER)
    frame.group_began("other name", THIRD)
    assert not frame.has_other_open_group("pages", OWNER)
    assert frame.has_other_open_group("pages", OTHER)
    frame.group_began("pages", OTHER)
    frame.group_ended("pages", OTHER)
    assert frame.has_other_open_group("pages", OTHER), "the first one is still open"
    frame.group_ended("pages", OWNER)
    assert not frame.has_other_open_group("pages", OTHER)
