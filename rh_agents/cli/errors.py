"""What can go wrong with a command that its user, and not a program, has to mend. Each message is one sentence."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable

from pydantic import ValidationError

from rh_agents.core.errors import InputError, RhAgentsError
from rh_agents.core.redaction import redact

__all__ = [
    "BadInput",
    "CommandError",
    "Interrupted",
    "NoSuchRun",
    "NoSuchStore",
    "OutputClosed",
    "OutputFailed",
    "TableRefused",
    "close_names",
    "describe_validation",
    "error_record",
    "location_of",
    "one_line",
]

USAGE = 2
INTERRUPTED = 130


class CommandError(Exception):
    """The command cannot continue. The message is for its user; `exit_code` is what the process ends with."""

    def __init__(self, message: str, exit_code: int = USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(CommandError):
    """The user has pressed Ctrl-C."""

    def __init__(self, message: str = "interrupted") -> None:
        super().__init__(message, exit_code=INTERRUPTED)


class NoSuchRun(CommandError):
    """There is no run of this name in the store."""


class NoSuchStore(CommandError):
    """There is no store of this name, or nothing is kept in it."""


class BadInput(InputError):
    """One item does not fit. It fails without having been tried, and the job continues."""


class OutputFailed(CommandError):
    """A line could not be written."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=1)


class TableRefused(OutputFailed):
    """The results are not those of a table, or a table would change them: they need an output of another format."""


class OutputClosed(OutputFailed):
    """Nobody reads the pipe any more: no error of anybody, `head` does it."""


def error_record(error: BaseException, exit_code: int, remedy: str | None = None) -> dict[str, object]:
    """An error for programs.

    Args:
        error: what went wrong. Its kind is the name of its class, or of the error of the library behind it:
            `ControlRefused` is "control_refused", `StoreError` is "store". What is wrong with the command itself is
            "usage".
        exit_code: what the process ends with.
        remedy: what can be done about it. Usually the message says so, behind its last semicolon.
    """
    message = one_line(str(error))
    if remedy is None:
        remedy = message.rpartition("; ")[2] if "; " in message else None
    return {"error": {"kind": _kind_of(error, exit_code), "message": message, "remedy": remedy, "exit_code": exit_code}}


def _kind_of(error: BaseException, exit_code: int) -> str:
    cause: BaseException | None = error
    while cause is not None:
        is_plain = type(cause) is CommandError
        if isinstance(cause, RhAgentsError | CommandError) and not is_plain:
            return _WORDS.sub("_", type(cause).__name__).lower().removesuffix("_error")
        cause = cause.__cause__
    return "usage" if exit_code == USAGE else "failed"


_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")


def describe_validation(error: ValidationError, leave_out: str = "") -> str:
    """What is wrong, in one line: `text: Field required; depth: Input should be a valid integer`.

    `leave_out` is the name of a parameter that takes the whole item, so that its user never wrote that name.
    """
    found = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        path = [str(part) for part in item["loc"]]
        if leave_out and len(path) > 1 and path[0] == leave_out:
            path = path[1:]
        found.append(": ".join([".".join(path), item["msg"]]) if path else item["msg"])
    return "; ".join(found)


def close_names(wanted: str, names: Iterable[str]) -> str:
    """`; did you mean 'classify'?`, or "" if nothing is like it."""
    close = difflib.get_close_matches(wanted, list(names), n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def one_line(text: str) -> str:
    """The text without line breaks and secrets, and with control characters made visible: it may come from anywhere."""
    text = redact(text)
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return " " if char in "\n\r\t" else char.encode("unicode_escape").decode("ascii")


def location_of(error: BaseException, path: str | None) -> str:
    """` (flow.py, line 3)`: the innermost line of that file which the error went through; "" if there is none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError) and error.lineno is not None:
        path, lines = error.filename, [error.lineno]
    return f" ({path}, line {lines[-1]})" if lines else ""
