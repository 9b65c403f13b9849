"""Exceptions of every kind, as functions raise them: many do not survive the way out of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Response:
    status_code = 503


class ApiError(Exception):
    """As many clients have it: made of something else than its text."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"HTTP {response.status_code}")


class TwoArguments(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class ByKeyword(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class MadeByNew(Exception):
    def __new__(cls, *, code: int) -> MadeByNew:
        return super().__new__(cls, f"code {code}")

    def __init__(self, *, code: int) -> None:
        self.code = code


class WithALock(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()
        self.number = 7


class Speaking(Exception):
    """Its text needs what stays behind."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.said: Callable[[], str] = lambda: text

    def __str__(self) -> str:
        return self.said()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class OfThePlatform(OSError):
    """As `MadeByNew`, of a class that keeps more than `Exception` does."""

    def __new__(cls, *, code: int) -> OfThePlatform:
        return super().__new__(cls, code, "away")

    def __init__(self, *, code: int) -> None:
        self.code = code


class Interrupting(Exception):
    """Whoever asks what it is made of does not come back."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(4)


class Group(ExceptionGroup[Exception]):
    def __new__(cls, exceptions: list[Exception]) -> Group:
        return super().__new__(cls, "mine", exceptions)


def _with_cause() -> Exception:
    try:
        raise TwoArguments(5, "the cause")
    except TwoArguments as cause:
        error = ByKeyword(code=3)
        error.__cause__ = cause
        return error


def _local() -> Exception:
    class Local(ByKeyword):
        pass

    return Local(code=9)


def _noted() -> Exception:
    error = ValueError("noted")
    error.add_note("mine")
    return error


def _deep() -> Exception:
    error: Exception = WithALock("held")
    for level in range(40):
        within: list[Exception] = [error]
        error = ExceptionGroup(f"level {level}", within)
    return error


def _with_shared_causes() -> Exception:
    """Described along every path to it, this would be without end."""
    group: Exception | None = None
    for attempt in range(8):
        members = [ValueError(f"{attempt}, {number}") for number in range(60)]
        for each in members:
            each.__cause__ = group
        group = ExceptionGroup(f"attempt {attempt}", members)
    assert group is not None
    return group


FAILURES: dict[str, Callable[[], BaseException]] = {
    "api": lambda: ApiError(Response()),
    "two": lambda: TwoArguments(5, "bad"),
    "keyword": lambda: ByKeyword(code=3),
    "new": lambda: MadeByNew(code=6),
    "lock": lambda: WithALock("held"),
    "speaking": lambda: Speaking("said so"),
    "mute": Mute,
    "exiting": Exiting,
    "platform": lambda: OfThePlatform(code=6),
    "interrupting": lambda: Interrupting("asked"),
    "deep": _deep,
    "shared causes": _with_shared_causes,
    "group": lambda: ExceptionGroup("many", [ApiError(Response()), ValueError("v")]),
    "own group": lambda: Group([ByKeyword(code=4)]),  # pyright: ignore[reportCallIssue] - it looks at `__init__`
    "local": _local,
    "cause": _with_cause,
    "noted": _noted,
    "file": lambda: FileNotFoundError(2, "No such file", "a.txt"),
    "key": lambda: KeyError("k"),
    "exit": lambda: SystemExit(0),
    "interrupt": KeyboardInterrupt,
}


TEXTS = {
    "api": ("ApiError", "HTTP 503"),
    "two": ("TwoArguments", "5: bad"),
    "keyword": ("ByKeyword", "code 3"),
    "new": ("MadeByNew", "code 6"),
    "lock": ("WithALock", "held"),
    "speaking": ("Speaking", "said so"),
    "platform": ("OfThePlatform", "[Errno 6] away"),
    "interrupting": ("Interrupting", "asked"),
    "deep": ("ExceptionGroup", "level 39 (1 sub-exception)"),
    "shared causes": ("ExceptionGroup", "attempt 7 (60 sub-exceptions)"),
    "group": ("ExceptionGroup", "many (2 sub-exceptions)"),
    "own group": ("Group", "mine (1 sub-exception)"),
    "local": ("Local", "code 9"),
    "cause": ("ByKeyword", "code 3"),
    "noted": ("ValueError", "noted"),
    "file": ("FileNotFoundError", "[Errno 2] No such file: 'a.txt'"),
    "key": ("KeyError", "'k'"),
    "exit": ("CalledExit", "called sys.exit(0)"),
    "interrupt": ("CalledExit", "raised KeyboardInterrupt"),
}
"""The class and the text with which each of them arrives, but for those without a text."""
