"""A stop is no failure, whatever a program makes of it.

`StopRun` unwinds what cannot go on: the run is being stopped, a budget is spent, a question has no answer yet. It is no
`Exception`, so ordinary handlers let it pass. But `asyncio.gather(..., return_exceptions=True)` hands it over among the
results, a TaskGroup packs it into a group of exceptions, and `except BaseException` may translate it. The program then
comes to a value or an error that it would not have come to otherwise. Recorded as an outcome, that would be believed
for good: what was left out would never be made. So a call that has been told of a stop (`Frame.stop`) has no outcome,
the code that executes it begins no further call (a mail about half of the pages), and a run whose program hides a stop
has been stopped all the same.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator

from rh_agents.core.errors import StopRun

__all__ = ["stop_behind", "stop_in"]


def stop_in(error: BaseException | None) -> StopRun | None:
    """Why the program could not go on, if that is all that is wrong; several tasks may say so in a group."""
    if isinstance(error, StopRun):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    stops, rest = error.split(StopRun)
    if stops is None or rest is not None:
        return None
    return functools.reduce(operator.or_, _leaves(stops))


def stop_behind(error: BaseException | None) -> StopRun | None:
    """The same, or the stop that an error was made of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        stop = stop_in(error)
        if stop is not None:
            return stop
        error = error.__cause__ or error.__context__
    return None


def _leaves(error: BaseException) -> Iterator[StopRun]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    elif isinstance(error, StopRun):
        yield error
