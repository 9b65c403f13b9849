"""`rh-agents map`: an actor over every item of an input."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast

import typer

from rh_agents.cli.arguments import Callee, make_callee, read_settings
from rh_agents.cli.commands.common import AsJson
from rh_agents.cli.detaching import Detach, LogFile, announce, detached, expect_output_file, is_to_detach
from rh_agents.cli.elsewhere import Applied
from rh_agents.cli.engines import ExecutorsGiven, engines_for
from rh_agents.cli.errors import CommandError, TableRefused
from rh_agents.cli.input.files import Input, InputOptions, file_of_input, is_stream, open_input
from rh_agents.cli.input.lines import Format
from rh_agents.cli.input.queries import file_of_database, is_database
from rh_agents.cli.input.source import make_source
from rh_agents.cli.map_job import Limits, MapJob, Shards
from rh_agents.cli.options import (
    TARGET_HELP,
    AcceptChanges,
    BudgetCalls,
    BudgetCost,
    BudgetName,
    BudgetTokens,
    Grace,
    InputsRecorded,
    KeepFailures,
    Otel,
    ProgressMode,
    RunId,
    StoreUrl,
    Tags,
    budget_of,
    more_of,
    without_options,
)
from rh_agents.cli.output.opening import expect_output_name, open_results
from rh_agents.cli.output.pauses import report_pauses
from rh_agents.cli.output.progress import Progress, say, shown
from rh_agents.cli.output.protected_files import ProtectedFiles, files_of_store
from rh_agents.cli.output.summary import Summary, describe, next_steps, summary_record, write_summary
from rh_agents.cli.output.wording import counted
from rh_agents.cli.process import leave_without_threads, run_to_the_end, spare_the_collector
from rh_agents.cli.recorded_command import (
    STANDARD_STREAM,
    Invocation,
    RunCommand,
    absolute_path,
    command_line,
    derived_run_id,
    expect_items_again,
    here,
    resume_line,
    settings_text,
)
from rh_agents.cli.run_options import RunOptions
from rh_agents.cli.store_search import locate_run, search_folders
from rh_agents.cli.stores import DEFAULT_STORE, made_store
from rh_agents.cli.targets import file_of, load_actor, short_name
from rh_agents.core._base.sources import fingerprint
from rh_agents.core.execution import ExecutionState
from rh_agents.core.groups import ErrorStrategy
from rh_agents.core.ports.executors import WORKERS
from rh_agents.core.types import Engine, RecordInputs
from rh_agents.decorators import tool
from rh_agents.llms._batches import Batches, in_batches

__all__ = ["map_command"]

_AT_ONCE_IN_A_BATCH = 10_000
"""Items; each takes some kilobytes while it waits for its batch."""


def _read_separator(text: str | None) -> str | None:
    """One character, or `tab` in any of the ways in which it can be typed.

    Raises:
        CommandError: it is more than one, or can separate nothing.
    """
    found = "\t" if text in ("tab", "TAB", "\\t") else text
    if found is not None and (len(found) != 1 or found in '"\r\n'):
        raise CommandError(f"--separator {text}: one character is needed, such as , ; | or tab")
    return found


def map_command(
    ctx: typer.Context,
    actor: Annotated[str, typer.Argument(metavar="MODULE:ACTOR", help=TARGET_HELP, show_default=False)],
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A file of JSON lines, CSV or plain lines (also .gz or .zst), Parquet, Arrow or Excel, a data set of "
            "Hugging Face on disk, with --query a database, or - for standard input.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT.jsonl",
            help="Where the results go, in the format of its name: .jsonl or .csv (also .gz or .zst), .parquet or "
            ".arrow; standard output if left out, as lines of JSON.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an output file that is not empty.")] = False,
    max_workers: Annotated[
        int, typer.Option("--max-workers", "-n", min=1, metavar="N", help="Items that run at the same time.")
    ] = 5,
    retry: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Attempts for each item, including the first; overrides the function's own."
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For each attempt; overrides the function's own.")
    ] = None,
    error_strategy: Annotated[
        ErrorStrategy, typer.Option(help="Run all items whatever fails, or stop at the first failure.")
    ] = ErrorStrategy.FAIL_SLOW,
    fail_after: Annotated[
        str | None,
        typer.Option(
            metavar="5|0.1",
            help="Stop after this number of failed items, or this share of them. Bad lines count as well.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, metavar="N", help="Only the first N items.")] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Write in the order of the input; otherwise as items complete.")
    ] = False,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="If left out, taken from the name of INPUT (.jsonl .ndjson .json .csv .tsv .txt) or from its content.",
        ),
    ] = Format.AUTO,
    id_field: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The field that identifies an item in the output; without it, the line number does."
        ),
    ] = "id",
    separator: Annotated[
        str | None,
        typer.Option(
            metavar="CHARACTER",
            help="Separates the fields of a table: , ; | or tab. If left out, it is detected from the first lines.",
            callback=_read_separator,
        ),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The sheet of a workbook of Excel; needed if there are several."),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            metavar="SELECT",
            help="Items are the rows of this query. INPUT is then the database: a file of SQLite, postgresql://… or "
            "env:NAME for a variable with such a URL.",
        ),
    ] = None,
    results: Annotated[
        bool,
        typer.Option(
            "--results",
            help="INPUT is what another map wrote: an item is the result in a line, under the id of the line. What "
            "failed there fails here.",
        ),
    ] = False,
    with_input: Annotated[
        bool, typer.Option("--with-input", help="Write the item beside its result, as `input`.")
    ] = False,
    summary_json: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-", help="Where a summary of the job goes as JSON, when it has ended; - needs -o for results."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=JSON", help="An argument for every item; overrides the item's own. May be repeated."
        ),
    ] = None,
    store: StoreUrl = DEFAULT_STORE,
    run_id: RunId = None,
    tags: Tags = None,
    no_retry_failed: KeepFailures = False,
    accept_changes: AcceptChanges = False,
    budget_cost: BudgetCost = None,
    budget_tokens: BudgetTokens = None,
    budget_calls: BudgetCalls = None,
    budget_name: BudgetName = None,
    record_inputs: InputsRecorded = RecordInputs.BRIEF,
    executor: ExecutorsGiven = None,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="Send the requests of OpenAIChat and AnthropicChat models as batches: half the price, up to a day. "
            "Up to 10,000 items then run at the same time, unless --max-workers is given.",
        ),
    ] = False,
    shard: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Make items in other processes, N at a time in each; --max-workers is then for each process.",
        ),
    ] = None,
    on: Annotated[
        str,
        typer.Option(
            metavar="ENGINE",
            help="With --shard: the engine that has the processes; `workers` (or `workers:QUEUE`) for processes of "
            "`rh-agents worker`, on whatever machines.",
        ),
    ] = Engine.PROCESS.value,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --shard: processes at a time; one for each processor if left out."),
    ] = None,
    grace: Grace = 30.0,
    otel: Otel = False,
    progress: ProgressMode = Progress.AUTO,
    detach: Detach = False,
    log: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Call a function for every item of INPUT and write a JSON line, or a row of a table, for each.

    Every result is recorded as it arrives. Repeating the command resumes the run: finished items are not called again,
    changed and new ones are, and failed ones are retried if the run had ended.

    Every line has id, index, ok, result or error, attempts and seconds. An input line that does not fit is reported on
    standard error with its position and becomes a failed item; it does not end the job.

    A failed item that `rh-agents requeue` asks for has another line with the same id and index, and "requeued": true.
    The newest line of an item counts.

    Ctrl-C once: no more items are started, those in flight get --grace seconds to finish. Twice: they are cancelled.

    Exit codes: 0 all items ok; 1 some failed, or stopped; 2 usage; 3 waiting for answers; 130 interrupted.
    """
    about = Invocation.of(ctx)
    output, force = about.output or output, about.force or force
    expect_output_name(output)
    summary_json = _place_of_summary(summary_json, output, as_json=as_json or about.as_json)
    _expect_place(summary_json, output)
    if is_to_detach(detach, log):
        expect_output_file(output)
        if is_stream(source):
            raise CommandError(f"--detach: {source} will not be there to read from; write the items to a file")
        used = ProtectedFiles({source: "the input", str(output): "the output", file_of(actor): "the program"})
        raise typer.Exit(detached(about, store, log, used, as_json=as_json))
    fixed = read_settings(settings or [])
    loaded = load_actor(actor, tool)
    callee = make_callee(loaded, retry=retry, timeout=_seconds("--timeout", timeout), fixed=fixed)
    executors = engines_for(loaded, executor)
    if batch and not about.asks_for(ctx, "max_workers"):
        max_workers = _AT_ONCE_IN_A_BATCH
    shards = None
    if shard is not None:
        # Workers may be on other machines, and find it as this process has; those of an engine may be in any directory.
        target = actor if on.partition(":")[0] == WORKERS else _anywhere(actor)
        applied = Applied(target, retry, timeout, fixed, fingerprint(cast("Any", loaded)))
        shards = Shards(shard, on, workers, applied)
    elif about.asks_for(ctx, "on") or workers is not None:
        raise CommandError("--on and --workers are about shards: add --shard N, for instance --shard 500")
    limits = Limits(max_workers, error_strategy, _failure_limit(fail_after, error_strategy), ordered, grace, shards)
    target = "" if output in (None, STANDARD_STREAM) else absolute_path(str(output))
    command = RunCommand((), here(), "map", f"{short_name(actor)}:{callee.name}", settings_text(fixed), target)
    ways = [[*way, *_part_of_input(sheet, query)] for way in _ways_to_name(source)]
    names = [derived_run_id(callee.name, "map", file_of(actor), *way, command.settings) for way in ways]
    budget = budget_of(budget_cost, budget_tokens, budget_calls, budget_name)
    options = RunOptions.of(
        ctx,
        command,
        names[0],
        store,
        run_id,
        tags,
        retry_failed=not no_retry_failed,
        budget=budget,
        record_inputs=record_inputs,
        executors=executors,
        target=loaded,
        accept_changes=accept_changes,
        older=names[1:],
    )
    is_older = about.run_id is not None and form is Format.AUTO and separator is None
    is_named = about.asks_for(ctx, "id_field")
    reading = InputOptions(form, id_field, is_named, separator, say, is_older, sheet, query, results)
    with open_input(source, reading) as given:
        if about.run_id is not None and source == STANDARD_STREAM:
            expect_items_again(about.run_id, about.shown_store or store, are_given=not given.is_empty)
        # With what was found out: when the run is resumed, the same file is read in the same way.
        words = command_line(ctx, **given.found, **({} if output is None else {"output": output}))
        options = dataclasses.replace(options, command=dataclasses.replace(command, words=words))
        in_use: dict[str | int, str] = dict.fromkeys(given.in_use, "the input") | {file_of(actor): "the program"}
        folders = {}
        if os.path.isdir(source):
            folders[source] = "the input"
        elif source != STANDARD_STREAM:
            in_use[source] = "the input"
        options = asyncio.run(locate_run(options, search_folders(ctx, file_of(actor), file_of_input(source))))
        protected = ProtectedFiles(in_use, folders) | files_of_store(options.store)
        if output is not None:
            protected.refuse_name(output)
        if summary_json not in (None, STANDARD_STREAM):
            (protected | ProtectedFiles({str(output): "the output"})).refuse_name(str(summary_json))
        work = _MapStart(callee, given, limit, output, force, limits, progress, source, protected, with_input)
        work = dataclasses.replace(work, summary_json=summary_json)
        if options.owns_process:
            spare_the_collector()
        with _batches() if batch else nullcontext():
            raise typer.Exit(run_to_the_end(work.run(options)))


