"""`run(..., tracing=OTel())`: a run as spans of OpenTelemetry. Needs the extra `otel`, and an SDK that exports them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider, get_tracer

from rh_agents.core.errors import DefinitionError
from rh_agents.core.ports.tracing import RunAbout, RunTrace
from rh_agents.telemetry import _names as names
from rh_agents.telemetry._metrics import MeteredRun, meters_of
from rh_agents.telemetry._spans import Details, RunSpans

__all__ = ["Detail", "OTel"]

Detail = Literal["attempts", "calls", "groups"]


class OTel:
    """Tells of runs by spans: of the run, its agents, groups, members, tools and questions to models.

    A span is the current one while the code of its call runs, so what is instrumented there nests below it. What is
    recovered from an earlier execution or comes from a cache has no span; groups and runs say how many calls that were.

    Args:
        tracer_provider: where spans come from; by default the one of the program (`trace.set_tracer_provider`).
        detail: "attempts" makes a span of each attempt of a call that may have several, "calls" none of those, and
            "groups" none of anything within a member of a group.
        new_root_over: the members of a group that has more than so many have each a trace of their own, with a link to
            the group: viewers cannot show a trace of 100,000 spans.
        content: whether spans say what calls were called with and what they returned, without secrets. That may be a
            lot, and it leaves the program.
        recovered: whether the span of a run says of which actors calls were recovered, and how many, as events. It says
            in any case how many there were in all, and a group how many of its members.
        metrics: counts calls, durations, retries, waits, tokens and cost of all calls, with or without spans, for this
            meter provider. True takes the one of the program (`metrics.set_meter_provider`), False counts nothing.
        when_run_ends: is called when the span of a run has ended, for instance to send what waits.

    Raises:
        DefinitionError: there is no such `detail`, or `new_root_over` is below 0.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        detail: Detail = "attempts",
        new_root_over: int = 1000,
        content: bool = False,
        recovered: bool = False,
        metrics: MeterProvider | bool = False,
        when_run_ends: Callable[[], object] | None = None,
    ) -> None:
        if detail not in ("attempts", "calls", "groups"):
            raise DefinitionError(f"detail={detail!r} is not known: it is 'attempts', 'calls' or 'groups'")
        if new_root_over < 0:
            raise DefinitionError(f"new_root_over={new_root_over} is no number of members: give 0 or more")
        self._tracer = get_tracer(names.SCOPE, tracer_provider=tracer_provider, schema_url=names.SCHEMA_URL)
        self._details = Details(detail == "attempts", detail == "groups", new_root_over, content, recovered)
        self._metrics = metrics
        self._when_run_ends = when_run_ends

    def run(self, about: RunAbout) -> RunTrace:
        """Begin to tell of a run."""
        spans = RunSpans(self._tracer, self._details, about, self._when_run_ends)
        if self._metrics is False:
            return spans
        return MeteredRun(spans, meters_of(None if self._metrics is True else self._metrics))
