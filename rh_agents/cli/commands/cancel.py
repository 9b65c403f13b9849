"""`rh-agents cancel`."""

from __future__ import annotations

from rh_agents.cli.commands.common import RunName, StoreOfRuns, person, with_store
from rh_agents.cli.errors import CommandError
from rh_agents.cli.output.page import Page
from rh_agents.cli.run_status import status_of
from rh_agents.cli.stores import DEFAULT_STORE, existing_run
from rh_agents.core.ports import Store
from rh_agents.display.text import harmless

__all__ = ["cancel_command"]


def cancel_command(run: RunName, store: StoreOfRuns = DEFAULT_STORE) -> None:
    """Stop a run for good: calls in flight finish, and no more are made."""

    async def stop(opened: Store) -> str:
        found = status_of(await existing_run(opened, run))
        if found.has_ended:
            raise CommandError(f"run {run!r} has ended already: it is {found.value}", exit_code=1)
        if await opened.request_stop(run, f"cancelled by {person() or 'an unknown user'} with rh-agents cancel"):
            return f"{run}: asked to stop; `rh-agents show {run} --follow` shows when it has"
        return f"{run}: cancelled"

    Page().paragraph(harmless(with_store(store, stop, writes=True), 500))
