"""What a rate limit that processes share promises, whoever dies, is stopped, or has a clock that is wrong."""

from __future__ import annotations

import heapq
import json
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents.core._limits.sharing.leasing import RateLease
from rh_agents.core.policies.limits import Permit
from rh_agents.core.policies.sharing.rates import LEASE, BlockReport, RateAnswer, RateAsk, ask_for_permits
from rh_agents.core.policies.sharing.windows import RateWindow, moment_of

NEED = {"requests": 1.0}


def ask(state: dict[str, Any], now: float, window: RateWindow, process: str = "a", **more: Any) -> RateAnswer:
    """Ask, and read back what a store would have written."""
    more = {"need": NEED, "block": f"{process}@{now}", **more}
    answer = ask_for_permits(state, RateAsk(window, process, **more), now)
    kept = json.loads(json.dumps(state))
    state.clear()
    state.update(kept)
    return answer


# -- a world of processes ----------------------------------------------------------------------------------------------


@dataclass
class Process:
    """One that shares a limit: its clock may be wrong, but goes on evenly. It asks, uses, dies and is stopped."""

    name: str
    clock: float
    lease: RateLease = field(default_factory=RateLease)
    until: float = 0.0
    sent: list[tuple[float, RateAsk, float]] = field(default_factory=list)


def play(seed: int, limits: dict[str, float], per: float, seconds: float = 6.0) -> tuple[list[float], list[float]]:
    """Admissions by the server's clock, with their tokens: of processes that die, are stopped, and answer late."""
    chance = random.Random(seed)
    window = RateWindow("w", per, limits)
    state: dict[str, Any] = {}
    now, admitted, tokens = 1000.0, [], []
    processes = [Process(str(number), chance.uniform(-5, 5)) for number in range(4)]
    wanted = {"requests": 1.0, "tokens": 3.0}
    end = now + seconds
    while now < end:
        now += chance.choice([0.0005, 0.002, 0.01])
        one = chance.randrange(4)
        each = processes[one]
        if now < each.until:
            continue
        if chance.random() < 0.002:
            processes[one] = Process(f"{each.name}+", chance.uniform(-5, 5))  # it died, and another one began
            continue
        if chance.random() < 0.003:
            each.until = now + chance.choice([0.05, 0.3, 3.0])  # stopped in between, for longer than a lease
        own = now + each.clock
        permit = Permit(own, dict(wanted))
        if each.lease.take(permit, own):
            admitted.append(now)
            tokens.append(wanted["tokens"])
            if chance.random() < 0.3:
                each.lease.release(permit, {"requests": 1.0, "tokens": 3.0})
            continue
        asking = each.lease.ask(window, wanted, chance.randrange(1, 40), own)
        answer = ask(state, now, window, asking.process, block=asking.block, need=wanted, count=asking.count,
                     lease=asking.lease, reports=asking.reports)  # fmt: skip
        now += chance.choice([0.0, 0.003, 0.05])
        each.lease.answered(asking, answer, own, now + each.clock)
        if not answer.count:
            each.until = max(each.until, now + min(answer.wait, 0.1))
    return admitted, tokens


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(40.0, 1e9), (1e9, 90.0), (30.0, 100.0)]), st.sampled_from([0.5, 2.0]))
def test_no_window_has_more_than_stated_whoever_dies_is_stopped_or_has_a_wrong_clock(
    seed: int, limits: tuple[float, float], per: float
) -> None:
    stated = {"requests": limits[0], "tokens": limits[1]}
    admitted, tokens = play(seed, stated, per)
    assert len(admitted) > 10
    for index, moment in enumerate(admitted):
        last = bisect_right(admitted, moment + per - 1e-6)
        assert last - index <= stated["requests"]
        assert sum(tokens[index:last]) <= stated["tokens"]


