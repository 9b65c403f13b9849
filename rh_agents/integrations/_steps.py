"""A step of somebody else's program as a call of ours: named, identified by data, made once, and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from rh_agents.core.actors import LLM, BaseActor, Tool
from rh_agents.core.calls import Call
from rh_agents.core.codec import canonical
from rh_agents.core.errors import UnstorableError
from rh_agents.core.ports import RunHandle
from rh_agents.core.values import encode

__all__ = ["NotRecordedWarning", "Step", "is_storable", "model_actor", "plain", "tool_actor", "warn_not_recorded"]


class NotRecordedWarning(UserWarning):
    """Something in a durable agent is no recorded step: it is done again when the run goes on."""


def warn_not_recorded(what: str, remedy: str) -> None:
    """Say loudly that something will be paid for twice."""
    warnings.warn(
        f"{what} is not recorded, so it is done, and paid for, again when the run goes on; {remedy}",
        NotRecordedWarning,
        stacklevel=3,
    )


async def _never() -> None:
    """Stands for the handlers of actors whose calls are made by somebody else's code."""
    raise AssertionError("a step is called through its own code")


def model_actor(name: str) -> BaseActor:
    """What stands for a model of another framework in events and in keys."""
    return LLM(name=name, handler=_never, description="A model of another framework.")


def tool_actor(name: str) -> BaseActor:
    """The same for a tool."""
    return Tool(name=name, handler=_never, description="A tool of another framework.")


class Step(Call[Any]):
    """One step.

    Args:
        actor: what stands for the model or the tool.
        about: data that tells this step from others; what is equal is the same step. Ids and times that differ from one
            execution to the next must not be in it.
        make: does it, and gives data.
    """

    __slots__ = ("_about", "_make")

    def __init__(self, actor: BaseActor, about: Any, make: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(actor)
        self._about = about
        self._make = make

    def canonical_input(self) -> bytes:
        """The bytes that stand for what it is about."""
        return canonical(self._about)

    def begin(self, run: RunHandle) -> Awaitable[Any]:
        """Do it."""
        return self._make()


def is_storable(value: Any) -> bool:
    """Whether a value can be recorded as it is."""
    try:
        encode(value)
    except UnstorableError:
        return False
    return True


def plain(value: Any, without: frozenset[str] = frozenset()) -> Any:
    """JSON data without the entries of these names, however deep: those that differ from one execution to the next."""
    if isinstance(value, dict):
        return {str(name): plain(each, without) for name, each in value.items() if name not in without}
    if isinstance(value, list | tuple):
        return [plain(each, without) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return f"a {type(value).__qualname__}"
