"""The spans of one run. Whatever is told of here is told once, where it happens, with its parent in the context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from opentelemetry.context import Context, get_current, set_value
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)

from rh_agents.core.chat.messages import ChatResponse
from rh_agents.core.errors import StopRun
from rh_agents.core.groups import GroupStatus, ParallelEventGroup
from rh_agents.core.ports.tracing import CallAbout, RunAbout, RunTotals
from rh_agents.core.redaction import redact, without_secrets
from rh_agents.core.results import describe_error
from rh_agents.core.types import RecordInputs
from rh_agents.core.values.inputs import recorded_input
from rh_agents.telemetry import _names as names
from rh_agents.telemetry._context import Block, carrier, link_to, recorded
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

_RUN = "rh_agents.run"
"""Where a context says of which run the spans in it are."""


class Details(NamedTuple):
    """How much is told; see `OTel`."""

    attempts: bool
    groups_only: bool
    new_root_over: int
    content: bool
    recovered: bool


class RunSpans:
    """One run. Its block has the run's span; each span that is begun says for itself what is around it."""

    def __init__(
        self, tracer: Tracer, details: Details, about: RunAbout, when_ended: Callable[[], object] | None = None
    ) -> None:
        self._tracer = tracer
        self._details = details
        self._about = about
        self._run_id = sendable(about.run_id)
        self._when_ended = when_ended
        self._root: Block | None = None
        self._span: Span = INVALID_SPAN
        self._is_unwanted = False
        self.is_off: bool = False

    # -- the run ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        about, around = self._about, get_current()
        name = about.workflow or "run"
        attributes: dict[str, Any] = {names.OPERATION: names.INVOKE_WORKFLOW, names.RUN_ID: about.run_id}
        if about.workflow:
            attributes[names.AGENT_NAME] = about.workflow
        if about.epoch:
            attributes[names.EPOCH] = about.epoch
        links = link_to(about.earlier, "earlier start")
        if links:  # what is around this start was not around the first one
            outer = get_current_span(around).get_span_context()
            if outer.is_valid and about.is_resumed:
                links.append(Link(outer, {names.LINK: "caller"}))
                around = set_span_in_context(INVALID_SPAN, around)
        outer = get_current_span(around).get_span_context()
        self._is_unwanted = outer.is_valid and not outer.trace_flags.sampled
        self._span = self._tracer.start_span(
            sendable(f"{names.INVOKE_WORKFLOW} {name}"),
            context=around,
            attributes=sendable_values(attributes),
            links=links,
        )
        self._root = Block(set_value(_RUN, self, set_span_in_context(self._span, around)))
        self._root.enter()
        return self

    def ended(self, totals: RunTotals) -> None:
        """Say on the span what the run came to."""
        span = self._span
        if self.is_off or not span.is_recording():
            return
        counts = {
            names.CALLS: totals.calls,
            names.FAILED: totals.failed,
            names.RETRIES: totals.retries,
            names.RECOVERED: totals.recovered,
            names.CACHED: totals.cached,
        }
        span.set_attributes({names.STATUS: totals.status, **counts})
        for actor, count in (totals.recovered_of or {}).items() if self._details.recovered else ():
            span.add_event(
                names.EVENT_RECOVERED, {names.ACTOR: sendable(without_secrets(actor)), names.RECOVERED: count}
            )
        if totals.reason is not None:
            span.set_attribute(names.REASON, sendable(redact(totals.reason)))
        if totals.status == "failed":
            _fail(span, totals.error, totals.reason)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._root is not None:
            self._root.leave()
        if not self.is_off:
            self._span.end()
            if self._when_ended is not None:
                self._when_ended()

    def give_up(self) -> None:
        """Make no more spans, and end none."""
        self.is_off = True

    @property
    def context(self) -> Mapping[str, str]:
        """What stands for the span of the run, if it is sampled."""
        is_known = self._root is not None and self._span.get_span_context().trace_flags.sampled
        return recorded(self._root.context) if self._root is not None and is_known else {}

    @property
    def committed(self) -> None:
        """There are no spans of that."""
        return None

    def carrier(self) -> Mapping[str, str]:
        """What stands for the current span."""
        return carrier()

    # -- what is in it ------------------------------------------------------------------------------------------------

    def _around(self) -> Context:
        """What is around a span that begins now.

        Code may begin a call where nothing is known of the run: in a thread of its own, or by the state of the run.
        """
        current = get_current()
        if self._root is not None and current.get(_RUN) is not self:
            return self._root.context
        return current

    def _is_dropped(self, context: Context) -> bool:
        """Whether the trace of a context is not sampled: then nothing below is, and nothing need be made for it."""
        span = get_current_span(context)
        if span.is_recording():
            return False
        around = span.get_span_context()
        if around.is_valid:
            return not around.trace_flags.sampled
        return self._root is not None  # there is no SDK

    def group(self, group: ParallelEventGroup) -> GroupSpans | None:
        """A span for a group that is being opened."""
        if self.is_off or (self._details.groups_only and group.parent_group_id is not None):
            return None
        context = self._around()
        if self._is_dropped(context):
            return None
        attributes: dict[str, Any] = {
            names.RUN_ID: self._about.run_id,
            names.ADDRESS: without_secrets(group.address),
            names.GROUP_ID: group.group_id,
            names.GROUP: group.name,
            names.GROUP_WORKERS: group.max_workers,
        }
        span = self._tracer.start_span(
            sendable(f"group {group.name}"), context=context, attributes=sendable_values(attributes)
        )
        return GroupSpans(self, span, context)

    def call(self, call: CallAbout) -> CallSpans | None:
        """A span for a call that is about to be made."""
        kind = call.actor.event_type
        if self.is_off or kind in NOT_WORK or (self._details.groups_only and call.innermost_group is not None):
            return None
        context, links = self._around(), None
        if self._has_its_own_trace(call):
            if self._root is not None and (self._is_unwanted or not self._span.get_span_context().is_valid):
                return None  # whoever called the run wants no spans of it, or there is no SDK
            group = get_current_span(context).get_span_context()
            links = [Link(group, {names.LINK: "group"})] if group.is_valid else None
            context = set_span_in_context(INVALID_SPAN, context)
        elif self._is_dropped(context):
            return None
        operation = OPERATIONS.get(kind)
        span = self._tracer.start_span(
            shown(call.name or call.actor.name) if operation is None else f"{operation} {shown(call.actor.name)}",
            context=context,
            kind=SpanKind.CLIENT if operation == names.CHAT else SpanKind.INTERNAL,
            attributes=self._attributes(call, operation),
            links=links,
        )
        return CallSpans(self, span, context, call, operation)

    def _has_its_own_trace(self, call: CallAbout) -> bool:
        if call.index is None or call.group_id is None:
            return False
        most, total = self._details.new_root_over, None if call.among is None else call.among.total
        return call.index >= most or (total is not None and total > most)

    def _attributes(self, call: CallAbout, operation: str | None) -> dict[str, Any]:
        found = of_actor(call.actor, operation)
        found[names.RUN_ID] = self._run_id
        found[names.ADDRESS] = shown(call.address)
        if call.key is not None:
            found[names.KEY] = call.key.hex()
        if call.index is not None:
            found[names.INDEX] = call.index
        if self._details.content and call.given is not None:
            name = names.TOOL_ARGUMENTS if operation == names.EXECUTE_TOOL else names.INPUT
            found[name] = sendable(redact(recorded_input(call.given, RecordInputs.FULL, ok=True)))
        return found

    def attempt(self, number: int, context: Context) -> AttemptSpans | None:
        """A span for an attempt of a call that may have several."""
        if self.is_off or not self._details.attempts:
            return None
        span = self._tracer.start_span(f"attempt {number}", context=context, attributes={names.ATTEMPT: number})
        return AttemptSpans(self, span, context)

    @property
    def has_content(self) -> bool:
        """Whether spans say what calls were called with, and what they returned."""
        return self._details.content


