"""What a run has done so far, in numbers."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from shlex import quote

from rh_agents.core._base.latency import LatencySummary
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.redaction import redact
from rh_agents.core.results import ResultCounts
from rh_agents.core.usage import Spending

__all__ = ["ActorMetrics", "RunMetrics"]

_GROUPS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class ActorMetrics:
    """The calls of one actor that have ended. `retries` are attempts after the first; `latency` leaves replays out."""

    calls: int
    failed: int
    replayed: int
    retries: int
    latency: LatencySummary


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """A run at one moment: its actors by name, and its groups (the last 1,000) in the order in which they ended."""

    actors: Mapping[str, ActorMetrics]
    groups: tuple[ParallelEventGroup, ...]

    @property
    def calls(self) -> int:
        """How many calls of actors have ended."""
        return sum(actor.calls for actor in self.actors.values())

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return sum(actor.failed for actor in self.actors.values())

    @property
    def replayed(self) -> int:
        """How many of them were taken from an earlier execution of the run."""
        return sum(actor.replayed for actor in self.actors.values())

    @property
    def retries(self) -> int:
        """How many attempts there were after first ones."""
        return sum(actor.retries for actor in self.actors.values())


def html_of_run(
    run_id: str, status: str, metrics: RunMetrics, spent: Spending, seconds: float | None, store: str | None
) -> str:
    """A run as a small table for notebooks. Texts are escaped, and without secrets.

    Args:
        seconds: how long this execution has taken; None if it has not begun.
        store: where it is recorded, as `--store` takes it; None if no command finds it there.
    """
    replayed = f" ({metrics.replayed:,} of them from earlier executions)" if metrics.replayed else ""
    about = {
        "run": run_id,
        "status": status,
        "done": f"{metrics.calls:,} calls{replayed}",
        "failed": f"{metrics.failed:,}" if metrics.failed else "",
        "spent": str(spent) if spent.usage else "",
        "time": "" if seconds is None else f"{seconds:,.1f} s",
        "look": "" if store is None else f"rh-agents show {quote(run_id)} --store {quote(store)}",
    }
    rows = [_row(name, text) for name, text in about.items() if text]
    return f"<table>{''.join(rows)}</table>"


def _row(name: str, text: str) -> str:
    left = ' style="text-align:left"'
    return f"<tr><th{left}>{escape(name)}</th><td{left}>{escape(redact(text))}</td></tr>"


class RunCounter:
    """Counts as the run goes on.

    Attributes:
        actors: how the calls of each actor have ended, by its name. Who ends a call adds its result.
    """

    def __init__(self) -> None:
        self.actors: defaultdict[str, ResultCounts] = defaultdict(ResultCounts)
        self._groups: deque[ParallelEventGroup] = deque(maxlen=_GROUPS_KEPT)

    @property
    def calls(self) -> int:
        """How many calls of actors have ended."""
        return sum(counts.calls for counts in self.actors.values())

    @property
    def cached(self) -> int:
        """How many of them had the result of an equal one, of this or of another run."""
        return sum(counts.cached for counts in self.actors.values())

    def count_group(self, group: ParallelEventGroup) -> None:
        """A group has ended."""
        self._groups.append(group)

    def snapshot(self) -> RunMetrics:
        """The numbers now."""
        actors = {
            name: ActorMetrics(counts.calls, counts.failed, counts.replayed, counts.retries, counts.latency.summary())
            for name, counts in self.actors.items()
        }
        return RunMetrics(actors, tuple(self._groups))