@pytest.mark.parametrize("back", [0.0, 5.0, 1e9])
def test_a_clock_that_is_set_back_neither_forgets_what_was_used_nor_holds_it_for_good(back: float) -> None:
    state: dict[str, Any] = {}
    window = RateWindow("w", 10.0, {"requests": 10.0})
    start = 2e9
    for second in range(10):
        assert ask(state, start + second, window).count == 1
    later = start + 9.0 - back
    assert ask(state, later, window, "b").count == 0
    waited = 0.0
    while not ask(state, later + waited, window, "b").count:
        waited += 0.1
    assert 1.0 <= waited <= 1.5, "a second later what was used first has left the window"


def test_time_never_goes_back() -> None:
    state: dict[str, Any] = {}
    assert [moment_of(state, now) for now in (10.0, 12.0, 7.0, 8.0, 20.0, 21.0)] == [10, 12, 12, 13, 25, 26]


# -- blocks ------------------------------------------------------------------------------------------------------------


def test_a_block_is_worth_a_tenth_of_a_second_and_no_more_than_is_wanted() -> None:
    window = RateWindow("w", 1.0, {"requests": 1000.0})
    assert ask({}, 1.0, window, count=500).count == 100
    assert ask({}, 1.0, window, count=7).count == 7
    assert ask({}, 1.0, RateWindow("w", 60.0, {"requests": 60.0}), count=500).count == 1


def test_a_block_counts_at_the_end_of_its_lease_until_it_is_reported() -> None:
    window = RateWindow("w", 1.0, {"requests": 100.0})
    reported: dict[str, Any] = {}
    silent: dict[str, Any] = {}
    for state in (reported, silent):
        for number in range(10):
            assert ask(state, 5.0, window, str(number), block=str(number), count=10).count == 10
        assert ask(state, 5.0, window, "late", count=10).count == 0
    for number in range(10):
        ask(
            reported,
            5.0,
            window,
            str(number),
            need=None,
            reports=[BlockReport(str(number), [(5.0, {"requests": 9.0})])],
        )
    assert ask(reported, 5.0, window, "late", count=10).count == 10, "one of each block was not needed"
    assert ask(reported, 6.01, window, "late", count=10).count == 10
    assert ask(silent, 6.01, window, "late", count=10).count == 0
    assert ask(silent, 6.0 + LEASE + 0.01, window, "late", count=10).count == 10


def test_a_bucket_counts_until_all_of_it_has_left_the_window() -> None:
    window = RateWindow("w", 1.0, {"requests": 1.0})
    state: dict[str, Any] = {}
    assert ask(state, 5.0, window, block="b").count == 1
    ask(state, 5.01, window, need=None, reports=[BlockReport("b", [(5.0032, {"requests": 1.0})])])
    assert ask(state, 6.0031, window, "late").count == 0
    assert ask(state, 6.0051, window, "late").count == 1


def test_a_block_may_be_used_for_a_fifth_of_a_second_from_when_it_was_asked_for() -> None:
    lease, window = RateLease(), RateWindow("w", 1.0, {"requests": 1000.0})
    asking = lease.ask(window, NEED, 3, 70.0)
    lease.answered(asking, RateAnswer(3, 5.0), 70.0, 70.01)
    assert lease.take(Permit(0.0, dict(NEED)), 70.0 + LEASE - 0.001)
    assert not lease.take(Permit(0.0, dict(NEED)), 70.0 + LEASE)
    (report,) = lease.ask(window, NEED, 1, 71.0).reports
    assert report.block == asking.block
    ((at, used),) = report.used
    assert at == pytest.approx(5.0 + LEASE - 0.001)
    assert used == NEED


def test_where_the_store_is_slow_leases_are_longer() -> None:
    lease, window = RateLease(), RateWindow("w", 1.0, {"requests": 1000.0})
    asking = lease.ask(window, NEED, 3, 70.0)
    lease.answered(asking, RateAnswer(3, 5.0), 70.0, 70.5)
    assert not lease.take(Permit(0.0, dict(NEED)), 70.5), "it has lapsed on its way"
    asking = lease.ask(window, NEED, 3, 71.0)
    lease.answered(asking, RateAnswer(3, 6.0), 71.0, 71.5)
    assert lease.take(Permit(0.0, dict(NEED)), 71.5)


