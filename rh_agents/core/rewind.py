"""Going back in a run: making a call again with all that depends on it, or trying another result in a copy."""

from __future__ import annotations

from typing import Any

from rh_agents.core._run.recording import affected_by
from rh_agents.core.errors import StoreError, UsageError
from rh_agents.core.ports import Store
from rh_agents.core.ports.opening import StoreLike, using_store
from rh_agents.core.redaction import expect_no_secret

__all__ = ["UNCHANGED", "affected_by", "fork"]

UNCHANGED: Any = object()
"""Stands for: the result is not edited."""


async def fork(
    store: StoreLike, run_id: str, new_run_id: str, *, address: str | None = None, result: Any = UNCHANGED
) -> None:
    """Copy a run under another name, so that it can go on differently. Executing the copy goes on from what it has.

    Args:
        store: where the run is recorded: a store, or a URL or path for `open_store`.
        run_id: the run.
        new_run_id: the name of the copy.
        address: a finished call (or `@` and the beginning of its key): without `result`, the copy makes it again, with
            everything that depends on it; with `result`, only what depends on it. (If the run had ended, what failed
            in it is tried again as well.)
        result: what that call is to have returned.

    Raises:
        UsageError: there is no such call, more than one, or a result without a call; or a registered secret is in the
            new name.
        StoreError: there is no such run, or there is one of the new name.
        UnstorableError: the result is no data.
    """
    expect_no_secret(new_run_id)
    async with using_store(store) as opened:
        await _fork(opened, run_id, new_run_id, address, result)


async def _fork(store: Store, run_id: str, new_run_id: str, address: str | None, result: Any) -> None:
    if address is None:
        if result is not UNCHANGED:
            raise UsageError("fork(result=...) needs the address of the call that is to have returned it")
        return await store.fork_run(run_id, new_run_id, (), ())
    if await store.find_run(run_id) is None:
        raise StoreError(f"there is no run {run_id!r}")
    own, *others = await affected_by(store, run_id, address)
    if result is UNCHANGED:
        return await store.fork_run(run_id, new_run_id, [own.key, *(outcome.key for outcome in others)], ())
    left_out = [outcome.key for outcome in others if outcome.base != own.base]  # its failures lead to the edited one
    return await store.fork_run(run_id, new_run_id, left_out, [own.with_value(result)])
