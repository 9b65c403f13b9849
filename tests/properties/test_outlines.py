"""What is shown and planned of a run is the same, whether it is read event by event or as an outline."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from contextlib import redirect_stdout

from hypothesis import given, settings
from hypothesis import strategies as st

from rh_agents.cli.output.page import Page
from rh_agents.cli.output.tree import RunTree, TreeView
from rh_agents.core.plan import Fate, Planner, plan_run
from rh_agents.core.ports import RunInfo, Store
from rh_agents.core.ports.outline import outline_of_run
from rh_agents.core.types import ExecutionStatus
from rh_agents.stores import MemoryStore
from rh_agents.testing._journals import Step, steps, write
from rh_agents.testing._records import RUN, STARTED, Written, request


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


@settings(max_examples=150, deadline=None)
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
        outlined.leave_out(outline.plain)
        options: dict[str, bool | int | None] = {"is_running": is_running, "only_failed": only_failed, "depth": depth}
        assert printed(outlined, makers, **options) == printed(whole, makers, **options)

    asyncio.run(main())


STATUSES = [ExecutionStatus.STARTED, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED]


@settings(max_examples=150, deadline=None)
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
        outline = await outline_of_run(store, RUN)
        planner = Planner(info, retry_failed=retry_failed, plain=outline.plain)
        async for told in outline.read(False):
            if told.outcome is not None:
                planner.add_outcome(told.outcome)
            planner.add(told.recorded)
        outlined = planner.plan()
        assert outlined.counts == whole.counts
        assert outlined.groups == whole.groups
        assert list(outlined.versions.items()) == list(whole.versions.items())
        for fate in Fate:
            assert outlined.names(fate).most_common() == whole.names(fate).most_common()
        plain = {key for members, _ in outlined.plain for key in members.all_keys()}
        assert list(outlined.calls) == [call for call in whole.calls if call.place not in plain]

    asyncio.run(main())
