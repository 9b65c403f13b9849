"""The states of a circuit breaker, and every way from one to the next."""

from typing import Any

import pytest

from rh_agents import CircuitBreaker
from rh_agents.core.policies import BreakerState
from rh_agents.errors import CircuitOpenError

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
DOWN = ConnectionError("down")


def opened(**options: Any) -> CircuitBreaker:
    """A breaker that opened at time 0 after two failures, and tries again at time 10."""
    breaker = CircuitBreaker(failure_threshold=2, reset_timeout=10.0, **options)
    for _ in range(2):
        breaker.failed(breaker.admit(0.0), DOWN, 0.0)
    assert breaker.state is OPEN
    return breaker


def is_refused(breaker: CircuitBreaker, now: float) -> bool:
    """Whether the next attempt is refused. One that is admitted says nothing further."""
    try:
        breaker.abandoned(breaker.admit(now))
    except CircuitOpenError:
        return True
    return False


def test_closed_it_lets_everything_pass() -> None:
    breaker = CircuitBreaker()
    admissions = [breaker.admit(0.0) for _ in range(100)]
    for admission in admissions:
        breaker.succeeded(admission)
    assert (breaker.state, breaker.failures) == (CLOSED, 0)


def test_failures_in_a_row_open_it() -> None:
    breaker = CircuitBreaker(failure_threshold=3)
    states = []
    for _ in range(3):
        breaker.failed(breaker.admit(0.0), DOWN, 0.0)
        states.append(breaker.state)
    assert states == [CLOSED, CLOSED, OPEN]


def test_a_success_between_them_begins_the_count_anew() -> None:
    breaker = CircuitBreaker(failure_threshold=2)
    for _ in range(5):
        breaker.failed(breaker.admit(0.0), DOWN, 0.0)
        breaker.succeeded(breaker.admit(0.0))
    assert breaker.state is CLOSED


def test_a_cancelled_attempt_neither_counts_nor_begins_the_count_anew() -> None:
    breaker = CircuitBreaker(failure_threshold=2)
    breaker.failed(breaker.admit(0.0), DOWN, 0.0)
    breaker.abandoned(breaker.admit(0.0))
    assert breaker.failures == 1
    breaker.failed(breaker.admit(0.0), DOWN, 0.0)
    assert breaker.state is OPEN


def test_an_error_outside_of_counts_says_that_the_thing_behind_works() -> None:
    breaker = CircuitBreaker(failure_threshold=2, counts=(ConnectionError,))
    for _ in range(5):
        breaker.failed(breaker.admit(0.0), DOWN, 0.0)
        breaker.failed(breaker.admit(0.0), KeyError("no such user"), 0.0)
    assert (breaker.state, breaker.failures) == (CLOSED, 0)


def test_open_it_refuses_everything_until_its_time_is_over() -> None:
    breaker = opened()
    assert [is_refused(breaker, now) for now in (0.0, 5.0, 9.999)] == [True, True, True]
    assert breaker.state is OPEN
    assert not is_refused(breaker, 10.0)
    assert breaker.state is HALF_OPEN


@pytest.mark.parametrize("probes", [1, 3])
def test_half_open_it_lets_exactly_its_number_of_probes_through(probes: int) -> None:
    breaker = opened(probes=probes)
    for _ in range(probes):
        breaker.admit(10.0)
    with pytest.raises(CircuitOpenError):
        breaker.admit(10.0)


@pytest.mark.parametrize("probes", [1, 3])
def test_half_open_it_closes_when_every_probe_has_succeeded(probes: int) -> None:
    breaker = opened(probes=probes)
    states = []
    for admission in [breaker.admit(10.0) for _ in range(probes)]:
        breaker.succeeded(admission)
        states.append(breaker.state)
    assert states == [HALF_OPEN] * (probes - 1) + [CLOSED]
    assert breaker.failures == 0


