"""`rh-agents answer`."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer
from pydantic_core import to_json

from rh_agents.cli.commands.common import AsJson, RunName, StoreOfRuns, person, with_store
from rh_agents.cli.errors import CommandError, close_names, one_line
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.page import Page
from rh_agents.cli.output.wording import counted
from rh_agents.cli.questions import hint_of, parse_answer, question_lines, question_record
from rh_agents.cli.recorded_command import RunCommand, resume_line
from rh_agents.cli.run_status import RunStatus, status_of
from rh_agents.cli.stores import DEFAULT_STORE, existing_run, store_option
from rh_agents.core.errors import InputError
from rh_agents.core.ports import Question, RunInfo, Store
from rh_agents.core.types import ExecutionStatus
from rh_agents.display.text import harmless

__all__ = ["answer_command"]


def answer_command(
    run: RunName,
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
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
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
            await opened.answer(run, chosen.id, to_json(parse_answer(answer, chosen.schema)), person())
        except InputError as error:
            hint = hint_of(chosen.schema)
            raise CommandError(f"{one_line(str(error))}{hint and f'; it is {hint}'}") from error
        return info, await opened.questions(run), chosen

    info, questions, answered = with_store(store, reply, writes=answer is not None)
    if as_json:
        said = {
            "answered": None if answered is None else answered.id,
            "open": [question_record(each) for each in questions],
        }
        sys.stdout.write(json_line("answer", {"run_id": run, **said}))
        return
    page = Page()
    if answered is not None:
        page.paragraph(f"answered: {harmless(answered.text, 500)}")
    if questions:
        page.line(f"{harmless(run)} waits for {counted(len(questions), 'answer')}:")
        for line in question_lines(questions):
            page.paragraph(line.strip(), indent=len(line) - len(line.lstrip()))
        page.line(f"answer with: rh-agents answer {shlex.quote(run)} QUESTION JSON{store_option(store)}")
    elif status_of(info) is RunStatus.RUNNING:
        page.line("the run is being executed now; it reads the answer when it is started again")
    elif info.status is ExecutionStatus.AWAITING:
        is_command = RunCommand.of(info) is not None
        page.line(f"resume with: {resume_line(run, store)}" if is_command else "start the run again to resume it")
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