def _place_of_summary(summary: str | None, output: str | None, *, as_json: bool) -> str | None:
    """Where the summary goes. With `--json`, standard output is for it, since the results are JSON without it.

    Raises:
        CommandError: the results are to go there as well, or the summary is to go elsewhere.
    """
    if not as_json:
        return summary
    if summary not in (None, STANDARD_STREAM):
        raise CommandError(f"--json and --summary-json {summary} both say where the summary goes: give one of them")
    if output in (None, STANDARD_STREAM):
        raise CommandError(
            "--json writes a summary of the job to standard output, where the results go, which are lines of JSON "
            "anyhow; name a file for them with -o, or one for the summary with --summary-json FILE"
        )
    return STANDARD_STREAM


def _expect_place(summary: str | None, output: str | None) -> None:
    """Refuse a summary that would stand among the results, or nowhere.

    Raises:
        CommandError: it would.
    """
    if summary is not None and not summary.strip():
        raise CommandError(f"--summary-json {summary!r}: the name of a file is needed, or - for standard output")
    if summary == STANDARD_STREAM and output in (None, STANDARD_STREAM):
        raise CommandError("--summary-json -: the results go to standard output: name a file for them with -o")
    folder = "" if summary in (None, STANDARD_STREAM) else os.path.dirname(str(summary))
    if folder and not os.path.isdir(folder):
        raise CommandError(f"--summary-json {summary}: there is no directory {folder}")


