"""`rh-agents top`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from rh_agents.cli.commands.common import AsJson, StoreOfRuns, with_store
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.now import Line, LinesRegion
from rh_agents.cli.output.page import Page, Part, table_lines
from rh_agents.cli.output.wording import age
from rh_agents.cli.stores import DEFAULT_STORE
from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunInfo, RunStatus, Store
from rh_agents.core.ports.present import Present, present_of_run
from rh_agents.core.ports.windows import RunQuery, every_run
from rh_agents.display.text import harmless

__all__ = ["Pace", "Seen", "top_command", "top_rows"]

_HEAD = ("RUN", "STATUS", "DONE", "FAILED", "IN FLIGHT", "WAITING", "RATE", "COST", "SEEN")
_RATE_OVER = 30.0
"""Seconds over which a rate is taken."""
_KEYS = 0.1
"""Seconds between two looks at the keyboard."""


def top_command(
    every: Annotated[
        float, typer.Option("--every", min=0.2, metavar="SECONDS", help="How often to look at the runs.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print the table once, and end.")] = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Show all runs that are being executed, in one table that keeps updating. `q` ends it.

    Where there is no terminal, the table is printed once; with --json, a line for each run, once.
    """

    async def show(opened: Store) -> None:
        pace = Pace()
        if as_json:
            for each in await _look(opened, pace):
                sys.stdout.write(json_line("top", _record(each, time.time())))
            return
        if once or not sys.stdout.isatty():
            page = Page()
            for line in _lines(await _look(opened, pace), time.time(), page.width):
                page.line(*line)
            return
        await _watch(opened, pace, every)

    with_store(store, show)


@dataclass(frozen=True, slots=True)
class Seen:
    """A run at one moment.

    Attributes:
        present: what its owner has said; None if nothing is known yet.
        rate: finished calls per second; None if that is not known yet.
        problem: why it could not be read.
    """

    info: RunInfo
    present: Present | None
    rate: float | None = None
    problem: str = ""


@dataclass(slots=True)
class Pace:
    """How many calls of each run finish in a second: what was seen in the last half minute."""

    _seen: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)

    def rate(self, run_id: str, at: float, outcomes: int) -> float | None:
        """Note how many had finished at a moment; the calls per second since the oldest one that counts."""
        seen = self._seen.setdefault(run_id, deque())
        if not seen or at > seen[-1][0]:
            seen.append((at, outcomes))
        while len(seen) > 2 and seen[1][0] <= at - _RATE_OVER:
            seen.popleft()
        seconds = seen[-1][0] - seen[0][0]
        return (seen[-1][1] - seen[0][1]) / seconds if seconds > 0 else None


async def _look(store: Store, pace: Pace) -> list[Seen]:
    """All runs that somebody executes, newest first."""
    live = RunQuery((RunStatus.RUNNING,), with_damaged=True)
    return [await _seen(store, info, pace) async for info in every_run(store, live)]


async def _seen(store: Store, info: RunInfo, pace: Pace) -> Seen:
    if info.damage is not None:
        return Seen(info, None, problem=harmless(info.damage))
    try:
        present = await present_of_run(store, info.run_id)
    except StoreError as error:  # one damaged row does not take the others away
        return Seen(info, None, problem=harmless(str(error)))
    outcomes, at = (info.outcomes, info.updated_at) if present is None else (present.outcomes, present.at)
    return Seen(info, present, pace.rate(info.run_id, at, outcomes))


def top_rows(seen: Sequence[Seen], now: float) -> list[tuple[str, ...]]:
    """The table, with its head."""
    return [_HEAD, *(_row(each, now) for each in seen)]


