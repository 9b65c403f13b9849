"""Judges a trial by its ledgers. It knows the program, and nothing of the library."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.random_programs.evidence import ENDED, KILLED, STOPPED, Execution
from tests.random_programs.ledger import Line
from tests.random_programs.programs import Chains, Group, Leaf, Program, everything_in, is_timeless, width_of
from tests.random_programs.values import nonces_in, without_nonces

__all__ = ["findings", "findings_of_change", "kind_of"]

_MOST_LOST = 3
Thread = tuple[int, str]
"""The stage of a run, and a thread of its program."""


def findings(program: Program, executions: Sequence[Execution], expected: Sequence[str] | None) -> list[str]:
    """What is wrong with a run. `expected` is the value of the undisturbed one."""
    found = [*_endings(executions), *_values(program, executions, expected), *_replays(executions)]
    if program.durability == "sync":
        found += [
            *_stories(executions),
            *_paid_twice(executions),
            *_begun_after_the_end(executions),
            *_external(program, executions),
            *_in_flight(program, executions),
            *_lost(executions),
        ]
    return list(dict.fromkeys(found))


def findings_of_change(before: Program, told: Execution, after: Program, now: Execution) -> list[str]:
    """What is wrong with a run that had ended and was executed again, with its failures, by a changed program.

    Only what is new is called. What has not changed comes to what it came to before.
    """
    if now.end != ENDED or told.value is None or now.value is None:
        return [f"change: it came to {now.end}"]
    begun = [line.label for line in now.lines if line.kind in ("begun", "entered") and not line.label.startswith("new")]
    found = [f"change: {label} is called again" for label in begun]
    known = {id(part): text for part, text in zip(before.body, told.value, strict=True)}
    parts_with = Counter(label for part in before.body for label in _labels_in(part))
    for part, text in zip(after.body, now.value, strict=True):
        # Of identical calls, any one may get the result of another: they are numbered as they come.
        is_single = all(parts_with[label] == 1 for label in _labels_in(part))
        if id(part) in known and is_single and known[id(part)] != text:
            found.append(f"change: now comes {_difference(text, known[id(part)])}")
    return found


def _labels_in(part: Any) -> set[str]:
    return {each.label for each in everything_in(part) if isinstance(getattr(each, "label", None), str)}


def kind_of(finding: str) -> str:
    """What sort of finding it is; a smaller program shall fail like the one it is made from."""
    return finding.partition(":")[0]


def _endings(executions: Sequence[Execution]) -> Iterator[str]:
    for number, each in enumerate(executions):
        if each.end not in (ENDED, KILLED, STOPPED):
            yield f"end: execution {number} came to {each.end}"
    if executions and executions[-1].end != ENDED:
        yield "end: the run does not come to its end"


def _values(program: Program, executions: Sequence[Execution], expected: Sequence[str] | None) -> Iterator[str]:
    """A program that looks neither at the order nor at the time gives what it gives undisturbed."""
    if not is_timeless(program) or expected is None:
        return
    for number, each in enumerate(executions):
        if each.value is None:
            continue
        for given, wanted in zip(each.value, expected, strict=True):
            if without_nonces(given) != without_nonces(wanted):
                yield f"value: execution {number} gave {_difference(without_nonces(given), without_nonces(wanted))}"


def _replays(executions: Sequence[Execution]) -> Iterator[str]:
    """A run that has ended and is executed again calls nothing, and sees and returns the same."""
    for number, (before, each) in enumerate(itertools.pairwise(executions), 1):
        if not each.is_replay:
            continue
        for line in each.lines:
            if line.kind in ("begun", "entered"):
                yield f"replay: {number} calls {line.label} in {line.thread}"
        if each.value != before.value:
            yield f"replay: {number} gave {_difference(str(each.value), str(before.value))}"
        yield from _same_stories(number, _seen_by_thread(before), _seen_by_thread(each), whole=True)


# -- the same story ----------------------------------------------------------------------------------------------------


def _stories(executions: Sequence[Execution]) -> Iterator[str]:
    """What a thread has seen, it sees again: one of two stories is the beginning of the other one."""
    longest: dict[Thread, list[str]] = {}
    for number, each in enumerate(executions):
        told = {(each.stage, thread): seen for thread, seen in _seen_by_thread(each).items()}
        yield from _same_stories(number, longest, told, whole=False)
        if each.end == ENDED:
            before, now = longest.get((each.stage, "main"), []), told.get((each.stage, "main"), [])
            if len(now) < len(before):
                yield f"story: execution {number} ended without seeing {_short(before[len(now)])}"
        for thread, seen in told.items():
            if len(seen) > len(longest.get(thread, ())):
                longest[thread] = seen


def _seen_by_thread(execution: Execution) -> dict[str, list[str]]:
    seen: dict[str, list[str]] = defaultdict(list)
    for line in execution.lines:
        if line.kind in ("seen", "ended"):
            seen[line.thread].append(line.text)
    return seen


def _same_stories(
    number: int, before: Mapping[Any, list[str]], now: Mapping[Any, list[str]], *, whole: bool
) -> Iterator[str]:
    for thread, seen in now.items():
        earlier = before.get(thread, [])
        for step, (first, second) in enumerate(zip(earlier, seen, strict=False)):
            if first != second:
                yield f"story: execution {number}, step {step} of {thread} sees {_difference(second, first)}"
                break
        else:
            if whole and len(earlier) != len(seen):
                yield f"story: execution {number}, {thread} sees {len(seen)} things, and before {len(earlier)}"


# -- nothing is paid twice ---------------------------------------------------------------------------------------------


def _paid_twice(executions: Sequence[Execution]) -> Iterator[str]:
    """A call whose outcome the program has got, or the store has, is not made again."""
    key_of: dict[str, tuple[str, bool, Thread, int]] = {}
    have_value: dict[str, str] = {}
    have_failed: dict[tuple[Thread, str], int] = {}
    for number, each in enumerate(executions):
        for line in each.lines:
            thread = (each.stage, line.thread)
            if line.kind == "recorded":
                have_value[line.key] = "the store has its value"
            elif line.kind in ("done", "failing"):
                key_of[line.nonce] = (line.key, line.kind == "done", thread, line.attempt)
            elif line.kind == "seen":
                for nonce in nonces_in(line.text):
                    key, is_value, caller, attempt = key_of.get(nonce, ("", False, thread, 0))
                    if is_value:
                        have_value[key] = f"its value was seen as {nonce}"
                    elif key:
                        have_failed[caller, key] = max(attempt, have_failed.get((caller, key), 0))
            elif line.kind == "begun":
                again = f"paid twice: execution {number} calls {line.label} again in {line.thread}"
                if line.key in have_value:
                    yield f"{again}: {have_value[line.key]}"
                if line.attempt <= have_failed.get((thread, line.key), 0):
                    yield f"{again}: its failure was seen"


def _begun_after_the_end(executions: Sequence[Execution]) -> Iterator[str]:
    """When the program has seen a group end, nothing begins in it any more, in no execution."""
    ended: set[tuple[Thread, str]] = set()
    for number, each in enumerate(executions):
        for line in each.lines:
            thread = (each.stage, line.thread)
            if line.kind == "ended":
                ended.add((thread, line.key))
            elif line.kind in ("begun", "entered") and (thread, line.group) in ended:
                yield f"after the end: execution {number} begins {line.label} in {line.thread}, whose group had ended"


def _external(program: Program, executions: Sequence[Execution]) -> Iterator[str]:
    """What must not be repeated in silence is not, while nothing tells whether it was done."""
    parts = list(everything_in(program))
    careful = {part.label for part in parts if isinstance(part, Leaf) and part.external in ("fail", "ask")}
    # Its own timeout is a failure that the program sees. Its group may have said that it has no more use for it.
    may_be_cut = {part.label for part in parts if isinstance(part, Leaf) and part.hangs}
    may_be_cut |= {member.label for part in parts if isinstance(part, Group) for member in part.members}
    task_groups = [part for part in parts if isinstance(part, Chains) and part.how == "task_group"]
    may_be_cut |= {part.label for part in everything_in(tuple(task_groups)) if isinstance(part, Leaf)}
    open_calls: dict[tuple[int, str], tuple[Line, bool]] = {}
    lost: set[tuple[int, str]] = set()
    for number, each in enumerate(executions):
        for line in each.lines:
            if line.label not in careful:
                continue
            place = (each.stage, line.key)
            if line.kind == "begun":
                before, is_over = open_calls.get(place, (None, True))
                is_retry = before is not None and before.thread == line.thread and before.attempt < line.attempt
                is_same = before is not None and (before.thread, before.attempt) == (line.thread, line.attempt)
                # Whoever states a retry asks for it, but not when a worker was lost.
                if is_same or place in lost or not (is_over or is_retry):
                    yield f"external: execution {number} repeats {line.label} in {line.thread}"
                open_calls[place] = (line, False)
            elif line.kind == "lost":
                lost.add(place)
            elif line.kind in ("done", "failing") or (line.kind == "cut" and line.label in may_be_cut):
                open_calls[place] = (line, True)


def _lost(executions: Sequence[Execution]) -> Iterator[str]:
    """A call loses three workers at most, in all executions. A crash may come before a loss is recorded."""
    losses: Counter[tuple[Thread, str]] = Counter()
    crashes = 0
    for number, each in enumerate(executions):
        for line in each.lines:
            if line.kind == "lost":
                place = ((each.stage, line.thread), line.key)
                losses[place] += 1
                if losses[place] > _MOST_LOST + crashes:
                    yield f"lost: execution {number} makes {line.label} in {line.thread} again, which lost its workers"
        crashes += each.end == KILLED


def _in_flight(program: Program, executions: Sequence[Execution]) -> Iterator[str]:
    """After a crash no more calls are repeated than were in flight.

    What was cut off had not been done. An attempt of an agent that timed out may be lost in the crash, if nothing that
    followed it was recorded; then what the timeout cut off is made again, besides what was in flight.
    """
    width = width_of(program)
    begun: dict[tuple[Thread, str], set[int]] = defaultdict(set)
    for number, each in enumerate(executions):
        repeated: set[str] = set()
        for line in each.lines:
            place = ((each.stage, line.thread), line.key)
            if line.kind == "begun":
                if line.attempt in begun[place]:
                    repeated.add(line.key)
                begun[place].add(line.attempt)
            elif line.kind == "cut":
                begun[place].discard(line.attempt)
        if len(repeated) > width * max(1, number):
            yield f"in flight: execution {number} repeats {len(repeated)} calls, and at most {width} were in flight"


def _difference(given: str, wanted: str) -> str:
    begin = next((place for place, two in enumerate(zip(given, wanted, strict=False)) if two[0] != two[1]), 0)
    begin = max(0, begin - 60)
    return f"...{given[begin : begin + 200]} instead of ...{wanted[begin : begin + 200]}"


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-140:]}"
