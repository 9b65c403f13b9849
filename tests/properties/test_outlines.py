"""What is shown and planned of a run is the same, whether it is read event by event or as an outline."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import cast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rh_agents.cli.commands.show import read_outlined
from rh_agents.cli.output.page import Page
from rh_agents.cli.output.tree import RunTree, TreeView
from rh_agents.core.plan import Fate, Planner, plan_run
from rh_agents.core.ports import Journal, RunInfo, Store
from rh_agents.core.ports.outline import RunOutline, outline_of_run
from rh_agents.core.ports.summary import RunSummary, summary_of_run
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores import MemoryStore
from rh_agents.testing._journals import Step, steps, write
from rh_agents.testing._records import RUN, STARTED, Written, completed, outcome, request


async def recorded(chosen: Sequence[Step]) -> Store:
    """A store with the run."""
    store = MemoryStore()
    journal = await store.open_run(request())
    await write(journal, Written(RUN), chosen)
    await journal.close(STARTED)
    return store


def printed(tree: RunTree, makers: dict[str, str], **options: bool | int | None) -> list[str]:
    """What the command prints of a tree."""
    with redirect_stdout(io.StringIO()) as page:
        TreeView(Page(width=200), **options).show(tree.roots(makers if tree.is_ambiguous else None))  # type: ignore[arg-type]
    return page.getvalue().splitlines()


CALLS_BELOW = [Step(0, "group", group="pages"), Step(0, "nested", later=9)]


@settings(max_examples=150, deadline=None)
@example(CALLS_BELOW, False, False, 1)
@given(steps(), st.booleans(), st.booleans(), st.sampled_from([None, 1, 2]))
def test_a_run_is_shown_from_its_outline_as_from_all_of_its_events(
    chosen: list[Step], is_running: bool, only_failed: bool, depth: int | None
) -> None:
    async def main() -> None:
        store = await recorded(chosen)
        whole, outlined = RunTree(), RunTree()
        async for each in store.events(RUN):
            whole.add(each)
        makers = {each.header.key.hex(): each.header.parent.hex() async for each in store.unread_outcomes(RUN)}
        outline = await outline_of_run(store, RUN)
        async for event in outline.read(True):
            outlined.add(event.recorded)
        outlined.leave_out(outline)
        options: dict[str, bool | int | None] = {"is_running": is_running, "only_failed": only_failed, "depth": depth}
        assert printed(outlined, makers, **options) == printed(whole, makers, **options)

    asyncio.run(main())


STATUSES = [ExecutionStatus.STARTED, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED]
BEFORE_THEIR_GROUP = [
    Step(0, "group", group="inner"),
    Step(0, "started"),
    Step(0, "many"),
    Step(0, "early", group="pages"),
]
"""Members of a group of which the journal says only later that it began."""


@settings(max_examples=150, deadline=None)
@example(BEFORE_THEIR_GROUP, True, ExecutionStatus.COMPLETED)
@given(steps(), st.booleans(), st.sampled_from(STATUSES))
def test_a_run_is_planned_from_its_outline_as_from_all_of_its_events(
    chosen: list[Step], retry_failed: bool, status: ExecutionStatus
) -> None:
    async def main() -> None:
        store = await recorded(chosen)
        info = RunInfo(RUN, status=status)
        headers = [each.header async for each in store.unread_outcomes(RUN)]
        events = [each async for each in store.events(RUN, values=False)]
        whole = plan_run(info, headers, events, retry_failed=retry_failed)
        outline, given = await outline_of_run(store, RUN), set[str | None]()
        planner = Planner(info, retry_failed=retry_failed, plain=outline.plain, below=outline.below)
        async for told in outline.read(False):
            if told.outcome is not None:
                planner.add_outcome(told.outcome)
            planner.add(told.recorded)
            given.add(told.recorded.event.key)
        outlined = planner.plan()
        assert outlined.counts == whole.counts
        assert outlined.groups == whole.groups
        assert list(outlined.versions.items()) == list(whole.versions.items())
        for fate in Fate:
            assert outlined.names(fate).most_common() == whole.names(fate).most_common()
        plain = {key.hex() for members, _ in outlined.plain for key in members.all_keys()}
        left_out = {call.key.hex() for call in whole.calls} - given
        assert plain <= left_out
        assert len(left_out) == outline.left_out
        assert list(outlined.calls) == [call for call in whole.calls if call.key.hex() in given]

    asyncio.run(main())


class Growing:
    """A store in which a call ends whenever somebody has asked it for something."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store, self._journal, self._number = store, journal, 1000

    async def outline(self, run_id: str) -> RunOutline:
        found = await outline_of_run(self._store, run_id)
        await self._grow()
        return found

    async def summary(self, run_id: str, *, after: int = 0, until: int | None = None) -> RunSummary:
        found = await summary_of_run(self._store, run_id, after=after, until=until)
        await self._grow()
        return found

    async def _grow(self) -> None:
        self._number += 1
        call = outcome(self._number)
        await self._journal.append(completed(RUN, call), call)


def test_a_run_under_way_is_shown_as_it_was_at_one_moment() -> None:
    async def main() -> None:
        store = MemoryStore()
        journal = await store.open_run(request())
        await write(journal, Written(RUN), [Step(number, "value") for number in range(3)])
        await journal.flush()
        found = await read_outlined(cast("Store", Growing(store, journal)), RUN)
        assert (found.outcomes, found.last, found.tree.last) == (3, 3, 3)
        await journal.close(STARTED)

    asyncio.run(main())
