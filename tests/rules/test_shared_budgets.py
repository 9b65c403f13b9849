"""What a budget that runs share promises, whoever dies, is stopped or has a wrong clock."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents import Budget, MemoryStore, Spending, Usage
from rh_agents.core._limits.ledgers import Ledger, Reservation
from rh_agents.core._limits.sharing.budgets import SharedBudget
from rh_agents.core._limits.sharing.parts import BudgetPart, amounts_of
from rh_agents.core._loops.sleeping import slept_by
from rh_agents.core._loops.stop_signal import StopSignal
from rh_agents.core.policies.sharing.budgets import (
    BUDGET_LEASE,
    BUDGET_LOOK,
    BudgetAnswer,
    BudgetAsk,
    BudgetHolder,
    ask_for_budget,
)
from tests.properties.virtual import run_virtually

NOTHING = {"cost": 0.0, "tokens": 0, "calls": 0}


def tokens(count: float, calls: float = 0) -> dict[str, float]:
    return {"cost": 0.0, "tokens": count, "calls": calls}


def ask(state: dict[str, Any], asked: BudgetAsk, now: float) -> BudgetAnswer:
    """Ask, and read back what a store would have written."""
    answer = ask_for_budget(state, asked, now)
    kept = json.loads(json.dumps(state))
    state.clear()
    state.update(kept)
    return answer


class Asker:
    """One holder that shares 100 tokens, and does what it is told."""

    def __init__(self, state: dict[str, Any], name: str, limit: float = 100, run: str | None = "") -> None:
        self.state, self.limit = state, limit
        self.part = BudgetPart(BudgetHolder(name, name if run == "" else run))

    def ask(
        self, now: float, need: float | None = None, closes: bool = False, **more: Mapping[str, Any]
    ) -> BudgetAnswer:
        wanted = {} if need is None else tokens(need)
        asked = self.part.ask(
            {"tokens": self.limit},
            wanted or None,
            wanted,
            more.get("replaced", {}),
            more.get("shown", {}),
            closes=closes,
        )
        answer = ask(self.state, asked, now)
        if closes:
            self.part.is_new = False
        elif not answer.is_unknown:
            self.part.answered(asked, answer, now)
        return answer

    def begin(self, need: float, now: float) -> bool:
        if not self.part.has_room(tokens(need), now):
            return False
        self.part.begins()
        self.part.take(tokens(need))
        return True

    def end(self, need: float, used: float, *, is_written: bool = True) -> None:
        self.part.use(tokens(used))
        self.part.give_back(tokens(need), tokens(need))
        self.part.ended(tokens(used), is_written=is_written)


# -- never more than stated --------------------------------------------------------------------------------------------


@dataclass
class Call:
    need: float
    used: float
    """It may be more, if nobody knows beforehand what it will use."""
    has_said: bool = False
    """Whether it has said what it used; its reservation is held until its outcome is recorded."""


@dataclass
class Process:
    """An execution of a run. What its calls use is billed when they begin, and in its journal when they have ended."""

    part: BudgetPart
    calls: list[Call] = field(default_factory=list)
    asked: tuple[BudgetAsk, float, BudgetAnswer | None] | None = None
    is_dead: bool = False
    stopped_until: float = 0.0
    journal: float = 0.0
    behind: float = 0.0
    """What is noted of ended calls, and not in the journal."""
    shown: dict[str, Mapping[str, float] | None] = field(default_factory=dict)


class World:
    def __init__(
        self, chance: random.Random, limit: float = 60.0, deaths: float = 0.02, used: tuple[float, float] | None = None
    ) -> None:
        self.chance = chance
        self.used = used
        """What calls use that do not say so beforehand; None: all calls say it."""
        self.beyond = 0.0
        """What calls have used beyond what was reserved for them."""
        self.limit, self.deaths = limit, deaths
        self.state: dict[str, Any] = {}
        self.time, self.ahead, self.billed = 100.0, 0.0, 0.0
        self.processes: list[Process] = []
        for _ in range(3):
            self.start()

    def start(self) -> None:
        name = f"p{len(self.processes)}"
        self.processes.append(Process(BudgetPart(BudgetHolder(name, name))))

    def step(self) -> None:
        chance = self.chance
        self.time += chance.choice([0.0, 0.01, 0.1, 0.3])
        if chance.random() < 0.02:
            self.ahead = chance.uniform(-5.0, 5.0)  # the clock of the server is set
        process = chance.choice([each for each in self.processes if not each.is_dead])
        if process.stopped_until > self.time:
            return
        doing = chance.random()
        if doing < self.deaths:
            process.is_dead = True
            self.start()
        elif doing < self.deaths + 0.01:
            process.stopped_until = self.time + chance.choice([3.0, BUDGET_LEASE + 1.0, 40.0])
        elif doing < 0.4:
            self.begin(process)
        elif doing < 0.65 and process.calls:
            self.end(process)
        elif doing < 0.7:
            process.journal, process.behind = process.journal + process.behind, 0.0
            process.part.are_written(process.part.written())
        elif process.asked is not None:
            self.go_on(process)
        elif chance.random() < 0.3:
            self.ask(process, None)

    def begin(self, process: Process) -> None:
        need = (
            float(self.chance.randrange(1, 6))
            if self.used is None
            else process.part.largest_of("call").get("tokens", 0)
        )
        if process.part.has_room(tokens(need), self.time):
            process.part.begins()
            process.part.take(tokens(need))
            process.calls.append(Call(need, self.chance.uniform(*(self.used or (0.0, need)))))
            self.billed += process.calls[-1].used
            self.beyond += max(0.0, process.calls[-1].used - need)
        elif process.asked is None:
            self.ask(process, need)

    def end(self, process: Process) -> None:
        call = self.chance.choice(process.calls)
        if not call.has_said:
            call.has_said = True
            process.part.use(tokens(call.used), tokens(min(call.need, call.used)))
            return
        process.calls.remove(call)
        is_written = self.chance.random() < 0.8
        if is_written:
            process.journal += call.used
        else:
            process.behind += call.used
        process.part.learn("call", tokens(call.used))
        process.part.give_back(tokens(call.need - min(call.need, call.used)), tokens(call.need))
        process.part.ended(tokens(call.used), is_written=is_written)

    def ask(self, process: Process, need: float | None) -> None:
        wanted = {} if need is None else tokens(need * self.chance.randrange(1, 4))
        needed = None if need is None else tokens(need)
        asked = process.part.ask({"tokens": self.limit}, needed, wanted, {}, process.shown)
        process.asked = (asked, self.time, None)

    def go_on(self, process: Process) -> None:
        """A question that is under way reaches the store, perhaps twice; or its answer comes, or is lost."""
        assert process.asked is not None
        asked, asked_at, answer = process.asked
        if answer is None:
            if self.chance.random() < 0.1:
                process.asked = None  # it was never there
                return
            for _ in range(self.chance.choice([1, 1, 1, 2])):
                answer = ask(self.state, asked, self.time + self.ahead)
            process.asked = (asked, asked_at, answer)
            return
        process.asked = None
        if self.chance.random() < 0.1:
            return  # the connection broke
        assert not answer.is_unknown
        process.part.answered(asked, answer, asked_at)
        process.shown = {lapsed.id: tokens(self.processes[int(lapsed.id[1:])].journal) for lapsed in answer.lapsed}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_no_more_is_spent_than_stated_whoever_dies_is_stopped_or_has_a_wrong_clock(seed: int) -> None:
    world = World(random.Random(seed))
    for _ in range(600):
        world.step()
        assert world.billed <= world.limit + 1e-9


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([(1.0, 5.0), (3.0, 3.0), (0.0, 20.0)]))
def test_a_budget_is_overdrawn_by_no_more_than_what_calls_use_beyond_the_largest_that_was_known(
    seed: int, used: tuple[float, float]
) -> None:
    world = World(random.Random(seed), used=used)
    for _ in range(600):
        world.step()
        assert world.billed <= world.limit + world.beyond + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**9))
def test_calls_that_use_alike_overdraw_nothing_once_everybody_has_heard_of_one(seed: int) -> None:
    world = World(random.Random(seed), limit=300.0, used=(3.0, 3.0))
    while not world.state.get("largest") or not all(
        each.part.largest_of("call") for each in world.processes if not each.is_dead
    ):
        world.step()
    beyond = world.beyond
    for _ in range(2000):
        world.step()
    assert world.beyond == beyond, "whoever begins later hears of it with the first answer"
    assert world.billed <= world.limit + beyond


def test_what_dead_processes_did_not_spend_is_spent_by_others_in_the_end() -> None:
    spent = []
    for seed in range(10):
        world = World(random.Random(seed), limit=300.0, deaths=0.003)
        for _ in range(2000):
            world.step()
        spent.append(world.billed)
    assert sum(spent) / len(spent) > 0.5 * 300.0, "what is lost is what dead processes had in use"


# -- parts -------------------------------------------------------------------------------------------------------------


def test_a_holder_gets_more_than_it_needs_now_and_leaves_enough_for_others() -> None:
    state: dict[str, Any] = {}
    a, b = Asker(state, "a"), Asker(state, "b")
    assert a.ask(1.0, need=10).part["tokens"] == 10 + 45
    assert b.ask(1.1, need=10).part["tokens"] == 10 + 35 // 4
    assert all(a.begin(10, 1.2) for _ in range(1))
    assert not a.begin(10, 1.2), "no more calls at a time than it has said"


def test_while_a_question_is_under_way_no_more_begins_than_it_says() -> None:
    a = Asker({}, "a")
    a.ask(1.0, need=10)
    assert a.begin(10, 1.0)
    asked = a.part.ask({"tokens": 100}, None, {}, {}, {})
    a.end(10, 6)
    assert not a.begin(5, 1.1), "the store may have given it to others by now"
    assert a.begin(4, 1.1)
    a.part.answered(asked, ask(a.state, asked, 1.2), 1.1)
    assert a.begin(6, 1.2)


def test_what_a_call_has_used_is_in_use_until_it_is_written() -> None:
    a = Asker({}, "a")
    a.ask(1.0, need=10)
    assert a.begin(10, 1.0)
    a.end(10, 7, is_written=False)
    assert not a.begin(4, 1.0)
    a.part.are_written(a.part.written())
    assert a.begin(10, 1.0)


def test_what_is_not_used_goes_to_who_waits_within_one_renewal() -> None:
    state: dict[str, Any] = {}
    a, b = Asker(state, "a"), Asker(state, "b")
    a.ask(1.0, need=20)
    assert a.begin(20, 1.0)
    refused = b.ask(1.1, need=60)
    assert (refused.is_granted, refused.missing) == (False, "")
    assert a.ask(1.2).part["tokens"] == 20
    assert b.ask(1.3, need=60).is_granted
    assert b.begin(60, 1.3)


def test_who_has_waited_longest_is_first() -> None:
    state: dict[str, Any] = {}
    a, b, c = (Asker(state, name) for name in "abc")
    a.ask(1.0, need=90)
    assert a.begin(90, 1.0)
    assert not b.ask(1.1, need=50).is_granted
    assert not c.ask(1.15, need=50).is_granted
    a.end(90, 10)
    a.ask(1.2)
    assert not c.ask(1.2 + BUDGET_LOOK, need=50).is_granted, "the other one comes first"
    assert b.ask(1.25 + BUDGET_LOOK, need=50).is_granted


def test_what_is_not_left_whatever_others_give_back_is_missing() -> None:
    state: dict[str, Any] = {}
    a, b = Asker(state, "a"), Asker(state, "b")
    a.ask(1.0, need=60)
    assert a.begin(60, 1.0)
    assert b.ask(1.1, need=45).missing == "", "the call under way may use less than was reserved for it"
    a.end(60, 56)
    a.ask(1.2)
    assert b.ask(1.3, need=45).missing == "tokens"
    assert b.ask(1.4, need=44).is_granted


@pytest.mark.parametrize(
    ("limit", "spent", "need"), [(1.0, 0.9, 0.1), (0.7, 0.4, 0.3), (1.1, 0.8, 0.3), (0.3, 0.2, 0.1)]
)
def test_a_call_that_needs_exactly_the_rest_gets_it_or_hears_that_it_is_missing(
    limit: float, spent: float, need: float
) -> None:
    state: dict[str, Any] = {}
    stated = {"cost": limit}
    ask(state, BudgetAsk(BudgetHolder("a"), stated, {"cost": spent}, is_new=True), 1.0)
    ask(state, BudgetAsk(BudgetHolder("a"), stated, {"cost": spent}, closes=True), 1.1)
    asked = BudgetAsk(BudgetHolder("b"), stated, {}, need={"cost": need}, wanted={"cost": need}, is_new=True)
    answer = ask(state, asked, 1.2)
    assert answer.is_granted == (spent + need <= limit)
    assert answer.missing == ("" if answer.is_granted else "cost"), "else it would wait for ever"


def test_fractions_that_were_reserved_leave_nothing_behind_while_their_caller_goes_on() -> None:
    part = BudgetPart(BudgetHolder("a"))
    part.begins()
    part.take({"cost": 0.0, "tokens": 0, "calls": 1})
    needs = [{"cost": cost, "tokens": 0, "calls": 0} for cost in (0.1, 0.07, 0.13)]
    for need in needs:
        part.take(need)
    part.use({"cost": 0.1, "tokens": 0, "calls": 0}, {"cost": 0.1, "tokens": 0, "calls": 0})
    for left, need in zip(({"cost": 0.0, "tokens": 0, "calls": 0}, *needs[1:]), needs, strict=True):
        part.give_back(left, need)
    assert part.reserved == {"cost": 0.0, "tokens": 0, "calls": 1}


def test_what_was_spent_stays_when_a_holder_has_ended_and_the_rest_is_given_back_at_once() -> None:
    state: dict[str, Any] = {}
    a, b = Asker(state, "a"), Asker(state, "b")
    a.ask(1.0, need=50)
    assert a.begin(50, 1.0)
    a.end(50, 30)
    for _ in range(2):  # the same question may come twice
        a.ask(1.1, closes=True)
    answer = b.ask(1.2, need=70)
    assert answer.is_granted
    assert answer.spent["tokens"] == 30
    assert b.ask(1.3, need=71).missing == "tokens"


def test_of_a_dead_holder_counts_what_its_journal_shows_and_what_its_calls_had_in_use() -> None:
    state: dict[str, Any] = {}
    dead, b = Asker(state, "dead"), Asker(state, "b")
    dead.ask(1.0, need=10)
    for _ in range(3):
        assert dead.begin(10, 1.0)
        dead.end(10, 7)
    assert dead.begin(5, 1.0)
    now = 1.0 + BUDGET_LEASE
    assert not b.ask(now - 0.1, need=60).lapsed
    lapsed = b.ask(now, need=60).lapsed
    assert [each.id for each in lapsed] == ["dead"]
    answer = b.ask(now + 0.1, need=60, shown={"dead": tokens(21)})
    assert answer.is_granted
    assert answer.spent["tokens"] == 21 + 10, "that is how much it could have had in use"
    assert not answer.lapsed
    assert b.ask(now + 0.2, need=70).missing == "tokens"


def test_of_a_dead_holder_whose_journal_tells_nothing_all_counts_that_it_could_have_spent() -> None:
    state: dict[str, Any] = {}
    dead, b = Asker(state, "dead", run=None), Asker(state, "b")
    part = dead.ask(1.0, need=10).part["tokens"]
    answer = b.ask(1.0 + BUDGET_LEASE, shown={"dead": None})
    assert answer.spent["tokens"] == part


def test_a_holder_that_was_stopped_for_longer_than_its_lease_begins_nothing_and_says_itself_what_it_spent() -> None:
    state: dict[str, Any] = {}
    zombie, b = Asker(state, "zombie"), Asker(state, "b")
    zombie.ask(1.0, need=10)
    assert zombie.begin(10, 1.0)
    now = 1.0 + BUDGET_LEASE
    assert b.ask(now, need=85, shown={"zombie": tokens(0)}).is_granted
    assert b.begin(85, now)
    assert not zombie.begin(1, now)
    zombie.end(10, 4)
    assert not zombie.ask(now + 0.1, need=20).is_granted
    answer = zombie.ask(now + 0.2, need=5)
    assert answer.is_granted
    assert answer.spent["tokens"] == 4


class Nobody:
    """What a share asks of a store and of a journal, in a test that asks nothing."""

    is_written_at_once, last_entry = True, 0

    def spent_in(self, place: str) -> Spending:
        return Spending()


def test_what_a_call_has_used_of_its_need_counts_once_while_it_is_being_recorded() -> None:
    nobody: Any = Nobody()
    budget = Budget(tokens=100, shared=True, name="b")
    share = SharedBudget(budget, "", "r", nobody, nobody)
    ledger = Ledger(budget, "", "", Spending(), time=lambda: 0.0, share=share)
    held = Reservation((ledger,), (ledger,), "model", Usage(input_tokens=10, cost=1.0))
    assert share.in_use("tokens") == (0, 10)
    held.spend(Usage(output_tokens=7, cost=0.25))
    assert (share.in_use("tokens"), share.in_use("cost")) == ((7, 3), (0.25, 0.75))
    held.spend(Usage(output_tokens=6))
    assert share.in_use("tokens") == (13, 0)
    held.release(has_outcome=True)
    assert (share.in_use("tokens"), share.in_use("cost"), share.in_use("calls")) == ((13, 0), (0.25, 0), (1, 0))


def test_a_part_is_over_when_the_machine_has_slept_for_longer_than_its_lease() -> None:
    asleep = 0.0

    async def main() -> None:
        nonlocal asleep
        nobody: Any = Nobody()
        store = MemoryStore()
        share = SharedBudget(Budget(calls=9, shared=True, name="b"), "", "r", store, nobody, slept=lambda: asleep)
        stop: Any = StopSignal
        assert await share.obtain(stop, Usage(), 1) is None
        assert share.has_room(Usage(), 1)
        asleep = BUDGET_LEASE - 0.1
        assert share.has_room(Usage(), 1)
        asleep = BUDGET_LEASE + 0.1
        assert not share.has_room(Usage(), 1), "the clock of its event loop has not moved"
        await share.aclose()

    run_virtually(main)


def test_what_was_slept_is_what_one_clock_has_gained_and_small_differences_are_none() -> None:
    boot, awake = 100.0, 5.0
    slept = slept_by(lambda: boot, lambda: awake)
    awake, boot = 8.0, 103.004
    assert slept() == 0.0
    boot = 163.0
    assert slept() == 60.0
    boot = 162.9991
    assert slept() == 60.0, "it never goes back"


def test_the_next_execution_of_a_run_knows_what_the_one_before_has_spent_and_nobody_reads_its_journal() -> None:
    state: dict[str, Any] = {}
    first, b = Asker(state, "first", run="r"), Asker(state, "b", run="other")
    first.part.holder = BudgetHolder("first", "r", before=tokens(30))
    first.ask(1.0, need=10)
    second = Asker(state, "second", run="r")
    second.part.holder = BudgetHolder("second", "r", since=17, before=tokens(37))
    for _ in range(2):  # the same question may come twice
        second.ask(2.0, need=1)
    second.ask(2.1, closes=True)
    answer = b.ask(1.0 + BUDGET_LEASE)
    assert not answer.lapsed
    assert answer.spent["tokens"] == 7 + 10


def test_a_number_that_a_person_sets_holds_for_all_until_their_program_states_another_one() -> None:
    state: dict[str, Any] = {}
    a, b = Asker(state, "a"), Asker(state, "b")
    a.ask(1.0, replaced={"tokens": 10})
    assert b.ask(1.1, need=11).missing == "tokens"
    assert b.ask(1.2, need=10).is_granted
    b.limit = 30
    assert b.ask(1.3, need=30).is_granted
    b.ask(1.4, replaced={"tokens": float("inf")})
    assert b.ask(1.5, need=10_000).is_granted


def test_many_dead_holders_leave_a_small_row() -> None:
    state: dict[str, Any] = {}
    b = Asker(state, "b", limit=10**9)
    for number in range(400):
        dead = Asker(state, f"dead {number}", limit=10**9)
        dead.ask(float(number * 20), need=1)
        lapsed = b.ask(number * 20 + 15.0).lapsed
        b.ask(number * 20 + 15.5, shown={each.id: tokens(3) for each in lapsed})
    assert len(json.dumps(state)) < 150_000
    assert b.ask(10**6).spent["tokens"] == 400 * 4


# -- what is a shared budget -------------------------------------------------------------------------------------------


def test_a_shared_budget_has_a_name_and_something_to_share() -> None:
    with pytest.raises(ValueError, match="a shared budget needs a name"):
        Budget(cost=1.0, shared=True)
    with pytest.raises(ValueError, match="the shared budget 'b' limits nothing"):
        Budget(seconds=1.0, shared=True, name="b")
    wrong: list[dict[str, Any]] = [{"shared": "month"}, {"shared": True, "name": 4}]
    for options in wrong:
        with pytest.raises(ValueError, match="shared is True or False, and the name a text"):
            Budget(cost=1.0, **options)
    assert Budget(cost=1.0, seconds=3.0, shared=True, name="b").seconds == 3.0
    assert amounts_of(Usage(input_tokens=1, output_tokens=2, cost=0.5), 1) == {"cost": 0.5, "tokens": 3, "calls": 1}
