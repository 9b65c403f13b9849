"""Where the program is: the call that is being executed in this context."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol


class Caller(Protocol):
    """A run, as far as an event has to know it that is called."""

    def start(
        self, actor: Any, input_data: Any, extra_context: Any, marks: Mapping[str, Any] | None = None
    ) -> Awaitable[Any]:
        """A call of the actor that starts when it is awaited. `marks` are fields that all of its events have."""
        ...


class CurrentCall(Protocol):
    """A call from which others can be made."""

    @property
    def run(self) -> Any:
        """The parts of the run it belongs to; `run.state` is the run."""
        ...


current_call: ContextVar[CurrentCall | None] = ContextVar("rh_agents_scope", default=None)
