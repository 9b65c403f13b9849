"""The names under which classes of ours are recorded, and the fields that have always been.

A class is recorded by name: in the canonical input of a call, from which its key is made
(`rh_agents.core.values.inputs`), in stored values (`rh_agents.core.values`) and in stored errors. These names are
data of every journal that exists, so they do not change when code does:

- **A class that moves** keeps its recorded name. Its line here stays, and `MOVED` gets one: where it is now, and under
  which name it is recorded. That works in both directions: what is written has the old name, and what is read finds the
  class where it is.
- **A new field** needs nothing, but for a default. It is no part of `FIELDS`, so it is written only where its value
  differs from its default: what is recorded today keeps its key, and is read with the default. A name is never added to
  a line of `FIELDS` that exists. A field that has no default is always written: that changes keys.
- **A new class** gets a line, with all of its fields.

Classes of users are recorded by the module and the name that they have, with all fields: they have a `version=` of the
actor to say that something has changed. What they inherit from a class of ours follows the rules above.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from pydantic import BaseModel

__all__ = [
    "FIELDS",
    "MOVED",
    "OTHERS",
    "Form",
    "PlainInt",
    "form_of",
    "is_default",
    "recorded_name",
    "renamed",
    "where",
]

MOVED: dict[str, str] = {
    "rh_agents.core.policies.sharing.windows.RateWindow": "rh_agents.core.ports.RateWindow",
    "rh_agents.core.ports.executors.CallContext": "rh_agents.core.ports.CallContext",
    "rh_agents.core.ports.keeping.StoreOf": "rh_agents.core.ports.keeping.StoreOf",
    "rh_agents.core.ports.RunStatus": "rh_agents.core.ports.run_status.RunStatus",
    "rh_agents.core.policies.limits.RateLimitHint": "rh_agents.core.policies.limits.Advice",
    "rh_agents.cli.errors.OutputClosed": "rh_agents.cli.outputs.OutputClosed",
    "rh_agents.cli.errors.OutputFailed": "rh_agents.cli.outputs.OutputFailed",
    "rh_agents.core._base.latency.LatencyHistogram": "rh_agents.core.statistics.LatencyHistogram",
    "rh_agents.core._base.latency.LatencySummary": "rh_agents.core.statistics.LatencySummary",
    "rh_agents.core._replay.identity.Claim": "rh_agents.core.scope.Claim",
    "rh_agents.core._base.failure_kinds.FailureKind": "rh_agents.core.ports.failure_kinds.FailureKind",
    "rh_agents.core._base.failure_kinds.Failure": "rh_agents.core.ports.summary.Failure",
    "rh_agents.core.types.RecordInputs": "rh_agents.core.redaction.excerpts.RecordInputs",
    "rh_agents.core.usage.Charge": "rh_agents.core.replay.Charge",
    "rh_agents.core._replay.recorded.RecordedCalls": "rh_agents.core.replay.RecordedCalls",
    "rh_agents.core._run.validation.Difference": "rh_agents.core._validation.Difference",
    "rh_agents.core.tracking.ParallelGroupTracker": "rh_agents.core.groups.ParallelGroupTracker",
    "rh_agents.core.tracking.RunningItem": "rh_agents.core.groups.RunningItem",
    "rh_agents.core.values.encoder.NotQuick": "rh_agents.core._write_values.NotQuick",
}
"""By the name that a class has now: the one under which it is recorded."""

FIELDS: dict[str, str] = {
    "rh_agents.core._validation.Difference": "address recorded found",
    "rh_agents.core.chat.messages.ChatDelta": "text refusal tool_index tool_name arguments",
    "rh_agents.core.chat.messages.ChatRequest": (
        "model messages tools tool_choice parallel_tool_calls output_name output_schema temperature top_p "
        "max_tokens stop seed extra"
    ),
    "rh_agents.core.chat.messages.ChatResponse": "text tool_calls finish_reason refusal model response_id usage output",
    "rh_agents.core.chat.messages.DocumentPart": "type url name",
    "rh_agents.core.chat.messages.ImagePart": "type url detail",
    "rh_agents.core.chat.messages.Message": "role content tool_calls tool_call_id",
    "rh_agents.core.chat.messages.TextPart": "type text",
    "rh_agents.core.chat.messages.ToolCall": "id name arguments",
    "rh_agents.core.chat.messages.ToolSpec": "name description parameters strict",
    "rh_agents.core.context.CurrentCall": "run_id address attempt idempotency_key group_id _run",
    "rh_agents.core.groups.GroupEnding": (
        "cause scope epoch tries attempt enrolled total known outcomes member message timeout is_late status"
    ),
    "rh_agents.core.groups.ParallelEventGroup": (
        "group_id name address parent_group_id status error_strategy max_workers total enrolled started completed "
        "failed cancelled recovered retries elapsed rate latency slot_wait breaker"
    ),
    "rh_agents.core.groups.ParallelGroupTracker": (
        "group_id name total enrolled started completed failed cancelled recovered retries start_time last_update_time "
        "status running latency slot_wait about"
    ),
    "rh_agents.core.groups.RunningItem": "index name started_at",
    "rh_agents.core.metrics.ActorMetrics": "calls failed replayed retries latency",
    "rh_agents.core.metrics.RunMetrics": "actors groups",
    "rh_agents.core.plan.Plan": "calls groups",
    "rh_agents.core.plan.PlannedCall": "key place address name version event_type fate attempts message group_id",
    "rh_agents.core.plan.PlannedGroup": "group_id name address not_begun",
    "rh_agents.core.policies.breaker.Admission": "era",
    "rh_agents.core.policies.budget.Budget": "cost tokens calls seconds depth recursion",
    "rh_agents.core.policies.compaction.ClearToolResults": "exclude placeholder",
    "rh_agents.core.policies.compaction.Compaction": "by trigger keep",
    "rh_agents.core.policies.compaction.DropTurns": "",
    "rh_agents.core.policies.compaction.Summarize": "model instructions max_tokens attachments",
    "rh_agents.core.policies.numbers.SettingState": "name value in_use reserved",
    "rh_agents.core.policies.limits.Advice": "remaining resets_in retry_after is_overloaded",
    "rh_agents.core.policies.limits.Permit": "granted_at amounts is_counted ticket",
    "rh_agents.core.policies.limits.Refusal": "wait why",
    "rh_agents.core.ports.CallContext": "run_id address attempt idempotency_key group_id",
    "rh_agents.core.ports.CacheEntry": "key value actor created_at expires_at run_id",
    "rh_agents.core.ports.Question": "run_id id address text schema asked_at answer answered_at answered_by problem",
    "rh_agents.core.ports.RateWindow": "name per limits",
    "rh_agents.core.policies.sharing.rates.BlockReport": "block used",
    "rh_agents.core.policies.sharing.rates.RateAnswer": "count at wait why",
    "rh_agents.core.policies.sharing.budgets.BudgetAnswer": (
        "is_granted part missing limits spent reserved lapsed is_unknown"
    ),
    "rh_agents.core.policies.sharing.budgets.BudgetAsk": (
        "holder limits spent reserved need wanted ceiling is_new closes replaced shown"
    ),
    "rh_agents.core.policies.sharing.budgets.BudgetHolder": "id run place since before",
    "rh_agents.core.policies.sharing.slots.SlotAnswer": "count most",
    "rh_agents.core.policies.sharing.slots.SlotAsk": "process limit in_use wanted",
    "rh_agents.core.policies.sharing.rates.RateAsk": "window process block need count lease reports hold",
    "rh_agents.core.ports.RecordedEvent": "sequence event",
    "rh_agents.core.ports.RunInfo": (
        "run_id status epoch workflow input input_digest tags facts created_at updated_at ended_at owner outcomes "
        "reason forked_from"
    ),
    "rh_agents.core.ports.RunRequest": "run_id owner workflow input input_digest tags facts lease",
    "rh_agents.core.ports.Resumption": "ready_at questions",
    "rh_agents.core.questions.Wait": "id text due_at event",
    "rh_agents.core.queueing.HeldRun": "run_id flow sign lease is_gone",
    "rh_agents.core.queueing.QueueLook": "flows held",
    "rh_agents.core.queueing.Submission": (
        "run_id workflow flow input input_digest queue priority not_before tags facts"
    ),
    "rh_agents.core.queueing.Wanted": "queue flows owner lease silent max_claims",
    "rh_agents.core.ports.control.ControlRequest": (
        "run_id id verb arguments author reason asked_at applied_at answer"
    ),
    "rh_agents.core.ports.control.ControlResult": "run_id verb text calls price request is_applied",
    "rh_agents.core.ports.failure_kinds.FailureKind": "text count first last example",
    "rh_agents.core._base.executions.Execution": "began_at after epoch ended_at idle",
    "rh_agents.core.ports.activity.Activity": "after until width buckets durations slowest groups totals",
    "rh_agents.core.ports.activity.Bucket": "done failed retried",
    "rh_agents.core.ports.activity.GroupSeen": "group_id name address parent status began_at total seconds ending",
    "rh_agents.core.ports.activity.Lane": "first buckets",
    "rh_agents.core.ports.activity.SlowCall": "sequence key address actor seconds",
    "rh_agents.core.policies.child_runs.AboutChild": "group given places",
    "rh_agents.core.policies.child_runs.ChildLeft": "run_id after",
    "rh_agents.core.policies.child_runs.ChildRun": "run_id status reason claims is_executed is_ready sequence",
    "rh_agents.core.policies.child_runs.NewChild": "run_id workflow input about facts queue flow",
    "rh_agents.core.ports.executors.ShardOptions": "size on workers",
    "rh_agents.core.ports.keeping.ErasedRun": "values artifacts artifact_size cached left",
    "rh_agents.core.ports.keeping.Erasure": "at is_finished",
    "rh_agents.core.ports.keeping.RunSize": "size artifacts artifact_size",
    "rh_agents.core.ports.tracing.RunAbout": "run_id workflow epoch is_resumed earlier",
    "rh_agents.core.ports.tracing.RunTotals": "status calls failed retries recovered cached reason error",
    "rh_agents.core.ports.present.BudgetState": "name limits spent reserved",
    "rh_agents.core.ports.present.GroupState": "group_id name address in_use slots finished total",
    "rh_agents.core.ports.present.OpenBreaker": "name state failures",
    "rh_agents.core.ports.present.Present": (
        "at is_over in_flight waiting retrying retries asking groups breakers budgets paused_at running outcomes "
        "failed usage last_outcome_at began_at"
    ),
    "rh_agents.core.ports.present.Retrying": "key address due_at attempt",
    "rh_agents.core.ports.present.RunningCall": "key address since attempt",
    "rh_agents.core.ports.present.Waiting": "name calls since why",
    "rh_agents.core.ports.present.WaitingCall": "key address name since",
    "rh_agents.core.ports.streaming.Piece": "kind text tool_index tool_name",
    "rh_agents.core.ports.streaming.StreamedPiece": (
        "key address attempt position kind text tool_index tool_name is_gap"
    ),
    "rh_agents.core.ports.streaming.StreamedText": "pieces after",
    "rh_agents.core.ports.summary.Failure": "sequence address actor message",
    "rh_agents.core.ports.summary.KindCount": "failures replaced first last example",
    "rh_agents.core.ports.summary.RunSummary": (
        "after until actors groups outcomes paid usage failures first_at last_at"
    ),
    "rh_agents.core.replay.Charge": "name usage places is_free",
    "rh_agents.core.replay.RecordedCalls": (
        "finished failed dismissed orders endings attempts unknown superseded spent events"
    ),
    "rh_agents.core.results.ExecutionResult": (
        "result ok error_message error execution_time attempts name index address is_replayed from_cache usage"
    ),
    "rh_agents.core.redaction.Reference": "name spelling",
    "rh_agents.core.results.Outcome": (
        "key name address value error seconds attempts group_id base parent made_in usage"
    ),
    "rh_agents.core.results.OutcomeHeader": ("key name address ok seconds attempts group_id base parent made_in usage"),
    "rh_agents.core.scope.Claim": "occurrence is_ordered",
    "rh_agents.core.statistics.LatencyHistogram": "buckets count total largest",
    "rh_agents.core.statistics.LatencySummary": "count mean p50 p90 p99 max",
    "rh_agents.core.usage.Listing": "price max_output",
    "rh_agents.core.usage.Price": "input output cached_input",
    "rh_agents.core.usage.Shortfall": "place name field spent",
    "rh_agents.core.usage.Spending": "usage calls seconds by_actor",
    "rh_agents.core.usage.Usage": "input_tokens output_tokens cached_tokens reasoning_tokens requests cost",
    "rh_agents.display.counts.CallCounts": "started succeeded failed cancelled replayed retries seconds",
    "rh_agents.display.counts.EventCounts": (
        "total_events started_events completed_events failed_events cancelled_events recovered_events "
        "retrying_events cached_events usage groups calls failures first_seen last_seen"
    ),
    "rh_agents.llms.local.LocalServer": "base_url model",
    "rh_agents.sharding.shard.Item": "place name data",
    "rh_agents.sharding.shard.Shard": (
        "run_id group group_id group_number base address generation depth max_workers item_timeout retry on_unknown "
        "record_inputs places items earlier"
    ),
    "rh_agents.workers.worker.WorkerReport": "what text run_id workflow version",
}
"""The fields that a class had when it was first recorded, in their order: they are always written."""

OTHERS: frozenset[str] = frozenset(
    {
        "rh_agents.cli.errors.BadInput",
        "rh_agents.cli.errors.CommandError",
        "rh_agents.cli.errors.Interrupted",
        "rh_agents.cli.errors.NoSuchRun",
        "rh_agents.cli.errors.NoSuchStore",
        "rh_agents.cli.errors.TableRefused",
        "rh_agents.cli.input.archives.UnreadableArchive",
        "rh_agents.cli.json_text.RepeatedKey",
        "rh_agents.cli.outputs.OutputClosed",
        "rh_agents.cli.outputs.OutputFailed",
        "rh_agents.core._limits.admission.Held",
        "rh_agents.stores._backend.ConnectionLost",
        "rh_agents.telemetry.export.NotExported",
        "rh_agents.core._write_values.NotQuick",
        "rh_agents.core.bus.OnFull",
        "rh_agents.core.chat.messages.FinishReason",
        "rh_agents.core.errors.AccessDenied",
        "rh_agents.core.errors.AnswerTruncated",
        "rh_agents.core.errors.BudgetExceeded",
        "rh_agents.core.errors.CallCancelled",
        "rh_agents.core.errors.CallTimeout",
        "rh_agents.core.errors.CalledExit",
        "rh_agents.core.errors.CircuitOpenError",
        "rh_agents.core.errors.CodeChangedError",
        "rh_agents.core.ports.keeping.StoreOf",
        "rh_agents.core.errors.ContextTooLong",
        "rh_agents.core.errors.ControlRefused",
        "rh_agents.core.errors.DefinitionError",
        "rh_agents.core.errors.GroupError",
        "rh_agents.core.errors.GroupTimeout",
        "rh_agents.core.errors.IncompleteAnswer",
        "rh_agents.core.errors.InputError",
        "rh_agents.core.errors.InvalidAnswer",
        "rh_agents.core.errors.InvalidRequest",
        "rh_agents.core.errors.LeaseLost",
        "rh_agents.core.errors.ModelError",
        "rh_agents.core.errors.ModelLoading",
        "rh_agents.core.errors.ModelOverloaded",
        "rh_agents.core.errors.ModelRefused",
        "rh_agents.core.errors.ModelTimeout",
        "rh_agents.core.errors.ModelUnreachable",
        "rh_agents.core.errors.NestingError",
        "rh_agents.core.errors.OptionError",
        "rh_agents.core.errors.OutputError",
        "rh_agents.core.errors.PermanentModelError",
        "rh_agents.core.errors.QuotaExhausted",
        "rh_agents.core.errors.RateLimited",
        "rh_agents.core.errors.RecordedError",
        "rh_agents.core.errors.RequestTooLarge",
        "rh_agents.core.errors.RhAgentsError",
        "rh_agents.core.errors.RunAwaiting",
        "rh_agents.core.errors.RunIsLive",
        "rh_agents.core.errors.RunMismatchError",
        "rh_agents.core.errors.RunStopped",
        "rh_agents.core.errors.StoreError",
        "rh_agents.core.errors.TemporaryModelError",
        "rh_agents.core.errors.TooManyFailures",
        "rh_agents.core.errors.TooManyTurns",
        "rh_agents.core.errors.ToolError",
        "rh_agents.core.errors.UndefinedOrderError",
        "rh_agents.core.errors.UnknownOutcomeError",
        "rh_agents.core.errors.UnreadFailures",
        "rh_agents.core.errors.UnreadableAnswer",
        "rh_agents.core.errors.UnstorableError",
        "rh_agents.core.errors.UsageError",
        "rh_agents.core.errors.ValuesErased",
        "rh_agents.core.errors.WorkerLost",
        "rh_agents.core.groups.EndingCause",
        "rh_agents.core.groups.ErrorStrategy",
        "rh_agents.core.groups.GroupStatus",
        "rh_agents.core.groups.ParallelDisplayMode",
        "rh_agents.core.plan.Fate",
        "rh_agents.core.policies.breaker.BreakerState",
        "rh_agents.core.ports.control.Verb",
        "rh_agents.core.ports.streaming.PieceKind",
        "rh_agents.core.redaction.excerpts.RecordInputs",
        "rh_agents.core.types.CacheScope",
        "rh_agents.core.types.Durability",
        "rh_agents.core.types.Effect",
        "rh_agents.core.types.Engine",
        "rh_agents.core.types.EventType",
        "rh_agents.core.types.ExecutionStatus",
        "rh_agents.core.types.OnUnknown",
        "rh_agents.core.types.ReplayMode",
        "rh_agents.llms.local.LocalModelUnavailable",
        "rh_agents.testing.cassette.CassetteMode",
        "rh_agents.testing.cassette.Drift",
        "rh_agents.testing.network.RealRequestError",
        "rh_agents.testing.scripted.ScriptEnded",
        "rh_agents.core.ports.run_status.RunStatus",
        "rh_agents.web.codes.NotPrivate",
        "rh_agents.web.reading.NoSuchRun",
    }
)
"""Enums and errors: they have no fields, or none that is part of a key."""

_ATOMS = (str, int, bool, bytes)
_CONTAINERS = (list, tuple, dict, set, frozenset)
_OURS_IN_BRACKETS = re.compile(r"\w+(?:\.\w+)+")


class PlainInt(int):
    """An int that knows more than its value, and is recorded as the plain number: in inputs, in values, in keys."""


# -- names -------------------------------------------------------------------------------------------------------------


def recorded_name(cls: type) -> str:
    """The name under which a class is recorded: for those that never moved, `module.qualname`."""
    return renamed(f"{cls.__module__}.{cls.__qualname__}")


def renamed(name: str) -> str:
    """The recorded name for a name of today. What stands in the brackets of a generic class may have moved as well."""
    if "[" in name:
        return _OURS_IN_BRACKETS.sub(lambda match: MOVED.get(match[0], match[0]), name)
    return MOVED.get(name, name)


def where(module: str, qualname: str) -> tuple[str, str]:
    """Where a class is now that was recorded as `qualname` of `module`."""
    recorded = f"{module}.{qualname}"
    for now, before in MOVED.items():
        if before == recorded:
            return (now.rpartition(".")[0], now.rpartition(".")[2])
    return module, qualname


# -- fields ------------------------------------------------------------------------------------------------------------


class Form(NamedTuple):
    """How instances of a model, a dataclass or a named tuple are written.

    Attributes:
        name: the recorded name of the class.
        always: the fields that are always written, in their order.
        late: those that are written only if they differ from their default, by name; each with what makes the default.
    """

    name: str
    always: tuple[str, ...]
    late: Mapping[str, Callable[[], Any]]


_forms: WeakKeyDictionary[type, Form] = WeakKeyDictionary()


def form_of(cls: type) -> Form:
    """The form of a class that has fields."""
    form = _forms.get(cls)
    if form is None:
        form = _forms[cls] = _make_form(cls)
    return form


def _make_form(cls: type) -> Form:
    name = recorded_name(cls)
    defaults = _defaults(cls)
    late = _late(cls, defaults)
    fixed = _fixed(name) or ()
    always = (*fixed, *(field for field in defaults if field not in fixed and field not in late))
    return Form(name, always, {field: default for field in sorted(late) if (default := defaults[field]) is not None})


def _late(cls: type, defaults: Mapping[str, Callable[[], Any] | None]) -> set[str]:
    """The fields that a class has, or inherits, from one of ours, and that this one had not from the beginning."""
    late: set[str] = set()
    kept: set[str] = set()
    for base in cls.__mro__:
        fixed = _fixed(recorded_name(base))
        if fixed is None:
            # A user's class that has a field of this name of its own has always written it.
            kept |= inspect.get_annotations(base).keys() - late
            continue
        kept |= set(fixed)
        late |= set(_defaults(base)) - kept
    return {field for field in late - kept if defaults.get(field) is not None}


def _fixed(name: str) -> tuple[str, ...] | None:
    fields = FIELDS.get(name.partition("[")[0])
    return None if fields is None else tuple(fields.split())


def _defaults(cls: type) -> dict[str, Callable[[], Any] | None]:
    """The fields of a class in their order, each with what makes its default; None if it has none."""
    if issubclass(cls, BaseModel):
        return {name: None if field.is_required() else _default_of(field) for name, field in cls.model_fields.items()}
    if dataclasses.is_dataclass(cls):
        return {field.name: _default_of_dataclass(field) for field in dataclasses.fields(cls)}
    given: Mapping[str, Any] = getattr(cls, "_field_defaults", {})
    return {name: partial(given.get, name) if name in given else None for name in getattr(cls, "_fields", ())}


def is_default(value: object, default: object) -> bool:
    """Whether a value is plainly the default of its field. Only builtin values are compared: no `__eq__` of users."""
    if value is default:
        return True
    kind = type(value)
    if kind is not type(default):
        return False
    return (kind in _ATOMS and value == default) or (kind in _CONTAINERS and not value and not default)


def _default_of(field: Any) -> Callable[[], Any]:
    return lambda: field.get_default(call_default_factory=True, validated_data={})


def _default_of_dataclass(field: dataclasses.Field[Any]) -> Callable[[], Any] | None:
    if field.default is not dataclasses.MISSING:
        return lambda: field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory
