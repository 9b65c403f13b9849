"""Metrics of runs. They count all calls, also where no spans are made of them.

*Their attributes* are bounded: the actor, the group, the status, the model, the limiter, and of each so many names that
no program comes near by itself. Further ones count as "(other)". Never the run, a key or a text. Where two names come
together (an actor in a group, an actor and its model), there could still be one number times the other. So pairs are
bounded as well: a further one counts for its actor and "(other)".

*Exemplars.* A duration is recorded while the span of its call is the current one, so the SDK keeps the trace of some.

*What it costs.* A duration is recorded by the SDK, which is most of it. What is only counted goes into tables here, and
the SDK asks for these when it exports.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter, get_meter_provider

from rh_agents.core.errors import StopRun
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.ports.tracing import CallAbout, CallSpan, GroupSpan, RunTotals
from rh_agents.core.types import EventType
from rh_agents.telemetry import _names as names
from rh_agents.telemetry._spans import RunSpans
from rh_agents.telemetry._words import NOT_WORK, shown

__all__ = ["MeteredRun", "Meters", "meters_of"]

MOST: Final = 200
"""Different names of actors, of groups, of models and of limiters that get an attribute of their own."""
MOST_PAIRS: Final = 1000
"""Different actors together with a group, and with a model."""
OTHER: Final = "(other)"
_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_COMMITS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_ENTRIES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
Labels = tuple[tuple[str, str], ...]
"""Attributes as a key of tables."""


class _Table:
    """Sums by their attributes, which the SDK asks for when it exports."""

    def __init__(self) -> None:
        self._sums: dict[Labels, float] = {}
        self._lock = threading.Lock()

    def add(self, labels: Labels, amount: float = 1) -> None:
        """So much more."""
        with self._lock:
            self._sums[labels] = self._sums.get(labels, 0) + amount

    def observe(self, _: CallbackOptions) -> Iterable[Observation]:
        """As it stands."""
        with self._lock:
            found = list(self._sums.items())
        return [Observation(amount, dict(labels)) for labels, amount in found]


class Meters:
    """The instruments of one provider, and what is counted for them.

    Args:
        meter: makes them.
        most: how many different names of a kind get an attribute of their own.
        most_pairs: and how many pairs of an actor with another name.
    """

    def __init__(self, meter: Meter, most: int = MOST, most_pairs: int = MOST_PAIRS) -> None:
        self._most = most
        self._most_pairs = most_pairs
        self._seen: dict[str, dict[str, str]] = {}
        self._pairs: dict[str, set[tuple[str, str]]] = {}
        self._meter = meter
        self.calls: _Table = self._table(names.METRIC_CALLS, "{call}", "Calls that have ended.")
        self.runs: _Table = self._table(names.METRIC_RUNS, "{run}", "Executions of runs that have ended.")
        self.retries: _Table = self._table(names.METRIC_RETRIES, "{attempt}", "Attempts after the first one.")
        self.recovered: _Table = self._table(
            names.METRIC_RECOVERED, "{call}", "Calls that were not made: an earlier execution had recorded them."
        )
        self.cached: _Table = self._table(
            names.METRIC_CACHED, "{call}", "Calls that were not made: an equal call had been."
        )
        self.cost: _Table = self._table(names.METRIC_COST, "{currency}", "What calls have cost, as far as prices go.")
        self.in_flight: _Table = _Table()
        meter.create_observable_up_down_counter(
            names.METRIC_IN_FLIGHT, [self.in_flight.observe], "{call}", "Calls under way."
        )
        seconds = {"explicit_bucket_boundaries_advisory": _SECONDS}
        self.duration = meter.create_histogram(
            names.METRIC_DURATION, "s", "How long calls took, with all attempts.", **seconds
        )
        self.waited = meter.create_histogram(
            names.METRIC_WAITED, "s", "How long calls waited for a limit or a budget.", **seconds
        )
        self.chat = meter.create_histogram(names.DURATION, "s", "How long questions to models took.", **seconds)
        self.tokens = meter.create_histogram(
            names.TOKENS, "{token}", "Tokens of questions to models.", explicit_bucket_boundaries_advisory=_TOKENS
        )
        self.batch = meter.create_histogram(
            names.METRIC_BATCH,
            "{entry}",
            "Entries of a run's journal that a store wrote together.",
            explicit_bucket_boundaries_advisory=_ENTRIES,
        )
        self.commit = meter.create_histogram(
            names.METRIC_COMMIT,
            "s",
            "How long transactions of a store took.",
            explicit_bucket_boundaries_advisory=_COMMITS,
        )

    def _table(self, name: str, unit: str, description: str) -> _Table:
        table = _Table()
        self._meter.create_observable_counter(name, [table.observe], unit, description)
        return table

    def bounded(self, attribute: str, name: str) -> str:
        """A name as the value of an attribute, without secrets; "(other)" if there are too many of them already."""
        seen = self._seen.setdefault(attribute, {})
        found = seen.get(name)
        if found is None:
            if len(seen) >= self._most:
                return OTHER
            found = seen[name] = shown(name)
        return found

    def paired(self, actor: str, attribute: str, name: str) -> Labels:
        """The attributes of an actor together with a second name, both of them bounded ones."""
        known = self._pairs.setdefault(attribute, set())
        if (actor, name) not in known:
            if len(known) >= self._most_pairs:
                name = OTHER
            else:
                known.add((actor, name))
        return (names.ACTOR, actor), (attribute, name)

    def committed(self, entries: int, seconds: float) -> None:
        """A store has written entries of a journal."""
        self.batch.record(entries)
        self.commit.record(seconds)


_all: weakref.WeakKeyDictionary[MeterProvider, Meters] = weakref.WeakKeyDictionary()


def meters_of(provider: MeterProvider | None) -> Meters:
    """Those of a provider, by default of the program's: instruments can be made only once."""
    chosen = get_meter_provider() if provider is None else provider
    meters = _all.get(chosen)
    if meters is None:
        meters = _all[chosen] = Meters(get_meter(names.SCOPE, meter_provider=chosen, schema_url=names.SCHEMA_URL))
    return meters


class MeteredRun:
    """One run: counts its calls, and hands on what makes its spans."""

    def __init__(self, spans: RunSpans, meters: Meters) -> None:
        self._spans = spans
        self._meters = meters
        self._groups: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._spans.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spans.__exit__(kind, error, trace)

    @property
    def context(self) -> Mapping[str, str]:
        """What stands for the span of the run."""
        return self._spans.context

    def carrier(self) -> Mapping[str, str]:
        """What stands for the current span."""
        return self._spans.carrier()

    @property
    def committed(self) -> Callable[[int, float], None]:
        """Counts what a store writes."""
        return self._meters.committed

    def give_up(self) -> None:
        """Make no more spans. What has been counted stays right."""
        self._spans.give_up()

    def ended(self, totals: RunTotals) -> None:
        """Count it, and what was not called."""
        self._meters.runs.add(((names.STATUS, totals.status),))
        for actor, count in (totals.recovered_of or {}).items():
            self._meters.recovered.add(((names.ACTOR, self._meters.bounded(names.ACTOR, actor)),), count)
        if totals.cached:
            self._meters.cached.add((), totals.cached)
        self._spans.ended(totals)

    def group(self, group: ParallelEventGroup) -> GroupSpan | None:
        """Know the name of a group."""
        self._groups[group.group_id] = self._meters.bounded(names.GROUP, group.name)
        return self._spans.group(group)

    def call(self, call: CallAbout) -> CallSpan | None:
        """Count a call."""
        spans = self._spans.call(call)
        if call.actor.event_type in NOT_WORK or self._spans.is_off:
            return spans
        return MeteredCall(self._meters, call, spans, self._groups.get(call.innermost_group or "", ""))


class MeteredCall:
    """A call that is counted, and of which a span may be made."""

    __slots__ = ("_actor", "_began", "_call", "_meters", "_spans", "_where")

    def __init__(self, meters: Meters, call: CallAbout, spans: CallSpan | None, group: str) -> None:
        self._meters = meters
        self._call = call
        self._spans = spans
        self._where = meters.paired(meters.bounded(names.ACTOR, call.actor.name), names.GROUP, group)
        self._actor = self._where[0]
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._meters.in_flight.add((self._actor,))
        if self._spans is not None:
            self._spans.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._meters.in_flight.add((self._actor,), -1)
        try:
            self._count(error)  # while the span is the current one: so the SDK finds its trace
        finally:
            if self._spans is not None:
                self._spans.__exit__(kind, error, trace)

    def _count(self, error: BaseException | None) -> None:
        meters, call = self._meters, self._call
        labels = (*self._where, (names.STATUS, _status(call, error)))
        seconds = time.perf_counter() - self._began
        meters.calls.add(labels)
        meters.duration.record(seconds, dict(labels))
        if call.usage is not None:
            self._count_usage(seconds)

    def _count_usage(self, seconds: float) -> None:
        meters, call, usage = self._meters, self._call, self._call.usage
        assert usage is not None
        spender: Labels = (self._actor,)
        if call.actor.event_type is EventType.LLM_CALL:
            name = meters.bounded(names.REQUEST_MODEL, str(getattr(call.actor, "model", call.actor.name)))
            model = {names.OPERATION: names.CHAT, names.REQUEST_MODEL: name}
            meters.chat.record(seconds, model)
            meters.tokens.record(usage.input_tokens, {**model, names.TOKEN_TYPE: "input"})
            meters.tokens.record(usage.output_tokens, {**model, names.TOKEN_TYPE: "output"})
            spender = meters.paired(self._actor[1], names.REQUEST_MODEL, name)
        if usage.cost:
            meters.cost.add(spender, usage.cost)

    def attempt(self, number: int) -> AbstractContextManager[Any] | None:
        """A span for it, if there are any."""
        return None if self._spans is None else self._spans.attempt(number)

    def retries(self, seconds: float) -> None:
        """Count it."""
        self._meters.retries.add(self._where)
        if self._spans is not None:
            self._spans.retries(seconds)

    def waited(self, limiter: str, why: str, seconds: float) -> None:
        """Count it. (What did not have to wait says so as well.)"""
        if seconds > 0:
            self._meters.waited.record(seconds, {names.LIMITER: self._meters.bounded(names.LIMITER, limiter)})
        if self._spans is not None:
            self._spans.waited(limiter, why, seconds)


def _status(call: CallAbout, error: BaseException | None) -> str:
    if call.result is not None:
        return "completed" if call.result.ok else "failed"
    if isinstance(error, Exception):
        return "failed"
    return "awaiting" if isinstance(error, StopRun) else "cancelled"
