"""An instance of every class of ours that can be in keys or in stored values, to see what is written of it.

`python -m tests.rules.recorded_samples` adds what is written of new classes to the file of recorded forms.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rh_agents
from rh_agents import Budget, Message, Price, Question, Spending, Usage
from rh_agents.core._base.executions import Execution
from rh_agents.core._base.failure_kinds import Failure, FailureKind
from rh_agents.core._base.latency import LatencyHistogram, LatencySummary
from rh_agents.core._group.members import Place
from rh_agents.core._replay.identity import Claim
from rh_agents.core._replay.recorded import RecordedCalls
from rh_agents.core._run.validation import Difference
from rh_agents.core.chat import (
    ChatDelta,
    ChatRequest,
    ChatResponse,
    DocumentPart,
    FinishReason,
    ImagePart,
    TextPart,
    ToolCall,
    ToolSpec,
)
from rh_agents.core.context import CurrentCall
from rh_agents.core.errors import DefinitionError, UnreadFailures
from rh_agents.core.groups import EndingCause, ErrorStrategy, GroupEnding, GroupStatus, ParallelEventGroup
from rh_agents.core.metrics import ActorMetrics, RunMetrics
from rh_agents.core.plan import Fate, Plan, PlannedCall, PlannedGroup
from rh_agents.core.policies.breaker import Admission, BreakerState
from rh_agents.core.policies.child_runs import AboutChild, ChildLeft, ChildRun, NewChild
from rh_agents.core.policies.compaction import ClearToolResults, Compaction, DropTurns, Summarize
from rh_agents.core.policies.limits import Permit, RateLimitHint, Refusal
from rh_agents.core.policies.numbers import SettingState
from rh_agents.core.policies.sharing.budgets import BudgetAnswer, BudgetAsk, BudgetHolder
from rh_agents.core.policies.sharing.rates import BlockReport, RateAnswer, RateAsk
from rh_agents.core.policies.sharing.slots import SlotAnswer, SlotAsk
from rh_agents.core.policies.sharing.windows import RateWindow
from rh_agents.core.ports import (
    CacheEntry,
    CallContext,
    RecordedEvent,
    Resumption,
    RunInfo,
    RunRequest,
)
from rh_agents.core.ports.activity import Activity, Bucket, GroupSeen, Lane, SlowCall
from rh_agents.core.ports.control import ControlRequest, ControlResult, Verb
from rh_agents.core.ports.executors import ShardOptions
from rh_agents.core.ports.keeping import ErasedRun, Erasure, RunSize
from rh_agents.core.ports.present import (
    BudgetState,
    GroupState,
    OpenBreaker,
    Present,
    Retrying,
    RunningCall,
    Waiting,
    WaitingCall,
)
from rh_agents.core.ports.streaming import Piece, PieceKind, StreamedPiece, StreamedText
from rh_agents.core.ports.summary import KindCount, RunSummary
from rh_agents.core.ports.tracing import RunAbout, RunTotals
from rh_agents.core.questions import Wait
from rh_agents.core.queueing import HeldRun, QueueLook, Submission, Wanted
from rh_agents.core.redaction import Reference
from rh_agents.core.results import ExecutionResult, Outcome, OutcomeHeader
from rh_agents.core.tracking import ParallelGroupTracker, RunningItem
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Charge, Listing, Shortfall
from rh_agents.core.values import decode_error, encode, encode_error, learn
from rh_agents.core.values.annotations import check_annotation
from rh_agents.core.values.inputs import canonical
from rh_agents.core.values.names import recorded_name
from rh_agents.core.values.registry import kind_of
from rh_agents.display.counts import CallCounts, EventCounts
from rh_agents.llms.local import LocalServer
from rh_agents.sharding.shard import Item, Shard
from rh_agents.workers.worker import WorkerReport

__all__ = ["DATA", "FILE", "SLOW_TO_IMPORT", "forms", "our_classes"]

_ITEM = Item(Place(1, b"b", b"k", 0), None, "2")
FILE = Path(__file__).with_name("recorded_forms.json")
SLOW_TO_IMPORT = "rh_agents.integrations."
"""Modules below it bring a framework each. A test sees to it that they define nothing that is recorded."""
_NEITHER_TAKEN_NOR_RETURNED = (
    "rh_agents.cli",
    "rh_agents.core.plan.PlannedMembers",
    "rh_agents.core.ports.call_views",
    "rh_agents.core.ports.outline",
    "rh_agents.core.ports.windows",
    "rh_agents.core.values",
    "rh_agents.display",
    "rh_agents.stores",
    "rh_agents.web",
    "rh_agents.__main__",
)
"""What calls neither take nor return, but for errors and what the library exports elsewhere."""

_CALL = ToolCall(id="c", name="n", arguments="{}")
_LATENCY = LatencySummary(1, 0.5, 0.25, 0.75, 1.0, 2.0)
_GROUP = ParallelEventGroup(
    group_id="g", name="n", status=GroupStatus.FAILED, error_strategy=ErrorStrategy.FAIL_FAST, total=3,
    latency=_LATENCY, breaker=BreakerState.OPEN,
)  # fmt: skip
_RESULT: ExecutionResult[Any] = ExecutionResult(result=1, execution_time=0.5, name="n", index=0, usage=Usage(1))
_OUTCOME = Outcome(b"k", "n", "a", [1], None, 0.5, 1, "g", b"b", b"p", (0, 1, 2), Usage(1, 2, 3, 4, 5, 0.25))

DATA: list[Any] = [
    Difference("a", _OUTCOME, None),
    ChatDelta(text="t", tool_index=0),
    ChatRequest(messages=(Message.user("hi"),)),
    ChatRequest(
        model="m",
        messages=(Message.system("s"), Message.assistant("a", [_CALL])),
        tools=(ToolSpec(name="t"),),
        tool_choice="auto",
        parallel_tool_calls=False,
        output_name="o",
        output_schema={"a": 1},
        temperature=0.5,
        top_p=1.0,
        max_tokens=3,
        stop=("x",),
        seed=4,
        extra={"e": [1]},
    ),
    ChatResponse(text="t"),
    ChatResponse(tool_calls=(_CALL,), finish_reason=FinishReason.LENGTH, refusal="r", model="m", output=[1]),
    DocumentPart(url="u", name="n"),
    ImagePart(url="u", detail="low"),
    Message.user("text", ImagePart(url="u")),
    Message.tool("c", "said"),
    TextPart(text="t"),
    _CALL,
    ToolSpec(name="n", description="d", parameters={"type": "object"}, strict=True),
    CurrentCall("r", "a", 1, "i", None),
    _GROUP,
    ParallelGroupTracker(group_id="g", total=3, running={1: ("n", 0.5)}, about=_GROUP),
    GroupEnding(cause=EndingCause.FAIL_AFTER, member="m", timeout=0.5),
    RunningItem(1, "n", 0.5),
    ActorMetrics(1, 2, 3, 4, _LATENCY),
    RunMetrics({"a": ActorMetrics(1, 2, 3, 4, _LATENCY)}, (_GROUP,)),
    Plan((PlannedCall(b"k", b"p", "a", "n", "1", EventType.TOOL_CALL, Fate.REUSED),), ()),
    PlannedCall(b"k", b"p", "a", "n", "1", EventType.TOOL_CALL, Fate.REUSED, 2, "m", "g"),
    PlannedGroup("g", "n", "a", 3),
    Admission(1),
    Budget(cost=1.5, tokens=10),
    ClearToolResults(exclude=("read",), placeholder="gone"),
    Compaction([DropTurns()], 100, 2),
    DropTurns(),
    Summarize(instructions="i", max_tokens=3, attachments=False),
    RateLimitHint({"tokens": 1.0}, {"tokens": 2.0}, 3.0, is_overloaded=True),
    Permit(0.5, {"tokens": 1.0}, is_counted=True, ticket="t"),
    Refusal(0.5, "w"),
    CallContext("r", "a", 1, "i", None),
    CacheEntry(b"k", b"v", "a", 0.5, 1.5, "r"),
    ControlRequest("r", "i", Verb.PAUSE, {"a": 1}, "me", "why", 0.5, 1.5, {"text": "t"}),
    ControlResult("r", Verb.PAUSE, "t", 1, 0.5, None, True),
    Question("r", "i", "a", "t", "{}", 0.5, b"true", 1.5, "me", "p"),
    RateWindow("n", 0.5, {"tokens": 1.0}),
    BudgetHolder("h", "r", "=b", 7, {"cost": 0.5}),
    BudgetAsk(BudgetHolder("h", "r"), {"cost": 1.0}, {"cost": 0.5}, need={"cost": 0.1}, is_new=True),
    BudgetAnswer(is_granted=True, part={"cost": 1.0}, limits={"cost": 1.0}),
    SlotAnswer(1, 2),
    SlotAsk("p", 3, 1, 2),
    BlockReport("b", [(0.5, {"tokens": 1.0})]),
    RateAnswer(1, 0.5, 0.25, "tokens"),
    RateAsk(RateWindow("n", 0.5, {"tokens": 1.0}), "p", "b", {"tokens": 1.0}, 2, 0.5, [], 0.5),
    RecordedEvent(1, None),  # type: ignore[arg-type]
    RunInfo("r", ExecutionStatus.COMPLETED, tags=("t",), facts={"a": "b"}),
    RunRequest("r", "o", "w", b"i", b"d", ("t",), {"a": "b"}, 0.5),
    Resumption(0.5, ("q",)),
    Wait("00", "t", 0.5, "e"),
    Submission("r", "w", "m:f", b"i", b"d", "q", 1, 0.5, ("t",), {"a": "b"}),
    HeldRun("r", "m:f", (1, 2, 3), 0.5, True),
    QueueLook(("m:f",), (HeldRun("r", "m:f", (1, 2, 3), 0.5, False),)),
    Wanted("q", ("m:f",), "o", 0.5, ((1, 2, 3),), 5),
    FailureKind("no …", 2, 3, 5, Failure(5, "a", "n", "no 2")),
    RunSize(1, 2, 3),
    ShardOptions(5, "process", 2),
    AboutChild("g", 1, ("p",)),
    ChildLeft("r", 3),
    ChildRun("r", ExecutionStatus.STARTED, "why", 1, True, False, 5),
    NewChild("r", "w", b"i", AboutChild("g"), {"a": "b"}, "q", "m:f"),
    _ITEM,
    Shard("r", "g", "i", 0, b"b", "a", (0, 0, 1), 1, 5, None, None, "retry", "brief", (), (_ITEM,)),
    Activity(1, 2, 0.5, {7: Bucket(1, 2, 3)}, {}, (SlowCall(3, "00", "a", "n", 0.5),), {}, {"g": 4}),
    Bucket(1, 2, 3),
    SlowCall(3, "00", "a", "n", 0.5),
    Lane(3, {7: Bucket(1)}),
    Execution(0.5, 1, 2, 1.5, 0.25),
    GroupSeen("g", "n", "a", "p", "failed", 0.5, 3, 1.5, "timed_out"),
    Erasure(0.5, is_finished=True),
    ErasedRun(1, 2, 3, 4, "l"),
    RunningCall("00", "a", 0.5, 1),
    Waiting("l", 2, 0.5, "requests"),
    Retrying("00", "a", 1.5, 1),
    GroupState("g", "n", "a", 1, 2, 3, 4),
    GroupState("g", "n", "a", 1, 2, 3, 4, failed=5, begun=6),
    WaitingCall("00", "a", "l", 0.5),
    SettingState("retry", 5, 1, 2),
    OpenBreaker("b", "open", 3),
    BudgetState("", {"calls": 9.0}, {"calls": 1.0}, {"calls": 2.0}),
    RunAbout("r", "w", 1, True, {"traceparent": "t"}),
    RunTotals("completed", 5, 1, 2, 3, 4, "why", None),
    Present(1.5, in_flight=1, running=(RunningCall("00", "a", 0.5, 1),), usage=Usage(1), began_at=0.5),
    Piece(PieceKind.TOOL_CALL, "t", 1, "n"),
    StreamedPiece("00", "a", 1, 2, PieceKind.TEXT, "t", None, "", is_gap=True),
    StreamedText((), "1:0.5"),
    Failure(1, "a", "n", "m"),
    KindCount(1, 0, 3, 3, Failure(3, "a", "n", "no 2")),
    RunSummary(
        0, 2, {"n": {ExecutionStatus.FAILED: 1}}, {}, 1, 1, {"n": Usage(1)}, (Failure(1, "a", "n", "m"),), 0.5, 1.5
    ),
    Charge("n", Usage(1), {"p": 0.5}, is_free=True),
    RecordedCalls({b"k": 1}, events=2),  # type: ignore[arg-type]  # as it was when its form was fixed
    _RESULT,
    _OUTCOME,
    OutcomeHeader(b"k", "n", "a", True, 0.5, 1),
    Reference("n", "url"),
    Claim(1, is_ordered=True),
    LatencyHistogram({3: 1}, 1, 0.5, 0.5),
    _LATENCY,
    Listing(Price(1.0, 2.0), 3),
    Price(1.0, 2.0, 0.5),
    Spending(Usage(1), 2, 0.5, {"a": Usage(1)}),
    Shortfall("00", "pages", "cost", Spending()),
    Usage(),
    Usage(1, 2, 3, 4, 5, 0.25),
    CallCounts(1, 2, 3),
    EventCounts(1, 2, usage=Usage(1), calls={EventType.TOOL_CALL: CallCounts(1)}),
    LocalServer("u", "m"),
    WorkerReport("begun", "run r: begun", "r", "survey", "1"),
]


NOT_LOOKED_AT = ("rh_agents.__main__", "rh_agents.testing._failures")
"""The command line, and exceptions that stand for those of users."""


def our_classes() -> Iterator[type]:
    """Every class of ours that can be in keys or in stored values, as far as what is installed lets us see it."""
    seen: set[type] = set()
    for found in pkgutil.walk_packages(rh_agents.__path__, "rh_agents."):
        if found.name in NOT_LOOKED_AT or found.name.startswith(SLOW_TO_IMPORT):
            continue
        try:
            module = importlib.import_module(found.name)
        except ModuleNotFoundError:  # an optional package
            continue
        for name, candidate in vars(module).items():
            if isinstance(candidate, type) and candidate not in seen and _can_be_recorded(candidate, name, module):
                seen.add(candidate)
                yield candidate


def _can_be_recorded(cls: type, name: str, module: Any) -> bool:
    if not cls.__module__.startswith("rh_agents.") or "[" in cls.__qualname__:
        return False
    if issubclass(cls, BaseException):
        return issubclass(cls, Exception) and not issubclass(cls, Warning) and not name.startswith("_")
    is_private = any(part.startswith("_") for part in module.__name__.split("."))
    if is_private or name not in getattr(module, "__all__", ()):
        return False
    if f"{module.__name__}.{name}".startswith(_NEITHER_TAKEN_NOR_RETURNED):
        return False
    return kind_of(cls) is not None and check_annotation(cls) is None


_ARGUMENTS: dict[str, Any] = {
    "retry_in": 1.5, "owner": "o", "kind": "k", "run_id": "r", "reason": "why", "questions": ("q",),
    "spent": Spending(), "group": "g",
}  # fmt: skip


def sample_error(cls: type[Exception]) -> Exception:
    """An error of this class, with what it cannot be made without."""
    if issubclass(cls, UnreadFailures):
        return cls("some failed", [ValueError("one"), DefinitionError("two")])
    if not inspect.isfunction(cls.__init__):  # Python's own
        return cls("what is wrong")
    required = [
        parameter.name
        for parameter in inspect.signature(cls.__init__).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    ]
    return cls("what is wrong", **{name: _ARGUMENTS[name] for name in required})


def forms() -> dict[str, list[str]]:
    """What stands for each sample in a key ("" for errors), and what is stored; by class, with a number or a member."""
    found: dict[str, list[str]] = {}
    samples = list(DATA)
    for cls in our_classes():
        learn(cls)
        if issubclass(cls, enum.Enum):
            samples += list(cls)
        elif issubclass(cls, Exception):
            error = sample_error(cls)
            assert type(decode_error(encode_error(error))) is cls
            found[f"{cls.__qualname__} 0"] = ["", encode_error(error).decode()]
    for sample in samples:
        learn(type(sample))
        name = recorded_name(type(sample)).rpartition(".")[2]
        number = sum(each.rpartition(" ")[0] == name for each in found)
        found[f"{name} {sample.name if isinstance(sample, enum.Enum) else number}"] = [
            canonical(sample).decode(),
            encode(sample).decode(),
        ]
    return found


def main() -> None:
    """Add the forms of classes that are new. What is in the file stays as it is: journals have it."""
    recorded = json.loads(FILE.read_text())
    added = {name: form for name, form in forms().items() if name not in recorded}
    FILE.write_text(json.dumps({**recorded, **added}, indent=0, sort_keys=True) + "\n")
    print("added:", ", ".join(added) or "nothing")


if __name__ == "__main__":
    main()
