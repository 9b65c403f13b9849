"""Spans of a run that was executed before, from its journal: each with its real times, and with the same ids each time.

An id is a digest of the run, the key of the call, how often the call had been started by then, and the attempt. So
exporting a run twice, or again when it has resumed, sends no span under two ids.

A call that was cut off has no end in the journal. Its span ends when the execution ended that had started it, or when
it is started again, whichever comes first. Calls that are under way have none: they have not ended.

The whole run is one trace, whatever the live one was: its journal knows of all executions. What was recovered from it
or came from a cache has no span here either. A copy of a run has no spans of what it was copied with: those calls were
the other run's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from rh_agents.core._base.executions import Execution
from rh_agents.core._replay.ancestry import addresses_around
from rh_agents.core._replay.identity import again_key
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.ports import RecordedEvent, RunInfo, RunStatus, status_of
from rh_agents.core.redaction import redact, without_secrets
from rh_agents.core.results import OutcomeHeader
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.telemetry import _names as names
from rh_agents.telemetry._context import link_to
from rh_agents.telemetry._words import (
    NOT_WORK,
    OPERATIONS,
    of_actor,
    of_group,
    of_usage,
    sendable,
    sendable_values,
    shown,
)

__all__ = ["PastSpans", "span_id", "trace_id"]

_SCOPE: Final = InstrumentationScope(names.SCOPE, None, names.SCHEMA_URL)
_GROUPS: Final = frozenset({EventType.GROUP_STARTED, EventType.GROUP_ENDING, EventType.GROUP_COMPLETED})
_BILLION: Final = 1_000_000_000


def trace_id(run_id: str, *parts: object) -> int:
    """The id of the trace of a run, or of a part of it that has one of its own."""
    return int.from_bytes(_digest("trace", run_id, parts)[:16], "big") or 1


def span_id(run_id: str, *parts: object) -> int:
    """The id of a span: of a call by its key, its start and its attempt, for instance."""
    return int.from_bytes(_digest("span", run_id, parts)[:8], "big") or 1


def _digest(kind: str, run_id: str, parts: Sequence[object]) -> bytes:
    return sha256(repr((kind, run_id, *parts)).encode("utf-8", "surrogatepass")).digest()


class _Begun:
    """A call or a group that has begun and has not ended as far as the journal has been read."""

    __slots__ = ("about", "attempts", "context", "events", "execution", "links", "number", "parent", "start", "usage")

    def __init__(
        self, about: ExecutionEvent[Any], number: int, context: SpanContext, parent: SpanContext | None, execution: int
    ) -> None:
        self.about = about
        self.number = number
        self.context = context
        self.parent = parent
        self.execution = execution
        self.start = about.timestamp - (about.execution_time or 0.0)  # of some, their end is all that is recorded
        self.attempts: list[_Attempt] = []
        self.events: list[Event] = []
        self.links: list[Link] = []
        self.usage: Usage | None = None


class _Attempt:
    """An attempt that has failed, and after which another one was to come."""

    __slots__ = ("delay", "end", "message", "number", "start")

    def __init__(self, number: int, start: float, end: float, message: str | None, delay: float) -> None:
        self.number = number
        self.start = start
        self.end = end
        self.message = message
        self.delay = delay


class PastSpans:
    """Makes the spans of one run of its journal, which it is given entry by entry.

    Args:
        info: the run.
        resource: what the spans are put down to.
        new_root_over: the members of a group that has more than so many have each a trace of their own.
    """

    def __init__(self, info: RunInfo, resource: Resource, new_root_over: int = 1000) -> None:
        self._info = info
        self._resource = resource
        self._most = new_root_over
        # Of a copy, stores count as the first one what was copied; that took no time.
        known = [each for each in info.executions if each.ended_at is None or each.ended_at > info.created_at]
        self._executions: Sequence[Execution] = known or (Execution(info.created_at),)
        self._is_running = status_of(info) is RunStatus.RUNNING
        self._at = 0
        self._root = self._context(trace_id(info.run_id), span_id(info.run_id))
        self._calls: dict[bytes, _Begun] = {}
        """By the place in the run: the key of the first try."""
        self._groups: dict[str, _Begun] = {}
        self._by_address: dict[str, _Begun] = {}
        self._starts: dict[str, int] = {}
        """How often calls and groups have been started, by key or id; below 0 once there is an outcome."""
        self._bases: dict[bytes, bytes] = {}
        self._links: list[Link] = []
        self._events: list[Event] = []
        self._calls_ended = self._failed = self._retries = self._cached = 0

    # -- what is read --------------------------------------------------------------------------------------------------

    def is_repeated(self, recorded: RecordedEvent) -> bool:
        """Whether an entry reports an outcome of a call that has one, so that it counts for nothing but its price."""
        key = recorded.event.key
        return recorded.has_outcome and key is not None and self._starts.get(key, 0) < 0

    def add(self, recorded: RecordedEvent, header: OutcomeHeader | None) -> Iterator[ReadableSpan]:
        """The next entry of the journal, with the outcome that it reports; gives the spans that end with it."""
        self._go_to(recorded.sequence)
        event = recorded.event
        if self._info.forked_from is not None and event.timestamp < self._info.created_at:
            return
        if event.control is not None:
            self._control(event)
        elif event.event_type in _GROUPS:
            yield from self._group(event)
        elif event.key is not None and event.event_type not in NOT_WORK:
            yield from self._call(bytes.fromhex(event.key), event, header)
        if recorded.has_outcome and event.key is not None:
            self._starts[event.key] = -abs(self._starts.get(event.key, 0)) or -1

    def _go_to(self, sequence: int) -> None:
        """Find the execution that recorded an entry."""
        while self._at + 1 < len(self._executions) and sequence > self._executions[self._at + 1].after:
            self._at += 1
            begins = self._executions[self._at].began_at
            self._events.append(Event(names.EVENT_RESUMED, {names.EXECUTION: self._at + 1}, _ns(begins)))

    def _control(self, event: ExecutionEvent[Any]) -> None:
        """The context of the live trace, or a request that was applied."""
        control: Mapping[str, Any] = event.control or {}
        if control["verb"] == "trace":
            self._links += link_to(control["arguments"].get("context", {}), "live trace")
        else:
            self._events.append(Event(names.EVENT_CONTROL, {names.VERB: str(control["verb"])}, _ns(event.timestamp)))

    def _call(self, key: bytes, event: ExecutionEvent[Any], header: OutcomeHeader | None) -> Iterator[ReadableSpan]:
        status, base = event.execution_status, self._bases.get(key, key)
        if status is ExecutionStatus.STARTED:
            yield from self._cut_off(self._calls.pop(base, None), event.timestamp)
            self._begin_call(key, event)
        elif event.from_cache and event.usage is None and base not in self._calls:
            self._cached += 1
        elif status is not ExecutionStatus.SUPERSEDED:
            begun = self._calls.get(base) or self._begin_call(key, event)
            if event.usage is not None:
                begun.usage = event.usage if begun.usage is None else begun.usage + event.usage
            if status is ExecutionStatus.RETRYING:
                self._retry(begun, event)
            elif status.is_final or status is ExecutionStatus.AWAITING:
                del self._calls[base]
                yield from self._end_call(begun, event, header)
        if status is ExecutionStatus.SUPERSEDED or (header is not None and not header.ok):
            self._bases[again_key(key)] = base  # if it is made again, it has that key

    def _begin_call(self, key: bytes, event: ExecutionEvent[Any]) -> _Begun:
        """It begins now; or, where its end is all that was recorded, at its beginning."""
        run_id, number = self._info.run_id, self._begin(event.key or "")
        group = None if event.group_id is None else self._groups.get(event.group_id)
        around = group or self._around(event.address)
        parent = self._root if around is None else around.context
        own = span_id(run_id, event.key, number)
        if group is not None and self._has_its_own_trace(event):
            begun = _Begun(event, number, self._context(trace_id(run_id, event.key, number), own), None, self._at)
            begun.links.append(Link(parent, {names.LINK: "group"}))
        else:
            begun = _Begun(event, number, self._context(parent.trace_id, own), parent, self._at)
        self._calls[self._bases.get(key, key)] = self._by_address[event.address] = begun
        return begun

    def _begin(self, name: str) -> int:
        """The number of a start of a call or a group, by its key or its id."""
        number = abs(self._starts.get(name, 0)) + 1
        self._starts[name] = number
        return number

    def _has_its_own_trace(self, event: ExecutionEvent[Any]) -> bool:
        total = event.group_total
        return (event.parallel_index or 0) >= self._most or (total is not None and total > self._most)

    def _around(self, address: str) -> _Begun | None:
        """The innermost call or group that is open around an address."""
        for each in addresses_around(address):
            if (begun := self._by_address.get(each)) is not None:
                return begun
        return None

    def _retry(self, begun: _Begun, event: ExecutionEvent[Any]) -> None:
        self._retries += 1
        before = begun.attempts[-1] if begun.attempts else None
        start = begun.start if before is None else min(before.end + before.delay, event.timestamp)
        delay = event.retry_delay or 0.0
        begun.attempts.append(_Attempt(event.attempt, start, event.timestamp, event.message, delay))
        about = {names.ATTEMPT: event.attempt, names.DELAY: delay}
        begun.events.append(Event(names.EVENT_RETRY, about, _ns(event.timestamp)))

    # -- what is made of it --------------------------------------------------------------------------------------------

    def _end_call(
        self, begun: _Begun, event: ExecutionEvent[Any], header: OutcomeHeader | None
    ) -> Iterator[ReadableSpan]:
        around = None if header is None or event.group_id is not None else self._calls.get(header.parent)
        if around is not None and begun.parent is not None and around.context.trace_id == begun.context.trace_id:
            begun.parent = around.context  # surer than the address, which two calls side by side may have in common
        self._calls_ended += event.execution_status is not ExecutionStatus.AWAITING
        self._failed += event.execution_status is ExecutionStatus.FAILED
        yield from self._spans_of(begun, event.timestamp, event.execution_status.value, event)

    def _cut_off(self, begun: _Begun | None, until: float) -> Iterator[ReadableSpan]:
        """A call or a group whose end the journal does not have."""
        if begun is None:
            return
        ended = self._executions[begun.execution].ended_at
        end = min(until, self._info.updated_at if ended is None else ended)
        if begun.about.event_type in _GROUPS:
            yield self._span_of_group(begun, end, None)
        else:
            yield from self._spans_of(begun, end, "unknown", None)

    def _spans_of(
        self, begun: _Begun, end: float, status: str, event: ExecutionEvent[Any] | None
    ) -> Iterator[ReadableSpan]:
        if self._by_address.get(begun.about.address) is begun:
            del self._by_address[begun.about.address]
        yield from self._attempts(begun, end, status, event)
        about, operation = begun.about, OPERATIONS.get(begun.about.event_type)
        attributes: dict[str, Any] = {
            names.RUN_ID: self._info.run_id,
            names.ADDRESS: without_secrets(about.address),
            names.KEY: about.key or "",
            **of_actor(about.actor, operation),
            names.STATUS: status,
        }
        if about.parallel_index is not None:
            attributes[names.INDEX] = about.parallel_index
        if event is not None and event.attempt > 1:
            attributes[names.ATTEMPTS] = event.attempt
        if event is not None and event.waited:
            attributes[names.WAITED] = event.waited
        if begun.usage is not None:
            attributes |= of_usage(begun.usage, is_chat=operation == names.CHAT)
        failed = status == "failed"
        if failed:
            attributes[names.ERROR_TYPE] = _kind_of(event)
        yield self._span(
            shown(about.name or about.actor.name) if operation is None else f"{operation} {shown(about.actor.name)}",
            begun.context,
            begun.parent,
            (begun.start, end),
            attributes,
            _status(failed, None if event is None else event.message),
            begun.events,
            begun.links,
            SpanKind.CLIENT if operation == names.CHAT else SpanKind.INTERNAL,
        )

    def _attempts(
        self, begun: _Begun, end: float, status: str, event: ExecutionEvent[Any] | None
    ) -> Iterator[ReadableSpan]:
        """Those of a call that had several."""
        if not begun.attempts:
            return
        delay: float | None = None
        for each in begun.attempts:
            yield self._span_of_attempt(begun, each, delay, "failed")
            delay = each.delay
        last = begun.attempts[-1]
        start = last.end + last.delay
        has_begun = start <= end if event is None else event.attempt > last.number
        if has_begun:  # else it was cut off while it waited for that attempt
            message, start = None if event is None else event.message, min(start, end)
            yield self._span_of_attempt(begun, _Attempt(last.number + 1, start, end, message, 0.0), delay, status)

    def _span_of_attempt(self, begun: _Begun, attempt: _Attempt, delay: float | None, status: str) -> ReadableSpan:
        attributes: dict[str, Any] = {names.ATTEMPT: attempt.number}
        if delay is not None:
            attributes[names.DELAY] = delay
        failed = status == "failed"
        if failed:
            attributes[names.ERROR_TYPE] = _name_in(attempt.message)
        elif status != "completed":
            attributes[names.STATUS] = status
        own_id = span_id(self._info.run_id, begun.about.key, begun.number, attempt.number)
        own = self._context(begun.context.trace_id, own_id)
        times = (attempt.start, attempt.end)
        state = _status(failed, attempt.message)
        return self._span(f"attempt {attempt.number}", own, begun.context, times, attributes, state)

    def _group(self, event: ExecutionEvent[Any]) -> Iterator[ReadableSpan]:
        group_id = event.group_id or ""
        if event.event_type is EventType.GROUP_STARTED:
            yield from self._cut_off(self._groups.pop(group_id, None), event.timestamp)
            self._begin_group(group_id, event)
        elif event.event_type is EventType.GROUP_COMPLETED:
            begun = self._groups.pop(group_id, None) or self._begin_group(group_id, event)
            self._groups.pop(group_id, None)
            yield self._span_of_group(begun, event.timestamp, event.group, event.message)

    def _begin_group(self, group_id: str, event: ExecutionEvent[Any]) -> _Begun:
        number, around = self._begin(group_id), self._around(event.address)
        parent = self._root if around is None else around.context
        context = self._context(parent.trace_id, span_id(self._info.run_id, group_id, number))
        begun = self._groups[group_id] = _Begun(event, number, context, parent, self._at)
        return begun

    def _span_of_group(
        self, begun: _Begun, end: float, group: ParallelEventGroup | None, message: str | None = None
    ) -> ReadableSpan:
        about = begun.about
        attributes: dict[str, Any] = {
            names.RUN_ID: self._info.run_id,
            names.ADDRESS: without_secrets(about.address),
            names.GROUP_ID: about.group_id or "",
            names.GROUP: about.name,
            **({names.STATUS: "unknown"} if group is None else of_group(group)),
        }
        failed = group is not None and group.status.value == "failed"
        if failed:
            attributes[names.ERROR_TYPE] = _name_in(message)
        times, state = (begun.start, end), _status(failed, message)
        return self._span(f"group {about.name}", begun.context, begun.parent, times, attributes, state)

    def rest(self) -> Iterator[ReadableSpan]:
        """What has no end in the journal, and the run. What is under way is left out: it has no end yet."""
        last, is_running = len(self._executions) - 1, self._is_running
        for begun in [*self._calls.values(), *self._groups.values()]:
            if not (is_running and begun.execution == last):
                yield from self._cut_off(begun, self._info.updated_at)
        if not is_running:
            yield self._span_of_run()

    def _span_of_run(self) -> ReadableSpan:
        info = self._info
        attributes: dict[str, Any] = {
            names.OPERATION: names.INVOKE_WORKFLOW,
            names.RUN_ID: info.run_id,
            names.STATUS: status_of(info).value,
            names.CALLS: self._calls_ended,
            names.FAILED: self._failed,
            names.RETRIES: self._retries,
            names.CACHED: self._cached,
            names.EXECUTIONS: len(self._executions),
        }
        if info.workflow:
            attributes[names.AGENT_NAME] = info.workflow
        if info.epoch:
            attributes[names.EPOCH] = info.epoch
        failed = info.status is ExecutionStatus.FAILED
        if info.reason is not None:
            attributes[names.REASON] = redact(info.reason)
        if failed:
            attributes[names.ERROR_TYPE] = _name_in(info.reason)
        end = info.updated_at if info.ended_at is None else info.ended_at
        name = f"{names.INVOKE_WORKFLOW} {info.workflow or 'run'}"
        times, state = (self._executions[0].began_at, end), _status(failed, info.reason)
        return self._span(name, self._root, None, times, attributes, state, self._events, self._links)

    # -- of OpenTelemetry ----------------------------------------------------------------------------------------------

    @staticmethod
    def _context(trace: int, span: int) -> SpanContext:
        return SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        times: tuple[float, float],
        attributes: Mapping[str, Any],
        status: Status,
        events: Sequence[Event] = (),
        links: Sequence[Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> ReadableSpan:
        start, end = times
        return ReadableSpan(
            name=sendable(name),
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=sendable_values(attributes),
            events=events,
            links=links,
            kind=kind,
            status=status,
            start_time=_ns(start),
            end_time=_ns(max(start, end)),
            instrumentation_scope=_SCOPE,
        )


def _ns(seconds: float) -> int:
    return round(seconds * _BILLION)


def _status(failed: bool, message: str | None) -> Status:
    return Status(StatusCode.ERROR, None if message is None else sendable(redact(message))) if failed else Status()


def _kind_of(event: ExecutionEvent[Any] | None) -> str:
    return _name_in(None if event is None else event.message)


def _name_in(message: str | None) -> str:
    """The class of an error, with which the text that is recorded of it begins."""
    name = (message or "").partition(":")[0]
    return name if name.isidentifier() else "_OTHER"
