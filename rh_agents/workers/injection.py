"""Arguments of flows that are marked `Injected`, made by factories."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["Injection"]


class Injection:
    """What factories make, each once, when it is needed first.

    Args:
        factories: by the name of the parameter. What one gives may be awaitable; an async context manager is entered.
    """

    def __init__(self, factories: Mapping[str, Callable[[], Any]]) -> None:
        self.factories: Mapping[str, Callable[[], Any]] = dict(factories)
        self._made: dict[str, Any] = {}
        self._making = asyncio.Lock()
        self._exits = contextlib.AsyncExitStack()

    async def made(self, names: Iterable[str]) -> dict[str, Any]:
        """The arguments of these names."""
        return {name: await self._made_by(name) for name in names}

    async def _made_by(self, name: str) -> Any:
        async with self._making:
            if name not in self._made:
                made = self.factories[name]()
                if inspect.isawaitable(made):
                    made = await made
                if hasattr(type(made), "__aenter__"):
                    made = await self._exits.enter_async_context(made)
                self._made[name] = made
            return self._made[name]

    async def aclose(self) -> None:
        """Leave what was entered."""
        await self._exits.aclose()
