"""What may be given where a store is wanted: the store itself, or the URL or path that `rh_agents.open_store` takes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Protocol, runtime_checkable

from rh_agents.core.errors import DefinitionError
from rh_agents.core.ports import Store

__all__ = [
    "LimitedStore",
    "StoreLike",
    "StoreOf",
    "limitations_of",
    "named_store",
    "opened_store",
    "set_store_opener",
    "using_store",
]

StoreLike = Store | str | os.PathLike[str]
"""A store, or where one is. Who opens a store by its name closes it, and leaves open one that was given."""


def _no_opener(_: str | os.PathLike[str]) -> Store:
    raise RuntimeError("rh_agents has not been imported")


_open: Callable[[str | os.PathLike[str]], Store] = _no_opener


def _no_name() -> str | None:
    return None


_named: Callable[[], str | None] = _no_name


def set_store_opener(open_store: Callable[[str | os.PathLike[str]], Store], named: Callable[[], str | None]) -> None:
    """Tell how stores are opened by name, and what the environment says. The facade does this when it is imported."""
    global _open, _named
    _open, _named = open_store, named


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


class StoreOf(Enum):
    """Stands for a store that is found when it is needed."""

    ENVIRONMENT = "RH_AGENTS_STORE"
    """The one that the environment variable of this name says; none if it is not set."""


def named_store(store: StoreLike | StoreOf | None) -> StoreLike | None:
    """The store, or its name; None for none.

    Raises:
        OptionError: the environment says what is no store.
    """
    return _named() if isinstance(store, StoreOf) else store


@asynccontextmanager
async def using_store(store: StoreLike) -> AsyncIterator[Store]:
    """The store for a block, at whose end it is closed if it was opened here.

    Raises:
        DefinitionError: `store` is neither a store nor the name of one.
    """
    opened = opened_store(store)
    try:
        yield opened
    finally:
        if opened is not store:
            await opened.aclose()


@runtime_checkable
class LimitedStore(Protocol):
    """A store that may be reached in a way that leaves it slower than it could be."""

    async def limitations(self) -> Sequence[str]:
        """What the way to the database keeps it from, each as a sentence for people; none if there is nothing to say.

        Raises:
            StoreError: the database cannot be reached.
        """
        ...


async def limitations_of(store: Store) -> Sequence[str]:
    """What the way to its database keeps a store from, each as a sentence for people."""
    return await store.limitations() if isinstance(store, LimitedStore) else ()
