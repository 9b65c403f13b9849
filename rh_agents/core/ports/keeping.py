"""Stores: what may be given for one, how much it keeps of a run, and how the contents of a run are erased while its
counts stay.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, Protocol, runtime_checkable

from rh_agents.core._base.executions import executions_in, with_executions
from rh_agents.core._base.key_generations import fact_of_keys, generation_of_keys
from rh_agents.core.errors import DefinitionError, StoreError, ValuesErased
from rh_agents.core.ports import RunInfo, Store

__all__ = [
    "ErasedRun",
    "Erasing",
    "Erasure",
    "LimitedStore",
    "RunSize",
    "Sizing",
    "StoreLike",
    "StoreOf",
    "erase_values_of_run",
    "erasure_of",
    "expect_values",
    "facts_when_erased",
    "kind_of_error",
    "limitations_of",
    "named_store",
    "opened_store",
    "set_store_opener",
    "size_of_run",
    "using_store",
]

# -- which one ------------------------------------------------------------------------------------------------------

StoreLike = Store | str | os.PathLike[str]
"""A store, or where one is: the URL or path that `rh_agents.open_store` takes. Who opens a store by its name closes it,
and leaves open one that was given."""


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


# -- what it keeps of a run -----------------------------------------------------------------------------------------

_KIND: Final = re.compile(r"[^\W\d]\w*")
_AT: Final = "rh_agents.erased_at"
_IS_UNFINISHED: Final = "rh_agents.erasing"
"""Facts of a run. They say of themselves what they are, since others may have any names."""


@dataclass(frozen=True, slots=True)
class RunSize:
    """How much of a store is one run's.

    Attributes:
        size: bytes of its journal and its input: keys, texts and values, without what a database adds to them.
        artifacts: how many large results are kept apart from the journal and used by no other run.
        artifact_size: their bytes, as far as they are recorded.
    """

    size: int
    artifacts: int = 0
    artifact_size: int = 0


@runtime_checkable
class Sizing(Protocol):
    """A store that knows how much it keeps of a run."""

    async def run_size(self, run_id: str) -> RunSize:
        """See `size_of_run`."""
        ...


async def size_of_run(store: Store, run_id: str) -> RunSize | None:
    """How much a store keeps of a run; None if the store cannot tell (see `Sizing`).

    Raises:
        StoreError: there is no such run.
    """
    return await store.run_size(run_id) if isinstance(store, Sizing) else None


@dataclass(frozen=True, slots=True)
class Erasure:
    """That the values of a run were erased, or are being erased.

    Attributes:
        at: when that began, in seconds since 1970.
        is_finished: whether all of them are gone; else the process that did it was stopped, or goes on.
    """

    at: float
    is_finished: bool

    def __str__(self) -> str:
        when = f"{datetime.fromtimestamp(self.at).astimezone():%Y-%m-%d %H:%M}"
        return f"its values were erased on {when}" if self.is_finished else f"erasing its values began on {when}"


@dataclass(frozen=True, slots=True)
class ErasedRun:
    """What came of erasing the values of a run.

    Attributes:
        values: how many outcomes lost their value or their error this time.
        artifacts, artifact_size: how many large results were deleted, and their bytes.
        cached: how many results were taken out of the cache because a call of the run had come to the same.
        left: what the database keeps of it that only its administrator can remove; "" if that is nothing.
    """

    values: int
    artifacts: int = 0
    artifact_size: int = 0
    cached: int = 0
    left: str = ""


def erasure_of(info: RunInfo) -> Erasure | None:
    """Whether the values of a run were erased; None if not."""
    at = info.facts.get(_AT)
    return None if at is None else Erasure(float(at), _IS_UNFINISHED not in info.facts)


def facts_when_erased(facts: Mapping[str, str], now: float, *, is_finished: bool) -> dict[str, str]:
    """The facts of a run whose values are erased: commands have arguments in them, so none is kept.

    When it began stays what it was if it is done once more.
    """
    about = {_AT: facts.get(_AT, repr(now)), **fact_of_keys(generation_of_keys(facts))}
    about = with_executions(about, executions_in(facts))
    return about if is_finished else {**about, _IS_UNFINISHED: "true"}


def kind_of_error(message: str) -> str:
    """The name of the class in the line that describes an error; "" if it is none that a class has."""
    kind = message.partition(":")[0]
    return kind if _KIND.fullmatch(kind) else ""


def expect_values(info: RunInfo, what: str) -> None:
    """Refuse what needs the values of a run: `what` is "resumed", for instance.

    A run without them cannot go on: its calls would have to be made and paid for again, or given something that they
    never came to.

    Raises:
        ValuesErased: they were erased.
    """
    erasure = erasure_of(info)
    if erasure is not None:
        raise ValuesErased(
            f"run {info.run_id!r} cannot be {what}: {erasure}, so what its calls came to is gone; start it again under "
            "another name, or delete it first"
        )


@runtime_checkable
class Erasing(Protocol):
    """A store that can erase the values of a run."""

    async def erase_values(self, run_id: str) -> ErasedRun:
        """See `erase_values_of_run`."""
        ...


async def erase_values_of_run(store: Store, run_id: str) -> ErasedRun:
    """Erase the contents of a run for good. Its counts, statuses, times, keys, names, addresses, tags and usage stay.

    What goes: what calls returned and raised, what they and the run were called with, texts of events, questions with
    their answers, the command that started the run, large results that no other run uses, and results in the cache
    that a call of the run had come to as well. From the first change on, the run cannot be resumed. If the process
    dies, doing it again finishes it.

    Raises:
        StoreError: there is no such run, rows of it are damaged, or the store cannot do this; `RunIsLive`: someone
            executes it.
    """
    if not isinstance(store, Erasing):
        raise StoreError(f"{store!r} cannot erase values: delete the run instead")
    return await store.erase_values(run_id)
