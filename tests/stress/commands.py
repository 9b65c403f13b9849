"""Commands that copy, erase or delete a run, killed in their middle, and the judge of what they leave.

What a command has printed must be true, other runs must be as they were, and the same command, given once more, must
finish what was begun, or say why it cannot.
"""

from __future__ import annotations

import itertools
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.stress.children import PATIENCE, Child
from tests.stress.endings import GO, Ending
from tests.stress.judge import calls_in, without_nonces
from tests.stress.ledger import BEGUN, read_lines
from tests.stress.trial import RUN, Trial
from tests.stress.work import Plan

__all__ = [
    "COPIES",
    "EDITED",
    "KEPT",
    "NEW",
    "PLAN",
    "REMOVALS",
    "Case",
    "Copy",
    "Kill",
    "PageCase",
    "after",
    "prepared",
]

PLAN: Plan = {"pages": 96, "chapters": 4, "steps": 2, "width": 8, "text": 100, "large": 24, "slow": 0}
"""More than 200 events, so that they are deleted in several transactions, and some large results."""
KEPT = "kept"
"""A copy of the run, with which it has its large results in common."""
NEW = "new"
"""The name of the copies that are made while somebody is killed."""
EDITED = "book::pages[0]::page", {"call": "page:0", "nonce": "edited", "text": "another one"}
"""A call, and what it is to have returned."""

COPIES = {
    "fork": ("fork", RUN, NEW),
    "fork and repeat a call": ("fork", RUN, NEW, "--at", EDITED[0]),
    "fork with an edited result": ("fork", RUN, NEW, "--at", EDITED[0], "--result", json.dumps(EDITED[1])),
}
REMOVALS = {"erase": ("erase", RUN, "--values", "--yes"), "delete": ("delete", RUN, "--yes")}
_CLAIMS = {"fork": "a copy with", "erase": "has lost its values", "delete": "1 run deleted"}
"""What a command prints when it has succeeded."""
_IMPORTS = ("rh_agents.cli.app", *(f"rh_agents.cli.commands.{name}" for name in (*_CLAIMS, "web")))

Kill = Callable[[Child], None]
"""Lets a process go on that is held, and kills it."""
_numbers = itertools.count()


def after(seconds: float) -> Kill:
    """Kill it when it has worked for so long, unless it has ended."""

    def kill(child: Child) -> None:
        child.signal(GO)
        if child.ends_within(seconds) is None:
            child.signal(signal.SIGKILL)

    return kill


def give(trial: Trial, words: tuple[str, ...], **more: Any) -> tuple[Child, Path]:
    """Begin a command, in a process that is held. What it prints goes to a file."""
    said = trial.folder / f"said{next(_numbers)}"
    said.touch()
    given = [*words, "--store", trial.store]
    return trial.start_held("command", words=given, said=str(said), imports=_IMPORTS, **more), said


def prepared(trial: Trial, *, has_copy: bool = True) -> Trial:
    """A trial whose run has ended, with a copy of it if that is wanted."""
    trial.live()
    if has_copy:
        child, _ = give(trial, ("fork", RUN, KEPT))
        child.signal(GO)
        child.expect(Ending.WELL)
    return trial


@dataclass(frozen=True)
class Copy:
    """A copy as it is: what is recorded of it, what it returns, and what is called for that."""

    recorded: dict[str, Any]
    result: Any
    made: Counter[str]
    replayed: frozenset[tuple[str, str]]
    """The name and nonce of the calls that were not made again."""


