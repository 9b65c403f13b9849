"""Who runs handlers that are not coroutine functions, by engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rh_agents.core.actors import BaseActor
from rh_agents.core.types import Engine

__all__ = ["Executor", "Executors", "set_executors"]


class Executor(Protocol):
    """Runs functions that are not coroutine functions, away from the event loop.

    One that runs them in another process hands `current()` on to it, as a `CallContext`, and raises `WorkerLost` if
    that process dies before it has reported the outcome.
    """

    async def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the function and return what it returns. If the awaiting task is cancelled, it does not wait for it."""
        ...


_makers: dict[Engine, Callable[[], Executor]] = {}


def set_executors(makers: Mapping[Engine, Callable[[], Executor]]) -> None:
    """Say how executors are made. The facade does this once, when it is imported."""
    _makers.update(makers)


class Executors:
    """The executors of one run, made when they are first used.

    Args:
        given: those that the run was given, by the name of their engine.
    """

    def __init__(self, given: Mapping[Engine, Executor] | Mapping[str, Executor]) -> None:
        self._by_engine: dict[Engine, Executor] = {Engine(name): each for name, each in given.items()}

    def of(self, actor: BaseActor) -> Executor:
        """Who runs the handler of this actor."""
        engine = actor.engine or Engine.THREAD
        executor = self._by_engine.get(engine)
        if executor is None:
            executor = self._by_engine[engine] = _makers[engine]()
        return executor
