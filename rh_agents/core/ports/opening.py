"""What may be given where a store is wanted: the store itself, or the URL or path that `rh_agents.open_store` takes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rh_agents.core.errors import DefinitionError
from rh_agents.core.ports import Store

__all__ = ["StoreLike", "opened_store", "set_store_opener", "using_store"]

StoreLike = Store | str | os.PathLike[str]
"""A store, or where one is. Who opens a store by its name closes it, and leaves open one that was given."""


def _no_opener(_: str | os.PathLike[str]) -> Store:
    raise RuntimeError("rh_agents has not been imported")


_open: Callable[[str | os.PathLike[str]], Store] = _no_opener


def set_store_opener(open_store: Callable[[str | os.PathLike[str]], Store]) -> None:
    """Tell how stores are opened by name. The facade does this once, when it is imported."""
    global _open  # noqa: PLW0603 - the one hook that keeps this module below the stores
    _open = open_store


def opened_store(store: StoreLike) -> Store:
    """The store itself; it connects when it is first used.

    Raises:
        DefinitionError: it is neither a store nor a name.
        ValueError: no store has this URL.
        ModuleNotFoundError: it needs a package that is not installed.
    """
    if isinstance(store, str | os.PathLike):
        return _open(store)
    if isinstance(store, type) or not hasattr(store, "open_run"):
        shown = f"the class {store.__name__}" if isinstance(store, type) else f"{type(store).__name__} {store!r:.60}"
        raise DefinitionError(f"store= takes a store, a path or a URL, such as 'runs.db', not {shown}")
    return store


@asynccontextmanager
async def using_store(store: StoreLike) -> AsyncIterator[Store]:
    """The store for a block, at whose end it is closed if it was opened here."""
    opened = opened_store(store)
    try:
        yield opened
    finally:
        if opened is not store:
            await opened.aclose()
