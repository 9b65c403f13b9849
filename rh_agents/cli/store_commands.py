"""The commands that look at recorded runs and change them."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer
from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import to_json

from rh_agents.bus_handlers import EventPrinter
from rh_agents.cli.asking import hint_of, parse_answer, question_lines
from rh_agents.cli.budgets import BudgetCalls, BudgetCost, BudgetTokens, budget_of, budget_options, without_options
from rh_agents.cli.errors import CommandError, close_names, describe_validation, one_line
from rh_agents.cli.exporting import event_record, outcome_record, to_export_line
from rh_agents.cli.inputs import is_stream
from rh_agents.cli.json_text import RepeatedKey, read_json
from rh_agents.cli.outputs import expect_output_name, expect_standard_output
from rh_agents.cli.page import Page, Part, table_lines
from rh_agents.cli.planning import Code, PlanView, load_code, plan_input, record_of_plan
from rh_agents.cli.recorded import STANDARD_STREAM, Invocation, RunCommand, go_on_line, is_untouched_fork
from rh_agents.cli.stores import DEFAULT_STORE, absolute_url, existing_run, kept_store, store_option
from rh_agents.cli.tree import RunTree, TreeView, record_of_node
from rh_agents.cli.words import Standing, age, ago, counted, parse_age, size, standing_of, standing_words
from rh_agents.core._base.key_generations import generation_of_keys
from rh_agents.core._replay.recorded import spender_of
from rh_agents.core.errors import InputError, StoreError
from rh_agents.core.plan import plan_run
from rh_agents.core.ports import Question, RunInfo, Store
from rh_agents.core.redaction import redact
from rh_agents.core.rewind import UNCHANGED, affected_by, fork
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Spending
from rh_agents.core.values import kept_text, shown_value
from rh_agents.display.text import harmless

__all__ = ["register"]

T = TypeVar("T")

_Store = Annotated[str, typer.Option(metavar="URL", help="Where the runs are recorded: a path or a URL.")]
_Run = Annotated[str, typer.Argument(metavar="RUN", help="The name of a run.", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("runs")(_runs)
    app.command("show")(_show)
    app.command("resume")(_resume)
    app.command("plan")(_plan)
    app.command("fork")(_fork)
    app.command("cancel")(_cancel)
    app.command("answer")(_answer)
    app.command("export")(_export)
    app.command("gc")(_gc)
    app.command("check")(_check)


def _with_store(url: str, work: Callable[[Store], Awaitable[T]], *, writes: bool = False) -> T:
    """Do something with a store that must be there. What only looks makes and changes no file."""
    expect_standard_output()

    async def do() -> T:
        async with kept_store(url, read_only=not writes) as store:
            return await work(store)

    return asyncio.run(do())


# -- runs --------------------------------------------------------------------------------------------------------------


def _runs(
    status: Annotated[
        list[Standing] | None, typer.Option("--status", help="Only runs with this status. May be repeated.")
    ] = None,
    tag: Annotated[str | None, typer.Option(metavar="WORD", help="Only runs with this tag.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="30d", help="Only runs without activity for this long.")
    ] = None,
    newer_than: Annotated[
        str | None, typer.Option(metavar="1h", help="Only runs with activity within this time.")
    ] = None,
    as_json: _Json = False,
    store: _Store = DEFAULT_STORE,
) -> None:
    """List the recorded runs, newest first."""
    now = time.time()
    before = None if older_than is None else now - parse_age("--older-than", older_than)
    after = None if newer_than is None else now - parse_age("--newer-than", newer_than)

    async def find(opened: Store) -> tuple[list[RunInfo], list[Question]]:
        found = await opened.runs(tag=tag, updated_before=before)
        return found, await opened.questions()

    infos, questions = _with_store(store, find)
    infos = [
        info
        for info in infos
        if (not status or standing_of(info) in status) and (after is None or info.updated_at >= after)
    ]
    waiting = Counter(question.run_id for question in questions)
    if as_json:
        for info in infos:
            sys.stdout.write(json.dumps(_record_of_run(info, waiting[info.run_id])) + "\n")
        return
    page = Page()
    if not infos:
        page.line("no runs" if not (status or tag or older_than or newer_than) else "no such runs")
        return
    rows = [("RUN", "STATUS", "WORKFLOW", "CALLS", "AGE", "TAGS", "OWNER")]
    rows += [
        (
            harmless(info.run_id),
            standing_words(info, waiting[info.run_id]),
            harmless(info.workflow),
            f"{info.outcomes:,}",
            age(now - info.updated_at),
            harmless(" ".join(info.tags)),
            harmless(info.owner or "").partition(" (")[0],
        )
        for info in infos
    ]
    head, *lines = table_lines(rows, page.width, whole=2)
    page.line(Part(head, "dim"))
    for line in lines:
        page.line(line)


def _record_of_run(info: RunInfo, open_questions: int) -> dict[str, Any]:
    """A run for programs."""
    return {
        "run_id": info.run_id,
        "status": standing_of(info).value,
        "workflow": info.workflow,
        "calls": info.outcomes,
        "open_questions": open_questions,
        "created_at": info.created_at,
        "updated_at": info.updated_at,
        "ended_at": info.ended_at,
        "epoch": info.epoch,
        "owner": info.owner,
        "reason": info.reason,
        "tags": list(info.tags),
        "forked_from": info.forked_from,
        "facts": {name: redact(kept_text(text, unknown_ok=True)) for name, text in info.facts.items()},
    }


# -- show --------------------------------------------------------------------------------------------------------------


def _show(
    run: _Run,
    as_json: _Json = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed.")] = False,
    depth: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only this many levels.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every call, however many there are.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing events as they happen.")] = False,
    store: _Store = DEFAULT_STORE,
) -> None:
    """Show a run: its calls as a tree, with times, attempts, errors and results.

    `@1a2b3c4d` is a call's key: it names the call where several have the same address, as in
    `rh-agents resume RUN --from @1a2b3c4d`.
    """

    async def show(opened: Store) -> None:
        info = await existing_run(opened, run)
        tree, spent = RunTree(), Spending()
        async for recorded in opened.events(run):
            tree.add(recorded)
            event = recorded.event
            if event.execution_status is not ExecutionStatus.RECOVERED:
                spent.add(spender_of(event.actor, event.name), event.usage)
        spent.calls = info.outcomes
        questions = await opened.questions(run)
        roots = tree.roots(await _makers(opened, run) if tree.is_ambiguous else None)
        if as_json:
            used = {name: usage.as_json() for name, usage in spent.by_actor.items()}
            record = _record_of_run(info, len(questions)) | {"usage": spent.usage.as_json(), "usage_by_actor": used}
            record |= {"tree": [record_of_node(node) for node in roots]}
            sys.stdout.write(json.dumps(record) + "\n")
            return
        page = Page()
        _show_head(page, info, len(questions))
        if spent.usage:
            page.line(Part(harmless(f"spent: {spent}"), "dim", is_elastic=True))
        TreeView(page, info.owner is not None, depth, failed, everything).show(roots)
        for line in question_lines(questions):
            page.line(line)
        if follow:
            await _follow(opened, run, tree.last)

    _with_store(store, show)


async def _makers(store: Store, run: str) -> dict[str, str]:
    """Which call made which, by key, as far as they have outcomes."""
    headers = [outcome.header async for outcome in store.unread_outcomes(run)]
    return {header.key.hex(): header.parent.hex() for header in headers}


def _show_head(page: Page, info: RunInfo, open_questions: int) -> None:
    now = time.time()
    owner = f"by {harmless(info.owner).partition(' (')[0]}" if info.owner is not None else ""
    page.line(
        Part(harmless(info.run_id), "bold"),
        Part(standing_words(info, open_questions), _STYLES.get(standing_of(info), "yellow"), 1),
        Part(owner, "dim", 4),
        Part(ago(now - info.updated_at), "dim", 2),
        Part(harmless(" ".join(f"#{tag}" for tag in info.tags)), "cyan", 5),
    )
    command = RunCommand.of(info)
    if command is not None:
        page.line(Part(harmless(f"$ rh-agents {shlex.join(command.words)}", 2000), "dim", is_elastic=True))
    elif info.workflow:
        given = "" if info.input is None else shown_value(info.input)
        page.line(Part(harmless(info.workflow), "bold"), Part(harmless(given), "dim", 1, True))
    if info.reason and standing_of(info) is not Standing.WAITING:
        page.paragraph(harmless(info.reason, 500), "yellow")
    again = f"restarted {counted(info.epoch, 'time')} after its end" if info.epoch else ""
    origin = f"a copy of {harmless(info.forked_from)}" if info.forked_from is not None else ""
    page.line(
        Part(f"started {datetime.fromtimestamp(info.created_at).astimezone():%Y-%m-%d %H:%M:%S}", "dim"),
        Part(counted(info.outcomes, "finished call"), "dim", 1),
        Part(again, "dim", 2),
        Part(origin, "dim", 3),
    )
    page.line()


_STYLES = {Standing.COMPLETED: "green", Standing.FAILED: "red", Standing.RUNNING: "cyan"}


async def _follow(store: Store, run: str, after: int) -> None:
    printer = EventPrinter(file=sys.stdout)
    async for recorded in store.events(run, after=after, follow=True):
        printer(recorded.event)
    info = await existing_run(store, run)
    Page().line(f"{run}: {standing_words(info, len(await store.questions(run)))}")


# -- resume, plan ------------------------------------------------------------------------------------------------------


def _resume(
    ctx: typer.Context,
    run: _Run,
    address: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ADDRESS",
            help="Make this call again, and all that depends on it: an address as shown by `show`, or @ and a key.",
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="OUT.jsonl", help="For a map: another output file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an output file that is not empty.")] = False,
    no_retry_failed: Annotated[
        bool,
        typer.Option("--no-retry-failed", help="If the run has ended: keep its recorded failures, do not retry them."),
    ] = False,
    budget_cost: BudgetCost = None,
    budget_tokens: BudgetTokens = None,
    budget_calls: BudgetCalls = None,
    store: _Store = DEFAULT_STORE,
) -> None:
    """Resume a run with its original command, directory and arguments. A budget replaces the earlier one."""
    info = _with_store(store, lambda opened: existing_run(opened, run))
    expect_output_name(output)
    command = _with_secrets(ctx, info, _command_of(info))
    if output is not None and command.kind != "map":
        raise CommandError(f"-o is for the output of a map, and run {run!r} is a `{command.kind}`")
    budget = budget_options(budget_of(budget_cost, budget_tokens, budget_calls))
    words = without_options(command.words, budget)
    for option, value in budget.items():
        words[1:1] = [option, value]
    if no_retry_failed and "--no-retry-failed" not in words:
        words.insert(1, "--no-retry-failed")
    if STANDARD_STREAM in words and (sys.stdin is None or sys.stdin.isatty()):
        raise CommandError(
            f"run {run!r} reads its items from standard input: give them again, as in `... | {go_on_line(run, store)}`"
        )
    source = str(_parameters(ctx, command).get("source", "")) if command.kind == "map" else ""
    if source not in ("", STANDARD_STREAM) and is_stream(source):
        raise CommandError(
            f"run {run!r} reads its items from {source}, which is another pipe each time: give them again, as in "
            f"`{go_on_line(run, store, command.words)}`"
        )
    about = Invocation(
        owns_process=Invocation.of(ctx).owns_process,
        run_id=run,
        store=absolute_url(store),
        shown_store=store,
        resume_from=address,
        output=None if output is None else os.path.abspath(output),
        force=force,
    )
    try:
        os.chdir(command.folder)
    except OSError as error:
        raise CommandError(f"run {run!r} was started in {command.folder}: {error.strerror}") from error
    root: Any = ctx.find_root().command
    with root.make_context("rh-agents", words, obj=about) as inner:
        root.invoke(inner)


def _command_of(info: RunInfo) -> RunCommand:
    command = RunCommand.of(info)
    if command is None:
        called = f"run({info.workflow}, ...)" if info.workflow else "ExecutionState(...)"
        raise CommandError(
            f"run {info.run_id!r} was started from Python code: start that again with the same store and "
            f"run_id={info.run_id!r}, as in `{called}`"
        )
    return command


def _with_secrets(ctx: typer.Context, info: RunInfo, command: RunCommand) -> RunCommand:
    """The command with the secrets that were on its command line. Its program makes them known."""
    with contextlib.suppress(StoreError):
        return RunCommand.of(info, unknown_ok=False) or command
    if os.path.isdir(command.folder):
        with contextlib.chdir(command.folder):
            load_code(command, _parameters(ctx, command))
    try:
        return RunCommand.of(info, unknown_ok=False) or command
    except StoreError as error:
        raise CommandError(f"run {info.run_id!r}: {error}") from error


def _plan(
    ctx: typer.Context,
    run: _Run,
    no_retry_failed: Annotated[
        bool,
        typer.Option("--no-retry-failed", help="If the run has ended: keep its recorded failures, do not retry them."),
    ] = False,
    as_json: _Json = False,
    store: _Store = DEFAULT_STORE,
) -> None:
    """Show which calls a resume would reuse or make, and why. Nothing is called.

    The plan is made from the journal, and from the input of a map as it is now. What the program does with the results,
    and so what else it would call, cannot be known in advance.
    """

    async def plan(opened: Store) -> None:
        info = await existing_run(opened, run)
        command = RunCommand.of(info)
        parameters = {} if command is None else _parameters(ctx, command)
        code = load_code(command, parameters)
        code.keys_generation = generation_of_keys(info.facts)
        outcomes = [outcome.header async for outcome in opened.unread_outcomes(run)]
        events = [recorded async for recorded in opened.events(run, values=False)]
        found = plan_run(info, outcomes, events, retry_failed=not no_retry_failed)
        is_map = command is not None and command.kind == "map" and code.problem is None
        given = plan_input(command, parameters, found) if is_map and command is not None else None
        questions = await opened.questions(run)
        if as_json:
            sys.stdout.write(json.dumps({"run_id": run} | record_of_plan(found, code, given)) + "\n")
            return
        page = Page()
        _show_head(page, info, len(questions))
        PlanView(page).show(found, questions, code, given)

    _with_store(store, plan)


def _parameters(ctx: typer.Context, command: RunCommand) -> dict[str, Any]:
    """The options and arguments of a recorded command."""
    root: Any = ctx.find_root().command
    inner = root.get_command(ctx, command.words[0])
    with inner.make_context(command.words[0], list(command.words[1:])) as context:
        parameters: dict[str, Any] = context.params
        return parameters


# -- fork, cancel, answer ----------------------------------------------------------------------------------------------


def _fork(
    ctx: typer.Context,
    run: _Run,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name of the copy.", show_default=False)],
    address: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="ADDRESS", help="A finished call, which the copy makes again, and all that depends on it."
        ),
    ] = None,
    result: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Take this as the result of that call; only what depends on it runs."),
    ] = None,
    store: _Store = DEFAULT_STORE,
) -> None:
    """Copy a run under another name, to continue it differently. The original is unchanged."""
    if not new.strip():
        raise CommandError("NEW: a name is needed")

    async def copy(opened: Store) -> RunInfo:
        info = await existing_run(opened, run)
        command = RunCommand.of(info)
        code = Code() if address is None else load_code(command, {} if command is None else _parameters(ctx, command))
        value = UNCHANGED
        if result is not None:
            value = await _edited(opened, run, address, result, code)
        await fork(opened, run, new, address=address, result=value)
        return await existing_run(opened, new)

    info = _with_store(store, copy, writes=True)
    go_on = ""
    if RunCommand.of(info) is not None:
        other = " -o OUT.jsonl" if _writes_file(info) else ""
        go_on = f"; go on with: {go_on_line(new, store)}{other}"
    Page().line(f"{harmless(new)}: a copy with {counted(info.outcomes, 'finished call')}{go_on}")


def _writes_file(info: RunInfo) -> bool:
    command = RunCommand.of(info)
    return command is not None and bool(command.output) and is_untouched_fork(info)


async def _edited(store: Store, run: str, address: str | None, text: str, code: Code) -> Any:
    """The result as the function that is called would return it, if its type is known; else as JSON has it."""
    try:
        value = read_json(text)
    except RepeatedKey as error:
        raise CommandError(f"--result: {error}") from error
    except ValueError as error:
        raise CommandError(f"""--result {text}: not valid JSON: {error}; a text is written '"{text}"'""") from error
    if address is None:
        return value
    key = (await affected_by(store, run, address))[0].key.hex()
    events = store.events(run, values=False)
    names = [recorded.event.actor.name async for recorded in events if recorded.event.key == key]
    actor = code.actors.get(names[0]) if names else None
    hint = None if actor is None else actor.output_model or actor.signature.hints.get("return")
    if hint is None:
        return value
    try:
        return TypeAdapter(hint).validate_python(value)
    except PydanticSchemaGenerationError:
        return value
    except ValidationError as error:
        raise CommandError(f"--result: {describe_validation(error)}") from error


def _cancel(run: _Run, store: _Store = DEFAULT_STORE) -> None:
    """Stop a run for good: calls in flight finish, and no more are made."""

    async def stop(opened: Store) -> str:
        standing = standing_of(await existing_run(opened, run))
        if standing.has_ended:
            raise CommandError(f"run {run!r} has ended already: it is {standing.value}", exit_code=1)
        if await opened.request_stop(run, f"cancelled by {_person() or 'an unknown user'} with rh-agents cancel"):
            return f"{run}: asked to stop; `rh-agents show {run} --follow` shows when it has"
        return f"{run}: cancelled"

    Page().paragraph(harmless(_with_store(store, stop, writes=True), 500))


def _person() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None


def _answer(
    run: _Run,
    question: Annotated[
        str | None,
        typer.Argument(metavar="QUESTION", help="The id of a question, or its beginning.", show_default=False),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Argument(
            metavar="JSON", help="The answer; a word that is not JSON is taken as text.", show_default=False
        ),
    ] = None,
    store: _Store = DEFAULT_STORE,
) -> None:
    """Answer a question of a run; without an answer, show the open questions.

    An answer that does not fit the question is refused. If the program does not accept an answer that fits, the
    question is open again after the run was resumed.
    """

    async def reply(opened: Store) -> tuple[RunInfo, list[Question], Question | None]:
        info = await existing_run(opened, run)
        questions = await opened.questions(run)
        if question is None:
            return info, questions, None
        chosen = _chosen(question, questions, await opened.questions(run, is_open=False), run)
        if answer is None:
            return info, [chosen], None
        try:
            await opened.answer(run, chosen.id, to_json(parse_answer(answer, chosen.schema)), _person())
        except InputError as error:
            hint = hint_of(chosen.schema)
            raise CommandError(f"{one_line(str(error))}{hint and f'; it is {hint}'}") from error
        return info, await opened.questions(run), chosen

    info, questions, answered = _with_store(store, reply, writes=answer is not None)
    page = Page()
    if answered is not None:
        page.paragraph(f"answered: {harmless(answered.text, 500)}")
    if questions:
        page.line(f"{harmless(run)} waits for {counted(len(questions), 'answer')}:")
        for line in question_lines(questions):
            page.paragraph(line.strip(), indent=len(line) - len(line.lstrip()))
        page.line(f"answer with: rh-agents answer {shlex.quote(run)} QUESTION JSON{store_option(store)}")
    elif standing_of(info) is Standing.RUNNING:
        page.line("the run is being executed now; it reads the answer when it is started again")
    elif info.status is ExecutionStatus.AWAITING:
        is_command = RunCommand.of(info) is not None
        page.line(f"go on with: {go_on_line(run, store)}" if is_command else "go on by starting the run again")
    else:
        page.line(f"{harmless(run)} has no open questions")


def _chosen(name: str, questions: list[Question], all_questions: list[Question], run: str) -> Question:
    found = [question for question in questions if question.id == name] or [
        question for question in questions if name and question.id.startswith(name)
    ]
    if len(found) == 1:
        return found[0]
    if any(question.id == name for question in all_questions):
        raise CommandError(f"question {name!r} of run {run!r} has been answered")
    ids = ", ".join(question.id for question in questions)
    what = f"{len(found)} questions of run {run!r} begin with" if found else f"run {run!r} has no open question"
    hint = close_names(name, [question.id for question in questions]) or (f"; open are {ids}" if ids else "")
    raise CommandError(f"{what} {name!r}{hint}")


# -- export, gc, check -------------------------------------------------------------------------------------------------


def _export(
    run: _Run,
    outcomes: Annotated[
        bool, typer.Option("--outcomes", help="The outcomes of calls, one per line, instead of the events.")
    ] = False,
    store: _Store = DEFAULT_STORE,
) -> None:
    """Write the journal of a run as JSON lines: every event, with the results."""

    async def write(opened: Store) -> None:
        await existing_run(opened, run)
        if outcomes:
            async for outcome in opened.outcomes(run, unknown_ok=True):
                sys.stdout.write(to_export_line(outcome_record(outcome)))
        else:
            async for recorded in opened.events(run):
                sys.stdout.write(to_export_line(event_record(recorded)))

    _with_store(store, write)


def _gc(
    older_than: Annotated[
        str,
        typer.Option(metavar="30d", help="Delete runs without activity for this long.", show_default=False),
    ],
    status: Annotated[
        list[Standing] | None,
        typer.Option(
            "--status", help="Only runs with this status; if left out, those that have ended. May be repeated."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    store: _Store = DEFAULT_STORE,
) -> None:
    """Delete old runs, and large results that no run refers to any more. Runs being executed are never deleted."""
    if status and Standing.RUNNING in status:
        raise CommandError("--status running: a run that is being executed cannot be deleted; cancel it first")
    before = time.time() - parse_age("--older-than", older_than)
    wanted = status or [standing for standing in Standing if standing.has_ended]

    async def collect(opened: Store) -> tuple[list[RunInfo], int]:
        found = [info for info in await opened.runs(updated_before=before) if standing_of(info) in wanted]
        if dry_run:
            return found, 0
        for info in found:
            await opened.delete_run(info.run_id)
        return found, await opened.collect_garbage()

    found, freed = _with_store(store, collect, writes=not dry_run)
    page = Page()
    verb = "would be deleted" if dry_run else "deleted"
    for info in found:
        page.line(f"{harmless(info.run_id)}", Part(standing_of(info).value, "dim", 1), Part(verb, "dim", 2))
    text = f"{counted(len(found), 'run')} {verb}"
    page.line(text if dry_run else f"{text}, {size(freed)} of large results freed")


def _check(store: _Store = DEFAULT_STORE) -> None:
    """Look for damage in the database and in the large results beside it. Exit code 1 if there is any."""

    async def look(opened: Store) -> tuple[list[str], int]:
        return await opened.check(), len(await opened.runs())

    findings, count = _with_store(store, look)
    page = Page()
    for finding in findings:
        page.paragraph(one_line(finding), "red")
    if findings:
        raise typer.Exit(1)
    page.line(f"{counted(count, 'run')}, no damage found")
