"""Runs as they are shown before something is taken away of them for good."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rh_agents.cli.errors import CommandError
from rh_agents.cli.output.page import Page, Part
from rh_agents.cli.output.wording import counted, size
from rh_agents.cli.run_status import status_of
from rh_agents.cli.stores import store_option
from rh_agents.core.errors import RunIsLive
from rh_agents.core.ports import RunInfo, Store
from rh_agents.core.ports.keeping import RunSize, size_of_run
from rh_agents.core.ports.windows import RunQuery, every_run
from rh_agents.display.text import harmless

__all__ = ["Kept", "delete_runs", "expect_stopped", "kept_of"]


def expect_stopped(infos: Sequence[RunInfo], what: str, store: str) -> None:
    """Refuse to change runs that are being executed: `what` is "deleted", for instance.

    Raises:
        CommandError: one of them is.
    """
    for info in infos:
        if info.owner is not None:
            raise CommandError(
                f"run {info.run_id!r} cannot be {what} while it is being executed by {info.owner}: stop it with "
                f"`rh-agents cancel {shlex.quote(info.run_id)}{store_option(store)}`",
                exit_code=1,
            )


@dataclass(frozen=True, slots=True)
class Kept:
    """A run with how much is kept of it, and the names of its copies that nobody has chosen."""

    info: RunInfo
    size: RunSize | None
    forks: tuple[str, ...]

    @property
    def record(self) -> dict[str, Any]:
        """For programs."""
        sizes = self.size
        return {
            "run_id": self.info.run_id,
            "status": status_of(self.info).value,
            "calls": self.info.outcomes,
            "bytes": None if sizes is None else sizes.size,
            "artifacts": None if sizes is None else sizes.artifacts,
            "artifact_bytes": None if sizes is None else sizes.artifact_size,
            "forks": list(self.forks),
        }

    def show(self, page: Page, verb: str) -> None:
        """For people."""
        sizes, large = "", ""
        if self.size is not None:
            sizes = size(self.size.size)
            if self.size.artifacts:
                number = counted(self.size.artifacts, "large result")
                large = f"{number} that only it uses ({size(self.size.artifact_size)})"
        page.line(
            harmless(self.info.run_id),
            Part(status_of(self.info).value, "dim", 1),
            Part(counted(self.info.outcomes, "finished call"), "", 2),
            Part(sizes, "", 3),
            Part(large, "", 4),
            Part(verb, "dim", 2),
        )
        for name in self.forks:
            page.line(f"{harmless(name)} is a copy of it and stays", indent=2)


async def kept_of(opened: Store, infos: Sequence[RunInfo]) -> list[Kept]:
    """How much is kept of some runs."""
    chosen = {info.run_id for info in infos}
    forks: dict[str | None, list[str]] = {}
    if chosen:
        async for info in every_run(opened, RunQuery(forks_of=tuple(chosen))):
            if info.run_id not in chosen:
                forks.setdefault(info.forked_from, []).append(info.run_id)
    return [
        Kept(info, await size_of_run(opened, info.run_id), tuple(sorted(forks.get(info.run_id, ())))) for info in infos
    ]


async def delete_runs(opened: Store, found: Sequence[Kept]) -> tuple[list[Kept], list[RunIsLive], int]:
    """Delete runs; those that are gone, why others are not, and the bytes of large results that were freed."""
    gone, refused = list[Kept](), list[RunIsLive]()
    for kept in found:
        try:
            await opened.delete_run(kept.info.run_id)
        except RunIsLive as error:  # since it was looked at
            refused.append(error)
        else:
            gone.append(kept)
    return gone, refused, await opened.collect_garbage()
