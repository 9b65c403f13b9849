"""`rh-agents plan`: the fold over the journal, joined with the input and the code as they are now."""

from __future__ import annotations

import contextlib
import itertools
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Annotated, Any

import typer

from rh_agents.cli.arguments import call_for, make_callee, read_settings
from rh_agents.cli.commands.common import AsJson, RunName, StoreOfRuns, parameters_of, show_head, with_store
from rh_agents.cli.errors import BadInput, CommandError
from rh_agents.cli.expected_costs import ExpectedCost, expected_cost, expected_cost_of_items
from rh_agents.cli.input.files import InputOptions, is_stream, open_input
from rh_agents.cli.input.lines import Format
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.page import Page, Part
from rh_agents.cli.output.tree import SHORT_KEY
from rh_agents.cli.output.wording import counted
from rh_agents.cli.program import Program, load_program
from rh_agents.cli.questions import question_lines
from rh_agents.cli.recorded_command import RunCommand
from rh_agents.cli.stores import DEFAULT_STORE, existing_run
from rh_agents.cli.targets import load_actor
from rh_agents.core._base.key_generations import generation_of_keys
from rh_agents.core._replay.identity import ROOT_KEY, child_key, group_key
from rh_agents.core._replay.meant import costs_of_calls
from rh_agents.core.calls import Call
from rh_agents.core.errors import DefinitionError
from rh_agents.core.execution import ExecutionState
from rh_agents.core.plan import Fate, Plan, PlannedCall, Planner, open_requests
from rh_agents.core.ports import Question, Store
from rh_agents.core.ports.control import ControlRequest, Verb
from rh_agents.core.ports.outline import PlainMembers, outline_of_run
from rh_agents.core.ports.summary import summary_of_run
from rh_agents.core.types import OnUnknown
from rh_agents.decorators import tool
from rh_agents.display.text import harmless

__all__ = ["plan_command"]

_SHOWN = 10
_LONGEST = 160
"""Characters of an error. `rh-agents show RUN --failed` prints all of it."""
_COLUMN = 13
_WORDS = 4
"""Numbers of eight bytes in a key."""
_HEAD = Struct("Q24x").unpack
"""The first one of them."""
_SPAN = 32 * 4096
"""Bytes of keys that are looked at at a time."""
_PARTS, _LAST_BITS = 8, 61
"""Into how many parts keys are divided by their first three bits, and how many bits follow those."""
_BITS, _REST = 64, 52
"""How many bits that has, and how many of them follow those that say where to look for it."""


