"""What an agent without a handler does, and how an agent is called: the runtime says it, which knows conversations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["AgentLoop", "agent_loop"]


class AgentLoop:
    """Two functions of `rh_agents.core.chat`, which sets them once, when it is imported."""

    @staticmethod
    def handler_of(_: Any) -> Callable[..., Any]:
        """The handler of an agent that has none of its own. `RuntimeError`: it has not been set."""
        raise RuntimeError("rh_agents.core.chat has not been imported")

    @staticmethod
    def call_of(_: Any, __: Any) -> Awaitable[Any]:
        """A call of an agent with a prompt. `RuntimeError`: it has not been set."""
        raise RuntimeError("rh_agents.core.chat has not been imported")

    def set(
        self, handler_of: Callable[[Any], Callable[..., Any]], call_of: Callable[[Any, Any], Awaitable[Any]]
    ) -> None:
        """Say what they are."""
        vars(self).update(handler_of=handler_of, call_of=call_of)


agent_loop: AgentLoop = AgentLoop()
