"""The shapes in which the page gets what the ports say: plain data, each made by a function of what it shows."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rh_agents.core._base.key_generations import EVERY_ENDPOINT, generation_of_keys
from rh_agents.core._base.latency import LatencyHistogram
from rh_agents.core.ports import Question, RunInfo, is_untouched_fork, status_of
from rh_agents.core.ports.activity import Activity, Bucket, lane_of
from rh_agents.core.ports.control import ControlRequest
from rh_agents.core.ports.present import Present
from rh_agents.core.ports.summary import RunSummary
from rh_agents.core.ports.windows import FailureKind
from rh_agents.core.runs import validated_run
from rh_agents.core.types import ExecutionStatus
from rh_agents.core.usage import Usage
from rh_agents.core.values import kept_text, shown_value

__all__ = [
    "actors_data",
    "command_of",
    "glance_data",
    "groups_data",
    "kind_data",
    "lanes_data",
    "now_data",
    "question_data",
    "request_data",
    "run_data",
    "run_line",
    "timeline_data",
    "totals_data",
    "usage_data",
]

_MOST_ACTORS: Final = 50
_MOST_GROUPS: Final = 100
_MOST_LANES: Final = 16
_COLUMNS_OF_LANES: Final = 128
_LONGEST_INPUT: Final = 4000

_Counts = Mapping[ExecutionStatus, int]


def run_line(info: RunInfo, questions: int | None) -> dict[str, Any]:
    """A run in a list. `questions` is how many are open; None if that cannot be read."""
    return {
        "run_id": info.run_id,
        "status": status_of(info).value,
        "workflow": info.workflow,
        "outcomes": info.outcomes,
        "questions": questions,
        "epoch": info.epoch,
        "created_at": info.created_at,
        "updated_at": info.updated_at,
        "ended_at": info.ended_at,
        "owner": info.owner,
        "tags": list(info.tags),
        "reason": info.reason,
        "forked_from": info.forked_from,
        "validates": validated_run(info),
        "untouched": is_untouched_fork(info),
        "queue": info.queue,
        "priority": info.priority,
        "ready_at": info.ready_at,
        "damage": info.damage,
    }


def run_data(info: RunInfo, questions: int | None) -> dict[str, Any]:
    """A run by itself: its input and the command that started it as well."""
    given = "" if info.input is None else shown_value(info.input)
    return run_line(info, questions) | {
        "input": given[:_LONGEST_INPUT],
        "input_is_cut": len(given) > _LONGEST_INPUT,
        "command": command_of(info),
        "folder": _fact(info, "folder"),
        "is_older": generation_of_keys(info.facts) < EVERY_ENDPOINT,
    }


def command_of(info: RunInfo) -> str | None:
    """The command that started a run, as one would type it; None if a program did."""
    try:
        words = json.loads(_fact(info, "command") or "")
        return f"rh-agents {shlex.join(map(str, words))}"
    except (ValueError, TypeError):
        return None


def _fact(info: RunInfo, name: str) -> str | None:
    text = info.facts.get(name)
    return None if text is None else kept_text(text, unknown_ok=True)


def usage_data(usage: Usage | None) -> dict[str, Any]:
    """Tokens and cost; what is zero is left out."""
    return {} if usage is None else usage.as_json()


def _of(counts: _Counts, *statuses: ExecutionStatus) -> int:
    return sum(counts.get(status, 0) for status in statuses)


def _counted(counts: _Counts) -> dict[str, int]:
    """Members or calls by what became of them. What has begun and has not ended yet is what is left."""
    done = _of(counts, ExecutionStatus.COMPLETED)
    failed = _of(counts, ExecutionStatus.FAILED)
    cancelled = _of(counts, ExecutionStatus.CANCELLED)
    started = _of(counts, ExecutionStatus.STARTED)
    return {
        "done": done,
        "failed": failed,
        "cancelled": cancelled,
        "retried": _of(counts, ExecutionStatus.RETRYING),
        "started": started,
        "running": max(0, started - done - failed - cancelled),
    }


def totals_data(summary: RunSummary, info: RunInfo, owned: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """A run in a few numbers; `owned` are the times at which it was executed."""
    counts = [_counted(each) for each in summary.actors.values()]
    names = ("done", "failed", "cancelled", "retried", "running")
    found: dict[str, Any] = {name: sum(each[name] for each in counts) for name in names}
    if info.owner is None:
        found["running"] = 0
    used = sum(summary.usage.values(), Usage())
    return found | {
        "finished": found["done"] + found["failed"] + found["cancelled"],
        "outcomes": summary.outcomes,
        "events": summary.until,
        "first_at": summary.first_at,
        "last_at": summary.last_at,
        "executed": sum(ended - began for began, ended in owned),
        "elapsed": owned[-1][1] - owned[0][0] if owned else 0.0,
        "usage": usage_data(used),
    }


def actors_data(summary: RunSummary, activity: Activity) -> list[dict[str, Any]]:
    """What each actor did, used and took, most expensive first."""
    found: list[dict[str, Any]] = [
        {"name": name, **_counted(counts), "usage": usage_data(summary.usage.get(name)), **_times(activity, name)}
        for name, counts in summary.actors.items()
    ]
    found.sort(key=lambda each: (-each["usage"].get("cost", 0.0), -each["seconds"], each["name"]))
    return found[:_MOST_ACTORS]


def _times(activity: Activity, actor: str) -> dict[str, Any]:
    """Seconds for which the calls that ended worked, and waited."""
    times, waits = (each.get(actor, LatencyHistogram()) for each in (activity.durations, activity.waits))
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    waited = {"waited": waits.total, "waiters": waits.count} if waits.count else {}
    of_waits = {f"wait_{name}": waits.percentile(share) for name, share in shares.items() if waits.count}
    return {"seconds": times.total, **waited, **of_waits} | {
        name: times.percentile(share) for name, share in shares.items()
    }


def groups_data(summary: RunSummary, activity: Activity, first: int = 0, text: str = "") -> dict[str, Any]:
    """Groups in the order in which they began, with their members counted: at most so many from one of them on.

    Args:
        summary, activity: the run.
        first: leave out so many of those that fit.
        text: only those in whose name or address this stands.
    """
    fitting = [each for each in activity.groups.values() if text.lower() in f"{each.name} {each.address}".lower()]
    found = [
        {
            "id": group.group_id,
            "name": group.name,
            "address": group.address,
            "parent": group.parent,
            "status": group.status,
            "began_at": group.began_at,
            "total": max(group.total or 0, activity.totals.get(group.group_id, 0)) or None,
            "seconds": group.seconds,
            "ending": group.ending,
            **_counted(summary.groups.get(group.group_id, {})),
        }
        for group in fitting[first : first + _MOST_GROUPS]
    ]
    return {"groups": found, "total": len(fitting), "first": first, "size": _MOST_GROUPS}


def timeline_data(
    activity: Activity, executions: Sequence[Mapping[str, Any]], owned: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """When calls ended: pieces of time, each with the number of its first bucket and [succeeded, failed, to be tried
    again, had waited] of each, and when the run was executed. A bucket begins at its number times the width.
    """
    pieces = [
        {"first": first, "buckets": [list(activity.buckets.get(at, Bucket())) for at in range(first, last + 1)]}
        for first, last in (activity.spans(owned) if activity.buckets else ())
    ]
    return {"width": activity.width, "pieces": pieces, "executions": list(executions)}


def lanes_data(activity: Activity) -> dict[str, Any]:
    """The same of groups, in fewer and wider buckets, of which empty ones are left out: after the number of each bucket
    its four counts. Groups stand behind those around them.
    """
    wide = activity
    while wide.buckets and len(wide.buckets) > _COLUMNS_OF_LANES:
        wide = wide.widened(wide.width * 2)
    first = sorted(wide.lanes, key=lambda name: wide.lanes[name].first)[:_MOST_LANES]
    groups = Counter(lane_of(group.address) for group in activity.groups.values())
    ids = {group.address: group.group_id for group in activity.groups.values()}
    lanes = [
        {
            "name": name,
            "groups": groups[name],
            "id": ids.get(name) if groups[name] == 1 else None,
            "cells": [number for at, bucket in sorted(wide.lanes[name].buckets.items()) for number in (at, *bucket)],
        }
        for name in sorted(first, key=lambda name: _lineage(name, wide))
    ]
    return {"width": wide.width, "lanes": lanes, "total": len(activity.lanes)}


def _lineage(name: str, activity: Activity) -> list[tuple[int, str]]:
    """Where a lane stands: behind the lanes whose groups are around its own, in the order in which they began."""
    parts = name.split("::")
    around = ["::".join(parts[: count + 1]) for count in range(len(parts))]
    return [(activity.lanes[each].first, each) for each in around if each in activity.lanes]


def kind_data(kind: FailureKind) -> dict[str, Any]:
    """Failures that are alike."""
    return {"text": kind.text, "count": kind.count, "example": kind.example._asdict()}


def glance_data(present: Present) -> dict[str, Any]:
    """A run in a list: what its owner has counted."""
    groups = [group for group in present.groups if group.total]
    return {
        "failed": present.failed,
        "usage": usage_data(present.usage),
        "in_flight": present.in_flight,
        "finished": sum(group.finished for group in groups[:1]),
        "finished_failed": sum(group.failed for group in groups[:1]),
        "total": sum(group.total or 0 for group in groups[:1]) or None,
        "paused_at": present.paused_at,
    }


def now_data(present: Present, now: float) -> dict[str, Any]:
    """What is going on, as the owner of the run said last."""
    return present.as_json() | {"quiet_for": present.quiet_for(now), "where": present.where}


def question_data(question: Question) -> dict[str, Any]:
    """A question for a person."""
    return {
        "run_id": question.run_id,
        "id": question.id,
        "address": question.address,
        "text": question.text,
        "schema": _schema(question.schema),
        "asked_at": question.asked_at,
        "problem": question.problem,
    }


def request_data(request: ControlRequest) -> dict[str, Any]:
    """What somebody asked of a run, and what came of it."""
    answer = request.answer or {}
    return {
        "id": request.id,
        "verb": request.verb.value,
        "arguments": dict(request.arguments),
        "author": request.author,
        "reason": request.reason,
        "asked_at": request.asked_at,
        "applied_at": request.applied_at,
        "text": answer.get("text"),
        "refused": answer.get("refused"),
    }


def _schema(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None
