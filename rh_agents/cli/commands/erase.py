"""`rh-agents erase`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, RunName, StoreOfRuns, with_store
from rh_agents.cli.consent import expect_consent
from rh_agents.cli.errors import CommandError
from rh_agents.cli.json_text import json_line
from rh_agents.cli.kept_runs import Kept, expect_stopped, kept_of
from rh_agents.cli.output.page import Page
from rh_agents.cli.output.wording import counted, size
from rh_agents.cli.stores import DEFAULT_STORE, existing_run
from rh_agents.core.ports import Store
from rh_agents.core.ports.keeping import ErasedRun, erase_values_of_run, erasure_of
from rh_agents.display.text import harmless

__all__ = ["erase_command"]


def erase_command(
    run: RunName,
    values: Annotated[
        bool, typer.Option("--values", help="Erase all contents: inputs, results, texts of errors, answers.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be erased.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Erase the contents of a run for good, and keep its counts, times, costs, statuses, names and tags.

    A run without its values is still shown by `runs`, `show` and `plan`, but it cannot be resumed. Copies made with
    `fork` keep their own values. If the process dies, the same command finishes it.
    """
    if not values:
        raise CommandError("say what to erase: --values, which are all contents; `rh-agents delete` deletes a run")

    async def look(opened: Store) -> Kept:
        info = await existing_run(opened, run)
        expect_stopped([info], "erased", store)
        return (await kept_of(opened, [info]))[0]

    kept = with_store(store, look)
    erasure = erasure_of(kept.info)
    if erasure is not None and erasure.is_finished:
        _show(kept, f"nothing to do: {erasure}", None, as_json=as_json)
        return
    if dry_run:
        _show(kept, "would lose its values", None, as_json=as_json)
        return
    if not yes and not as_json:
        _show(kept, "is to lose its values", None, as_json=False)
    expect_consent(f"erase the values of run {harmless(run)} for good", is_given=yes)

    async def erase(opened: Store) -> tuple[Kept, ErasedRun]:
        erased = await erase_values_of_run(opened, run)
        return Kept(await existing_run(opened, run), kept.size, kept.forks), erased

    kept, erased = with_store(store, erase, writes=True)
    _show(kept, "has lost its values", erased, as_json=as_json)


def _show(kept: Kept, verb: str, erased: ErasedRun | None, *, as_json: bool) -> None:
    erasure = erasure_of(kept.info)
    if as_json:
        record = {**kept.record, "erased": erasure is not None and erasure.is_finished}
        record |= {"erased_at": None if erasure is None else erasure.at}
        record |= {"cached": 0 if erased is None else erased.cached, "left": "" if erased is None else erased.left}
        sys.stdout.write(json_line("erase", record))
        return
    page = Page()
    kept.show(page, verb)
    if erased is None:
        return
    page.line(
        f"{counted(erased.values, 'value')} erased, {size(erased.artifact_size)} of large results freed, "
        f"{counted(erased.cached, 'result')} taken out of the cache"
    )
    if erased.left:
        page.paragraph(erased.left, "yellow")
