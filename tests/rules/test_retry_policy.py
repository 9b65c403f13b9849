"""Whether another attempt follows, and after which delay: tables of decisions."""

import math
from typing import Any

import pytest

from rh_agents import RetryPolicy
from rh_agents.core.errors import (
    CallCancelled,
    CallTimeout,
    DefinitionError,
    InputError,
    ModelError,
    ModelOverloaded,
    OutputError,
    StoreError,
)
from rh_agents.errors import CircuitOpenError


class RateLimited(Exception):
    """An error as providers raise it: it says how long to wait."""

    def __init__(self, retry_after: Any) -> None:
        super().__init__("slow down")
        self.retry_after = retry_after


@pytest.mark.parametrize(
    ("attempt", "delay"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (7, 30.0), (8, 30.0), (9, 30.0), (10, None)]
)
def test_the_delay_doubles_up_to_its_maximum_until_the_attempts_are_used_up(attempt: int, delay: float | None) -> None:
    policy = RetryPolicy(max_attempts=10, jitter=False)
    assert policy.delay_after(attempt, ValueError(), 0.3) == delay


@pytest.mark.parametrize(("chance", "delay"), [(0.0, 0.0), (0.25, 1.0), (0.5, 2.0), (0.999, 3.996)])
def test_full_jitter_draws_from_zero_to_the_bound(chance: float, delay: float) -> None:
    policy = RetryPolicy(max_attempts=9, initial_delay=1.0)
    assert policy.delay_after(3, ValueError(), chance) == pytest.approx(delay)


@pytest.mark.parametrize("attempt", [1_000, 2_000, 1_000_000])
def test_a_bound_too_large_for_a_float_is_the_maximum(attempt: int) -> None:
    policy = RetryPolicy(max_attempts=10_000_000, multiplier=10.0, max_delay=7.0, jitter=False)
    assert policy.delay_after(attempt, ValueError(), 0.0) == 7.0


@pytest.mark.parametrize("attempt", [1, 100, 2_000])
def test_an_initial_delay_of_zero_stays_zero_at_every_attempt(attempt: int) -> None:
    policy = RetryPolicy(max_attempts=10_000, initial_delay=0.0, jitter=False)
    assert policy.delay_after(attempt, ValueError(), 0.0) == 0.0


@pytest.mark.parametrize(
    ("asked", "delay"),
    [
        (10, 10.0),
        (10.5, 10.5),
        (0, 1.0),
        (0.2, 1.0),
        (300, 300.0),
        (300.1, None),
        pytest.param(10**400, None, id="an int too large for a float"),
        (1e300, None),
        (-1, 1.0),
        (math.nan, 1.0),
        (math.inf, 1.0),
        (-math.inf, 1.0),
        (True, 1.0),
        ("10", 1.0),
        (None, 1.0),
    ],
)
def test_a_wait_that_the_error_asks_for_is_honoured_if_it_is_a_sensible_number(asked: Any, delay: float | None) -> None:
    policy = RetryPolicy(initial_delay=1.0, jitter=False)
    assert policy.delay_after(1, RateLimited(asked), 0.0) == delay


def test_jitter_never_undercuts_the_wait_that_was_asked_for() -> None:
    policy = RetryPolicy(initial_delay=60.0, max_delay=60.0)
    assert policy.delay_after(1, RateLimited(10), 0.0) == 10.0
    assert policy.delay_after(1, RateLimited(10), 0.5) == 30.0


@pytest.mark.parametrize(
    "error",
    [
        InputError("does not fit"),
        DefinitionError("cannot work"),
        CircuitOpenError("refused", retry_in=1.0),
        CallCancelled("cancelled"),
        StoreError("disk full"),
    ],
)
def test_errors_that_another_attempt_cannot_mend_are_final(error: Exception) -> None:
    assert RetryPolicy(jitter=False).delay_after(1, error, 0.0) is None


@pytest.mark.parametrize(
    "error", [CallTimeout("too slow"), OutputError("no number"), ConnectionError(), RuntimeError()]
)
def test_errors_that_another_attempt_may_mend_are_retried(error: Exception) -> None:
    assert RetryPolicy(jitter=False).delay_after(1, error, 0.0) == 0.5


@pytest.mark.parametrize(
    ("error", "is_retried"),
    [(ConnectionError(), True), (ConnectionResetError(), True), (ConnectionRefusedError(), False), (KeyError(), False)],
)
def test_retry_on_and_give_up_on_choose_the_errors(error: Exception, is_retried: bool) -> None:
    policy = RetryPolicy(retry_on=(ConnectionError,), give_up_on=(ConnectionRefusedError,))
    assert (policy.delay_after(1, error, 0.5) is not None) is is_retried


def test_functions_choose_the_errors_too() -> None:
    def is_of_the_server(error: Exception) -> bool:
        return isinstance(error, ModelError) and (error.status or 0) >= 500

    policy = RetryPolicy(retry_on=(ConnectionError, is_of_the_server), give_up_on=lambda error: "never" in str(error))
    assert policy.may_mend(ModelOverloaded("busy", status=503))
    assert policy.may_mend(ConnectionError("gone"))
    assert not policy.may_mend(ModelOverloaded("busy", status=404))
    assert not policy.may_mend(ModelOverloaded("never", status=503))
    assert not policy.may_mend(ValueError("no"))


def test_a_function_that_fails_says_no_and_does_not_hide_the_error() -> None:
    error = ValueError("no")
    assert not RetryPolicy(retry_on=lambda error: error.status >= 500).may_mend(error)
    assert "could not say anything of it: AttributeError" in error.__notes__[0]


@pytest.mark.parametrize("attempts", [1, 3])
def test_the_last_attempt_is_followed_by_none(attempts: int) -> None:
    policy = RetryPolicy(max_attempts=attempts)
    assert policy.delay_after(attempts, ValueError(), 0.5) is None


def test_a_number_is_short_for_a_policy_with_so_many_attempts() -> None:
    policy = RetryPolicy(max_attempts=7)
    assert RetryPolicy.of(7) == policy
    assert RetryPolicy.of(policy) is policy
    assert RetryPolicy.of(None) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_attempts": 0}, "max_attempts=0: a whole number is needed, at least 1"),
        ({"max_attempts": True}, "max_attempts=True"),
        ({"initial_delay": -0.1}, "initial_delay=-0.1: seconds from 0 on"),
        ({"initial_delay": math.nan}, "initial_delay=nan"),
        ({"max_delay": -1}, "max_delay=-1"),
        ({"max_retry_after": -1}, "max_retry_after=-1"),
        ({"multiplier": 0.5}, "multiplier=0.5: a number from 1 on"),
        ({"multiplier": math.nan}, "multiplier=nan"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_the_name_of_its_option(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RetryPolicy(**options)


@pytest.mark.parametrize("short", [0, -1, True, False])
def test_a_short_form_that_makes_no_sense_is_refused(short: int) -> None:
    with pytest.raises(ValueError, match="a whole number is needed, at least 1"):
        RetryPolicy.of(short)