def test_probes_that_succeeded_are_not_given_out_again() -> None:
    breaker = opened(probes=2)
    breaker.succeeded(breaker.admit(10.0))
    breaker.admit(10.0)
    assert is_refused(breaker, 10.0)


def test_half_open_one_failed_probe_opens_it_again_for_the_whole_time() -> None:
    breaker = opened(probes=2)
    first, second = breaker.admit(10.0), breaker.admit(10.0)
    breaker.succeeded(first)
    breaker.failed(second, DOWN, 12.0)
    assert breaker.state is OPEN
    assert is_refused(breaker, 21.9)
    assert not is_refused(breaker, 22.0)


def test_half_open_an_abandoned_probe_gives_its_place_to_another_one() -> None:
    breaker = opened()
    breaker.abandoned(breaker.admit(10.0))
    assert breaker.state is HALF_OPEN
    breaker.succeeded(breaker.admit(11.0))
    assert breaker.state is CLOSED


@pytest.mark.parametrize("report", ["succeeded", "failed", "abandoned"])
def test_what_was_admitted_before_it_opened_says_nothing_about_the_probes(report: str) -> None:
    breaker = CircuitBreaker(failure_threshold=1, reset_timeout=10.0)
    late, failing = breaker.admit(0.0), breaker.admit(0.0)
    breaker.failed(failing, DOWN, 0.0)
    probe = breaker.admit(10.0)
    arguments = (late, DOWN, 10.0) if report == "failed" else (late,)
    getattr(breaker, report)(*arguments)
    assert breaker.state is HALF_OPEN
    assert is_refused(breaker, 10.0), "the place of the probe is still taken"
    breaker.succeeded(probe)
    assert breaker.state is CLOSED


def test_a_late_failure_counts_nothing_after_the_breaker_has_closed_again() -> None:
    breaker = CircuitBreaker(failure_threshold=1, reset_timeout=10.0)
    late, failing = breaker.admit(0.0), breaker.admit(0.0)
    breaker.failed(failing, DOWN, 0.0)
    breaker.succeeded(breaker.admit(10.0))
    breaker.failed(late, DOWN, 11.0)
    assert (breaker.state, breaker.failures) == (CLOSED, 0)


def test_a_late_failure_does_not_prolong_the_time_of_an_open_one() -> None:
    breaker = CircuitBreaker(failure_threshold=1, reset_timeout=10.0)
    late, failing = breaker.admit(0.0), breaker.admit(0.0)
    breaker.failed(failing, DOWN, 0.0)
    breaker.failed(late, DOWN, 9.0)
    assert not is_refused(breaker, 10.0)


def test_with_no_reset_time_the_next_attempt_is_a_probe() -> None:
    breaker = CircuitBreaker(failure_threshold=1, reset_timeout=0.0)
    breaker.failed(breaker.admit(5.0), DOWN, 5.0)
    breaker.succeeded(breaker.admit(5.0))
    assert breaker.state is CLOSED


def test_a_refusal_says_who_refuses_why_and_for_how_long() -> None:
    with pytest.raises(CircuitOpenError) as caught:
        opened(name="search").admit(7.5)
    assert str(caught.value) == (
        "Circuit breaker 'search' is open after 2 failures in a row; it will try again in 2.5 s"
    )
    assert caught.value.retry_in == 2.5


def test_a_refusal_says_that_probes_are_under_way() -> None:
    breaker = opened()
    breaker.admit(10.0)
    with pytest.raises(CircuitOpenError, match=r"^Circuit breaker is half-open; it will try again once its 1 probe"):
        breaker.admit(10.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"failure_threshold": 0}, "failure_threshold=0"),
        ({"probes": 0}, "probes=0"),
        ({"reset_timeout": -1.0}, "seconds from 0 on"),
        ({"reset_timeout": float("nan")}, "seconds from 0 on"),
    ],
)
def test_a_breaker_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CircuitBreaker(**options)


def test_it_tells_its_state_to_whoever_looks_at_it() -> None:
    assert repr(opened(name="search")) == "CircuitBreaker('search', open, failures=2)"