@dataclass
class Case:
    """One command that is given for the run of a trial.

    Attributes:
        trial: where the run is.
        words: the command.
    """

    trial: Trial
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        self._before = {run_id: self.look(run_id) for run_id in (RUN, KEPT)}
        self._result = self.trial.result()
        self.was_killed = False

    def undisturbed(self) -> float:
        """Give the command; returns how many seconds it took."""
        took = 0.0

        def kill(child: Child) -> None:
            nonlocal took
            begun = time.monotonic()
            child.signal(GO)
            child.wait()
            took = time.monotonic() - begun

        assert self.killed(kill)
        return took

    def killed(self, kill: Kill) -> bool:
        """Give the command, and kill it; returns whether it claimed to have succeeded."""
        child, said = give(self.trial, self.words)
        kill(child)
        self.was_killed = child.expect(Ending.WELL, Ending.KILLED) is Ending.KILLED
        claims = _CLAIMS[self.words[0]] in said.read_text()
        assert claims or self.was_killed, said.read_text()
        return claims

    def again(self) -> str:
        """Give the command once more; returns what it said if it did not end well."""
        child, said = give(self.trial, self.words)
        child.signal(GO)
        ending = child.expect(Ending.WELL, Ending.FAILED)
        return "" if ending is Ending.WELL else said.read_text()

    def look(self, run_id: str) -> dict[str, Any]:
        """What is recorded of a run."""
        answer = self.trial.folder / "look"
        self.trial.start("look", run_id=run_id, result=str(answer)).expect(Ending.WELL)
        found = json.loads(answer.read_text())
        return {name: found.get(name) for name in ("status", "erased", "outcomes", "values")}

    def copy(self) -> Copy:
        """The copy, which is executed to its end."""
        recorded = self.look(NEW)
        result, made = self._executed(NEW)
        replayed = frozenset(each for each in calls_in(result) if each[0] not in made)
        return Copy(recorded, without_nonces(result), made, replayed)

    def _executed(self, run_id: str) -> tuple[Any, Counter[str]]:
        before = self._begun()
        answer = self.trial.folder / "executed"
        self.trial.start(run_id=run_id, result=str(answer)).expect(Ending.WELL)
        return json.loads(answer.read_text()), self._begun() - before

    def _begun(self) -> Counter[str]:
        return Counter(line.call for line in read_lines(self.trial.folder / "ledger")[0] if line.kind == BEGUN)

    def left_of_copy(self, expected: Copy, *, claims: bool) -> Iterator[str]:
        """What is wrong when somebody who copied was killed: the copy is whole, or can be made."""
        refused = self.again()
        if claims and not refused:
            yield "it claimed a copy, and there was none"
        if refused and f"run {NEW!r} already" not in refused:
            yield f"no copy can be made: {refused}"
        elif self.copy() != expected:
            yield f"the copy is another one: {self.look(NEW)}"
        yield from self._lost(RUN, KEPT)

    def left_of_erased(self, *, claims: bool) -> Iterator[str]:
        """What is wrong when somebody who erased was killed: the run is whole, or says that it is being erased."""
        left = self.look(RUN)
        if claims and left["erased"] is not True:
            yield "it claimed to have erased the values"
        yield from self._whole_or_refused(left)
        yield from filter(None, [self.again()])
        wanted = self._before[RUN] | {"erased": True, "values": []}
        if self.look(RUN) != wanted:
            yield f"it was erased again, and is {self.look(RUN)}"
        yield from self._refused()
        yield from self._lost(KEPT)

    def left_of_deleted(self, *, claims: bool) -> Iterator[str]:
        """What is wrong when somebody who deleted was killed: the run is whole, refused, or gone."""
        left = self.look(RUN)
        if claims and left["status"] is not None:
            yield "it claimed to have deleted the run"
        yield from self._whole_or_refused(left)
        refused = self.again()
        if refused and (left["status"] is not None or f"there is no run {RUN!r}" not in refused):
            yield f"it cannot be deleted again: {refused}"
        if self.look(RUN)["status"] is not None:
            yield f"it was deleted again, and is {self.look(RUN)}"
        yield from self._lost(KEPT)

    def _whole_or_refused(self, left: dict[str, Any]) -> Iterator[str]:
        if left["status"] is None:
            return
        if left["erased"] is None:
            yield from self._lost(RUN)
        else:
            yield from self._refused()

    def _refused(self) -> Iterator[str]:
        ending = self.trial.start().expect(Ending.WELL, Ending.STORE_ERROR)
        if ending is Ending.WELL or "cannot be resumed" not in self.trial.last_error():
            yield f"it is executed without its values: {self.trial.last_error()}"

    def _lost(self, *run_ids: str) -> Iterator[str]:
        """What other runs have lost: each is as it was, and replays without a call."""
        for run_id in run_ids:
            before = self._before[run_id]
            if before["status"] is None:
                continue
            if self.look(run_id) != before:
                yield f"{run_id} has become {self.look(run_id)}"
            result, made = self._executed(run_id)
            if result != self._result or made:
                yield f"{run_id} replays differently, and made {made}"
            self._before[run_id] = self.look(run_id)  # a copy that is executed to its end has another status
        yield from self.trial._what_the_store_finds()


@dataclass
class PageCase(Case):
    """The same of the page's action: a process that serves the page, which a browser asks for a copy.

    Attributes:
        seconds: when the page is killed, from the moment at which it is asked; None if it is not.
    """

    seconds: float | None = None

    def undisturbed(self) -> float:
        """Ask for a copy; returns how many seconds that took."""
        with self._page() as (child, client):
            begun = time.monotonic()
            done, text = self._asked(client, child, None)
            took = time.monotonic() - begun
        assert done, text
        return took

    def killed(self, kill: Kill) -> bool:
        """Ask for a copy, and kill the page after `seconds`, not by `kill`: it works only when it is asked."""
        with self._page() as (child, client):
            done, _ = self._asked(client, child, self.seconds)
        self.was_killed = not done
        return done

    def again(self) -> str:
        """Ask another page for the same copy; returns why it was refused."""
        with self._page() as (child, client):
            done, text = self._asked(client, child, None)
        return "" if done else text

    @contextmanager
    def _page(self) -> Iterator[tuple[Child, httpx2.Client]]:
        """A page, and a browser that it has let in."""
        private = self.trial.folder / "private"
        private.mkdir(mode=0o700, exist_ok=True)
        child, said = give(self.trial, ("web",), environment={"XDG_RUNTIME_DIR": str(private)})
        child.signal(GO)
        deadline = time.monotonic() + PATIENCE
        while not said.read_text().endswith("\n"):
            assert time.monotonic() < deadline, "the page is not served"
            time.sleep(0.005)
        address = httpx2.URL(said.read_text().strip())
        try:
            with httpx2.Client(
                base_url=str(address.copy_with(query=None)), trust_env=False, timeout=PATIENCE
            ) as client:
                assert client.get("/", params=dict(address.params)).status_code == httpx2.codes.OK
                yield child, client
        finally:
            child.kill()

    def _asked(self, client: httpx2.Client, page: Child, seconds: float | None) -> tuple[bool, str]:
        """Whether a copy was made, and what was said of it. With `seconds`, the page is killed after so long."""
        body = {"run": RUN, "verb": "fork", "new": NEW, "address": EDITED[0], "result": EDITED[1]}
        headers = {"origin": str(client.base_url).rstrip("/")}
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(client.post, "/api/act", json=body, headers=headers)
            if seconds is not None:
                wait([asking], seconds)
                page.signal(signal.SIGKILL)
            try:
                answer = asking.result()
            except httpx2.TransportError as error:
                return False, str(error)
        return answer.status_code == httpx2.codes.OK, answer.text
