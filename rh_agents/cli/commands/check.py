"""`rh-agents check`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from rh_agents.cli.commands.common import AsJson, StoreOfRuns, with_store
from rh_agents.cli.errors import one_line
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.page import Page
from rh_agents.cli.output.wording import counted
from rh_agents.cli.stores import DEFAULT_STORE
from rh_agents.core.ports import Store
from rh_agents.core.ports.keeping import limitations_of
from rh_agents.core.ports.windows import RunQuery, count_runs

__all__ = ["check_command"]


def check_command(as_json: AsJson = False, store: StoreOfRuns = DEFAULT_STORE) -> None:
    """Look for damage in the database and in the large results beside it. Exit code 1 if there is any."""

    async def look(opened: Store) -> tuple[list[str], int, Sequence[str]]:
        return await opened.check(), await count_runs(opened, RunQuery()), await limitations_of(opened)

    findings, count, limitations = with_store(store, look)
    if as_json:
        said = {
            "runs": count,
            "findings": [one_line(each) for each in findings],
            "limitations": [one_line(each) for each in limitations],
        }
        sys.stdout.write(json_line("check", said))
        raise typer.Exit(1 if findings else 0)
    page = Page()
    for line in limitations:
        page.paragraph(one_line(line))
    for finding in findings:
        page.paragraph(one_line(finding), "red")
    if findings:
        raise typer.Exit(1)
    page.line(f"{counted(count, 'run')}, no damage found")
