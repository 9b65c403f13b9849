"""Runs that wait for a worker: what a store with queues can do, and what is put into one.

A submitted run is a row of the store like any other, without an owner: PENDING until a worker takes it. Taking it is
becoming its owner, by the lease and the fence that every run has; there is no message beside it that could be lost or
come twice. `rh_agents.workers` is who takes them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol, runtime_checkable

from rh_agents.core.errors import DefinitionError, RunMismatchError, UsageError
from rh_agents.core.ports import RunInfo
from rh_agents.core.redaction.described import short_repr

__all__ = [
    "DEFAULT_QUEUE",
    "SHARD_OF",
    "HeldRun",
    "QueueLook",
    "Queueing",
    "Submission",
    "Wanted",
    "expect_same_run",
    "flow_name",
    "parts_of_flow",
    "queues_of",
]

DEFAULT_QUEUE: Final = "default"
VERSION: Final = "rh_agents.version"
"""The fact of a submitted run that tells the version which its actor stated."""
BEFORE_FINGERPRINT: Final = "@"
"""Separates MODULE:FUNCTION from the digest of the function's source (`rh_agents.core._base.sources`)."""
SHARD_OF: Final = "shard of "
"""So begins the flow of a run that makes a part of a `map` (`rh_agents.sharding`): MODULE:FUNCTION is mapped there."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A run for whichever worker comes first.

    Attributes:
        run_id, workflow, input, input_digest, tags, facts: as in `RunRequest`.
        flow: what the worker imports, as MODULE:FUNCTION, or MODULE:FUNCTION@FINGERPRINT if the source is known.
        queue: only workers of this queue take it.
        priority: those with a higher one are taken first; among equal ones, the one that was ready first.
        not_before: no worker takes it before, in seconds since 1970; None: as soon as there is one.
    """

    run_id: str
    workflow: str
    flow: str
    input: bytes
    input_digest: bytes
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    not_before: float | None = None
    tags: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run of a queue that has an owner, as another worker sees it.

    Attributes:
        sign: its number, its fence and its heartbeat: another one after each sign of life of its owner.
        lease: seconds without one after which the run may be taken.
        is_gone: whether its owner certainly exists no more.
    """

    run_id: str
    flow: str
    sign: tuple[int, int, int]
    lease: float
    is_gone: bool


@dataclass(frozen=True, slots=True)
class QueueLook:
    """What there is to do in a queue at this moment.

    Attributes:
        flows: what the runs need that are ready and that no one executes; of many such runs, of the first ones.
        held: the runs that a process executes.
    """

    flows: tuple[str, ...]
    held: tuple[HeldRun, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which run a worker takes next.

    Attributes:
        queue: only of this queue.
        flows: only what needs one of these.
        owner, lease: as in `RunRequest`.
        silent: signs of owners that are gone: what they had may be taken.
        max_claims: a run that this many workers have died with is ended as FAILED instead.
    """

    queue: str
    flows: Sequence[str]
    owner: str
    lease: float = 15.0
    silent: Sequence[tuple[int, int, int]] = ()
    max_claims: int = 5


@runtime_checkable
class Queueing(Protocol):
    """A store whose runs can wait for workers. Every method raises `StoreError` if it cannot do its work."""

    async def submit(self, submission: Submission) -> RunInfo:
        """Add a run that waits, and return it; one that is there with the same workflow and input is returned as it is.

        Raises (besides the usual):
            RunMismatchError: there is a run of this name with another workflow or input.
        """
        ...

    async def look_at_queue(self, queue: str, without: Collection[str] = ()) -> QueueLook:
        """What there is to do in a queue, but for what needs some flows. Nothing is changed."""
        ...

    async def claim_next(self, wanted: Wanted) -> RunInfo | None:
        """Become the owner of the next run of a queue; None if there is none.

        Of the runs that are ready, the one with the highest priority, and among those the one that was ready first.
        Two workers never get the same one. `open_run` of this store then opens it, or `give_back` lets go of it; until
        then signs of life are given for it. A run that is FAILED now, since too many workers have died with it, is
        returned as well; it has no owner.
        """
        ...

    async def give_back(self, run_id: str) -> None:
        """Let go of a run that was claimed here and has not been opened, as if it had not been claimed."""
        ...

    async def enqueue(self, run_id: str) -> bool:
        """Let workers take a submitted run again that has ended or waits for something; False if it cannot be.

        One that has ended begins a new epoch. It cannot be if it was never submitted, or if a process executes it.
        """
        ...

    async def wait_for_queue(self, queue: str, seconds: float) -> None:
        """Return when there may be something new to do in a queue, or after this many seconds."""
        ...


def parts_of_flow(flow: str) -> tuple[str, str | None]:
    """MODULE:FUNCTION, and the fingerprint; None if there is none."""
    target, mark, code = flow.rpartition(BEFORE_FINGERPRINT)
    return (target, code) if mark else (flow, None)


def queues_of(store: object) -> Queueing:
    """The queues of a store.

    Raises:
        UsageError: it has none.
    """
    if not isinstance(store, Queueing):
        raise UsageError(
            f"a {type(store).__name__} has no queues: keep runs in a file or in PostgreSQL, or let it have the methods "
            "of rh_agents.core.queueing.Queueing"
        )
    return store


def expect_same_run(known: RunInfo, submission: Submission) -> None:
    """See to it that a run that is there is the one that is submitted.

    Raises:
        RunMismatchError: it is about something else, or no one can tell.
    """
    if known.workflow != submission.workflow:
        raise RunMismatchError(
            f"there is a run {known.run_id!r} already, with the workflow {known.workflow or '(unknown)'}, and this is "
            f"{submission.workflow}: submit it under another name"
        )
    if known.input_digest != submission.input_digest:
        raise RunMismatchError(
            f"there is a run {known.run_id!r} already, with another input: submit it under another name"
        )


def flow_name(workflow: Callable[..., Any]) -> str:
    """How a worker finds a function: MODULE:FUNCTION.

    Raises:
        DefinitionError: it cannot, since it is not at the top level of a module.
    """
    name, qualname = getattr(workflow, "__module__", None) or "", getattr(workflow, "__qualname__", "")
    module = sys.modules.get(name)
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if module is None or found is not workflow:
        raise DefinitionError(
            f"{qualname or short_repr(workflow)} cannot be submitted: workers import what they execute by its name, so "
            "define it at the top level of a module"
        )
    if name == "__main__":
        name = _name_of_main(module)
    return f"{name}:{qualname}"


def _name_of_main(module: ModuleType) -> str:
    """The name under which others import the program."""
    spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    if file is None:
        raise DefinitionError(
            "what is defined in a notebook or on the command line cannot be submitted: workers import it"
        )
    return Path(file).stem
