"""Judges: pure functions from what is left of some executions of a run to what was wrong with them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.stress.ledger import ACKNOWLEDGED, BEGUN, DONE, Line

__all__ = ["Evidence", "calls_in", "findings", "is_agent", "without_nonces"]


@dataclass(frozen=True)
class Evidence:
    """What is left when a run has been executed to its end.

    Attributes:
        ledger: what was called.
        acknowledged: what the program was given.
        torn: how many lines of both are torn.
        result: what the run returned in the end.
        crashes: how often a process died while it executed the run.
    """

    ledger: Sequence[Line]
    acknowledged: Sequence[Line]
    torn: int
    result: Any
    crashes: int


def findings(evidence: Evidence, undisturbed: Any, *, width: int) -> list[str]:
    """What is wrong; nothing if all is well.

    Args:
        evidence: what is left.
        undisturbed: what the run returns if nothing happens to it.
        width: how many calls may be in flight at once. Agents and what they call are counted apart.
    """
    return [
        *_differences(evidence.result, undisturbed),
        *_calls_after_their_acknowledgement(evidence),
        *_changed_outcomes(evidence),
        *_invented_outcomes(evidence),
        *_calls_made_too_often(evidence, width),
        *_calls_begun_without_end(evidence),
        *_torn_lines(evidence),
    ]


def is_agent(call: str) -> bool:
    """Whether a call of this name makes others."""
    return call.startswith("agent:")


def calls_in(value: Any) -> Iterator[tuple[str, str]]:
    """The name and the nonce of every call in the result of a run."""
    if isinstance(value, Mapping):
        if "call" in value:
            yield value["call"], value["nonce"]
        for part in value.values():
            yield from calls_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from calls_in(part)


def without_nonces(value: Any) -> Any:
    """The result of a run without what is different at every execution."""
    if isinstance(value, Mapping):
        return {name: without_nonces(part) for name, part in value.items() if name != "nonce"}
    if isinstance(value, list):
        return [without_nonces(part) for part in value]
    return value


def _differences(result: Any, undisturbed: Any) -> Iterator[str]:
    if without_nonces(result) == without_nonces(undisturbed):
        return
    yield "the result differs from that of an undisturbed run"
    given, expected = dict(calls_in(result)), dict(calls_in(undisturbed))
    yield from (f"lost: {call} is not in the result" for call in expected if call not in given)


def _calls_after_their_acknowledgement(evidence: Evidence) -> Iterator[str]:
    acknowledged_at: dict[str, int] = {}
    for line in evidence.acknowledged:
        acknowledged_at.setdefault(line.call, line.nanoseconds)
    for line in evidence.ledger:
        if line.kind == BEGUN and line.nanoseconds > acknowledged_at.get(line.call, line.nanoseconds):
            yield f"paid twice: {line.call} was acknowledged and then called again by process {line.process}"


def _changed_outcomes(evidence: Evidence) -> Iterator[str]:
    """Every time the program asks, it must be given the same outcome."""
    given: dict[str, set[str]] = defaultdict(set)
    for line in evidence.acknowledged:
        given[line.call].add(line.nonce)
    for call, nonce in calls_in(evidence.result):
        given[call].add(nonce)
    for call, nonces in given.items():
        if len(nonces) > 1:
            yield f"changed: {call} had the outcomes {sorted(nonces)}"


def _invented_outcomes(evidence: Evidence) -> Iterator[str]:
    """Whatever was given to the program must have been made by that very call."""
    made = {(line.call, line.nonce) for line in evidence.ledger if line.kind == DONE}
    given = {(line.call, line.nonce) for line in evidence.acknowledged} | set(calls_in(evidence.result))
    yield from (f"invented: {call} never returned {nonce}" for call, nonce in sorted(given - made))


def _calls_made_too_often(evidence: Evidence, width: int) -> Iterator[str]:
    times = Counter(line.call for line in evidence.ledger if line.kind == BEGUN)
    for call, count in times.items():
        if count > evidence.crashes + 1:
            yield f"{call} was called {count} times in {evidence.crashes + 1} executions"
    for kind, allowed in ((False, width), (True, width + 1)):  # one more agent: the one around all others
        again = {call: count - 1 for call, count in times.items() if is_agent(call) is kind and count > 1}
        if sum(again.values()) > allowed * evidence.crashes:
            what = "agents" if kind else "calls"
            yield (
                f"{sum(again.values())} {what} were made again after {evidence.crashes} crashes "
                f"with {allowed} in flight at each: {', '.join(again)}"
            )


def _calls_begun_without_end(evidence: Evidence) -> Iterator[str]:
    """Only what a crash cut off has no end."""
    ended = {(line.call, line.nonce) for line in evidence.ledger if line.kind == DONE}
    cut_off = [line for line in evidence.ledger if line.kind == BEGUN and (line.call, line.nonce) not in ended]
    processes = {line.process for line in cut_off}
    if len(processes) > evidence.crashes:
        yield f"calls without an end in {len(processes)} processes, of which {evidence.crashes} crashed"


def _torn_lines(evidence: Evidence) -> Iterator[str]:
    if evidence.torn > 2 * evidence.crashes:
        yield f"{evidence.torn} lines are torn after {evidence.crashes} crashes: the ledger itself is not to be trusted"
    kinds = {line.kind for line in evidence.acknowledged}
    if kinds - {ACKNOWLEDGED}:
        yield f"the acknowledgements hold {kinds}"
