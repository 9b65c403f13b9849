"""Anything, in any order."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st

from rh_agents.core.ports import Journal, Store
from rh_agents.testing._comparison import Comparison, operations
from rh_agents.testing.conformance.suite import StoreSuite

__all__ = ["SequenceConformance"]


class SequenceConformance(StoreSuite):
    """Random operations, of those parts of the suite that the store takes, each compared with a simple model.

    Attributes:
        examples: how many random sequences of operations are tried.
    """

    operations: ClassVar[tuple[str, ...]] = ("open", "close", "start", "retry", "finish", "fail")
    examples: int = 60

    @property
    def store(self) -> Store:
        """The store as the process that is alive now has it."""
        return self._stores[-1]

    async def crash_now(self) -> None:
        """The process dies, and `store` is what the next one finds."""
        await self._crashed(self.store)

    async def take_over(self, run_id: str) -> Journal:
        """The run of an owner who has died, opened as soon as it is not taken for live any more."""
        return await self._taken_over(self.store, run_id)

    def test_whatever_is_done_in_whatever_order_the_store_has_what_was_written(self) -> None:
        """Random operations, each compared with a model that is as simple as can be."""
        names = {name for part in type(self).__mro__ for name in vars(part).get("operations", ())}

        async def compare(run_id: str, chosen: list[tuple[Any, ...]]) -> None:
            await Comparison(self, run_id, has_questions="ask" in names).execute(chosen)

        self._try_examples(self.examples, st.lists(operations(names), min_size=10, max_size=40), compare)
