"""`rh-agents set`."""

from __future__ import annotations

from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, DryRun, Reason, RunName, StoreOfRuns, steer
from rh_agents.cli.errors import CommandError
from rh_agents.cli.stores import DEFAULT_STORE

__all__ = ["set_command"]


def set_command(
    run: RunName,
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=NUMBER…",
            help="max-workers, max-workers.GROUP, limit.NAME.requests (or .tokens, .limit), budget.cost (or .tokens, "
            ".calls, .seconds), retry.",
            show_default=False,
        ),
    ],
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Change numbers of a run until it ends: workers, limits, budgets, attempts.

    No finished call is made again for that, and no rate limit admits more in any window than it states.
    """
    wanted = dict(map(_pair, settings))
    steer(
        run,
        store,
        lambda control, author: control.set(wanted, reason=reason, author=author, dry_run=dry_run),
        as_json=as_json,
    )


def _pair(text: str) -> tuple[str, str]:
    name, between, value = text.partition("=")
    if not between or not name or not value:
        raise CommandError(f"{text!r}: a setting is written NAME=NUMBER, such as max-workers=4")
    return name, value
