"""What the processes that make items of a job apply to them: what the command line says, found there again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from rh_agents.cli.arguments import Callee, make_callee
from rh_agents.cli.targets import load_actor
from rh_agents.core._run.frame import current_frame
from rh_agents.core.calls import Call
from rh_agents.core.errors import UsageError
from rh_agents.decorators import tool

__all__ = ["Applied", "applied"]


@dataclass(frozen=True)
class Applied:
    """Gives the call for the value of an item, in whichever process: `target` is imported where it is first needed.

    Attributes:
        target: MODULE:ACTOR, seen from any directory.
        retry, timeout, fixed: as in `make_callee`.
        code: the fingerprint of the function, by which workers see whether they have the same one.
    """

    made_by: ClassVar[str] = "rh_agents.cli.elsewhere:applied"
    """What workers make it with, which get shards as data."""

    target: str
    retry: int | None = None
    timeout: float | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What `applied` gets besides the target."""
        return {"retry": self.retry, "timeout": self.timeout, "fixed": dict(self.fixed)}

    def __call__(self, value: Any) -> Call[Any]:
        frame = current_frame.get()
        if frame is None:
            raise UsageError(f"{self.target} is applied to the items of a run, and none is under way")
        return self._callee.call(value, frame.run)

    @cached_property
    def _callee(self) -> Callee:
        actor = load_actor(self.target, tool)
        return make_callee(actor, retry=self.retry, timeout=self.timeout, fixed=self.fixed)


def applied(target: str, settings: Mapping[str, Any]) -> Applied:
    """What a worker applies to items of which a command says that `target` is applied to them."""
    return Applied(target, **settings)