def test_what_is_known_only_afterwards_counts_instead_whether_the_block_was_reported_or_not() -> None:
    window = RateWindow("w", 60.0, {"tokens": 1000.0})
    for is_reported in (False, True):
        state: dict[str, Any] = {}
        lease = RateLease()
        need = {"requests": 1.0, "tokens": 400.0}

        def say(wanted: dict[str, float] | None, now: float, lease: RateLease = lease, state: Any = state) -> int:
            asking = lease.ask(window, wanted, 1, now)
            answer = ask(state, now, window, asking.process, block=asking.block, need=wanted, reports=asking.reports)
            lease.answered(asking, answer, now, now)
            return answer.count

        permit = Permit(1.0, dict(need))
        assert say(need, 1.0) == 1
        assert lease.take(permit, 1.0)
        if is_reported:
            say(None, 1.1)
        lease.release(permit, {"requests": 1.0, "tokens": 100.0})
        assert lease.has_news(1.2)
        say(None, 1.2)
        assert not lease.has_news(1.2)
        assert ask(state, 1.2, window, "other", need={"tokens": 901.0}).count == 0
        state.pop("line")
        assert ask(state, 1.2, window, "other", need={"tokens": 900.0}).count == 1


def test_more_than_was_reserved_is_said_at_once_and_less_when_nothing_is_under_way() -> None:
    window = RateWindow("w", 60.0, {"tokens": 1000.0})
    lease = RateLease()
    need = {"requests": 1.0, "tokens": 4.0}
    asking = lease.ask(window, need, 3, 1.0)
    lease.answered(asking, RateAnswer(3, 1.0), 1.0, 1.0)
    permits = [Permit(1.0, dict(need)) for _ in range(3)]
    assert all(lease.take(permit, 1.0) for permit in permits)
    lease.release(permits[0], {"requests": 1.0, "tokens": 3.0})
    assert not lease.has_news(1.05)
    assert lease.has_news(1.2)
    lease.release(permits[1], {"requests": 1.0, "tokens": 5.0})
    assert lease.has_news(1.05)


def test_what_could_not_be_said_is_said_again_and_never_counts_for_less() -> None:
    window = RateWindow("w", 60.0, {"tokens": 1000.0})
    lease = RateLease()
    need = {"tokens": 10.0}
    first = lease.ask(window, need, 1, 1.0)
    lease.answered(first, RateAnswer(1, 1.0), 1.0, 1.0)
    permit = Permit(1.0, dict(need))
    assert lease.take(permit, 1.0)
    lost = lease.ask(window, None, 0, 1.1)
    lease.unanswered(lost)
    assert lease.ask(window, None, 0, 1.2).reports == [BlockReport(first.block, [(1.0, need)])]
    lease.release(permit, {"tokens": 30.0})
    lost = lease.ask(window, None, 0, 1.3)
    assert lost.reports == [BlockReport(None, [(1.0, {"tokens": 20.0})])]
    lease.unanswered(lost)
    assert lease.has_news(1.3)
    assert lease.ask(window, None, 0, 1.4).reports == lost.reports


def test_a_question_that_comes_twice_counts_once() -> None:
    window = RateWindow("w", 60.0, {"tokens": 1000.0})
    state: dict[str, Any] = {}
    used = [BlockReport("one", [(1.0, {"tokens": 500.0})])]
    less = [BlockReport(None, [(1.0, {"tokens": -100.0})])]
    assert ask(state, 1.0, window, block="one", need={"tokens": 600.0}).count == 1
    for _ in range(3):
        assert ask(state, 1.0, window, block="two", need={"tokens": 100.0}, reports=used).count == 1
        ask(state, 1.0, window, block="three", need=None, reports=less)
    assert sum(amounts["tokens"] for _, amounts in [*state["used"], *state["blocks"].values()]) == 500.0


# -- fairness ----------------------------------------------------------------------------------------------------------


