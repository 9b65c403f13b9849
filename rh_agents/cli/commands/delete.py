"""`rh-agents delete`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, StoreOfRuns, old_runs, with_store
from rh_agents.cli.consent import expect_consent
from rh_agents.cli.errors import CommandError, error_record, one_line
from rh_agents.cli.json_text import json_line
from rh_agents.cli.kept_runs import Kept, delete_runs, expect_stopped, kept_of
from rh_agents.cli.options import parse_age
from rh_agents.cli.output.page import Page
from rh_agents.cli.output.progress import say
from rh_agents.cli.output.wording import counted, size
from rh_agents.cli.run_status import RunStatus
from rh_agents.cli.stores import DEFAULT_STORE, existing_run
from rh_agents.core.ports import Store

__all__ = ["delete_command"]


def delete_command(
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="The names of runs.")] = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="30d", help="Instead of names: the runs without activity for this long."),
    ] = None,
    status: Annotated[
        list[RunStatus] | None,
        typer.Option(
            "--status",
            help="Instead of names: the runs with this status; with --older-than alone, those that have ended. May be "
            "repeated.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Delete runs with all that is recorded of them. It cannot be undone.

    Copies made with `fork` stay as they are. A run that is being executed is not deleted. Large results that no run
    uses any more go too, once they are an hour old; `rh-agents gc` deletes those that are left.
    """
    names = list(dict.fromkeys(runs or []))
    _expect_choice(names, older_than, status)
    before = None if older_than is None else time.time() - parse_age("--older-than", older_than)

    async def look(opened: Store) -> list[Kept]:
        infos = [await existing_run(opened, name) for name in names]
        if not names:
            infos = await old_runs(opened, before, status)
        expect_stopped(infos, "deleted", store)
        return await kept_of(opened, infos)

    found = with_store(store, look)
    if dry_run or not found:
        _show(found, "would be deleted" if dry_run else "deleted", as_json=as_json, is_done=False)
        return
    if not yes and not as_json:
        _show(found, "to be deleted", as_json=False, is_done=False)
    expect_consent(f"delete {counted(len(found), 'run')} for good", is_given=yes)
    gone, refused, freed = with_store(store, lambda opened: delete_runs(opened, found), writes=True)
    _show(gone, "deleted", as_json=as_json, is_done=True)
    if not as_json:
        Page().line(f"{size(freed)} of large results freed")
    for error in refused:
        if as_json:
            sys.stdout.write(json_line("error", error_record(error, 1)))
        else:
            say(f"rh-agents: {one_line(str(error))}: not deleted")
    if refused:
        raise typer.Exit(1)


def _expect_choice(names: Sequence[str], older_than: str | None, status: Sequence[RunStatus] | None) -> None:
    """Runs are named, or chosen by what they are like, and never all of them by leaving something out.

    Raises:
        CommandError: neither, both, or those that are being executed.
    """
    is_chosen = older_than is not None or bool(status)
    if bool(names) == is_chosen:
        what = "both names and --older-than or --status" if names else "no run"
        raise CommandError(f"{what}: give the names of runs, or choose them by --older-than and --status")
    if status and RunStatus.RUNNING in status:
        raise CommandError("--status running: a run that is being executed cannot be deleted; cancel it first")


def _show(found: Sequence[Kept], verb: str, *, as_json: bool, is_done: bool) -> None:
    if as_json:
        for kept in found:
            sys.stdout.write(json_line("delete", {**kept.record, "deleted": is_done}))
        return
    page = Page()
    for kept in found:
        kept.show(page, verb)
    page.line(f"{counted(len(found), 'run')} {verb}")
