"""A single flow: its input, its result on standard output."""

from __future__ import annotations

import contextlib
import shlex
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from rh_agents.cli.arguments import Callee
from rh_agents.cli.errors import INTERRUPTED, BadInput, CommandError, OutputClosed, error_record, one_line
from rh_agents.cli.json_text import RepeatedKey, read_json, schema_of
from rh_agents.cli.options import budget_field, more_of
from rh_agents.cli.output.pauses import report_pauses
from rh_agents.cli.output.progress import say
from rh_agents.cli.output.results import open_output, to_line
from rh_agents.cli.output.summary import AWAITING
from rh_agents.cli.output.wording import counted
from rh_agents.cli.process import run_to_the_end
from rh_agents.cli.questions import question_lines, question_record
from rh_agents.cli.recorded_command import resume_line
from rh_agents.cli.stores import made_store, store_option
from rh_agents.cli.targets import load_value
from rh_agents.core._base.tracebacks import trimmed
from rh_agents.core._limits.interruption import interrupt_on_signals
from rh_agents.core.calls import ActorCall, Call, FunctionCall
from rh_agents.core.errors import DefinitionError, RunAwaiting, RunStopped
from rh_agents.core.execution import ExecutionState
from rh_agents.core.policies.budget import Budget
from rh_agents.core.ports import RunInfo
from rh_agents.core.redaction import redact
from rh_agents.core.results import ExecutionResult, describe_error
from rh_agents.core.values import decode
from rh_agents.workers.injection import Injection
from rh_agents.workers.worker import Flow

__all__ = ["FlowJob", "OfFlow", "SubmittedJob", "factories_of", "flow_call", "input_of", "load_flow_of", "read_value"]


def read_value(text: str | None) -> Any:
    """The input of a flow: JSON, `@file.json`, or `-` for JSON on standard input. None means no arguments.

    Raises:
        CommandError: it cannot be read, or is not JSON.
    """
    if text is None:
        return {}
    where, data = "--input", text.encode(errors="surrogateescape")
    try:
        if text == "-":
            where, data = "<stdin>", sys.stdin.buffer.read()
        elif text.startswith("@"):
            where = text[1:]
            with open(where, "rb") as file:
                data = file.read()
    except OSError as error:
        raise CommandError(f"cannot read {where}: {error.strerror}") from error
    try:
        return read_json(data.removeprefix(b"\xef\xbb\xbf"))
    except RepeatedKey as error:
        raise CommandError(f"{where}: {error}") from error
    except ValueError as error:
        hint = f"""; a text is written --input '"{text}"'""" if text.isalnum() else ""
        raise CommandError(f"{where}: not valid JSON: {error}{hint}") from error


def flow_call(callee: Callee, value: Any, state: ExecutionState) -> Call[Any]:
    """The call of a flow.

    Raises:
        CommandError: the input does not fit.
    """
    try:
        return callee.call(value, state.parts)
    except BadInput as error:
        raise CommandError(f"--input: {one_line(str(error))}") from error


def input_of(call: Call[Any]) -> Any:
    """What a run keeps of the input of its flow: the same that Python code keeps that starts it."""
    call.discard()  # it is looked at and not made
    if isinstance(call, FunctionCall):
        return call.actor.signature.bind(call.args, call.kwargs)
    return call.input_data if isinstance(call, ActorCall) else None


class OfFlow(Protocol):
    """The call of a flow, as far as it is needed to make it."""

    def discard(self) -> object:
        """Say nothing if it is not made."""
        ...

    def outcome(self) -> Coroutine[Any, Any, ExecutionResult[Any]]:
        """Make it."""
        ...


class _FlowFailed(Exception):
    """So that the run ends as failed."""

    def __init__(self, result: ExecutionResult[Any]) -> None:
        super().__init__(result.error_message)
        self.result = result


