"""`rh-agents requeue`."""

from __future__ import annotations

from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, DryRun, Reason, RunName, StoreOfRuns, steer
from rh_agents.cli.stores import DEFAULT_STORE

__all__ = ["requeue_command"]


def requeue_command(
    run: RunName,
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ITEM…]",
            help="Calls that failed or were cancelled: the id of an item, an address, or @ and the beginning of a key.",
            show_default=False,
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All calls that failed.")] = False,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Retry calls that failed, while the run goes on or at its next start.

    As long as the program has not received a failure, it is replaced at once. `rh-agents map`, and groups opened with
    requeue=True, make calls again at once that failed before, too, and give a further result. The others are made again
    at the next start of the run, with the calls around them; the answer says how many are which.

    A submitted run is put into its queue again; without ITEM and --failed, that is all.
    """
    steer(
        run,
        store,
        lambda control, author: control.requeue(
            items or (), failed=failed, reason=reason, author=author, dry_run=dry_run
        ),
        as_json=as_json,
    )
