"""Questions of a run: how they are shown, how answers are read, and the person at the terminal."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import from_json

from rh_agents.cli.daemon_thread import DaemonThread
from rh_agents.cli.errors import one_line
from rh_agents.cli.json_text import RepeatedKey, read_json
from rh_agents.core.errors import InputError
from rh_agents.core.ports import Question
from rh_agents.core.redaction import redact
from rh_agents.core.values.answers import why_not_fitting

__all__ = ["PersonAtTheTerminal", "hint_of", "parse_answer", "question_lines", "question_record"]

_LONGEST_HINT = 300


def parse_answer(text: str, schema: str | None = None) -> Any:
    """JSON; what is not JSON counts as text, and so does what only as text fits the schema of the question.

    Raises:
        InputError: an object in it has a key twice.
    """
    try:
        value = read_json(text)
    except RepeatedKey as error:
        raise InputError(f"the answer does not fit: {error}") from error
    except ValueError:
        return text.strip()
    if schema is not None and why_not_fitting(schema, value) and not why_not_fitting(schema, text.strip()):
        return text.strip()
    return value


def hint_of(schema: str | None) -> str:
    """In a few words what an answer looks like, by its JSON schema; "" if that says nothing."""
    if schema is None:
        return ""
    try:
        about = from_json(schema)
    except ValueError:
        return ""
    if not isinstance(about, dict):
        return ""
    about = _followed(about, about)
    if isinstance(about.get("enum"), list):
        return "one of " + ", ".join(one_line(str(each)) for each in about["enum"])
    kind = about.get("type")
    if kind == "boolean":
        return "true or false"
    if kind == "object" and isinstance(about.get("properties"), dict):
        fields = (_field(name, each, about) for name, each in about["properties"].items())
        return one_line("a JSON object: {" + ", ".join(fields) + "}")[:_LONGEST_HINT]
    return "" if kind is None else one_line(str(kind))


def _field(name: str, about: Any, schema: dict[str, Any]) -> str:
    found = _followed(about if isinstance(about, dict) else {}, schema)
    kind = found.get("type") or (" | ".join(map(str, found["enum"])) if isinstance(found.get("enum"), list) else "any")
    return f'"{name}": {kind}'


def _followed(about: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a reference within the schema refers to."""
    reference = about.get("$ref")
    found = schema.get("$defs", {}).get(str(reference).rpartition("/")[2]) if isinstance(reference, str) else None
    return {**schema, **found} if isinstance(found, dict) else about


def question_record(question: Question) -> dict[str, Any]:
    """What is open, for programs."""
    return {
        "id": question.id,
        "address": question.address,
        "text": redact(question.text),
        "answer_schema": None if question.schema is None else read_json(question.schema),
        "asked_at": question.asked_at,
        "problem": question.problem,
    }


def question_lines(questions: Sequence[Question]) -> list[str]:
    """What is open, for people: id, address, text, what an answer looks like, why an earlier one was rejected."""
    lines = []
    for question in questions:
        text = f": {one_line(question.text)}" if question.text else ""
        lines.append(f"  {one_line(question.id)}  {one_line(question.address)}{text}")
        hint = hint_of(question.schema)
        if hint:
            lines.append(f"      answer: {hint}")
        if question.problem:
            lines.append(f"      not accepted: {one_line(question.problem)}")
    return lines


class PersonAtTheTerminal:
    """Asks the person at standard input, one question after the other. An empty line leaves a question open.

    Args:
        report: shows a line.
        pause: called before a question is shown: bars must not be drawn over what is being typed.
    """

    def __init__(self, report: Callable[[str], None], pause: Callable[[], None]) -> None:
        self._report = report
        self._pause = pause
        self._turn = asyncio.Lock()
        self._thread = DaemonThread("read answers")
        # Not sys.stdin: a thread that waits in its buffer would hold the lock that Python takes at exit.
        self._input: io.BufferedReader = open(0, "rb", closefd=False)  # noqa: SIM115 - as long as the process

    async def __call__(self, question: Question) -> object:
        """The answer; None if there is none."""
        async with self._turn:
            self._pause()
            for line in question_lines([question]):
                self._report(line)
            self._report("      (an empty line: answer later)")
            given = await self._thread.start(self._read)
        text = given.decode("utf-8", "backslashreplace").strip()
        return parse_answer(text, question.schema) if text else None

    def _read(self) -> bytes:
        return self._input.readline()
