"""`rh-agents cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, DryRun, Reason, RunName, StoreOfRuns, steer
from rh_agents.cli.stores import DEFAULT_STORE

__all__ = ["cancel_command"]


def cancel_command(
    run: RunName,
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ITEM…]",
            help="Only these members of groups: the id of an item, an address, or @ and the beginning of a key.",
            show_default=False,
        ),
    ] = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """End a run: calls in flight finish, and no more are made. With items, cancel only these.

    A cancelled run is resumed if it is started again. A cancelled item stays so at every later start, until
    `rh-agents requeue` names it.
    """
    steer(
        run,
        store,
        lambda control, author: control.cancel(items or (), reason=reason, author=author, dry_run=dry_run),
        as_json=as_json,
    )