def test_every_process_that_waits_comes_to_the_front_in_its_turn() -> None:
    window = RateWindow("w", 1.0, {"requests": 20.0})
    state: dict[str, Any] = {}
    got: dict[str, list[float]] = {name: [] for name in ("greedy", "b", "c")}
    for step in range(2000):
        now = 10.0 + step / 1000
        for name in ("greedy",) * 3 + (("b", "c") if step % 50 == 0 else ()):
            if ask(state, now, window, name, count=20, block=f"{name}{now}").count:
                got[name].append(now)
    for name in ("b", "c"):
        gaps = [later - earlier for earlier, later in zip(got[name], got[name][1:], strict=False)]
        assert max(gaps) <= 1.0 + LEASE + 0.2, name


def test_who_does_not_ask_again_holds_up_nobody_for_long() -> None:
    window = RateWindow("w", 1.0, {"tokens": 100.0})
    state: dict[str, Any] = {}
    assert ask(state, 1.0, window, "a", need={"tokens": 90.0}).count == 1
    assert ask(state, 1.0, window, "dead", need={"tokens": 100.0}).count == 0
    assert ask(state, 1.0, window, "b", need={"tokens": 10.0}).count == 0, "it would be at the cost of who waits"
    assert ask(state, 2.6, window, "b", need={"tokens": 10.0}).count == 1


# -- what one admission costs ------------------------------------------------------------------------------------------


def test_what_is_kept_of_a_window_does_not_grow_with_what_is_in_it() -> None:
    sizes = []
    for rate in (1_000.0, 100_000.0):
        window = RateWindow("w", 10.0, {"requests": rate * 11})
        state: dict[str, Any] = {}
        block: str | None = None
        for step in range(400):
            now = 100.0 + step / 20
            reports = [] if block is None else [BlockReport(block, [(now - 0.05, {"requests": rate / 20})])]
            block = str(step)
            assert ask(state, now, window, block=block, count=int(rate / 20), reports=reports).count == rate / 20
        sizes.append(len(json.dumps(state)))
    assert sizes[1] < sizes[0] * 1.2
    assert sizes[1] < 20_000


def test_blocks_of_processes_that_died_are_kept_by_their_ends_alone_when_there_are_many() -> None:
    window = RateWindow("w", 600.0, {"requests": 10_000.0})
    state: dict[str, Any] = {}
    for number in range(900):
        assert ask(state, 1.0 + number / 10, window, str(number)).count == 1
    assert len(state["blocks"]) <= 257
    assert sum(amounts["requests"] for _, amounts in [*state["used"], *state["blocks"].values()]) == 900


# -- what of a limit is reached ----------------------------------------------------------------------------------------


def admitted(rate: float, round_trip: float, seconds: float) -> list[float]:
    """When four processes are admitted that always want more, by a store that answers one question at a time."""
    window, state = RateWindow("w", 1.0, {"requests": rate}), dict[str, Any]()
    moments: list[float] = []
    leases = [RateLease() for _ in range(4)]
    turns = [(number / 1000, number) for number in range(4)]
    free_at = 0.0
    while (turn := heapq.heappop(turns))[0] < seconds:
        now, number = turn
        lease = leases[number]
        asking = lease.ask(window, NEED, 100, now)
        begins = max(now, free_at)
        free_at = ends = begins + round_trip
        answer = ask_for_permits(state, asking, 1000 + begins + round_trip / 2)
        lease.answered(asking, answer, now, ends)
        while lease.take(Permit(ends, dict(NEED)), ends):
            moments.append(ends)
        heapq.heappush(turns, (ends + (0.0005 if answer.count else min(max(answer.wait, 0.001), 1.0)), number))
    return sorted(moments)


def test_four_processes_reach_nearly_all_of_a_limit_if_the_store_answers_within_milliseconds() -> None:
    rate, seconds = 1000.0, 23.0
    moments = admitted(rate, 0.005, seconds)
    assert sum(2.0 <= moment < seconds - 1.0 for moment in moments) >= 0.95 * rate * (seconds - 3.0)
    for index, moment in enumerate(moments):
        assert bisect_right(moments, moment + 1.0 - 1e-6) - index <= rate
