"""`rh-agents pause`."""

from __future__ import annotations

from rh_agents.cli.commands.common import AsJson, DryRun, Reason, RunName, StoreOfRuns, steer
from rh_agents.cli.stores import DEFAULT_STORE

__all__ = ["pause_command"]


def pause_command(
    run: RunName,
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Pause a run: nothing new begins, attempts in flight finish, and timeouts stop counting.

    It stays paused when it is started again, until `rh-agents unpause` or its end.
    """
    steer(
        run,
        store,
        lambda control, author: control.pause(reason=reason, author=author, dry_run=dry_run),
        as_json=as_json,
    )