@dataclass(slots=True)
class FlowJob:
    """Executes the call of a flow as a run and prints its result.

    Attributes:
        call: belongs to `state`.
        report: takes lines for people.
        resume_command_line: the command that resumes the run; "" if it is not recorded.
        how_to_answer: the beginning of the command that answers its questions.
        how_to_look: the command that shows the run; "" if it is not recorded.
        grace: seconds for what runs when a signal comes.
        as_json: write what came of it as one object for programs, instead of the result and the lines for people that
            end the job.
        shown_store: where the run is recorded, as its user calls that; "" if it is not.
        opened: called as soon as the run is open.
    """

    name: str
    call: OfFlow
    state: ExecutionState
    report: Callable[[str], None]
    resume_command_line: str = ""
    how_to_answer: str = ""
    how_to_look: str = ""
    grace: float = 30.0
    show_traceback: bool = False
    as_json: bool = False
    shown_store: str = ""
    opened: Callable[[], None] = lambda: None
    is_interrupted: bool = False
    _is_over: bool = False

    async def run(self) -> int:
        """Do it. Returns what the process ends with.

        Raises:
            CommandError: the result cannot be printed.
            StoreError, RunMismatchError: the run cannot be executed.
        """
        state = self.state
        self.call.discard()  # if it is not made, something else says why
        await state.open()
        self.opened()
        try:
            with interrupt_on_signals(lambda _: self._ask(), lambda _: self._insist(), hangup=True):
                async with state:
                    result = await self._outcome()
        except _FlowFailed as failed:
            return self._report_failure(failed.result)
        except RunAwaiting:
            return self._report_questions()
        except RunStopped as stopped:
            return self._report_stop(stopped)
        if self.as_json:
            return self._write("completed", 0, result=result.result, reused=result.is_replayed)
        if result.is_replayed:
            self.report(
                f"run {state.run_id} had returned this before, and nothing was called; for another one: --run-id NAME"
            )
        elif self.how_to_look:
            self.report(f"run {state.run_id} is recorded; look at it with: {self.how_to_look}")
        _print(result.result, indent=2 if sys.stdout.isatty() else None)
        return 0

    async def _outcome(self) -> ExecutionResult[Any]:
        try:
            result = await self.call.outcome()
        finally:
            self._is_over = True
        if result.error is not None:
            raise _FlowFailed(result)
        return result

    def _report_failure(self, result: ExecutionResult[Any]) -> int:
        assert result.error is not None
        if self.show_traceback:
            trimmed(result.error)
            self.report(redact("".join(traceback.format_exception(result.error))).rstrip())
        if self.as_json:
            resume = self.resume_command_line
            return self._write(
                "failed", 1, error=_failure_record(result.error), reused=result.is_replayed, resume=resume
            )
        self.report(f"rh-agents: {self.name} failed: {one_line(describe_error(result.error))}")
        if self.how_to_look:
            self.report(f"run {self.state.run_id} is recorded; look at it with: {self.how_to_look}")
        if self.resume_command_line:
            self.report(f"to try what failed again: {self.resume_command_line}")
        return 1

    def _report_questions(self) -> int:
        questions = self.state.questions
        if self.as_json:
            asked = [question_record(each) for each in questions]
            return self._write("waiting", AWAITING, questions=asked, resume=self.resume_command_line)
        self.report(f"run {self.state.run_id} waits for {counted(len(questions), 'answer')}:")
        for line in question_lines(questions):
            self.report(line)
        self.report(f"answer with: {self.how_to_answer} {questions[0].id if len(questions) == 1 else 'QUESTION'} JSON")
        self.report(f"then resume with: {self.resume_command_line}")
        return AWAITING

    def _report_stop(self, stopped: RunStopped) -> int:
        code = INTERRUPTED if self.is_interrupted else 1
        resume = self.resume_command_line and self.resume_command_line + more_of(budget_field(stopped))
        if self.as_json:
            status = "interrupted" if self.is_interrupted else "stopped"
            return self._write(status, code, stopped=one_line(stopped.reason), resume=resume)
        self.report("rh-agents: interrupted" if self.is_interrupted else f"stopped: {one_line(stopped.reason)}")
        if resume:
            self.report(f"resume with: {resume}")
        return code

    def _write(self, status: str, exit_code: int, **what: Any) -> int:
        """Write the object for programs, in which every field is there however the job ends."""
        record: dict[str, Any] = {
            "schema": schema_of("result"),
            "run_id": self.state.run_id if self.shown_store else None,
            "store": self.shown_store or None,
            "status": status,
            "exit_code": exit_code,
            "result": None,
            "reused": False,
            "error": None,
            "stopped": None,
            "questions": [],
            "resume": None,
        }
        _print({**record, **what, "resume": what.get("resume") or None}, indent=None)
        return exit_code

    def _ask(self) -> None:
        """The first signal."""
        self.is_interrupted = True
        self.report(f"interrupted: no more calls begin; those under way have {self.grace:g} s; once more cancels them")
        self.state.request_interrupt("interrupted by a signal", grace=self.grace)

    def _insist(self) -> None:
        """The second one. What is still to do when the flow has ended must not be cut off, and is short."""
        if not self._is_over:
            self.state.request_interrupt("interrupted by a signal", grace=0)