class _Spanned:
    """A block with a span."""

    __slots__ = ("_block", "_run", "span")

    def __init__(self, run: RunSpans, span: Span, around: Context) -> None:
        self._run = run
        self.span: Span = span
        self._block = Block(set_span_in_context(span, around))

    def __enter__(self) -> Self:
        self._block.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block.leave()
        if self._run.is_off:
            return
        try:
            if self.span.is_recording():
                self.tell(error)
        finally:
            self.span.end()

    def tell(self, error: BaseException | None) -> None:
        """Say on the span what came of it."""


class GroupSpans(_Spanned):
    """A group."""

    __slots__ = ()

    def ended(self, group: ParallelEventGroup, reason: str | None) -> None:
        """Say on the span what the group came to."""
        span = self.span
        if self._run.is_off or not span.is_recording():
            return
        span.set_attributes(of_group(group))
        if group.status is GroupStatus.FAILED:
            _fail(span, None, reason)


class AttemptSpans(_Spanned):
    """An attempt."""

    __slots__ = ()

    def tell(self, error: BaseException | None) -> None:
        """How it failed, if it did."""
        if isinstance(error, Exception):
            _fail(self.span, type(error), describe_error(error))
        elif error is not None:
            self.span.set_attribute(names.STATUS, "awaiting" if isinstance(error, StopRun) else "cancelled")


