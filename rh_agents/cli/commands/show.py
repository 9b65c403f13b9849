"""`rh-agents show`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import typer

from rh_agents.cli.commands.common import (
    AsJson,
    NoContent,
    RunName,
    StoreOfRuns,
    info_without_content,
    record_of_run,
    show_head,
    with_store,
)
from rh_agents.cli.errors import CommandError
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.now import NowRegion, now_lines, waits_of
from rh_agents.cli.output.page import Page, Part
from rh_agents.cli.output.streamed import StreamedLines
from rh_agents.cli.output.tree import RunTree, TreeView, leave_out_content, records_of_nodes
from rh_agents.cli.questions import question_lines
from rh_agents.cli.run_status import status_text
from rh_agents.cli.stores import DEFAULT_STORE, existing_run
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core.history import fact_of_event
from rh_agents.core.policies.child_runs import ChildRun, HasChildren, children_left
from rh_agents.core.ports import Store
from rh_agents.core.ports.outline import RunOutline, outline_of_run
from rh_agents.core.ports.present import present_of_run
from rh_agents.core.ports.summary import summary_of_run
from rh_agents.core.ports.windows import inputs_of_calls
from rh_agents.core.results import OutcomeHeader
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Spending, Usage
from rh_agents.display.printer import EventPrinter
from rh_agents.display.text import harmless
from rh_agents.stores.following import follow as follow_run

__all__ = ["read_outlined", "show_command"]

_LOOK_EVERY = 1.0
"""Seconds between two looks at what a run is doing now."""
_MOST_SHARDS = 3
"""Shards that have failed that are named."""
_NO_CONTENT: Mapping[str, Any] = {"message": None, "result": None, "tag": "", "metadata": {}}
_MOST_INPUTS = 1_000
"""Failed calls, the newest, of which it is read what they were called with: no more are shown."""


def show_command(
    run: RunName,
    as_json: AsJson = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed.")] = False,
    depth: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only this many levels.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every call, however many there are.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing events as they happen.")] = False,
    text: Annotated[bool, typer.Option("--text", help="With --follow: print text of calls as it streams.")] = False,
    no_content: NoContent = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Show a run: its calls as a tree, with times, attempts, errors and results.

    `@1a2b3c4d` is a call's key: it names the call where several have the same address, as in
    `rh-agents resume RUN --from @1a2b3c4d`.
    """
    if text and not follow:
        raise CommandError("--text shows what streams from now on: add --follow")
    if text and no_content:
        raise CommandError("--text shows what calls write, and --no-content leaves that out: give one of them")

    async def show(opened: Store) -> None:
        info = await existing_run(opened, run)
        recorded = await (_whole(opened, run) if everything or as_json else read_outlined(opened, run))
        present = await present_of_run(opened, run)
        info, spent = replace(info, outcomes=recorded.outcomes), recorded.spent
        questions = await opened.questions(run)
        recorded.tree.tell_versions_apart(info.executions)
        roots = recorded.tree.roots(recorded.makers)
        if no_content:
            info = info_without_content(info)
            questions = [replace(each, text="", schema=None, problem=None) for each in questions]
            leave_out_content(roots)
        if as_json:
            used = {name: usage.as_json() for name, usage in spent.by_actor.items()}
            record = record_of_run(info, len(questions)) | {"usage": spent.usage.as_json(), "usage_by_actor": used}
            record |= {"now": None if present is None else present.as_json()}
            record |= {"tree": records_of_nodes(roots, only_failed=failed)}
            sys.stdout.write(json_line("show", record))
            return
        page = Page()
        show_head(page, info, len(questions))
        if spent.usage:
            page.line(Part(harmless(f"spent: {spent}"), "dim", is_elastic=True))
        waits = waits_of(present, time.time()) if info.owner is not None else {}
        TreeView(page, info.owner is not None, depth, failed, everything, waits).show(roots)
        for line in question_lines(questions):
            page.line(line)
        children = await opened.children(run) if isinstance(opened, HasChildren) else ()
        shards = _shards_line([replace(each, reason=None) for each in children] if no_content else children)
        if shards:
            page.line(Part(shards, "dim", is_elastic=True))
        if follow and sys.stdout.isatty():
            await _follow_live(opened, run, recorded.last, with_text=text, with_content=not no_content)
            return
        for parts in [] if present is None else now_lines(present, time.time(), is_live=info.owner is not None):
            page.line(*parts)
        if follow:
            await _follow(opened, run, recorded.last, with_text=text, with_content=not no_content)

    with_store(store, show, writes=text)  # that somebody reads text is written down


