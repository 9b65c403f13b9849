"""How the commands `map` and `run` begin: the store, the run of this command in it, and what is said at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from rh_agents.cli.arguments import Callee
from rh_agents.cli.asking import PersonAtTheTerminal
from rh_agents.cli.budgets import more_of, without_options
from rh_agents.cli.errors import CommandError, one_line
from rh_agents.cli.inputs import Input, is_stream
from rh_agents.cli.keeping import Kept
from rh_agents.cli.leaving import leave_without_threads
from rh_agents.cli.mapping import Limits, MapJob
from rh_agents.cli.outputs import open_output
from rh_agents.cli.progress import Progress, Shown, say, shown
from rh_agents.cli.recorded import Invocation, RunCommand, go_on_line
from rh_agents.cli.running import FlowJob, flow_call, input_of
from rh_agents.cli.sources import make_source
from rh_agents.cli.stores import made_store, store_option
from rh_agents.cli.summary import Summary, describe, next_steps
from rh_agents.cli.targets import known_actors
from rh_agents.cli.words import counted
from rh_agents.core.errors import RunMismatchError
from rh_agents.core.execution import ExecutionState
from rh_agents.core.policies.budget import Budget
from rh_agents.core.ports import Store

__all__ = ["FlowStart", "MapStart", "RunOptions"]


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
        older: Sequence[str] = (),
    ) -> Self:
        """What the options and the process say; `derived` is the name of the run if nobody gives one, and `older` are
        the names that earlier versions would have given it."""
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
        )


@dataclass(frozen=True, slots=True)
class MapStart:
    """A job of `map` before its run is opened."""

    callee: Callee
    given: Input
    limit: int | None
    output: str | None
    force: bool
    limits: Limits
    progress: Progress
    source: str
    kept: Kept
    with_input: bool = False

    async def run(self, options: RunOptions) -> int:
        """Do it, and say what came of it. Returns what the process ends with."""
        async with made_store(options.store) as store:
            known = None if store is None else await store.find_run(options.run_id)
            if known is not None:
                options.command.check_same(known)
            may_write_over = self.force or options.command.owns(known)
            data = {"items": self.source, "set": json.loads(options.command.settings)}
            # With `reuse`: every item carries its own identity, so another input does no harm.
            state = options.state(store, data, reuse=True)
            with open_output(self.output, force=may_write_over, kept=self.kept) as writer:
                job = MapJob(self.callee, make_source(self.given, self.limit), writer, say, self.limits, state)
                job.with_input = self.with_input
                if known is not None and known.outcomes:
                    job.greeting = f"run {options.run_id} goes on: {counted(known.outcomes, 'finished call')} recorded"
                try:
                    with shown(self.progress) as job.subscriber:
                        await job.run()
                finally:
                    if job.has_begun:
                        self._tell(job, job.summary, options)
        summary = job.summary
        if summary.left_threads and options.owns_process:  # now: the end of the loop may wait for them as well
            leave_without_threads(summary.exit_code)
        return summary.exit_code

    def _tell(self, job: MapJob, summary: Summary, options: RunOptions) -> None:
        for line in describe(summary, job.writer.name, is_shown=job.subscriber is not None):
            say(line)
        if job.state.store is None:
            return
        is_piped = is_stream(self.source)
        more = more_of(summary.budget_field)
        words = without_options(options.command.words, more.split()) if is_piped else None
        go_on = go_on_line(options.run_id, options.shown_store, words) + more
        for line in next_steps(summary, go_on, options.run_id):
            say(line)


@dataclass(frozen=True, slots=True)
class FlowStart:
    """A job of `run` before its run is opened."""

    callee: Callee
    value: Any
    grace: float
    show_traceback: bool

    async def run(self, options: RunOptions, subscriber: Shown | None) -> int:
        """Do it. Returns what the process ends with."""
        data = input_of(flow_call(self.callee, self.value, ExecutionState(history_limit=0)))
        async with made_store(options.store) as store:
            known = None if store is None else await store.find_run(options.run_id)
            if known is not None:
                options.command.check_same(known)
            state = options.state(store, None if store is None else data, reuse=False)
            if subscriber is not None:
                state.event_bus.subscribe(subscriber)
            if sys.stdin is not None and sys.stdin.isatty():
                state.set_answerer(PersonAtTheTerminal(say, _nothing if subscriber is None else subscriber.pause))
            job = FlowJob(self.callee.name, flow_call(self.callee, self.value, state), state, say)
            job.grace, job.show_traceback = self.grace, self.show_traceback
            if store is not None:
                job.how_to_go_on = go_on_line(options.run_id, options.shown_store)
                job.how_to_answer = f"rh-agents answer {options.run_id}{store_option(options.shown_store)}"
            try:
                code = await job.run()
            except RunMismatchError as error:
                reason = str(error).partition(": name another run")[0]
                raise CommandError(f"{one_line(reason)}: name another one with --run-id") from error
        if job.is_interrupted and options.owns_process:
            leave_without_threads(code)
        return code


def _nothing() -> None:
    """There are no bars."""
