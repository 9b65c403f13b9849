"""`rh-agents runs`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, StoreOfRuns, record_of_run, with_store
from rh_agents.cli.options import parse_age
from rh_agents.cli.output.page import Page, Part, table_lines
from rh_agents.cli.output.wording import age
from rh_agents.cli.run_status import RunStatus, status_of, status_text
from rh_agents.cli.stores import DEFAULT_STORE
from rh_agents.core.ports import Question, RunInfo, Store
from rh_agents.display.text import harmless

__all__ = ["runs_command"]


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
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """List the recorded runs, newest first."""
    now = time.time()
    before = None if older_than is None else now - parse_age("--older-than", older_than)
    after = None if newer_than is None else now - parse_age("--newer-than", newer_than)

    async def find(opened: Store) -> tuple[list[RunInfo], list[Question]]:
        found = await opened.runs(tag=tag, updated_before=before)
        return found, await opened.questions()

    infos, questions = with_store(store, find)
    infos = [
        info
        for info in infos
        if (not status or status_of(info) in status) and (after is None or info.updated_at >= after)
    ]
    waiting = Counter(question.run_id for question in questions)
    if as_json:
        for info in infos:
            sys.stdout.write(json.dumps(record_of_run(info, waiting[info.run_id])) + "\n")
        return
    page = Page()
    if not infos:
        page.line("no runs" if not (status or tag or older_than or newer_than) else "no such runs")
        return
    rows = [("RUN", "STATUS", "WORKFLOW", "CALLS", "AGE", "TAGS", "OWNER")]
    rows += [
        (
            harmless(info.run_id),
            status_text(info, waiting[info.run_id]),
            harmless(info.workflow),
            f"{info.outcomes:,}",
            age(now - info.updated_at),
            harmless(" ".join(info.tags)),
            harmless(info.owner or "").partition(" (")[0],
        )
        for info in infos
    ]
    head, *lines = table_lines(rows, page.width, whole=2)
    page.line(Part(head, "dim"))
    for line in lines:
        page.line(line)
