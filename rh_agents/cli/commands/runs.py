"""`rh-agents runs`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, StoreOfRuns, record_of_run, with_store
from rh_agents.cli.json_text import json_line
from rh_agents.cli.options import parse_age
from rh_agents.cli.output.page import Page, Part, table_lines
from rh_agents.cli.output.wording import age
from rh_agents.cli.run_status import RunStatus, status_text
from rh_agents.cli.stores import DEFAULT_STORE
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunInfo, Store
from rh_agents.core.ports.windows import MOST_RUNS, RunQuery, count_runs, every_run
from rh_agents.display.text import harmless

__all__ = ["runs_command"]

Waiting = tuple[Counter[str] | None, str]
"""How many questions each run asks, or why that cannot be said."""


def runs_command(
    status: Annotated[
        list[RunStatus] | None, typer.Option("--status", help="Only runs with this status. May be repeated.")
    ] = None,
    tag: Annotated[str | None, typer.Option(metavar="WORD", help="Only runs with this tag.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="30d", help="Only runs without activity for this long.")
    ] = None,
    newer_than: Annotated[
        str | None, typer.Option(metavar="1h", help="Only runs with activity within this time.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            metavar="N",
            help=f"At most this many runs. By default the newest {MOST_RUNS}, and with --json all.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """List the recorded runs, newest first."""
    now = time.time()
    query = RunQuery(
        tuple(status or ()),
        tag=tag,
        updated_before=None if older_than is None else now - parse_age("--older-than", older_than),
        updated_since=None if newer_than is None else now - parse_age("--newer-than", newer_than),
    )
    if as_json:
        with_store(store, lambda opened: _write_records(opened, query, limit))
        return
    infos, total, (waiting, problem) = with_store(store, lambda opened: _first(opened, query, limit or MOST_RUNS))
    page = Page()
    if not infos:
        page.line("no runs" if not (status or tag or older_than or newer_than) else "no such runs")
        return
    rows: list[tuple[str, ...]] = [("RUN", "STATUS", "WORKFLOW", "CALLS", "AGE", "TAGS", "OWNER")]
    rows += [_row(info, waiting, now) for info in infos]
    head, *lines = table_lines(rows, page.width, whole=2)
    page.line(Part(head, "dim"))
    for line in lines:
        page.line(line)
    if total > len(infos):
        page.line(
            Part(f"… {total - len(infos):,} older ones: --limit {total} lists all, --status and --tag choose", "dim")
        )
    for info in infos:
        if info.damage is not None:
            page.paragraph(harmless(info.damage, 500), "red")
    if problem:
        page.paragraph(f"open questions cannot be read: {harmless(problem, 500)}", "red")


async def _write_records(store: Store, query: RunQuery, limit: int | None) -> None:
    """A line for each run, as they are found."""
    waiting, _ = await _waiting(store)
    async with aclosing(_some(store, query, limit)) as found:
        async for info in found:
            record = record_of_run(info, None if waiting is None else waiting[info.run_id])
            sys.stdout.write(json_line("run", record))


async def _first(store: Store, query: RunQuery, limit: int) -> tuple[list[RunInfo], int, Waiting]:
    """The newest runs, how many there are, and what they ask."""
    async with aclosing(_some(store, query, limit + 1)) as found:
        infos = [info async for info in found]
    total = len(infos) if len(infos) <= limit else await count_runs(store, query)
    return infos[:limit], total, await _waiting(store)


async def _some(store: Store, query: RunQuery, limit: int | None) -> AsyncGenerator[RunInfo, None]:
    if limit is not None:
        query = replace(query, n=min(limit, MOST_RUNS))
    count = 0
    async with aclosing(every_run(store, query)) as found:
        async for info in found:
            yield info
            count += 1
            if count == limit:
                return


async def _waiting(store: Store) -> Waiting:
    try:
        return Counter(question.run_id for question in await store.questions()), ""
    except StoreError as error:  # one damaged question hides no run
        return None, str(error)


def _row(info: RunInfo, waiting: Counter[str] | None, now: float) -> tuple[str, ...]:
    if info.damage is not None:
        return harmless(info.run_id), status_text(info), "", "", "", "", ""
    return (
        harmless(info.run_id),
        status_text(info, None if waiting is None else waiting[info.run_id]),
        harmless(info.workflow),
        f"{info.outcomes:,}",
        age(now - info.updated_at),
        harmless(" ".join(info.tags)),
        harmless(info.owner or "").partition(" (")[0],
    )