def _row(seen: Seen, now: float) -> tuple[str, ...]:
    info, present = seen.info, seen.present
    if present is None:
        said = seen.problem or "running", f"{info.outcomes:,}", "", "", "", "", ""
        return (harmless(info.run_id), *said, age(now - info.updated_at) if info.updated_at else "")
    groups = [group for group in present.groups if group.total is not None]
    finished, total = (groups[0].finished, groups[0].total) if groups else (present.outcomes, None)
    waiting = _waiting(present)
    return (
        harmless(info.run_id),
        _status(present, now),
        f"{finished:,}" if total is None else f"{finished:,}/{total:,}",
        f"{present.failed:,}" if present.failed else "",
        f"{present.in_flight:,}",
        f"{waiting:,}" if waiting else "",
        "" if seen.rate is None else f"{seen.rate:,.1f}/s",
        f"${present.usage.cost:,.2f}" if present.usage.cost else "",
        age(now - max(present.at, info.updated_at)),
    )


def _record(seen: Seen, now: float) -> dict[str, Any]:
    """A row for programs. What the owner of the run has not said is None."""
    info, present = seen.info, seen.present
    group = None if present is None else next((each for each in present.groups if each.total is not None), None)
    return {
        "run_id": info.run_id,
        "status": _status(present, now).partition(" ")[0] if present is not None else "running",
        "workflow": info.workflow,
        "owner": info.owner,
        "calls": present.outcomes if present is not None else info.outcomes,
        "done": None if group is None else group.finished,
        "total": None if group is None else group.total,
        "failed": present.failed if present is not None else None,
        "in_flight": present.in_flight if present is not None else None,
        "waiting": _waiting(present) if present is not None else None,
        "usage": present.usage.as_json() if present is not None else {},
        "seen_at": max(present.at, info.updated_at) if present is not None else info.updated_at,
        "problem": seen.problem or None,
    }


def _waiting(present: Present) -> int:
    return sum(each.calls for each in present.waiting) + present.retries


def _status(present: Present, now: float) -> str:
    if present.paused_at is not None:
        return "paused"
    quiet = present.quiet_for(now)
    if quiet is not None:
        return f"quiet {age(quiet)}"
    return f"asking {present.asking}" if present.asking else "running"


def _lines(seen: Sequence[Seen], now: float, width: int | None) -> list[Line]:
    if not seen:
        return [(Part("no run is being executed", "dim"),)]
    head, *lines = table_lines(top_rows(seen, now), width)
    return [(Part(head, "dim"),), *((Part(line, _style(each, now)),) for line, each in zip(lines, seen, strict=True))]


def _style(seen: Seen, now: float) -> str:
    if seen.problem or (seen.present is not None and seen.present.quiet_for(now) is not None):
        return "red"
    return "yellow" if seen.present is not None and seen.present.paused_at is not None else ""


class _TopRegion(LinesRegion):
    """The table at the bottom of the terminal."""

    seen: Sequence[Seen] = ()

    def lines(self) -> Sequence[Line]:
        """The table, as far as there is room."""
        size = shutil.get_terminal_size()
        lines, most = _lines(self.seen, time.time(), size.columns), max(2, size.lines - 3)
        more = [(Part(f"… {len(lines) - most:,} more", "dim"),)] if len(lines) > most else []
        return [*lines[:most], *more, (Part("q ends", "dim"),)]


async def _watch(store: Store, pace: Pace, every: float) -> None:
    """Draw the table until `q` is pressed."""
    region = _TopRegion(sys.stdout)
    region.seen = await _look(store, pace)
    loop = asyncio.get_running_loop()
    with _keys() as pressed, region:
        region.draw()
        due = loop.time() + every
        while not pressed():
            await asyncio.sleep(_KEYS)
            if loop.time() >= due:
                region.seen = await _look(store, pace)
                region.draw()
                due = loop.time() + every


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], bool]]:
    """While the block lasts, keys count without Enter; gives what tells whether `q` was pressed."""
    try:
        import termios  # noqa: PLC0415 - Windows has none; there, Ctrl-C ends it
        import tty  # noqa: PLC0415
    except ImportError:
        yield lambda: False
        return
    if sys.stdin is None or not sys.stdin.isatty():
        yield lambda: False
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    os.set_blocking(descriptor, False)

    def is_over() -> bool:
        try:
            return b"q" in os.read(descriptor, 1024).lower()
        except BlockingIOError:
            return False

    try:
        yield is_over
    finally:
        os.set_blocking(descriptor, True)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