def _shards_line(children: Sequence[ChildRun]) -> str:
    """How many shards of a run stand how, and why some have failed; "" if there are none."""
    if not children:
        return ""
    counts = Counter(_standing(child) for child in children)
    text = ", ".join(f"{count} {how}" for how, count in counts.items())
    failed = [child for child in children if child.status is ExecutionStatus.FAILED]
    whys = "".join(f"; {child.run_id}: {child.reason or 'failed'}" for child in failed[:_MOST_SHARDS])
    return harmless(f"shards: {text}{whys}")


def _standing(child: ChildRun) -> str:
    if child.is_executed:
        return "under way"
    return "for a worker" if child.is_ready else child.status.value


class _Recorded(NamedTuple):
    """What the journal says.

    Attributes:
        outcomes: how many calls have one.
        makers: which call made which, by key, as far as they have outcomes; None where addresses say it.
        last: the sequence of the last event.
    """

    tree: RunTree
    outcomes: int
    spent: Spending
    makers: dict[str, str] | None
    last: int


async def _whole(store: Store, run: str) -> _Recorded:
    """From every event."""
    tree, calls = RunTree(), RecordedCalls()
    async for recorded in store.events(run):
        tree.add(recorded)
        calls.add_fact(recorded.sequence, fact_of_event(recorded.event), recorded.has_outcome, None)
    headers, inputs = [], dict[int, str]()
    async for outcome in store.unread_outcomes(run):
        headers.append(outcome.header)
        if outcome.input is not None:
            inputs[calls.finished[outcome.header.key]] = outcome.input
    tree.add_inputs(inputs)
    makers = _makers(headers) if tree.is_ambiguous else None
    return _Recorded(tree, len(calls.finished), calls.spent[""], makers, tree.last)


async def read_outlined(store: Store, run: str) -> _Recorded:
    """From the events of what is shown, and numbers of the rest, both as the run was at the same moment."""
    tree, outline = RunTree(), await outline_of_run(store, run)
    ended = set[bytes]()
    async for event in outline.read(True):
        tree.add(event.recorded)
        if event.outcome is not None:
            ended.add(event.outcome.key)
    tree.leave_out(outline)
    tree.add_inputs(await inputs_of_calls(store, run, [node.ended for node in tree.failed[-_MOST_INPUTS:]]))
    headers = [event.outcome async for event in outline.read(False)] if tree.is_ambiguous else None
    outcomes = len(ended) + outline.left_out
    return _Recorded(tree, outcomes, await _spent(store, run, outline), _makers(headers), outline.last)


async def _spent(store: Store, run: str, outline: RunOutline) -> Spending:
    """What was used of models: a run of a hundred thousand calls that use none is not asked for it."""
    if not outline.uses:
        return Spending()
    left = await children_left(store, run)
    summary = await summary_of_run(store, run, until=None if left else outline.last)
    return Spending(sum(summary.usage.values(), Usage()), summary.paid, by_actor=dict(summary.usage))


def _makers(headers: Iterable[OutcomeHeader | None] | None) -> dict[str, str] | None:
    found: dict[bytes, bytes] = {}
    for header in headers or ():
        if header is not None:
            found.setdefault(header.key, header.parent)
    return None if headers is None else {key.hex(): parent.hex() for key, parent in found.items()}


async def _follow_live(store: Store, run: str, after: int, *, with_text: bool, with_content: bool) -> None:
    """The same above a part at the bottom of the terminal that says what the run is doing now."""
    shown = NowRegion(sys.stdout)

    async def look_on() -> None:
        while True:
            shown.present = await present_of_run(store, run)
            await asyncio.sleep(_LOOK_EVERY)

    looking = asyncio.create_task(look_on())
    try:
        with shown:
            await _follow_events(store, run, after, with_text=with_text, with_content=with_content)
    finally:
        looking.cancel()
    await _say_how_it_ended(store, run)


async def _follow(store: Store, run: str, after: int, *, with_text: bool, with_content: bool) -> None:
    await _follow_events(store, run, after, with_text=with_text, with_content=with_content)
    await _say_how_it_ended(store, run)


async def _follow_events(store: Store, run: str, after: int, *, with_text: bool, with_content: bool) -> None:
    printer = EventPrinter(file=sys.stdout)
    if with_text:
        lines = StreamedLines(lambda line: print(line, flush=True))
        async for each in follow_run(store, run, after=str(after)):
            for piece in each.pieces:
                lines.add(piece)
            if each.event is not None:
                lines.end(each.event.event.key if each.event.has_outcome else None)
                printer(each.event.event)
        return
    async for recorded in store.events(run, after=after, follow=True):
        printer(recorded.event if with_content else recorded.event.model_copy(update=_NO_CONTENT))


async def _say_how_it_ended(store: Store, run: str) -> None:
    info = await existing_run(store, run)
    Page().line(f"{run}: {status_text(info, len(await store.questions(run)))}")
