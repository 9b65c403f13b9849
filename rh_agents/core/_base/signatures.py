"""Functions that take the arguments of another one and hand them on: the list is written once.

A `**options: Unpack[...]` would do for options that are only given by name; groups take some by position, too. So the
type checkers see the parameters of what is made (`Concatenate` leaves out its first one, which the function itself
gives), and `help()` shows them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["function_with_arguments_of", "method_with_arguments_of"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def function_with_arguments_of(
    make: Callable[Concatenate[Any, P], R],
) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Decorates a function that hands its arguments on to `make`, behind a first one of its own."""
    return lambda function: _with_parameters(function, make)


def method_with_arguments_of(
    make: Callable[Concatenate[Any, P], R],
) -> Callable[[Callable[Concatenate[S, ...], R]], Callable[Concatenate[S, P], R]]:
    """The same for a method that hands itself on as the first argument."""
    return lambda method: _with_parameters(method, make, *list(inspect.signature(method).parameters.values())[:1])


def _with_parameters(function: FunctionT, make: Callable[..., Any], *own: inspect.Parameter) -> FunctionT:
    _, *rest = inspect.signature(make).parameters.values()
    signature = inspect.signature(function).replace(parameters=[*own, *rest])
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function
