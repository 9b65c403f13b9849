"""`rh-agents signal`."""

from __future__ import annotations

from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, DryRun, Reason, RunName, StoreOfRuns, steer
from rh_agents.cli.questions import parse_answer
from rh_agents.cli.stores import DEFAULT_STORE

__all__ = ["signal_command"]


def signal_command(
    run: RunName,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="What the run waits for.", show_default=False)],
    value: Annotated[
        str,
        typer.Argument(metavar="[JSON]", help="A value; a word that is not JSON is taken as text.", show_default=False),
    ] = "null",
    reason: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Send a value to a run that waits for it with `wait_for_event(EVENT)`, now or later.

    Each signal is delivered once. One that does not fit what the program waits for is refused there, which `show` says.
    """
    steer(
        run,
        store,
        lambda control, author: control.signal(
            event, parse_answer(value, None), reason=reason, author=author, dry_run=dry_run
        ),
        as_json=as_json,
    )
