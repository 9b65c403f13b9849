"""How a run is executed, whatever it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from rh_agents.cli.errors import CommandError
from rh_agents.cli.recorded_command import Invocation, RunCommand
from rh_agents.cli.targets import known_actors
from rh_agents.core.actors import BaseActor
from rh_agents.core.actors.reachable import actors_named_in
from rh_agents.core.execution import ExecutionState
from rh_agents.core.policies.budget import Budget
from rh_agents.core.ports import Executor, Store
from rh_agents.core.types import RecordInputs

__all__ = ["RunOptions"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is executed, whatever it does."""

    command: RunCommand
    run_id: str
    store: str
    shown_store: str
    tags: tuple[str, ...]
    retry_failed: bool
    resume_from: str | None
    owns_process: bool
    budget: Budget | None = None
    record_inputs: RecordInputs = RecordInputs.BRIEF
    executors: Mapping[str, Executor] = field(default_factory=dict)
    actors: tuple[BaseActor, ...] = ()
    accept_changes: bool = False
    older_ids: tuple[str, ...] = ()
    """What earlier versions called the run; empty if its user has given it a name."""

    @classmethod
    def of(
        cls,
        context: Any,
        command: RunCommand,
        derived: str,
        store: str,
        run_id: str | None,
        tags: Sequence[str] | None,
        *,
        retry_failed: bool,
        budget: Budget | None = None,
        record_inputs: RecordInputs = RecordInputs.BRIEF,
        executors: Mapping[str, Executor],
        target: object = None,
        accept_changes: bool = False,
        older: Sequence[str] = (),
    ) -> Self:
        """What the options and the process say.

        `derived` is the name of the run if none is given, `older` are the names that earlier versions would have given
        it, and `target` is what it executes, whose code is compared with what it was.
        """
        about = Invocation.of(context)
        if run_id is not None and not run_id.strip():
            raise CommandError("--run-id: a name is needed")
        return cls(
            command,
            about.run_id or run_id or derived,
            about.store or store,
            about.shown_store or store,
            tuple(tags or ()),
            retry_failed,
            about.resume_from,
            about.owns_process,
            budget,
            record_inputs,
            executors,
            tuple(actors_named_in(target)),
            accept_changes or about.accept_changes,
            () if about.run_id or run_id else tuple(older),
        )

    def state(self, store: Store | None, data: Any, *, reuse: bool) -> ExecutionState:
        """The run as it is to be executed."""
        if self.resume_from is not None:
            known_actors()  # whose results are looked at before any of them is called
        return ExecutionState(
            store=store,
            run_id=self.run_id,
            tags=self.tags,
            history_limit=0,
            retry_failed=self.retry_failed,
            resume_from=None if store is None else self.resume_from,
            workflow=self.command.workflow,
            input=data,
            reuse=reuse,
            facts=self.command.facts,
            budget=self.budget,
            record_inputs=self.record_inputs,
            executors=self.executors,
            actors=self.actors,
            accept_changes=self.accept_changes,
        )
