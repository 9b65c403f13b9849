"""Options of policies, put into their shape or refused where they are written, not at the first failure."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

from rh_agents.core._base.foreign import says_yes
from rh_agents.core.errors import OptionError

Failure: TypeAlias = type[Exception] | Callable[[Any], object]
"""A class of exceptions, or a function that says of an exception whether it is meant."""


def at_least(least: int, name: str, value: Any) -> int:
    """A whole number from `least` on.

    Raises:
        OptionError: it is none.
    """
    if not isinstance(value, bool):
        try:
            whole = operator.index(value)
        except TypeError:
            pass
        else:
            if whole >= least:
                return whole
    raise OptionError(f"{name}={value!r}: a whole number is needed, at least {least}")


def number(name: str, value: Any, what: str, *, zero: bool = True, infinity: bool = True) -> float:
    """A number from 0 on, or above 0; never NaN, with which every comparison is false.

    Args:
        name: of the option.
        value: what was given.
        what: what it has to be, for the error.
        zero: whether 0 is one.
        infinity: whether infinity is one.

    Raises:
        OptionError: it is none.
    """
    if not is_number(value, 0) or (value == 0 and not zero) or (value == math.inf and not infinity):
        raise OptionError(f"{name}={value!r}: {what}")
    return value  # type: ignore[no-any-return]


def above_zero(seconds: Any) -> float:
    """Seconds to wait.

    Raises:
        OptionError: they are no number above 0.
    """
    return number("seconds", seconds, "they must be more than 0", zero=False)


def is_number(value: Any, least: float) -> bool:
    """Whether it is a number from `least` on. NaN is none, and neither are True and False."""
    if isinstance(value, bool) or not issubclass(type(value), Real):
        return False
    return bool(value >= least)


def amounts(name: str, value: Any) -> dict[str, float]:
    """Amounts by what they are of: finite numbers from 0 on.

    Raises:
        OptionError: it is something else.
    """
    if not isinstance(value, Mapping) or not all(isinstance(each, str) and each for each in value):
        raise OptionError(f"{name}={value!r}: amounts by name are needed, such as {{'num_gpus': 1}}")
    what = "an amount is a finite number from 0 on"
    return {each: number(f"{name}[{each!r}]", amount, what, infinity=False) for each, amount in value.items()}


def yes_or_no(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        OptionError: it is neither.
    """
    if not isinstance(value, bool):
        raise OptionError(f"{name}={value!r}: True or False")
    return value


def failures(name: str, value: Any) -> tuple[Failure, ...]:
    """Classes of exceptions, and functions that say of an exception whether it is meant.

    One alone, a list, a set or a nested tuple will do.

    Raises:
        OptionError: something else is among them, such as an instance, the name of a class, or a coroutine function.
    """
    if isinstance(value, type) and issubclass(value, Exception):
        return (value,)
    if callable(value) and not isinstance(value, type) and not inspect.iscoroutinefunction(value):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | type):
        return tuple(each for part in value for each in failures(name, part))
    raise OptionError(f"{name}={value!r}: {_remedy(name, value)}")


def is_meant(error: BaseException, chosen: Sequence[Failure]) -> bool:
    """Whether one of the classes or functions means this error."""
    return any(isinstance(error, each) if isinstance(each, type) else says_yes(each, error) for each in chosen)


def _remedy(name: str, value: Any) -> str:
    if value is None:
        return "None is not an exception class; to name none, write ()"
    if isinstance(value, str):
        return f"the class itself is needed, not its name: {name}=({value},)"
    if isinstance(value, BaseException):
        return f"the class is needed, not an exception of it: {name}=({type(value).__name__},)"
    if isinstance(value, type) and issubclass(value, BaseException):
        return "only classes derived from Exception can be named; the others end the program or the task"
    if inspect.iscoroutinefunction(value):
        return "a function that says at once whether an error is meant is needed, not a coroutine function"
    example = f"{name}=(ConnectionError, TimeoutError)"
    return f"classes of exceptions are needed, or functions that take one, for instance {example}"
