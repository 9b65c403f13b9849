"""`rh-agents gc`."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, StoreOfRuns, old_runs, record_of_run, with_store
from rh_agents.cli.errors import CommandError
from rh_agents.cli.json_text import json_line
from rh_agents.cli.options import parse_age
from rh_agents.cli.output.page import Page, Part
from rh_agents.cli.output.wording import counted, size
from rh_agents.cli.run_status import RunStatus, status_of
from rh_agents.cli.stores import DEFAULT_STORE
from rh_agents.core.errors import RunIsLive
from rh_agents.core.ports import RunInfo, Store
from rh_agents.display.text import harmless

__all__ = ["gc_command"]


def gc_command(
    older_than: Annotated[
        str,
        typer.Option(metavar="30d", help="Delete runs without activity for this long.", show_default=False),
    ],
    status: Annotated[
        list[RunStatus] | None,
        typer.Option(
            "--status", help="Only runs with this status; if left out, those that have ended. May be repeated."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Delete old runs, and large results that no run refers to any more. Runs being executed are never deleted."""
    if status and RunStatus.RUNNING in status:
        raise CommandError("--status running: a run that is being executed cannot be deleted; cancel it first")
    before = time.time() - parse_age("--older-than", older_than)

    async def collect(opened: Store) -> tuple[list[RunInfo], int]:
        found = await old_runs(opened, before, status)
        if dry_run:
            return found, 0
        gone = []
        for info in found:
            with suppress(RunIsLive):  # since it was looked at; or workers execute shards of it
                await opened.delete_run(info.run_id)
                gone.append(info)
        return gone, await opened.collect_garbage()

    found, freed = with_store(store, collect, writes=not dry_run)
    if as_json:
        runs = [record_of_run(info, None) for info in found]
        sys.stdout.write(json_line("gc", {"runs": runs, "deleted": not dry_run, "freed_bytes": freed}))
        return
    page = Page()
    verb = "would be deleted" if dry_run else "deleted"
    for info in found:
        page.line(f"{harmless(info.run_id)}", Part(status_of(info).value, "dim", 1), Part(verb, "dim", 2))
    text = f"{counted(len(found), 'run')} {verb}"
    page.line(text if dry_run else f"{text}, {size(freed)} of large results freed")
