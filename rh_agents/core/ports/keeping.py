"""How much a store keeps of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rh_agents.core.ports import Store

__all__ = ["RunSize", "Sizing", "size_of_run"]


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
