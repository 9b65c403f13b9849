"""Functions that take the arguments of another one, or settings, and hand them on: the list is written once.

A `**settings: Unpack[...]` does for what is only given by name, as the settings of models are. Groups take some options
by position, too. So there the type checkers see the parameters of what is made (`Concatenate` leaves out its first one,
which the function itself gives). `help()` shows either.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

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


def takes_settings(settings: Any) -> Callable[[FunctionT], FunctionT]:
    """Let the signature of a function with `**settings` name all that are in a `TypedDict`.

    Type checkers read them from the annotation; `help`, and editors that look at objects, from here. Each has a
    default, which stands elsewhere.
    """

    def mark(function: FunctionT) -> FunctionT:
        signature = inspect.signature(function)
        given = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        named = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=_Shown("..."), annotation=_written(annotation)
            )
            for name, annotation in settings.__annotations__.items()
        ]
        function.__signature__ = signature.replace(parameters=[*given, *named])  # type: ignore[attr-defined]
        return function

    return mark


class _Shown:
    """Something in a signature, as people read it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _written(annotation: Any) -> Any:
    """An annotation as it stands in the code."""
    text = getattr(annotation, "__forward_arg__", None)
    return annotation if text is None else _Shown(text)
