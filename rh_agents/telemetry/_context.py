"""Which span is the current one, here and in other processes."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from opentelemetry import propagate
from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import Link, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rh_agents.telemetry._names import LINK

__all__ = ["Block", "Remote", "carrier", "link_to", "recorded"]

_W3C = TraceContextTextMapPropagator()


class Block:
    """Makes a context the current one. It is left in whatever task, and in whatever order others are.

    (`detach` with a token logs an error where a block is left in another context than it was entered in, as those of
    fixtures and of async generators are.)
    """

    __slots__ = ("_around", "context")

    def __init__(self, context: Context) -> None:
        self.context: Context = context
        self._around: Context | None = None

    def enter(self) -> None:
        """Make it the current one."""
        self._around = get_current()
        attach(self.context)

    def leave(self) -> None:
        """Put back what was current before, unless something else is current by now."""
        around, self._around = self._around, None
        if around is not None and get_current() is self.context:
            attach(around)


class Remote:
    """The block of a call that another process has asked for."""

    def __init__(self, trace: Mapping[str, str]) -> None:
        self._block = Block(propagate.extract(dict(trace)))

    def __enter__(self) -> None:
        self._block.enter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._block.leave()


def carrier(context: Context | None = None) -> dict[str, str]:
    """What stands for the span that is current in a context, by the propagators of the program."""
    fields: dict[str, str] = {}
    propagate.inject(fields, context)
    return fields


def recorded(context: Context) -> dict[str, str]:
    """What stands for the span of a context in a journal, whichever propagators a later start may have.

    The baggage of the program is not among it: no one needs it there, and it may be nobody's business.
    """
    fields: dict[str, str] = {}
    _W3C.inject(fields, context)
    return fields


def link_to(trace: Mapping[str, str], kind: str) -> list[Link]:
    """A link to the span that stands in a journal; none if it has none."""
    found = get_current_span(_W3C.extract(dict(trace))).get_span_context()
    if not found.is_valid:  # journals have had what the propagators of the program made
        found = get_current_span(propagate.extract(dict(trace))).get_span_context()
    return [Link(found, {LINK: kind})] if found.is_valid else []
