"""A run that is steered while processes die, and the judge of what was made of what was asked."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.stress.children import Child
from tests.stress.endings import Ending
from tests.stress.ledger import BEGUN, DONE, Line, read_lines
from tests.stress.trial import Trial
from tests.stress.work import Plan

__all__ = ["Ask", "Desk", "plan_of"]

PATIENCE = 60.0


def plan_of(folder: Any, *, jobs: int = 24, bad: tuple[int, ...] = (), waits: int = -1) -> Plan:
    """Jobs of a run, four at a time: those in `bad` fail until one file is there, and `waits` until another one is."""
    files = {"mended": f"{folder}/mended", "gate": f"{folder}/gate"}
    return {"jobs": jobs, "width": 4, "slow": 100, "bad": list(bad), "waits": waits, **files}


@dataclass
class Ask:
    """One command that steers the run.

    Attributes:
        verb, arguments: what it asks for.
        author: a name that no other one has.
        began: when it was begun, by the monotonic clock in nanoseconds.
        answer: what it said; None if it died before it could.
    """

    verb: str
    arguments: list[Any]
    author: str
    child: Child
    began: int
    answer: dict[str, Any] | None = None

    @property
    def is_applied(self) -> bool:
        """Whether it was told that the owner has acted on it."""
        return self.answer is not None and bool(self.answer.get("is_applied"))


@dataclass
class Desk(Trial):
    """A trial whose run is steered."""

    asks: list[Ask] = field(default_factory=list)
    recorded: list[tuple[int, list[str]]] = field(default_factory=list)
    """What had succeeded when a process was dead, each time with when that was looked at."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.workflow = "desk"

    def ask(self, verb: str, *arguments: Any, patience: float = 10.0) -> Ask:
        """Begin to ask something of the run."""
        author, began = f"asker-{len(self.asks)}", time.monotonic_ns()
        what = {"verb": verb, "arguments": arguments, "author": author, "patience": patience}
        asked = Ask(verb, list(arguments), author, self.start("ask", result=self._answer_of(author), **what), began)
        self.asks.append(asked)
        return asked

    def asked(self, verb: str, *arguments: Any) -> Ask:
        """Ask something, and wait for the answer."""
        asked = self.ask(verb, *arguments)
        self.answered(asked)
        return asked

    def answered(self, asked: Ask) -> Ending:
        """Wait for the end of a command, however it ends."""
        ending = asked.child.expect(Ending.WELL, Ending.KILLED, Ending.STORE_ERROR, Ending.RUN_IS_LIVE)
        if ending is Ending.WELL:
            with open(self._answer_of(asked.author)) as file:
                asked.answer = json.load(file)
        return ending

    def _answer_of(self, author: str) -> str:
        return str(self.folder / f"answer-{author}")

    def kill(self, child: Child) -> None:
        """Kill a process that executes the run, unless it has ended."""
        child.signal(signal.SIGKILL)
        self.ended(child)

    def ended(self, child: Child) -> Ending:
        """Wait until a process that executes the run has ended, however it does, and keep what is recorded by then."""
        ending = child.expect(Ending.WELL, Ending.STOPPED, Ending.KILLED, Ending.STORE_ERROR, Ending.RUN_IS_LIVE)
        self.crashes += ending in (Ending.KILLED, Ending.STORE_ERROR)
        self.recorded.append((time.monotonic_ns(), self.look()["values"]))
        return ending

    def wait_for_lines(self, count: int) -> None:
        """Until so many lines are in the ledger."""
        deadline = time.monotonic() + PATIENCE
        while len(self.lines()) < count:
            assert time.monotonic() < deadline, f"there are never {count} lines"
            time.sleep(0.002)

    def lines(self) -> list[Line]:
        """The ledger."""
        return read_lines(self.folder / "ledger")[0]

    def look(self) -> dict[str, Any]:
        """What is left of the run in its store."""
        answer = self.folder / "look"
        self.start("look", result=str(answer)).expect(Ending.WELL)
        found: dict[str, Any] = json.loads(answer.read_text())
        return found

    def judged(self) -> list[str]:
        """What is wrong with a run that has been executed to its end, besides what is right of every run."""
        left, lines = self.look(), self.lines()
        return [
            *_requests(self.asks, left),
            *_paused(self.asks, lines),
            *_cancelled(self.asks, lines, left),
            *_set(self.asks, lines),
            *_paid_twice(self, lines),
            *self._what_the_store_finds(),
        ]