def _part_of_input(sheet: str | None, query: str | None) -> list[str]:
    """What represents the part of an input that is read, in the name of its run: nothing where all of it is."""
    return [f"{name}={part}" for name, part in (("sheet", sheet), ("query", query)) if part is not None]


def _ways_to_name(source: str) -> list[list[str]]:
    """What represents an input in the name of its run, and what did in earlier versions."""
    piped = [STANDARD_STREAM, here()]
    if is_database(source):
        file = file_of_database(source)
        return [[source if file is None else absolute_path(file)]]
    if not is_stream(source):
        return [[absolute_path(source)]]
    file = file_of_input(source)
    return [piped] if file is None else [[file], piped]


def _anywhere(actor: str) -> str:
    """The same MODULE:ACTOR for processes that may be in another directory."""
    module, _, name = actor.rpartition(":")
    file = file_of(actor)
    return f"{file if os.path.isabs(file) else module}:{name}"


def _batches() -> AbstractContextManager[Any]:
    """While the block lasts, questions to models go through the batches of their providers."""
    poll_every = float(os.environ.get("RH_AGENTS_POLL_EVERY", "30"))
    return in_batches(Batches(tell=say, poll_every=poll_every))


def _failure_limit(text: str | None, strategy: ErrorStrategy) -> float | None:
    """`5` is a number of failures, `0.1` a share."""
    if text is None:
        return None
    if strategy is ErrorStrategy.FAIL_FAST:
        raise CommandError("--error-strategy fail_fast stops at the first failure: leave --fail-after out")
    try:
        limit = int(text) if text.isdecimal() else float(text)
    except ValueError:
        limit = 0
    if limit >= 1 if isinstance(limit, int) else 0 < limit <= 1:
        return limit
    raise CommandError(f"--fail-after {text}: a number of failures from 1 on, or a share between 0.0 and 1.0")


