"""Limits decide who may pass and when: no window admits too much, and nobody waits longer than needed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents import ConcurrencyLimit, ExecutionState, RateLimit, Usage, parallel, tool
from rh_agents.core._limits.admission import Permits
from rh_agents.core.policies.limits import KINDS, Permit, RateLimitHint, Refusal, need_of
from rh_agents.policies import AdaptiveConcurrency
from rh_agents.testing import JumpingClock

PER = 10.0
SLACK = 1e-6  # of amounts and seconds: what floating point may lose


# -- windows -----------------------------------------------------------------------------------------------------------


@dataclass
class Admission:
    """What a test knows of an attempt that was let through."""

    permit: Permit
    need: dict[str, float]
    """What it counts as now: its estimate, and what it really used once that is known."""


@dataclass
class Model:
    """A rate limit beside a plain list of what it admitted."""

    limit: RateLimit
    now: float = 0.0
    admitted: list[Admission] = field(default_factory=list)

    def in_window(self, kind: str) -> float:
        """What counts in the window that ends now."""
        since = self.now - self.limit.per + SLACK
        return sum(each.need.get(kind, 0.0) for each in self.admitted if each.permit.granted_at > since)

    def ask(self, need: dict[str, float]) -> Permit | Refusal:
        before = {kind: self.in_window(kind) for kind in self.limit.limits}
        answer = self.limit.admit(need, self.now)
        if isinstance(answer, Refusal):
            assert answer.why
            assert 0 < answer.wait <= self.limit.per + SLACK
            return answer
        for kind, most in self.limit.limits.items():
            amount = need.get(kind, 0.0)
            # What is larger than the whole limit passes alone; everything else has to fit.
            assert before[kind] + min(amount, most) <= most + SLACK or amount == 0, kind
        self.admitted.append(Admission(answer, dict(need)))
        return answer


amounts = st.integers(0, 60).map(float)
needs = st.builds(
    lambda given, sent, written: {
        "requests": given,
        "input_tokens": sent,
        "output_tokens": written,
        "tokens": sent + written,
    },
    st.sampled_from([1.0, 1.0, 2.0]),
    amounts,
    amounts,
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "requests": st.integers(1, 5),
        "tokens": st.integers(1, 100),
        "input_tokens": st.integers(1, 50),
        "output_tokens": st.integers(1, 50),
    },
).filter(bool)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), needs),
        st.tuples(st.just("pass"), st.sampled_from([0.0, 0.1, 1.0, PER / 2, PER, 3 * PER]) | st.floats(0, 2 * PER)),
        st.tuples(st.just("settle"), st.tuples(st.integers(0, 50), st.floats(0, 1))),
        st.tuples(st.just("change"), limits),
    ),
    max_size=60,
)


@given(limits, steps, st.sampled_from([0.0, 1234.5, 1e6]))
def test_no_window_of_any_position_admits_more_than_stated(
    numbers: dict[str, Any], plan: list[tuple[str, object]], start: float
) -> None:
    model = Model(RateLimit(**numbers, per=PER), start)
    for step, argument in plan:
        match step, argument:
            case "ask", dict(need):
                model.ask(need)
            case "pass", float(seconds):
                model.now += seconds
            case "change", dict(changed):
                new = set(changed) - set(model.limit.limits)
                model.limit.change(**changed)
                for each in model.admitted:  # what is counted from now on has not been counted before
                    each.need = {kind: amount for kind, amount in each.need.items() if kind not in new}
            case "settle", (int(number), float(share)) if model.admitted:
                admission = model.admitted[number % len(model.admitted)]
                used = {kind: float(int(amount * share)) for kind, amount in admission.need.items()}
                model.limit.release(admission.permit, used, model.now)
                if model.now - admission.permit.granted_at < PER:
                    admission.need = used


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 20)), max_size=60))
def test_looked_at_afterwards_no_window_has_more_in_it(plan: list[tuple[float, float]]) -> None:
    limit, now, admitted = RateLimit(requests=3, tokens=30, per=5.0), 0.0, list[tuple[float, float]]()
    for pause, tokens in plan:
        now += pause
        if isinstance(limit.admit({"requests": 1.0, "tokens": tokens}, now), Permit):
            admitted.append((now, tokens))
    for end, _ in admitted:  # a window that has most in it ends with an admission
        inside = [tokens for at, tokens in admitted if end - 5.0 + SLACK < at <= end]
        assert len(inside) <= 3
        assert sum(inside) <= 30 + SLACK


@given(st.lists(st.tuples(st.floats(0, 4), needs), max_size=40), needs)
def test_the_wait_that_is_told_is_neither_too_short_nor_too_long(
    plan: list[tuple[float, dict[str, float]]], last: dict[str, float]
) -> None:
    def limit_after() -> tuple[RateLimit, float]:
        limit, now = RateLimit(requests=3, input_tokens=50, output_tokens=30, per=PER), 0.0
        for pause, need in plan:
            now += pause
            limit.admit(need, now)
        return limit, now

    limit, now = limit_after()
    asked_at, answer = now, limit.admit(last, now)
    for _ in range(200):  # each time, something else may be what is waited for
        if isinstance(answer, Permit):
            break
        if answer.wait > 2 * SLACK:
            assert isinstance(limit.admit(last, now + answer.wait - SLACK), Refusal)
        now += answer.wait
        answer = limit.admit(last, now)
    assert isinstance(answer, Permit)
    assert now <= asked_at + PER + SLACK


def test_a_period_slides_instead_of_beginning_anew() -> None:
    limit = RateLimit(requests=2, per=10.0)
    for at in (9.0, 9.5):
        assert isinstance(limit.admit({"requests": 1.0}, at), Permit)
    answer = limit.admit({"requests": 1.0}, 11.0)
    assert answer == Refusal(8.0, "2 requests in 10 s")
    assert isinstance(limit.admit({"requests": 1.0}, 19.0), Permit)
    assert isinstance(limit.admit({"requests": 1.0}, 19.4), Refusal)


def test_input_and_output_tokens_are_counted_apart_and_the_scarcest_is_told() -> None:
    limit = RateLimit(input_tokens=1_000, output_tokens=100, per=60.0)
    assert isinstance(limit.admit({"input_tokens": 900.0, "output_tokens": 10.0}, 0.0), Permit)
    assert limit.admit({"input_tokens": 10.0, "output_tokens": 91.0}, 20.0) == Refusal(
        40.0, "100 output tokens in 60 s"
    )
    assert limit.admit({"input_tokens": 101.0, "output_tokens": 1.0}, 20.0) == Refusal(
        40.0, "1,000 input tokens in 60 s"
    )
    assert isinstance(limit.admit({"input_tokens": 100.0, "output_tokens": 90.0}, 9.0), Permit)


def test_what_was_not_used_is_there_for_others_and_what_was_used_beyond_the_estimate_counts() -> None:
    limit = RateLimit(tokens=100, per=60.0)
    permit = limit.admit({"tokens": 100.0}, 0.0)
    assert isinstance(permit, Permit)
    assert isinstance(limit.admit({"tokens": 1.0}, 1.0), Refusal)
    limit.release(permit, {"tokens": 30.0}, 2.0)
    second = limit.admit({"tokens": 70.0}, 2.0)
    assert isinstance(second, Permit)
    limit.release(second, {"tokens": 500.0}, 3.0)  # the estimate was wrong
    assert limit.admit({"tokens": 1.0}, 60.5) == Refusal(1.5, "100 tokens in 60 s")
    assert isinstance(limit.admit({"tokens": 1.0}, 62.0), Permit)


def test_a_call_whose_use_is_not_known_counts_as_its_estimate() -> None:
    limit = RateLimit(tokens=100, per=60.0)
    permit = limit.admit({"tokens": 100.0}, 0.0)
    assert isinstance(permit, Permit)
    limit.release(permit, None, 1.0)
    assert isinstance(limit.admit({"tokens": 1.0}, 1.0), Refusal)


def test_a_request_larger_than_the_whole_limit_passes_alone() -> None:
    limit = RateLimit(tokens=100, per=10.0)
    assert isinstance(limit.admit({"tokens": 1.0}, 0.0), Permit)
    assert limit.admit({"tokens": 5_000.0}, 1.0) == Refusal(9.0, "100 tokens in 10 s")
    assert isinstance(limit.admit({"tokens": 5_000.0}, 10.0), Permit)
    assert isinstance(limit.admit({"tokens": 1.0}, 19.9), Refusal)
    assert isinstance(limit.admit({"tokens": 1.0}, 20.0), Permit)


def test_numbers_are_changed_while_it_is_in_use_and_what_was_admitted_still_counts() -> None:
    limit, told = RateLimit(requests=10, per=60.0), list[str]()
    limit.when_changed = lambda: told.append("changed")
    for _ in range(5):
        assert isinstance(limit.admit({"requests": 1.0}, 0.0), Permit)
    limit.change(requests=5)
    assert limit.admit({"requests": 1.0}, 1.0) == Refusal(59.0, "5 requests in 60 s")
    limit.change(requests=6)
    assert isinstance(limit.admit({"requests": 1.0}, 1.0), Permit)
    limit.change(per=10.0)
    assert isinstance(limit.admit({"requests": 1.0}, 10.0), Permit)
    limit.change(requests=math.inf, tokens=5)
    assert limit.limits == {"tokens": 5}
    assert isinstance(limit.admit({"requests": 99.0, "tokens": 5.0}, 10.0), Permit)
    assert told == ["changed"] * 4


def test_a_kind_that_is_limited_from_now_on_counts_what_was_admitted_before() -> None:
    limit = RateLimit(requests=10, per=60.0)
    permit = limit.admit({"requests": 1.0, "output_tokens": 30.0}, 0.0)
    assert isinstance(permit, Permit)
    limit.change(output_tokens=40)
    assert limit.admit({"requests": 1.0, "output_tokens": 20.0}, 1.0) == Refusal(59.0, "40 output tokens in 60 s")
    limit.release(permit, {"requests": 1.0, "output_tokens": 5.0}, 2.0)
    assert isinstance(limit.admit({"requests": 1.0, "output_tokens": 20.0}, 2.0), Permit)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RateLimit(),
        lambda: RateLimit(requests=0),
        lambda: RateLimit(tokens=-1),
        lambda: RateLimit(requests=math.nan),
        lambda: RateLimit(requests=True),
        lambda: RateLimit(requests=math.inf),
        lambda: RateLimit(requests=1, per=0),
        lambda: RateLimit(requests=1, per=math.inf),
        lambda: RateLimit(requests=1, per=math.nan),
        lambda: RateLimit(requests=1, shared=True),
        lambda: RateLimit(requests=1).change(requests=-5),
        lambda: ConcurrencyLimit(0),
        lambda: ConcurrencyLimit(True),
        lambda: AdaptiveConcurrency(0),
        lambda: AdaptiveConcurrency(10, maximum=9),
        lambda: AdaptiveConcurrency(10, minimum=11),
        lambda: AdaptiveConcurrency(10, increase=0),
        lambda: AdaptiveConcurrency(10, decrease=1.0),
        lambda: AdaptiveConcurrency(10, decrease=0.0),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


# -- what a provider says ----------------------------------------------------------------------------------------------


def test_nobody_passes_before_the_time_that_the_provider_named() -> None:
    limit = RateLimit(requests=100)
    limit.honour(RateLimitHint(retry_after=7.0), 100.0)
    assert limit.admit({"requests": 1.0}, 101.0) == Refusal(6.0, "the provider asked to wait")
    limit.honour(RateLimitHint(retry_after=1.0), 101.0)  # a shorter one does not shorten it
    assert limit.admit({"requests": 1.0}, 106.5) == Refusal(0.5, "the provider asked to wait")
    assert isinstance(limit.admit({"requests": 1.0}, 107.0), Permit)


@given(st.floats(max_value=0.0) | st.just(math.nan) | st.just(-math.inf))
def test_a_time_that_has_passed_and_one_that_is_no_number_hold_nobody(seconds: float) -> None:
    limit = RateLimit(requests=100)
    limit.honour(RateLimitHint(retry_after=seconds), 100.0)
    assert isinstance(limit.admit({"requests": 1.0}, 100.0), Permit)


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, allow_infinity=True))
def test_what_headers_say_holds_nobody_for_longer_than_a_period(remaining: float, resets_in: float) -> None:
    limit = RateLimit(requests=100, per=60.0)
    limit.honour(RateLimitHint(remaining={"tokens": remaining}, resets_in={"tokens": resets_in}), 1_000.0)
    answer = limit.admit({"requests": 1.0}, 1_000.0)
    if isinstance(answer, Refusal):
        assert remaining < 1
        assert 0 < answer.wait <= min(resets_in, 60.0) + SLACK
        assert answer.why == "the provider has no tokens left"
    else:
        assert not (remaining < 1 and resets_in > SLACK)


def test_as_long_as_something_is_left_headers_hold_nobody() -> None:
    limit = RateLimit(requests=100)
    limit.honour(RateLimitHint(remaining={"requests": 1.0}, resets_in={"requests": 30.0}), 0.0)
    limit.honour(RateLimitHint(remaining={"tokens": 0.0}), 0.0)  # nobody knows until when
    assert isinstance(limit.admit({"requests": 1.0}, 0.0), Permit)


def test_what_a_call_needs_is_a_request_and_what_is_estimated() -> None:
    assert need_of(None) == {"requests": 1.0}
    need = need_of(Usage(input_tokens=7, output_tokens=3))
    assert need == {"requests": 1.0, "tokens": 10.0, "input_tokens": 7.0, "output_tokens": 3.0}
    assert set(need) == set(KINDS)


# -- concurrency -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.lists(st.sampled_from(["take", "give", "smaller", "larger"]), max_size=60))
def test_never_more_at_a_time_than_the_limit_was_when_they_began(size: int, plan: list[str]) -> None:
    limit, taken = ConcurrencyLimit(size), list[Permit]()
    for step in plan:
        match step:
            case "take":
                answer = limit.admit({}, 0.0)
                assert isinstance(answer, Permit) == (len(taken) < limit.limit)
                if isinstance(answer, Permit):
                    taken.append(answer)
                else:
                    assert answer == Refusal(math.inf, f"{limit.limit} at a time")
            case "give" if taken:
                limit.release(taken.pop(), None, 0.0)
            case "smaller":
                limit.limit = max(1, limit.limit - 1)
            case "larger":
                limit.limit += 1
        assert limit.in_use == len(taken)


def success(limit: AdaptiveConcurrency, now: float) -> None:
    """An attempt that is made when all slots are in use."""
    permits = [limit.admit({}, now) for _ in range(limit.limit - limit.in_use)]
    for permit in permits:
        assert isinstance(permit, Permit)
        limit.succeeded(permit, now)
        limit.release(permit, None, now)


def test_as_many_successes_as_it_is_large_raise_the_limit_by_one() -> None:
    limit = AdaptiveConcurrency(2, maximum=5)
    found = []
    for now in range(6):
        success(limit, float(now))
        found.append(limit.limit)
    assert found == [3, 4, 5, 5, 5, 5]


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limit = AdaptiveConcurrency(10)
    for now in range(1_000):
        permit = limit.admit({}, float(now))
        assert isinstance(permit, Permit)
        limit.succeeded(permit, float(now))
        limit.release(permit, None, float(now))
    assert limit.limit == 10


def test_a_refusal_halves_it_once_for_all_that_were_under_way() -> None:
    limit = AdaptiveConcurrency(16)
    early = [limit.admit({}, 1.0) for _ in range(16)]
    for permit in early:
        assert isinstance(permit, Permit)
        limit.refused(permit, 2.0)
    assert limit.limit == 8
    for permit in early:
        assert isinstance(permit, Permit)
        limit.succeeded(permit, 2.5)  # what began before says nothing about the new limit
        limit.release(permit, None, 2.5)
    assert limit.limit == 8
    late = limit.admit({}, 3.0)
    assert isinstance(late, Permit)
    limit.refused(late, 4.0)
    assert limit.limit == 4


@given(
    st.integers(1, 5),
    st.integers(0, 10),
    st.integers(0, 20),
    st.integers(1, 5),
    st.floats(0.01, 0.99),
    st.lists(st.sampled_from(["take", "ok", "refused", "failed"]), max_size=200),
)
def test_it_stays_between_its_bounds_whatever_happens(
    minimum: int, more: int, most: int, increase: int, decrease: float, plan: list[str]
) -> None:
    limit = AdaptiveConcurrency(
        minimum + more, minimum=minimum, maximum=minimum + more + most, increase=increase, decrease=decrease
    )
    taken = list[Permit]()
    for now, step in enumerate(plan):
        before = limit.limit
        if step == "take":
            answer = limit.admit({}, float(now))
            taken.extend([answer] if isinstance(answer, Permit) else [])
        elif taken:
            permit = taken.pop(0)
            if step == "ok":
                limit.succeeded(permit, float(now))
            elif step == "refused":
                limit.refused(permit, float(now))
            limit.release(permit, None, float(now))
        assert minimum <= limit.limit <= minimum + more + most
        assert limit.limit <= before + increase
        assert limit.in_use == len(taken)


# -- in order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [lambda: ConcurrencyLimit(1), lambda: ConcurrencyLimit(3), lambda: RateLimit(requests=2, per=1.0)],
    ids=["one slot", "three slots", "rate"],
)
def test_whoever_came_first_passes_first(make: Callable[[], ConcurrencyLimit | RateLimit]) -> None:
    clock, limit, order = JumpingClock(), make(), list[int]()

    @tool(limits=limit)
    async def work(number: int) -> None:
        order.append(number)
        await asyncio.sleep(0.5)

    async def main() -> None:
        async with parallel(max_workers=30) as p:
            p.map(work, range(30))
            await p.gather()

    clock.run(main())
    assert order == list(range(30))


def test_a_large_request_is_not_overtaken_by_small_ones_that_would_fit() -> None:
    clock, limit, order = JumpingClock(), RateLimit(tokens=10, per=1.0), list[tuple[str, float]]()

    async def attempt(state: ExecutionState, name: str, at: float, tokens: float) -> None:
        async def tell(limit: str, why: str, seconds: float | None) -> None:
            pass

        await asyncio.sleep(at)
        permits = Permits(state.parts, [limit], tell)
        await permits.enter({"tokens": tokens})
        order.append((name, round(clock.elapsed, 3)))
        await permits.leave(None, None)

    async def main() -> None:
        async with ExecutionState() as state:
            await asyncio.gather(
                attempt(state, "first", 0.0, 8), attempt(state, "large", 0.1, 8), attempt(state, "small", 0.2, 2)
            )

    clock.run(main())
    assert order == [("first", 0.0), ("large", 1.0), ("small", 1.0)]


async def tell_nobody(limit: str, why: str, seconds: float | None) -> None:
    pass


def test_a_permit_is_given_back_if_its_caller_is_gone_before_it_knows() -> None:
    clock, limit = JumpingClock(), ConcurrencyLimit(1)

    async def tell_slowly(limit: str, why: str, seconds: float | None) -> None:
        if seconds == 0.0:
            await asyncio.sleep(100.0)

    async def main() -> None:
        async with ExecutionState() as state:
            first, second = Permits(state.parts, [limit], tell_nobody), Permits(state.parts, [limit], tell_slowly)
            await first.enter({})
            waiter = asyncio.ensure_future(second.enter({}))
            await asyncio.sleep(1.0)
            await first.leave(None, None)
            await asyncio.sleep(1.0)
            assert limit.in_use == 1  # it is being told
            waiter.cancel()
            await asyncio.wait([waiter])

    clock.run(main())
    assert limit.in_use == 0


def test_slots_that_were_lent_again_while_they_were_waited_for_are_taken_in_order() -> None:
    clock, first, second = JumpingClock(), ConcurrencyLimit(1), ConcurrencyLimit(1)

    async def main() -> None:
        async with ExecutionState() as state:
            caller, neighbour = (Permits(state.parts, [first, second], tell_nobody) for _ in range(2))
            other = Permits(state.parts, [second], tell_nobody)
            await caller.enter({})

            async def call(begin: float, end: float) -> None:
                await asyncio.sleep(begin)
                async with caller.released():
                    await asyncio.sleep(end - begin)

            async def hold(permits: Permits, begin: float, end: float) -> None:
                await asyncio.sleep(begin)
                await permits.enter({})
                await asyncio.sleep(end - begin)
                await permits.leave(None, None)

            # At 5.0 the caller gets the second slot while the neighbour has the first one, and waits for the second.
            await asyncio.wait_for(
                asyncio.gather(call(0.0, 1.0), call(2.0, 3.0), hold(other, 0.5, 5.0), hold(neighbour, 2.5, 6.0)), 60.0
            )
            assert (first.in_use, second.in_use) == (1, 1)
            await caller.leave(None, None)

    clock.run(main())
    assert (first.in_use, second.in_use) == (0, 0)


def test_a_provider_is_believed_for_an_hour_at_most() -> None:
    limit = RateLimit(requests=1, per=1.0)
    limit.honour(RateLimitHint(retry_after=1e9), 0.0)
    refusal = limit.admit({"requests": 1.0}, 1.0)
    assert isinstance(refusal, Refusal)
    assert refusal.wait == 3599.0
    assert isinstance(limit.admit({"requests": 1.0}, 3600.0), Permit)
