"""Where a job is already recorded. A job is its program, its input and its settings, however their paths were written.

The name of a run is derived from real paths, so `./a.txt`, a link and the path seen from another directory are the same
job. What is not the same in another directory is the usual store, `.rh_agents/runs.db`: the job would start over there,
and be paid for twice. So a run that is not in the usual store is looked for in the usual stores of the directories
around: those above the working directory, the input and the program. Only a store of this very user is opened, and only
a run of exactly this name counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rh_agents.cli.output.progress import say
from rh_agents.cli.recorded_command import Invocation, RunCommand, here
from rh_agents.cli.run_options import RunOptions
from rh_agents.cli.stores import DEFAULT_STORE, NO_STORE, has_runs, is_own, kept_store
from rh_agents.core.errors import RhAgentsError

__all__ = ["locate_run", "search_folders"]


async def locate_run(options: RunOptions, near: Iterable[str]) -> RunOptions:
    """The same with the name and the store under which the job is recorded, if it is.

    Args:
        options: with the names that earlier versions gave to the job.
        near: files or directories of the job, around which other usual stores may be; none if a store was named.
    """
    names = (options.run_id, *options.older_ids)
    if options.store == NO_STORE:
        return options
    if options.older_ids or near:
        name = await _known(options.store, names, options.command)
        if name is not None:
            return dataclasses.replace(options, run_id=name)
    for path in _usual_stores(near):
        with contextlib.suppress(RhAgentsError):  # a store that cannot be read has nothing for us
            name = await _known(path, names, options.command)
            if name is not None:
                say(f"run {name} is recorded in {path}, which is used; --store overrides this")
                return dataclasses.replace(options, run_id=name, store=path, shown_store=path)
    return options


async def _known(url: str, names: Iterable[str], command: RunCommand) -> str | None:
    """The first of the names that a store has; but one whose output is that of the command before all others."""
    if not has_runs(url):  # looking for a run must not make a store
        return None
    async with kept_store(url, read_only=True) as store:
        infos = [info for name in names if (info := await store.find_run(name)) is not None]
    found = next((info for info in infos if command.owns(info)), infos[0] if infos else None)
    return None if found is None else found.run_id


def _usual_stores(near: Iterable[str]) -> Iterator[str]:
    """Those of the directories above some paths, the nearest first."""
    seen = {os.path.realpath(DEFAULT_STORE)}
    for place in near:
        for folder in (Path(place), *Path(place).parents):
            path = os.path.realpath(folder / DEFAULT_STORE)
            if path not in seen and is_own(path):
                yield path
            seen.add(path)


def search_folders(context: Any, *files: str | None) -> list[str]:
    """Around what the job may be recorded: nothing, if its user says where."""
    about = Invocation.of(context)
    if about.store is not None or about.asks_for(context, "store"):
        return []
    return [here(), *(os.path.dirname(file) for file in files if file is not None and os.path.isabs(file))]
