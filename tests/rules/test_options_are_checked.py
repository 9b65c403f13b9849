"""What cannot be an option of a policy is refused where it is written, with the remedy; what is meant is understood."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rh_agents import (
    Budget,
    CircuitBreaker,
    ConcurrencyLimit,
    EventBus,
    ExecutionState,
    RateLimit,
    RetryPolicy,
    parallel,
    tool,
)
from rh_agents.core.errors import OptionError
from rh_agents.policies import AdaptiveConcurrency

Make = Callable[[Any], object]

FILTERS: dict[str, Make] = {
    "retry_on": lambda given: RetryPolicy(retry_on=given).retry_on,
    "give_up_on": lambda given: RetryPolicy(give_up_on=given).give_up_on,
    "counts": lambda given: CircuitBreaker(counts=given).counts,
}
WHOLE: dict[str, Make] = {
    "max_attempts": lambda given: RetryPolicy(max_attempts=given),
    "failure_threshold": lambda given: CircuitBreaker(given),
    "probes": lambda given: CircuitBreaker(probes=given),
    "limit": lambda given: ConcurrencyLimit(given),
    "initial": lambda given: AdaptiveConcurrency(given),
    "minimum": lambda given: AdaptiveConcurrency(10, minimum=given),
    "maximum": lambda given: AdaptiveConcurrency(1, maximum=given),
    "increase": lambda given: AdaptiveConcurrency(increase=given),
    "max_workers": lambda given: parallel(max_workers=given),
}
FROM_ZERO: dict[str, Make] = {
    "initial_delay": lambda given: RetryPolicy(initial_delay=given),
    "max_delay": lambda given: RetryPolicy(max_delay=given),
    "max_retry_after": lambda given: RetryPolicy(max_retry_after=given),
    "max_wait": lambda given: RetryPolicy(max_wait=given),
    "reset_timeout": lambda given: CircuitBreaker(reset_timeout=given),
    "cost": lambda given: Budget(cost=given),
    "tokens": lambda given: Budget(tokens=given),
    "calls": lambda given: Budget(calls=given),
    "depth": lambda given: Budget(depth=given),
}
ABOVE_ZERO: dict[str, Make] = {
    "multiplier": lambda given: RetryPolicy(multiplier=given),
    "decrease": lambda given: AdaptiveConcurrency(decrease=given),
    "requests": lambda given: RateLimit(given),
    "per": lambda given: RateLimit(1, per=given),
    "timeout": lambda given: parallel(timeout=given),
    "item_timeout": lambda given: parallel(item_timeout=given),
    "fail_after": lambda given: parallel(fail_after=given),
    "handler_timeout": lambda given: EventBus(handler_timeout=given),
    "lease": lambda given: ExecutionState(lease=given),
}
NO_NUMBERS: list[Any] = [math.nan, -1, -0.5, -math.inf, True, False, "3", [3], {3}, 3j, np.float64("nan"), object()]


@pytest.mark.parametrize("make", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize(
    ("given", "understood"),
    [
        (ValueError, (ValueError,)),
        ([ValueError], (ValueError,)),
        ({ValueError}, (ValueError,)),
        ((ValueError, (OSError, [KeyError])), (ValueError, OSError, KeyError)),
        ((cls for cls in (ValueError, OSError)), (ValueError, OSError)),
        ((), ()),
        (Exception, (Exception,)),
        (callable, (callable,)),
        ((ValueError, callable), (ValueError, callable)),
    ],
)
def test_filters_take_a_class_and_any_collection_of_classes(
    make: Make, given: Any, understood: tuple[type[Exception], ...]
) -> None:
    if not isinstance(given, tuple | list | set | type):
        given = list(understood)  # a generator can be read once, and there are several filters
    assert make(given) == understood


async def _says_later(_: Exception) -> bool:
    return True


@pytest.mark.parametrize(("name", "make"), FILTERS.items())
@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("ValueError", "the class itself is needed, not its name"),
        (("ValueError",), "the class itself is needed"),
        (ValueError("no"), r"not an exception of it: \w+=\(ValueError,\)"),
        ([ValueError, OSError(1)], "not an exception of it"),
        (None, r"write \(\)"),
        ([None], r"write \(\)"),
        (KeyboardInterrupt, "only classes derived from Exception"),
        (BaseException, "only classes derived from Exception"),
        (int, "classes of exceptions are needed"),
        (3, "classes of exceptions are needed"),
        (_says_later, "a function that says at once"),
    ],
)
def test_filters_refuse_everything_else_with_the_remedy(name: str, make: Make, given: Any, remedy: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}=.*{remedy}"):
        make(given)


@pytest.mark.parametrize(("name", "make"), WHOLE.items())
def test_counts_are_whole_numbers_from_1_on(name: str, make: Make) -> None:
    for given in (1.5, 2.0, 0, math.inf, *NO_NUMBERS):
        with pytest.raises(ValueError, match=rf"{name}="):
            make(given)


@pytest.mark.parametrize(("name", "make"), [*FROM_ZERO.items(), *ABOVE_ZERO.items()])
def test_amounts_are_numbers_that_are_not_negative(name: str, make: Make) -> None:
    for given in NO_NUMBERS:
        with pytest.raises(ValueError, match=r"."):
            make(given)


@pytest.mark.parametrize(("name", "make"), ABOVE_ZERO.items())
def test_some_amounts_are_not_zero(name: str, make: Make) -> None:
    with pytest.raises(ValueError, match=r"."):
        make(0)


def test_numbers_of_numpy_are_numbers() -> None:
    assert RetryPolicy(max_attempts=np.int64(3), initial_delay=np.float64(0.5)).max_attempts == 3  # type: ignore[arg-type]
    assert ConcurrencyLimit(np.int32(2)).limit == 2  # type: ignore[arg-type]
    assert RateLimit(np.float64(2)).limits == {"requests": 2}


@pytest.mark.parametrize("given", [0.5, 1, "no", None])
def test_jitter_is_true_or_false(given: Any) -> None:
    with pytest.raises(ValueError, match="jitter="):
        RetryPolicy(jitter=given)


@pytest.mark.parametrize("retry", [1.5, "3", True, 0, [3]])
def test_the_short_form_of_a_retry_is_checked_as_well(retry: Any) -> None:
    with pytest.raises(OptionError, match=r"retry=.*a whole number is needed, at least 1"):

        @tool(retry=retry)
        async def work() -> None: ...


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_a_wait_without_an_upper_bound_is_a_number_all_the_same(chance: float) -> None:
    policy = RetryPolicy(max_attempts=10_000, max_delay=math.inf, multiplier=10.0)
    for attempt in (1, 2, 300, 9_000):
        delay = policy.delay_after(attempt, ValueError(), chance)
        assert delay is not None
        assert 0 <= delay <= 1e9