def _seconds(option: str, value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise CommandError(f"{option} {value:g}: seconds must be more than 0")
    return value


@dataclass(frozen=True, slots=True)
class _MapStart:
    """A job of `map` before its run is opened."""

    callee: Callee
    given: Input
    limit: int | None
    output: str | None
    force: bool
    limits: Limits
    progress: Progress
    source: str
    protected: ProtectedFiles
    with_input: bool = False
    summary_json: str | None = None

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
            with open_results(
                self.output,
                force=may_write_over,
                protected=self.protected,
                with_input=self.with_input,
                is_recorded=store is not None,
            ) as writer:
                job = MapJob(self.callee, make_source(self.given, self.limit), writer, say, self.limits, state)
                job.with_input = self.with_input
                job.opened = partial(_opened, state, options, self.summary_json)
                if known is not None and known.outcomes:
                    job.greeting = (
                        f"run {options.run_id} continues: {counted(known.outcomes, 'finished call')} recorded"
                    )
                try:
                    with shown(self.progress) as job.display:
                        await job.run()
                finally:
                    if job.has_begun:
                        self._report(job, job.summary, options)
        summary = job.summary
        if summary.left_threads and options.owns_process:  # now: the end of the loop may wait for them as well
            leave_without_threads(summary.exit_code)
        return summary.exit_code

    def _report(self, job: MapJob, summary: Summary, options: RunOptions) -> None:
        file = job.writer.name if options.command.output else ""
        made = "" if isinstance(summary.failure, TableRefused) else file
        for line in describe(summary, made, is_shown=job.display is not None):
            say(line)
        resume = self._report_next(job, summary, options) if job.state.store is not None else None
        if self.summary_json is not None:
            run_id, store = (None, "") if resume is None else (options.run_id, options.shown_store)
            write_summary(self.summary_json, summary_record(summary, run_id, store, file, resume or ""))

    def _report_next(self, job: MapJob, summary: Summary, options: RunOptions) -> str:
        """Say what a recorded job leaves to be done. Returns the command for that; "" if there is nothing."""
        is_piped = is_stream(self.source)
        # With the same output, a table that was refused would be so again.
        more = " --output OUT.jsonl" if isinstance(summary.failure, TableRefused) else more_of(summary.budget_field)
        words = without_options(options.command.words, more.split()) if is_piped else None
        resume = resume_line(options.run_id, options.shown_store, words) + more
        lines = next_steps(summary, resume, options.run_id)
        for line in lines:
            say(line)
        return resume if any(resume in line for line in lines) else ""


def _opened(state: ExecutionState, options: RunOptions, summary: str | None) -> None:
    if summary not in (None, STANDARD_STREAM):
        with contextlib.suppress(FileNotFoundError):  # that of an earlier job, which is not to be taken for this one's
            os.unlink(str(summary))
    announce(options.run_id, options.shown_store)
    report_pauses(state, say, options.shown_store)
