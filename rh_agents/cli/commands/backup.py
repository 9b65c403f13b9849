"""`rh-agents backup`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, StoreOfRuns
from rh_agents.cli.errors import CommandError
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.page import Page
from rh_agents.cli.output.results import expect_standard_output
from rh_agents.cli.output.wording import counted, size
from rh_agents.cli.stores import DEFAULT_STORE, kept_store, shown_url

__all__ = ["backup_command"]


def backup_command(
    target: Annotated[
        str, typer.Argument(metavar="COPY.db", help="The new file; large results go into a directory beside it.")
    ],
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Copy a store in a file while it is in use, and check the copy. It is complete or not there.

    Restoring is naming the copy with --store, or putting it where the store was. Exit code 1 if it could not be made.
    """
    expect_standard_output()
    if os.path.isdir(target):
        raise CommandError(f"{target} is a directory; name a file in it, such as {os.path.join(target, 'runs.db')}")
    asyncio.run(_copy(store, target, as_json=as_json))


async def _copy(url: str, target: str, *, as_json: bool) -> None:
    from rh_agents.stores.backup import back_up  # noqa: PLC0415 - it needs SQLite, which other stores do not
    from rh_agents.stores.sqlite import SqliteStore  # noqa: PLC0415 - as above

    async with kept_store(url, read_only=True) as store:
        if not isinstance(store, SqliteStore):
            raise CommandError(f"--store {shown_url(url)}: backup copies SQLite files; for PostgreSQL use pg_dump")
        done = await back_up(store, target)
    if as_json:
        said = {"target": target, "runs": done.runs, "bytes": done.size, "large_results": done.large_results}
        sys.stdout.write(json_line("backup", said))
        return
    page = Page()
    page.line(f"{counted(done.runs, 'run')}, {size(done.size)}, copied to {target}; no damage found")
    if done.large_results:
        page.line(f"{counted(done.large_results, 'large result')} in {target}-artifacts")
    elif done.large_results is None:
        page.line("large results are at a URL, and are not copied")
