"""Whatever a program does: interrupted and killed at any moment, its run tells the same story when it goes on.

These are the programs of every day, in virtual time. Many more, with processes that are really killed, are tried by
`make stress`, and by hand with `python -m tests.random_programs`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from dataclasses import fields
from hashlib import sha256
from pathlib import Path

import pytest

from rh_agents import MemoryStore, run
from tests.random_programs.__main__ import main
from tests.random_programs.additions import ADDED_FROM, draw_any_program
from tests.random_programs.interpreter import Interpreter
from tests.random_programs.ledger import Line
from tests.random_programs.programs import (
    PEOPLE,
    Agent,
    Chains,
    Group,
    Leaf,
    Pause,
    Plain,
    Program,
    draw_change,
    draw_program,
    everything_in,
    is_timeless,
    source_of,
    width_of,
)
from tests.random_programs.real import RealTrial
from tests.random_programs.shrink import shrink
from tests.random_programs.virtual import VirtualTrial, draw_moments

PROGRAMS = 200
SIZE = 8
AT_ONCE = 25
FIRST = (*range(0, 150, AT_ONCE), *range(ADDED_FROM, ADDED_FROM + 50, AT_ONCE))
SEEDS = [seed for first in FIRST for seed in range(first, first + AT_ONCE)]


@pytest.mark.parametrize("first", FIRST)
def test_random_programs_tell_the_same_story_after_crashes_and_interrupts_at_any_moment(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        program = draw_any_program(seed, SIZE)
        trial = VirtualTrial(program, draw_moments(random.Random(f"moments {seed}")), seed)
        found = trial.findings()
        assert found == [], (
            f"python -m tests.random_programs virtual --size {SIZE} --seed-from {seed}\n{source_of(program)}"
        )


def test_the_disk_is_free_when_an_execution_begins_however_long_the_one_before_it_took() -> None:
    """The first execution ends after 40 s, with its budget. In the second one, the timeout of the agent passes while
    the outcome of a call is written, which takes a moment, not until the time at which the first one ended.
    """
    slow, cut_off = Leaf("a", seconds=40.0), Agent("b", (Leaf("c", seconds=2.0),), timeout=2.5)
    program = Program((slow, cut_off), budget=1)
    for seed in range(6):
        assert VirtualTrial(program, draw_moments(random.Random(seed)), seed).findings() == [], f"seed {seed}"


def test_equal_seeds_give_equal_programs() -> None:
    assert [draw_program(seed) for seed in range(20)] == [draw_program(seed) for seed in range(20)]
    assert len({source_of(draw_program(seed)) for seed in range(20)}) == 20
    later = range(ADDED_FROM, ADDED_FROM + 20)
    assert [draw_any_program(seed) for seed in later] == [draw_any_program(seed) for seed in later]


def test_earlier_seeds_mean_what_they_always_meant() -> None:
    assert [draw_any_program(seed) for seed in range(20)] == [draw_program(seed) for seed in range(20)]
    sources = "".join(source_of(draw_any_program(seed, 10)) for seed in (0, 90941, 111_000))
    assert sha256(sources.encode()).hexdigest() == "79f5094017d028ae70e95f9aee41038127662e0a796efe2634c3cbf33599a4fc"


def test_the_programs_of_every_day_do_everything_that_is_not_known_to_fail() -> None:
    used: Counter[tuple[str, str, object]] = Counter()
    for seed in SEEDS:
        for part in everything_in(draw_any_program(seed, SIZE)):
            for each in fields(part):
                value = getattr(part, each.name)
                if each.name not in ("label", "name") and not isinstance(value, tuple):
                    used[type(part).__name__, each.name, value] += 1
    for kind, option, values in [
        ("Leaf", "kind", ("model", "dataclass", "enum", "bytes", "set", "large", "error", "unstorable")),
        ("Leaf", "external", ("retry", "fail", "ask")),
        ("Leaf", "process", (True,)),
        ("Leaf", "dies", (1, 2)),
        ("Ask", "errs", (False, True)),
        ("Program", "people", PEOPLE),
        ("Leaf", "limit", ("slots", "rate")),
        ("Leaf", "fails_at_first", (True,)),
        ("Leaf", "hangs", (1,)),
        ("Leaf", "attempts", (2, 3)),
        ("Leaf", "cache", ("run", "store")),
        ("Plain", "given", ("coroutine", "callable")),
        ("Agent", "attempts", (2, 3)),
        ("Agent", "timeout", (1.5,)),
        ("Group", "read", ("gather", "dict", "stream", "ordered", "crawl", "nothing")),
        ("Group", "read", ("leave", "cancel", "cancel_later", "raise")),
        ("Group", "strategy", ("fail_fast",)),
        ("Group", "enrol", ("add", "map", "map_async", "map_failing")),
        ("Group", "retry", (2, 3)),
        ("Chains", "how", ("all", "first", "careless", "task_group")),
        ("Program", "durability", ("sync", "async", "exit")),
    ]:
        for value in values:
            assert used[kind, option, value], f"no {kind} with {option}={value!r}"
    assert any(option == "budget" and value for (_, option, value) in used)


def test_somebody_adds_removes_and_moves_steps_and_items_of_programs() -> None:
    changes = Counter[str]()
    for seed in range(PROGRAMS):
        program = draw_program(seed, SIZE)
        changed = draw_change(program, random.Random(f"change {seed}"))
        if changed is program:
            changes["as it was"] += 1
            continue
        before, now = Counter(map(id, program.body)), Counter(map(id, changed.body))
        changes["removed"] += bool(before - now)
        changes["added"] += any(isinstance(part, Leaf) and part.label.startswith("new") for part in changed.body)
        changes["moved"] += before == now and program.body != changed.body
        changes["items"] += any(isinstance(part, Group) and id(part) not in before for part in changed.body)
    assert all(changes[what] for what in ("as it was", "removed", "added", "moved", "items")), changes


def test_a_program_without_a_look_at_time_is_timeless() -> None:
    leaf = Leaf("a")
    assert is_timeless(Program((Group("g", (leaf, Plain("b")), read="stream"), Agent("c", (leaf,)), Pause())))
    looks: list[Group | Agent | Leaf] = [
        Group("g", (leaf,), timeout=1.0),
        Group("g", (leaf,), fail_after=1),
        Group("g", (leaf,), strategy="fail_fast"),
        Group("g", (leaf,), read="leave"),
        Agent("c", (leaf,), timeout=1.0),
        Leaf("a", external="fail"),
    ]
    for each in looks:
        assert not is_timeless(Program((Agent("d", (each,)),)))


def test_calls_that_share_a_result_which_only_some_of_them_can_make_depend_on_who_comes_first() -> None:
    shared = Leaf("a", fails=1, cache="store")
    retried = Group("g", (shared,), retry=2)
    assert is_timeless(Program((retried, Group("h", (shared,), retry=3))))
    assert is_timeless(Program((shared, Agent("b", (shared,)))))
    for other in (
        shared,
        Chains(((shared,), (Pause(),))),
        Group("h", (shared,)),
        Group("h", (Leaf("c"),), inside=(shared,)),
    ):
        assert not is_timeless(Program((retried, other)))


def test_as_many_functions_are_under_way_as_there_are_slots() -> None:
    group = Group("g", (Leaf("a"), Leaf("b"), Agent("c", (Group("h", (Leaf("d"), Leaf("e")), workers=2),))), workers=2)
    assert width_of(Program((Leaf("x"), group))) == 3


def test_a_program_that_fails_is_made_smaller() -> None:
    def fails(smaller: Program) -> bool:
        return any(isinstance(part, Group) and part.read == "crawl" for part in everything_in(smaller))

    program = next(each for each in (draw_program(seed, 20) for seed in range(100)) if fails(each))
    smallest = shrink(program, fails)
    parts = list(everything_in(smallest))
    assert fails(smallest)
    assert len(parts) == 3, source_of(smallest)


def test_programs_that_are_tried_by_hand_have_databases_hold_that_a_call_has_one_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for before, found in ((None, "keys"), ("", "")):
        monkeypatch.delenv("RH_AGENTS_CHECK", raising=False)
        if before is not None:
            monkeypatch.setenv("RH_AGENTS_CHECK", before)
        assert main(["virtual", "--count", "0"]) == 0
        assert os.environ["RH_AGENTS_CHECK"] == found


def test_programs_that_share_a_store_find_nothing_that_another_one_has_cached(tmp_path: Path) -> None:
    """Else what one program made would pass for a value of another one, which numbers its calls in the same way."""
    program, store = Program((Leaf("a", cache="store"),)), "postgresql://shared"
    shared = MemoryStore()
    called: list[Line] = []
    for _ in range(2):
        trial = RealTrial(program, [], 5, tmp_path, store)
        interpreter = Interpreter(program, called.append, "1", unit=0.001, trial=trial.name)
        asyncio.run(run(interpreter.workflow, store=shared, run_id=trial.name))
    assert [line.kind for line in called] == ["begun", "done", "seen"] * 2
