"""What the code of a run sees of it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import BaseActor
from rh_agents.core.bus import EventBus
from rh_agents.core.history import HistorySet
from rh_agents.core.metrics import RunMetrics
from rh_agents.core.ports import Store
from rh_agents.core.results import ExecutionResult
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Spending

__all__ = ["Run"]


class Run(Protocol):
    """A run, as the code that runs in it sees it (`current().run`)."""

    event_bus: EventBus
    history: HistorySet
    status: ExecutionStatus
    store: Store | None
    tags: tuple[str, ...]

    @property
    def run_id(self) -> str:
        """The name of the run."""
        ...

    @property
    def parts(self) -> RunParts:
        """What the library itself uses of it."""
        ...

    @property
    def metrics(self) -> RunMetrics:
        """What the run has done so far: calls by actor, and the groups that have ended."""
        ...

    @property
    def spent(self) -> Spending:
        """What the run has spent so far, in all its executions."""
        ...

    @property
    def is_interrupted(self) -> bool:
        """Whether the run is being stopped."""
        ...

    async def ask(self, text: str, schema: Any = None, *, key: str | None = None) -> Any:
        """Ask a person, and wait for the answer; see `ExecutionState.ask`."""
        ...

    def request_interrupt(self, reason: str = "interrupted", *, grace: float = 30.0) -> None:
        """Stop the run: no new call begins, those under way have `grace` seconds to end, then they are cancelled."""
        ...

    def set_timeout(self, seconds: float, *, grace: float = 30.0) -> None:
        """Stop the run after so many seconds from now, as `request_interrupt` does."""
        ...

    def start(
        self, actor: BaseActor, input_data: Any, extra_context: Any, marks: Mapping[str, Any] | None = None
    ) -> Awaitable[ExecutionResult[Any]]:
        """A call of the actor that starts when it is awaited, and again at every attempt of a group.

        `marks` are fields that all of its events have.
        """
        ...
