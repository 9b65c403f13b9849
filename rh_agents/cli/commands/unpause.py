"""`rh-agents unpause`."""

from __future__ import annotations

from rh_agents.cli.commands.common import AsJson, DryRun, Reason, RunName, StoreOfRuns, steer
from rh_agents.cli.stores import DEFAULT_STORE

__all__ = ["unpause_command"]


def unpause_command(
    run: RunName,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Continue a paused run."""
    steer(
        run,
        store,
        lambda control, author: control.unpause(reason=reason, author=author, dry_run=dry_run),
        as_json=as_json,
    )