class CallSpans(_Spanned):
    """A call."""

    __slots__ = ("_call", "_delay", "_operation")

    def __init__(self, run: RunSpans, span: Span, around: Context, call: CallAbout, operation: str | None) -> None:
        super().__init__(run, span, around)
        self._call = call
        self._operation = operation
        self._delay: float | None = None

    def attempt(self, number: int) -> AttemptSpans | None:
        """A span for an attempt; it says how long was waited before it."""
        if not self.span.is_recording():
            return None
        block = self._run.attempt(number, self._block.context)
        if block is not None and self._delay is not None:
            block.span.set_attribute(names.DELAY, self._delay)
        return block

    def retries(self, seconds: float) -> None:
        """The attempt has failed, and another one follows."""
        self._delay = seconds
        if not self._run.is_off:
            self.span.add_event(names.EVENT_RETRY, {names.ATTEMPT: self._call.attempts, names.DELAY: seconds})

    def waited(self, limiter: str, why: str, seconds: float) -> None:
        """It has waited for something before it could go on."""
        if seconds > 0 and not self._run.is_off:
            about: dict[str, Any] = {
                names.LIMITER: without_secrets(limiter),
                names.REASON: redact(why),
                names.SECONDS: seconds,
            }
            self.span.add_event(names.EVENT_WAITED, sendable_values(about))

    def tell(self, error: BaseException | None) -> None:
        """What came of the call, and what it has used."""
        span, call, result = self.span, self._call, self._call.result
        if call.attempts > 1:
            span.set_attribute(names.ATTEMPTS, call.attempts)
        if call.usage is not None:
            span.set_attributes(of_usage(call.usage, is_chat=self._operation == names.CHAT))
        if result is None:
            self._tell_of_no_result(error)
        elif result.ok:
            span.set_attribute(names.STATUS, "completed")
            self._tell_of_value(result.result)
        else:
            span.set_attribute(names.STATUS, "failed")
            _fail(span, None if result.error is None else type(result.error), result.error_message)

    def _tell_of_no_result(self, error: BaseException | None) -> None:
        if isinstance(error, Exception):  # it was refused before it began, or could not be recorded
            self.span.set_attribute(names.STATUS, "failed")
            _fail(self.span, type(error), describe_error(error))
        else:
            self.span.set_attribute(names.STATUS, "awaiting" if isinstance(error, StopRun) else "cancelled")

    def _tell_of_value(self, value: Any) -> None:
        if isinstance(value, ChatResponse) and value.model:
            self.span.set_attribute(names.RESPONSE_MODEL, shown(value.model))
        if self._run.has_content:
            name = names.TOOL_RESULT if self._operation == names.EXECUTE_TOOL else names.OUTPUT
            text = redact(recorded_input(lambda: value, RecordInputs.FULL, ok=True))
            self.span.set_attribute(name, sendable(text))


def _fail(span: Span, kind: type[BaseException] | None, message: str | None) -> None:
    span.set_attribute(names.ERROR_TYPE, "_OTHER" if kind is None else kind.__qualname__)
    span.set_status(Status(StatusCode.ERROR, None if message is None else sendable(redact(message))))