def _requests(asks: list[Ask], left: dict[str, Any]) -> Iterator[str]:
    """Each was left once, none is open, and each stands in the journal once: of those for the next start, once more."""
    by_author = Counter(each["author"] for each in left["requests"])
    for asked in asks:
        count = by_author[asked.author]
        was_left = asked.answer is not None and asked.answer.get("request") is not None
        if count > 1 or (was_left and not count):
            yield f"{asked.verb} of {asked.author} was left {count} times"
    trail = Counter(each["id"] for each in left["controls"])
    for request in left["requests"]:
        if request["answer"] is None:
            yield f"{request['verb']} of {request['author']} is open"
        entries = [each for each in left["controls"] if each["id"] == request["id"]]
        first = [each for each in entries if each["author"] == request["author"]]
        served = [each for each in entries if each["author"] is None]
        if len(first) != 1 or len(served) > bool(first and first[0].get("later")):
            yield f"{request['verb']} of {request['author']} stands in the journal {trail[request['id']]} times"
        elif first[0]["answer"] != request["answer"]:
            yield f"{request['verb']} was answered {request['answer']}, and the journal says {first[0]['answer']}"
    known = {each["id"] for each in left["requests"]}
    yield from (f"the journal has a request {each} that nobody left" for each in trail if each not in known)


def _begun(lines: list[Line], after: int, until: int) -> list[Line]:
    return [line for line in lines if line.kind == BEGUN and after < line.nanoseconds < until]


def _paused(asks: list[Ask], lines: list[Line]) -> Iterator[str]:
    for number, asked in enumerate(asks):
        if asked.verb == "pause" and asked.is_applied:
            until = next((each.began for each in asks[number:] if each.verb == "unpause"), 1 << 63)
            assert asked.answer is not None
            for line in _begun(lines, asked.answer["at"], until):
                yield f"{line.call} began in process {line.process} while the run was paused"


def _cancelled(asks: list[Ask], lines: list[Line], left: dict[str, Any]) -> Iterator[str]:
    for number, asked in enumerate(asks):
        if asked.verb != "cancel" or not asked.is_applied:
            continue
        assert asked.answer is not None
        for item in asked.arguments[0] if asked.arguments else ():
            again = (each.began for each in asks[number:] if each.verb == "requeue" and item in each.arguments[0])
            for line in _begun(lines, asked.answer["at"], next(again, 1 << 63)):
                if line.call == item:
                    yield f"{item} began in process {line.process} after it was cancelled"
        if not asked.arguments and left["status"] != "cancelled":
            yield f"the run was cancelled, and it is {left['status']}"


def _set(asks: list[Ask], lines: list[Line]) -> Iterator[str]:
    """Of settings, only the number of workers is seen from outside."""
    ended = {(line.call, line.nonce): line.nanoseconds for line in lines if line.kind == DONE}
    for asked in asks:
        if asked.verb != "set" or not asked.is_applied:
            continue
        assert asked.answer is not None
        for line in _begun(lines, asked.answer["at"], 1 << 63):
            beside = [
                other
                for other in lines
                if other.kind == BEGUN
                and other.process == line.process
                and other.nanoseconds < line.nanoseconds < ended.get((other.call, other.nonce), 1 << 63)
            ]
            if len(beside) >= asked.arguments[0]["max-workers"]:
                yield f"{line.call} began in process {line.process} beside {len(beside)} others"


def _paid_twice(desk: Desk, lines: list[Line]) -> Iterator[str]:
    """What was in flight at a crash is made again, and what somebody has asked for; nothing else."""
    requeued = {item for asked in desk.asks if asked.verb == "requeue" for item in asked.arguments[0]}
    times = Counter(line.call for line in lines if line.kind == BEGUN)
    for at, names in desk.recorded:
        for line in _begun(lines, at, 1 << 63):
            if line.call in names:
                yield f"paid twice: {line.call} had succeeded, and process {line.process} began it again"
    again = {call: count - 1 for call, count in times.items() if count > 1 and call not in requeued}
    if sum(again.values()) > desk.crashes * desk.plan["width"]:
        yield f"{again} were made again after {desk.crashes} crashes"
    for item in requeued:
        if times[item] > 2 + desk.crashes:
            yield f"{item} was asked for once, and made {times[item]} times with {desk.crashes} crashes"
