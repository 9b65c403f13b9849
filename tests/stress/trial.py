"""A trial: one run, executed by one process after another until it ends, and judged by what is left."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stress import databases
from tests.stress.children import PATIENCE, Child, Children
from tests.stress.endings import Ending
from tests.stress.judge import Evidence, findings
from tests.stress.ledger import DONE, Line, read_lines
from tests.stress.work import Plan

__all__ = ["RUN", "SMALL_LOG", "Moment", "Trial", "Undisturbed"]

RUN = "monday"
SMALL_LOG = {"wal_limit": 1 << 15}
"""Settings with which the write-ahead log is often brought into the file, so that crashes hit that too."""


@dataclass(frozen=True)
class Moment:
    """When a process dies: after so many seconds, or when it has written so many lines. Only one of them is given."""

    seconds: float | None = None
    line: int = 0
    acknowledgement: int = 0

    @classmethod
    def draw(cls, chance: random.Random, undisturbed: Undisturbed) -> Moment:
        """A moment at which an undisturbed run would still go on, or end."""
        kind = chance.choice(["seconds", "seconds", "line", "acknowledgement"])
        if kind == "seconds":
            return cls(seconds=chance.uniform(0, 1.1 * undisturbed.seconds))
        if kind == "line":
            return cls(line=chance.randint(1, undisturbed.lines))
        return cls(acknowledgement=chance.randint(1, undisturbed.acknowledgements))


@dataclass(frozen=True)
class Undisturbed:
    """What a run is like when nothing happens to it."""

    result: Any
    seconds: float
    lines: int
    acknowledgements: int

    @classmethod
    def measure(cls, children: Children, folder: Path, plan: Plan, *, workflow: str = "survey") -> Undisturbed:
        """Execute a run of this size to its end. The second of two: the first one warms up the machine."""
        Trial(children, folder / "first", plan, workflow=workflow).live()
        trial = Trial(children, folder / "second", plan, workflow=workflow)
        begin = time.monotonic()
        trial.live()
        seconds = time.monotonic() - begin
        lines, _ = read_lines(trial.folder / "ledger")
        acknowledged, _ = read_lines(trial.folder / "acknowledgements")
        return cls(trial.result(), seconds, len(lines), len(acknowledged))


@dataclass
class Trial:
    """The run and its files.

    Args:
        children: who executes it.
        folder: where its ledger is.
        plan: how large it is.
        store: the URL of its store; by default a database in the folder.
        workflow: which one of `tests.stress.work`.
        options: those of `rh_agents.run`.
        settings: those of the store, if it is a database in a file.
    """

    children: Children
    folder: Path
    plan: Plan
    store: str = ""
    workflow: str = "survey"
    options: dict[str, Any] = field(default_factory=lambda: {"retry_failed": False})
    settings: dict[str, Any] = field(default_factory=dict)
    run_id: str = RUN
    crashes: int = 0
    """How many processes have died while they executed it."""

    power_cuts: dict[int, int] = field(default_factory=dict)
    """By process: when the power was cut under it, by the monotonic clock in nanoseconds."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store = self.store or f"sqlite:///{self.folder}/runs.db"

    @property
    def database(self) -> Path:
        """The database's file, if the store is one."""
        return Path(self.store.removeprefix("sqlite:///").partition("?")[0])

    def start(self, job: str = "run", **more: Any) -> Child:
        """Begin to execute the run, or go on with it."""
        files = {name: str(self.folder / name) for name in ("ledger", "acknowledgements", "result", "log")}
        what = {"workflow": self.workflow, "plan": self.plan, "options": self.options, "settings": self.settings}
        about = {"job": job, "store": self.store, "run_id": self.run_id}
        return self.children.start({**about, **what, **files, **more})

    def start_held(self, job: str = "run", **more: Any) -> Child:
        """The same, but the process waits for `GO` before it does anything."""
        held = self.folder / f"held{next(self._numbers)}"
        child = self.start(job, held=str(held), **more)
        deadline = time.monotonic() + PATIENCE
        while not held.exists():
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.0005)
        return child

    def copy(self, folder: Path) -> Trial:
        """The same run with the same past, elsewhere. Its store must be a database in its folder."""
        shutil.copytree(self.folder, folder)
        copy = Trial(self.children, folder, self.plan, "", self.workflow, self.options, self.settings)
        copy.crashes = self.crashes
        return copy

    def live_until(self, moment: Moment) -> None:
        """Execute the run with a process that is killed at this moment, if it has not ended before."""
        child = self.start(last_line=moment.line, last_acknowledgement=moment.acknowledgement)
        if moment.seconds is not None:
            time.sleep(moment.seconds)
            child.signal(signal.SIGKILL)
        if child.expect(Ending.WELL, Ending.KILLED) is Ending.KILLED:
            self.crashes += 1

    def live(self) -> None:
        """Execute the run to its end."""
        self.start().expect(Ending.WELL)

    def last_error(self) -> str:
        """The last line that a process has written to the log: the error with which it ended."""
        return (self.folder / "log").read_text().rstrip().rpartition("\n")[2]

    def wait_for_line(self, call: str) -> None:
        """Until this call has begun."""
        deadline = time.monotonic() + PATIENCE
        while call not in (line.call for line in read_lines(self.folder / "ledger")[0]):
            assert time.monotonic() < deadline, f"{call} does not begin"
            time.sleep(0.005)

    def findings(self, undisturbed: Undisturbed) -> list[str]:
        """What is wrong with the run, which has been executed to its end."""
        lines, torn_lines = read_lines(self.folder / "ledger")
        acknowledged, torn_acknowledgements = read_lines(self.folder / "acknowledgements")
        lines = [line for line in lines if line.kind == DONE or self._has_happened(line)]
        acknowledged = [line for line in acknowledged if self._has_happened(line)]
        evidence = Evidence(lines, acknowledged, torn_lines + torn_acknowledgements, self.result(), self.crashes)
        found = findings(evidence, undisturbed.result, width=self.plan["width"])
        if self.store.startswith("sqlite:"):
            found += databases.findings(databases.read_sqlite(str(self.database)))
        return found + self._what_the_store_finds()

    def _has_happened(self, line: Line) -> bool:
        """Whether it was before the power cut, if there was one. A process that has no power does nothing any more.

        Ours lives on for a moment, and ext4 may lie to it then: a sync that was under way when the file system was shut
        down, and that failed in its last step, returns without an error.
        """
        return line.nanoseconds < self.power_cuts.get(line.process, line.nanoseconds + 1)

    def _what_the_store_finds(self) -> list[str]:
        answer = self.folder / "check"
        self.start("check", result=str(answer)).expect(Ending.WELL)
        return [f"store.check(): {line}" for line in json.loads(answer.read_text())]

    def result(self) -> Any:
        """What the run returned."""
        return json.loads((self.folder / "result").read_text())
