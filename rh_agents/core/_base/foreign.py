"""Asking exceptions that other people wrote. Whatever an answer is, or raises, nothing of ours depends on it.

A property may look for a missing header, a text may be made of what is gone, a frozen dataclass takes no note. Each of
these would otherwise hide the error about which it is asked, and leave what was to be done about it undone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

ErrorT = TypeVar("ErrorT", bound=BaseException)
_OURS = frozenset({"_limits.breakers", "_run.caching", "_group.members", "_run.runner", "_group.scheduler", "calls"})
"""The modules of this package whose frames stand between a call and what it calls."""
_LONGEST = 10**9
"""Seconds. Larger integers may not even fit into a float."""


def text_of(error: BaseException) -> str:
    """The text of an error; "" if it has none, or cannot tell it."""
    try:
        return str.strip(str(error))  # of a class derived from `str`, too, this makes a plain one
    except (Exception, SystemExit):  # noqa: BLE001 - the error is the user's, and so is the way it gives its text
        return ""


def seconds_to_wait(error: BaseException) -> float | None:
    """The `retry_after` of an error: a finite, non-negative number of seconds. Anything else is no hint."""
    try:
        value = getattr(error, "retry_after", None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        seconds = float(min(value, _LONGEST) if isinstance(value, int) else value)
    except (Exception, SystemExit):  # noqa: BLE001 - the error is the user's; a hint that cannot be read is none
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def says_yes(function: Callable[[ErrorT], object], error: ErrorT) -> bool:
    """What a function of the program says of an error. One that fails says no, and the error has a note about that."""
    try:
        return bool(function(error))
    except Exception as problem:  # noqa: BLE001 - the function is the user's; its failure must not hide the error
        noted(error, f"{getattr(function, '__qualname__', function)} could not say anything of it: {problem!r}")
        return False


def set_traceback(error: BaseException, trace: TracebackType | None) -> None:
    """Give an error a traceback, also one that is a frozen dataclass."""
    BaseException.with_traceback(error, trace)


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came from, and what a group of errors holds."""
    found: list[BaseException] = [error]
    seen: set[int] = set()
    while found:
        each = found.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        found += [cause for cause in (each.__cause__, each.__context__) if cause is not None]
        if isinstance(each, BaseExceptionGroup):
            found += each.exceptions


def without_our_frames(error: ErrorT) -> ErrorT:
    """The error itself; its traceback begins with the program's own frames, and so do those of its causes.

    Ours hold the call, which holds its result, which holds the error: what a failed call had in its hands would be kept
    until the garbage collector comes. And nobody looks for a fault of the program in them.
    """
    for each in with_causes(error):
        trace = each.__traceback__
        while trace is not None and _is_ours(trace):
            trace = trace.tb_next
        set_traceback(each, trace)
    return error


def retold(error: ErrorT) -> ErrorT:
    """An equal error, to be kept by what was left with this one; the error itself if no other one can be made of it.

    The traceback of an error that has left a block leads to the frames of the program that it has passed, which hold
    what was used in the block. Of the other one it begins behind these, and behind ours, where the call failed.
    """
    other = _copied(error)
    if other is None:
        return error
    trace = error.__traceback__
    while trace is not None and not _is_of_the_library(trace):
        trace = trace.tb_next
    while trace is not None and _is_of_the_library(trace):
        trace = trace.tb_next
    set_traceback(other, trace)
    for name in ("__cause__", "__context__", "__suppress_context__"):  # a frozen dataclass has a setter of its own
        getattr(BaseException, name).__set__(other, getattr(error, name))
    return other


def _copied(error: ErrorT) -> ErrorT | None:
    """A copy, or None: as `copy.copy` makes one, but also where the class has a setter of its own."""
    try:
        how: Any = error.__reduce_ex__(4)
        make, args, *state = how
        other = make(*args)
        for each in state:
            other.__dict__.update(each or {})
    except (Exception, SystemExit):  # noqa: BLE001 - the class is the user's, and so is what makes one of it
        return None
    return other if type(other) is type(error) and other is not error else None


def _is_of_the_library(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__")).startswith("rh_agents.")


def _is_ours(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__")).removeprefix("rh_agents.core.") in _OURS


def noted(error: ErrorT, text: str) -> ErrorT:
    """The error itself, with a note, if it takes one."""
    try:
        error.add_note(text)
    except Exception:  # noqa: BLE001 - for instance a frozen dataclass, of which nothing can be set
        with contextlib.suppress(Exception):
            error.__dict__.setdefault("__notes__", []).append(text)
    return error
