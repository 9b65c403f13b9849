"""Stores: where runs are recorded. Each fits the `Store` port of `rh_agents.core.ports`."""

from rh_agents.stores.memory import MemoryStore

__all__ = ["MemoryStore", "open_store"]


def open_store(url: str) -> MemoryStore:
    """The store that a URL names: `memory:` keeps runs until the process ends.

    Raises:
        ValueError: no store has this URL.
    """
    if url == "memory:":
        return MemoryStore()
    raise ValueError(f"no store for {url!r}: the one that exists is 'memory:'")