def _failure_record(error: BaseException) -> Any:
    """Why a flow failed, for programs. What a program says has no remedy of ours behind its last semicolon."""
    failed = CommandError(describe_error(error), exit_code=1)
    failed.__cause__ = error
    record: Any = error_record(failed, 1)["error"]
    return {**record, "remedy": None}


def _print(value: Any, *, indent: int | None) -> None:
    try:
        line = to_line(value, indent=indent)
    except Exception as error:
        raise CommandError(f"the result cannot be written as JSON: {one_line(str(error))}", exit_code=1) from error
    with open_output(None, force=False) as writer, contextlib.suppress(OutputClosed):
        writer.write_now(line)


# -- a submitted run, executed here and now instead of by a worker -----------------------------------------------------


def load_flow_of(target: str) -> Callable[..., Any]:
    """The function that MODULE:FUNCTION names, as workers of the command line find it.

    Raises:
        DefinitionError: there is none.
    """
    try:
        found: Callable[..., Any] = load_value(target, "a flow", "shop/flows.py:survey")
    except CommandError as error:
        raise DefinitionError(str(error)) from error
    return found


def factories_of(options: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """What makes arguments, by the name of the parameter.

    Args:
        options: each NAME=MODULE:FUNCTION.

    Raises:
        CommandError: an option is not written so, or names nothing that can be called.
    """
    found: dict[str, Callable[[], Any]] = {}
    for option in options:
        name, equals, target = option.partition("=")
        if not equals or not name.isidentifier():
            raise CommandError(f"--inject {option}: write NAME=MODULE:FUNCTION")
        factory = load_value(target, "a function", "shop.clients:make_client")
        if not callable(factory):
            raise CommandError(f"--inject {option}: {target} is a {type(factory).__name__}, which cannot be called")
        found[name] = factory
    return found


@dataclass(frozen=True, slots=True)
class _SubmittedCall:
    """The call of a function that need not be an actor: what `FlowJob` makes."""

    make: Callable[[], Awaitable[Any]]

    def discard(self) -> None:
        """Nothing has been made yet."""

    async def outcome(self) -> ExecutionResult[Any]:
        """What it returned or raised."""
        try:
            return ExecutionResult(result=await self.make())
        except RunStopped:
            raise
        except Exception as error:  # noqa: BLE001 - it is reported, as a worker would, and the run ends as failed
            return ExecutionResult(ok=False, error=error, error_message=describe_error(error))


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """Executes a submitted run and prints what it returns.

    Attributes:
        info: the run.
        store, shown_store: where it is, and what its user calls that.
        resume_from: the address of a call that is to be made again.
        retry_failed: whether failed calls of a run that had ended are tried again.
        budget: instead of an earlier one.
        factories: what makes its injected arguments.
        as_json: write what came of it as one object for programs.
    """

    info: RunInfo
    store: str
    shown_store: str
    resume_from: str | None
    retry_failed: bool
    budget: Budget | None
    factories: dict[str, Callable[[], Any]]
    as_json: bool = False

    def run(self) -> int:
        """Do it, and return what the process ends with.

        Raises:
            CommandError: it cannot be executed here.
        """
        assert self.info.flow is not None
        try:
            flow = Flow.load(self.info.flow, load_flow_of)
            flow.expect_injected(self.factories)
            arguments = decode(self.info.input or b"{}")
        except DefinitionError as error:
            raise CommandError(f"run {self.info.run_id!r}: {error}") from error
        if flow.is_other_code:
            say(f"{flow.target} has another source here than where it was submitted, and is executed as it is here")
        return int(run_to_the_end(self._run(flow, arguments)))

    async def _run(self, flow: Flow, arguments: dict[str, Any]) -> int:
        run_id, injection = self.info.run_id, Injection(self.factories)
        async with made_store(self.store) as store:
            state = ExecutionState(
                store=store,
                run_id=run_id,
                history_limit=0,
                resume_from=self.resume_from,
                retry_failed=self.retry_failed,
                budget=self.budget,
            )

            async def make() -> Any:
                return await flow.call({**arguments, **await injection.made(flow.injected(self.factories))})

            job = FlowJob(flow.target, _SubmittedCall(make), state, say, resume_line(run_id, self.shown_store))
            job.how_to_answer = f"rh-agents answer {shlex.quote(run_id)}{store_option(self.shown_store)}"
            job.opened = partial(report_pauses, state, say, self.shown_store)
            job.as_json, job.shown_store = self.as_json, self.shown_store
            job.how_to_look = f"rh-agents show {shlex.quote(run_id)}{store_option(self.shown_store)}"
            try:
                return await job.run()
            finally:
                await injection.aclose()
