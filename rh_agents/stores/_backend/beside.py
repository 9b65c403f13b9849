"""What stands beside journals: what owners say of now, what is asked of them, text under way, and questions to people.

All of it is gone, or means nothing any more, when nobody executes the run; but for questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from rh_agents.core.ports import Question
from rh_agents.core.ports.control import ControlRequest
from rh_agents.stores._backend.rows import Kept

FORGOTTEN_AFTER: Final = 60.0
"""Seconds after which it is forgotten that somebody has looked at a call."""


class PresentRow(NamedTuple):
    """What the owner of a run says that it is doing now.

    Attributes:
        number, fence: the run, and which of its owners says so.
        at: when, in seconds since 1970, by the owner's clock.
        facts: a JSON object, in ASCII; the fence is in it as well.
    """

    number: int
    fence: int
    at: float
    facts: str


class PieceRow(NamedTuple):
    """Text of a call under way, see `_streamed`.

    Attributes:
        key: of the call.
        attempt: which attempt has published it.
        position: where it begins among all that this attempt has published.
        text: a JSON object.
        at: when it was written, in seconds since 1970; rows of one owner of a run never have the same.
    """

    key: bytes
    attempt: int
    position: int
    text: str
    at: float


class PieceCut(NamedTuple):
    """Rows of text of a call that come before this place are dropped."""

    key: bytes
    attempt: int
    position: int


class WritesBeside(Protocol):
    """The part of a session of the writer thread that is about this."""

    def say(self, rows: Sequence[PresentRow]) -> None:
        """Write what owners say that their runs are doing, each in place of what was said before.

        What is said by somebody who does not hold the run any more is not written.
        """
        ...

    # -- questions -----------------------------------------------------------------------------------------------------

    def ask(self, number: int, fence: int, question: Question) -> bool:
        """Add a question unless there is one of this id. False if the run is not ours."""
        ...

    def reject_answer(self, number: int, fence: int, question_id: str, problem: str) -> bool:
        """Take an answer away (answer, answered_at, answered_by) and say why. False if the run is not ours."""
        ...

    def answer(self, number: int, question_id: str, answer: bytes, by: str | None, now: float) -> bool:
        """Answer an open question, and forget its problem; False if there is none or it has been answered.

        If the run is in a queue, waits, and is executed by no one, it is ready from now on (`ready_at`).
        """
        ...

    # -- requests to owners --------------------------------------------------------------------------------------------

    def request_stop(self, number: int, reason: str) -> None:
        """Leave a request for the holder of a run, where `write`, `renew` and `look` find it."""
        ...

    def ask_for(self, number: int, request: ControlRequest) -> None:
        """Add a request to the holder of a run, which `renew` and `look` count. A signal wakes its run."""
        ...

    def answer_request(self, number: int, fence: int, request_id: str, answer: Mapping[str, Any], now: float) -> bool:
        """Say what came of an open request. False if the run is not ours, or the request is not open."""
        ...

    # -- text of calls under way ---------------------------------------------------------------------------------------

    def watch(self, number: int, key: bytes, now: float, until: float) -> None:
        """Note that somebody looks at a call, where `renew` and `look` find it; old notes are forgotten."""
        ...

    def put_pieces(self, number: int, fence: int, rows: Sequence[PieceRow], cuts: Sequence[PieceCut]) -> None:
        """Add text of calls under way, and drop what comes before the cuts; nothing if the run is not ours."""
        ...


class ReadsBeside(Protocol):
    """The part of a session that reads which is about this."""

    def present(self, number: int) -> tuple[float, str, int] | None:
        """What was said last that a run is doing: when, the facts, and the checksum of both; None if nothing was."""
        ...

    def requests(self, number: int, is_open: bool | None) -> Sequence[Sequence[Any]]:
        """The requests to a run, oldest first: the columns that `_asking.request_of` wants."""
        ...

    def pieces(self, number: int, key: bytes | None, after: float) -> list[Kept[PieceRow]]:
        """Text of the calls of a run that was written after a time, of one call or (None) of all, in that order."""
        ...

    def watched_until(self, number: int, key: bytes) -> float:
        """Until when somebody looks at a call, as was said last; 0.0 if nobody has."""
        ...

    def find_question(self, number: int, question_id: str, named: int) -> list[Kept[Question]]:
        """The question of a run, and those of any run with this `name_checksum`.

        Checksums of questions are those of `question_checksum` and `answer_checksum`.
        """
        ...

    def questions(self, run_id: str | None, is_open: bool) -> list[Kept[Question]]:
        """Questions of one run or of all, oldest first. `is_open` leaves out those that have an answer."""
        ...