def plan_command(
    ctx: typer.Context,
    run: RunName,
    no_retry_failed: Annotated[
        bool,
        typer.Option("--no-retry-failed", help="If the run has ended: keep its recorded failures, do not retry them."),
    ] = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Show which calls a resume would reuse or make, and why. Nothing is called.

    The plan is made from the journal, and from the input of a map as it is now. What the program does with the results,
    and so what else it would call, cannot be known in advance.
    """

    async def plan(opened: Store) -> None:
        info = await existing_run(opened, run)
        command = RunCommand.of(info)
        parameters = {} if command is None else parameters_of(ctx, command)
        code = load_program(command, parameters)
        code.keys_generation, code.facts = generation_of_keys(info.facts), info.facts
        outline, requests = await outline_of_run(opened, run), await open_requests(opened, run)
        retries = not no_retry_failed
        now = {name: {each.recorded_version, *each.former_versions} for name, each in code.actors.items()}
        planner = Planner(
            info, retry_failed=retries, plain=outline.plain, below=outline.below, requests=requests, now=now
        )
        ended = set[bytes]()
        async for event in outline.read(False):
            if event.outcome is not None:
                ended.add(event.outcome.key)
                planner.add_outcome(event.outcome)
            planner.add(event.recorded)
        info, found = replace(info, outcomes=len(ended) + outline.left_out), planner.plan()
        is_map = command is not None and command.kind == "map" and code.problem is None
        given = _plan_input(command, parameters, found) if is_map and command is not None else None
        questions = await opened.questions(run)
        cost = await _expected_cost(opened, run, found, code, given) if outline.uses else None
        if as_json:
            record = {"run_id": run} | _record_of_plan(found, code, given)
            record["expected_cost"] = None if cost is None else cost.amount
            record["requests"] = [_record_of_request(each) for each in requests]
            sys.stdout.write(json_line("plan", record))
            return
        page = Page()
        show_head(page, info, len(questions))
        _PlanView(page).show(found, questions, code, given)
        if cost is not None:
            page.line(f"what would be made costs {cost}, as calls like it did")
        for request in requests:
            page.paragraph(_request_sentence(request), "yellow")

    with_store(store, plan)


async def _expected_cost(
    store: Store, run: str, plan: Plan, code: Program, given: _InputPlan | None
) -> ExpectedCost | None:
    if given is not None and given.problem is None:
        summary = await summary_of_run(store, run)
        spent = sum(usage.cost for usage in summary.usage.values())
        made = given.new + sum(given.fates[fate] for fate in (Fate.TRIED_AGAIN, Fate.SUPERSEDED, Fate.CONTINUED))
        return expected_cost_of_items(plan, given.group_id, spent, made)
    costs = await costs_of_calls(store, run)
    return expected_cost(plan, costs, lambda call: code.decision(call) is OnUnknown.RETRY)


@dataclass(slots=True)
class _InputPlan:
    """The items of an input as it is now, by what would become of them.

    Attributes:
        name: of the file.
        fates: how many of its items are recorded, by what would become of them.
        new: how many are not recorded.
        bad: how many do not fit.
        gone: how many recorded items are no longer in it.
        problem: why nothing can be said about it.
        group_id: of the group of its members.
    """

    name: str
    fates: Counter[Fate] = field(default_factory=Counter)
    new: int = 0
    bad: int = 0
    gone: int = 0
    problem: str | None = None
    group_id: str = ""


def _plan_input(command: RunCommand, parameters: dict[str, Any], plan: Plan) -> _InputPlan:
    """What would become of the items of the input of a `map`. Nothing is called: keys follow from the items."""
    source = str(parameters["source"])
    found = _InputPlan(source)
    if is_stream(source):
        found.problem = "it came from standard input"
        return found
    try:
        with contextlib.chdir(command.folder):
            _compare(found, source, parameters, plan)
    except (CommandError, OSError) as error:
        found.problem = str(error)
    return found


def _compare(found: _InputPlan, source: str, parameters: dict[str, Any], plan: Plan) -> None:
    fixed = read_settings(parameters["settings"] or [])
    callee = make_callee(load_actor(parameters["actor"], tool), fixed=fixed)
    group_id = group_key(ROOT_KEY, callee.name, 0).hex()[:32]
    recorded = _Recorded(plan, group_id)
    found.group_id = group_id
    state = ExecutionState(store=None, history_limit=0)
    form, separator = parameters["form"], parameters.get("separator")
    is_older = form is Format.AUTO and separator is None  # a command is recorded with what was found out
    reading = InputOptions(
        form,
        parameters["id_field"],
        separator=separator,
        is_older=is_older,
        sheet=parameters.get("sheet"),
        query=parameters.get("query"),
        results=bool(parameters.get("results")),
    )
    with open_input(source, reading) as given:
        for item in itertools.islice(given.items, parameters["limit"]):
            same = None if item.problem is not None else callee.identity(item.value)
            same = same or _identity(call_for(item, callee, state.parts))
            if same is None:
                found.bad += 1
                continue
            fate = recorded.fate_of(callee.name, same)
            if fate is None:
                found.new += 1
            else:
                found.fates[fate] += 1
    found.gone = recorded.unseen


class _Recorded:
    """What would become of the recorded items, by their places, and which ones have been asked for."""

    def __init__(self, plan: Plan, group_id: str) -> None:
        calls = [call for call in plan.calls if call.group_id == group_id and call.fate is not Fate.EARLIER]
        self._fates = {call.place: call.fate for call in calls}
        plain = [each for each in plan.plain if each.members.group_id == group_id and each.fate is not Fate.EARLIER]
        self._plain = [_Plain(*each) for each in plain]
        self._seen: set[bytes] = set()
        self._numbers: dict[bytes, int] = {}
        """How many items have been asked for that are identical to others, or not recorded."""
        self.unseen: int = len(self._fates) + sum(len(plain.seen) for plain in self._plain)
        """How many nobody has asked for."""

    def fate_of(self, name: str, same: bytes) -> Fate | None:
        """The fate of the next item with this identity; None if it is not recorded."""
        number = self._numbers.get(same, 0) if self._numbers else 0
        fate, is_seen = self._ask(child_key(ROOT_KEY, name, same, number))
        if is_seen:  # the first of them has been asked for, so this is the second one
            number = 1
            fate, _ = self._ask(child_key(ROOT_KEY, name, same, number))
        if number or fate is None:
            self._numbers[same] = number + 1
        return fate

    def _ask(self, place: bytes) -> tuple[Fate | None, bool]:
        """The fate of the call at a place, and whether somebody has asked for it before."""
        for plain in self._plain:
            position = plain.position_of(place)
            if position >= 0:
                is_seen, plain.seen[position] = plain.seen[position] == 1, 1
                self.unseen -= not is_seen
                return plain.fate, is_seen
        fate = self._fates.get(place)
        if fate is None:
            return None, False
        is_seen = place in self._seen
        self._seen.add(place)
        self.unseen -= not is_seen
        return fate, is_seen


class _Plain:
    """Plain members, found by the first eight bytes of their keys, of which hardly any two are the same.

    A dictionary of them would take more memory than all the rest. They are sorted, and of each beginning it is known
    where it starts, so that there is little to be searched.
    """

    def __init__(self, members: PlainMembers, fate: Fate) -> None:
        self._heads = heads = _sorted_heads(members.keys)
        self._starts = [bisect_left(heads, beginning << _REST) for beginning in range((1 << _BITS - _REST) + 1)]
        self.fate: Fate = fate
        self.seen = bytearray(len(heads))

    def position_of(self, key: bytes) -> int:
        """Where a key stands among them; -1 if it does not."""
        (head,) = _HEAD(key)
        heads, beginning = self._heads, head >> _REST
        end = self._starts[beginning + 1]
        at = bisect_left(heads, head, self._starts[beginning], end)
        return at if at < end and heads[at] == head else -1


def _sorted_heads(keys: bytes) -> array[int]:
    """The first eight bytes of keys, from the least on. Few are numbers of Python at a time, which are large."""
    found, heads = array("Q"), array("Q")
    for start in range(0, len(keys), _SPAN):
        heads += array("Q", keys[start : start + _SPAN])[::_WORDS]
    for part in range(_PARTS):
        found.extend(sorted([head for head in heads if head >> _LAST_BITS == part]))
    return found


def _identity(call: Call[Any]) -> bytes | None:
    """What makes a call this call; None if the item does not fit."""
    call.discard()  # it is looked at and not made
    if isinstance(getattr(call, "problem", None), BadInput):
        return None
    try:
        return call.identity()
    except DefinitionError:
        return None


_LINES = (
    (Fate.REUSED, "reused", "green", "{} with a recorded value"),
    (Fate.TRIED_AGAIN, "tried again", "yellow", "{} that failed"),
    (Fate.SUPERSEDED, "made again", "yellow", "{}, as was asked for"),
    (Fate.REPEATED, "repeated", "yellow", "{} with a recorded failure, which the program may have acted on"),
    (Fate.WITHDRAWN, "not made", "dim", "{} that was cancelled by name"),
    (Fate.CONTINUED, "continued", "yellow", "{} between two attempts, or stopped while waiting"),
    (Fate.QUESTION, "asked", "yellow", "{} for a person"),
)
_FATES = {fate: word for fate, word, _style, _text in _LINES}
_UNKNOWN = (
    (OnUnknown.RETRY, "made again", "yellow"),
    (OnUnknown.FAIL, "fails", "red"),
    (OnUnknown.ASK, "asked about", "yellow"),
)


@dataclass(frozen=True, slots=True)
class _PlanView:
    """Prints a plan."""

    page: Page

    def show(self, plan: Plan, questions: Sequence[Question], code: Program, given: _InputPlan | None) -> None:
        """Print what would be reused, what would run and why."""
        page = self.page
        for fate, word, style, text in _LINES:
            if fate is Fate.REUSED:
                self._reused(_word(word, style), text, plan.names(fate))
                continue
            calls = [call for call in plan.of(fate) if not code.asks_about(call)]
            noun = "question" if fate is Fate.QUESTION else "call"
            self._line(word, style, text.format(counted(len(calls), noun)), calls)
        for decision, word, style in _UNKNOWN:
            calls = [
                call
                for call in plan.calls
                if (call.fate is Fate.UNKNOWN or code.asks_about(call)) and code.decision(call) is decision
            ]
            self._line(word, style, f"{counted(len(calls), 'call')} with an unknown outcome", calls)
        for group in plan.groups:
            rest = f", {counted(group.not_begun, 'member')} had not begun" if group.not_begun else ""
            page.line(_word("goes on", "yellow"), Part(f"group {harmless(group.address)}{rest}", "", 1, True))
        earlier, below = plan.counts[Fate.EARLIER], plan.counts[Fate.NOT_REACHED]
        if earlier:
            page.line(_word("not asked", "dim"), Part(f"{counted(earlier, 'call')} of another version", "dim", 1))
        if below:
            text = f"{counted(below, 'call')} below other calls, or cut off with their group"
            page.line(_word("not reached", "dim"), Part(text, "dim", 1))
        if plan.is_idle and not (given is not None and given.new):
            page.line("no recorded call would be made again")
        for line in question_lines(questions):
            page.line(line)
        if given is not None:
            page.paragraph(_input_sentence(given))
        for sentence in code.changed(plan):
            page.paragraph(harmless(sentence, 500), "yellow")
        if code.problem is not None:
            page.paragraph(f"the code was not examined: {harmless(code.problem, 500)}", "dim")

    def _reused(self, word: Part, text: str, names: Counter[str]) -> None:
        if names:
            self.page.line(word, Part(text.format(counted(names.total(), "call")), rank=1, is_elastic=True))
        if len(names) > 1:
            listed = ", ".join(f"{count:,} {harmless(name)}" for name, count in names.most_common(_SHOWN))
            self.page.line(Part(listed, "dim", is_elastic=True), indent=_COLUMN + 2)

    def _line(self, word: str, style: str, text: str, calls: Sequence[PlannedCall]) -> None:
        if not calls:
            return
        self.page.line(_word(word, style), Part(text, rank=1, is_elastic=True))
        for call in calls[:_SHOWN]:
            key = f"@{call.key.hex()[:SHORT_KEY]}"
            self.page.line(Part(harmless(call.address)), Part(key, "dim", 1), indent=_COLUMN + 2)
            if call.message and call.fate is not Fate.QUESTION:
                self.page.line(Part(harmless(call.message, _LONGEST), "dim", is_elastic=True), indent=_COLUMN + 4)
        if len(calls) > _SHOWN:
            self.page.line(Part(f"… {len(calls) - _SHOWN:,} more", "dim"), indent=_COLUMN + 2)


def _word(word: str, style: str) -> Part:
    return Part(word.ljust(_COLUMN), style)


def _input_sentence(given: _InputPlan) -> str:
    name = harmless(given.name)
    if given.problem is not None:
        return f"input {name} was not looked at: {harmless(given.problem, 500)}"
    total = sum(given.fates.values()) + given.new + given.bad
    parts = [f"{count:,} {_FATES.get(fate, fate.value.replace('_', ' '))}" for fate, count in given.fates.items()]
    parts += [f"{given.new:,} new"]
    parts += [f"{given.bad:,} that do not fit"] if given.bad else []
    gone = f"; {counted(given.gone, 'recorded item')} no longer in it" if given.gone else ""
    return f"input {name} as it is now: {counted(total, 'item')}: {', '.join(parts)}{gone}"


_EFFECTS = {
    Verb.PAUSE: "it begins paused",
    Verb.UNPAUSE: "it begins unpaused",
    Verb.REQUEUE: "calls are made again",
    Verb.CANCEL: "it ends at once, for good",
    Verb.SET: "it begins with other numbers",
}


def _request_sentence(request: ControlRequest) -> str:
    """What was asked of a run that nobody executes, and what the next start makes of it."""
    arguments = request.arguments
    effect = _EFFECTS[request.verb]
    if request.verb is Verb.SET:
        settings = arguments["settings"].items()
        effect = f"it begins with {', '.join(f'{name}={value:g}' for name, value in settings)}"
    elif request.verb is Verb.REQUEUE:
        effect = f"{counted(len(arguments.get('keys', ())), 'call')} made again, with the calls around"
    elif request.verb is Verb.CANCEL and arguments.get("items"):
        effect = f"what is called {', '.join(arguments['items'][:_SHOWN])} is cancelled"
    by = f" by {request.author}" if request.author else ""
    why = f" ({request.reason})" if request.reason else ""
    return harmless(f"asked for{by}, and applied at the next start: {request.verb.value}{why}: {effect}", 500)


def _record_of_request(request: ControlRequest) -> dict[str, Any]:
    """A request for programs."""
    names = ("items", "settings", "failed", "keys")
    return {
        "id": request.id,
        "verb": request.verb.value,
        "author": request.author,
        "reason": request.reason,
        "asked_at": request.asked_at,
        **{name: request.arguments[name] for name in names if name in request.arguments},
    }


def _record_of_plan(plan: Plan, code: Program, given: _InputPlan | None) -> dict[str, Any]:
    """A plan for programs."""
    record: dict[str, Any] = {
        "counts": {fate.value: plan.counts[fate] for fate in Fate},
        "calls": [
            {
                "address": call.address,
                "key": call.key.hex(),
                "name": call.name,
                "version": call.version,
                "fate": call.fate.value,
                "attempts": call.attempts,
                "message": call.message,
            }
            for call in plan.calls
            if call.fate not in (Fate.REUSED, Fate.EARLIER, Fate.NOT_REACHED)
        ],
        "groups": [{"address": group.address, "not_begun": group.not_begun} for group in plan.groups],
        "changed": code.changed(plan),
        "code_problem": code.problem,
    }
    if given is not None:
        fates = {fate.value: count for fate, count in given.fates.items()}
        record["input"] = {
            "name": given.name,
            **fates,
            "new": given.new,
            "bad": given.bad,
            "gone": given.gone,
            "problem": given.problem,
        }
    return record
