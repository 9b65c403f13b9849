"""What a journal says of a request that was applied, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rh_agents.core.actors import BaseActor
from rh_agents.core.events import Fact
from rh_agents.core.ports.control import ControlRequest
from rh_agents.core.types import EventType, ExecutionStatus

__all__ = ["applied_control", "control_fact"]

_CONTROL: BaseActor = BaseActor.model_construct(
    name="control", event_type=EventType.CONTROL, handler=lambda: None, description="Stands for who steers the run."
)


def applied_control(request: ControlRequest, answer: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """What the event says that applies a request in an epoch of its run."""
    return {
        "id": request.id,
        "verb": request.verb.value,
        "author": request.author,
        "asked_at": request.asked_at,
        "arguments": dict(request.arguments),
        "run": request.run_id,
        "epoch": epoch,
        "answer": dict(answer),
    }


def control_fact(control: Mapping[str, Any], reason: str, run_id: str, timestamp: float) -> Fact:
    """What there is to record when a request has been applied, or refused."""
    is_refused = "refused" in control["answer"]
    status = ExecutionStatus.FAILED if is_refused else ExecutionStatus.COMPLETED
    kind, name = EventType.CONTROL, str(control["verb"])
    return Fact(run_id, timestamp, status, kind, _CONTROL, name, "", message=reason or None, more={"control": control})
