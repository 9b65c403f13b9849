"""The ledger of one execution: what was called and what the program saw, in one order, kept outside of any store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Line", "Write", "read_ledger", "written"]


@dataclass(frozen=True, slots=True)
class Line:
    """One fact.

    Attributes:
        kind: of calls: "begun" (a function was called), "done" (it is about to return), "failing" (it is about to
            raise), "cut" (it was cancelled), "lost" (its worker died), and "entered" (an agent was). Of the program:
            "seen", and "ended" (a group). "recorded" is a call that the store has a value for when the execution
            begins.
        thread: the sequence of steps that it belongs to. It names the calls around it with the numbers of their
            attempts, so that another attempt is another thread.
        key: of calls, what is the same at every attempt and in every execution; of "ended", the id of the group.
        label: which call of the program.
        attempt: of "begun".
        group: the id of the innermost group around it.
        nonce: different for every time a function is called.
        text: what was seen.
        place: how much of the journal a crash after this line leaves at least; only in virtual crashes.
    """

    kind: str
    thread: str = ""
    key: str = ""
    label: str = ""
    attempt: int = 0
    group: str = ""
    nonce: str = ""
    text: str = ""
    place: int = 0


Write = Callable[[Line], None]


def written(line: Line) -> bytes:
    """A line as it stands in a file."""
    return json.dumps(list(asdict(line).values())).encode() + b"\n"


def read_ledger(path: Path) -> list[Line]:
    """The lines in a file. One that the end of its process left torn is no fact."""
    texts = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [Line(*json.loads(text)) for text in texts]
