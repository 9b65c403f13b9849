"""`plan`: the fold over the journal, joined with the input and the code as they are now."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rh_agents.cli.arguments import make_callee, read_settings
from rh_agents.cli.asking import question_lines
from rh_agents.cli.errors import BadInput, CommandError
from rh_agents.cli.inputs import Reading, is_stream, open_input
from rh_agents.cli.lines import Format
from rh_agents.cli.mapping import call_for
from rh_agents.cli.page import Page, Part
from rh_agents.cli.recorded import RunCommand
from rh_agents.cli.targets import known_actors, load_actor
from rh_agents.cli.tree import SHORT_KEY
from rh_agents.cli.words import counted
from rh_agents.core._base.key_generations import EVERY_ENDPOINT
from rh_agents.core._replay.keys import ROOT_KEY, child_key, group_key
from rh_agents.core.actors import BaseActor
from rh_agents.core.calls import Call
from rh_agents.core.errors import DefinitionError
from rh_agents.core.execution import ExecutionState
from rh_agents.core.plan import Fate, Plan, PlannedCall
from rh_agents.core.ports import Question
from rh_agents.core.types import OnUnknown
from rh_agents.decorators import agent, tool
from rh_agents.display.text import harmless

__all__ = ["Code", "InputPlan", "PlanView", "load_code", "plan_input", "record_of_plan"]

_SHOWN = 10
_COLUMN = 13


@dataclass(slots=True)
class Code:
    """The program as it is now, as far as it can be loaded.

    Attributes:
        actors: by name.
        problem: why it cannot be loaded.
        keys_generation: which keys the run has, see `rh_agents.core._base.key_generations`.
    """

    actors: dict[str, BaseActor] = field(default_factory=dict)
    problem: str | None = None
    keys_generation: int = EVERY_ENDPOINT

    def changed(self, plan: Plan) -> list[str]:
        """Which actors had another version when the calls were recorded, one sentence for each."""
        recorded: dict[str, set[str]] = {}
        for call in plan.calls:
            recorded.setdefault(call.name, set()).add(call.version)
        return [
            sentence
            for name, versions in recorded.items()
            if name in self.actors and (sentence := _change(self.actors[name], versions, self.keys_generation))
        ]

    def asks_about(self, call: PlannedCall) -> bool:
        """Whether a call that is tried again may have had its external effect, so that it is not made in silence."""
        actor = self.actors.get(call.name)
        return call.fate is Fate.TRIED_AGAIN and call.may_be_done and actor is not None and actor.marks_attempts

    def decision(self, call: PlannedCall) -> OnUnknown:
        """What would be done about a call of which nobody knows whether it was done."""
        actor = self.actors.get(call.name)
        return OnUnknown.RETRY if actor is None else actor.on_unknown or OnUnknown.RETRY


def load_code(command: RunCommand | None, parameters: dict[str, Any]) -> Code:
    """Import what a run was started with."""
    if command is None:
        return Code(problem="the run was started from Python code, not by a command")
    kind, spec = (tool, parameters["actor"]) if command.kind == "map" else (agent, parameters["flow"])
    try:
        with contextlib.chdir(command.folder):
            load_actor(spec, kind)
    except (CommandError, OSError) as error:
        return Code(problem=str(error))
    return Code(known_actors())


def _change(actor: BaseActor, recorded: set[str], keys_generation: int) -> str | None:
    """What is different about an actor since its calls were recorded, in a sentence."""
    now = actor.recorded_version
    if now in recorded:
        return None
    before = ", ".join(sorted(recorded))
    if keys_generation < actor.keys_since and not recorded.isdisjoint(actor.former_versions):
        return f"{actor.name} is recorded without its server: its answers are used again, whichever server gave them"
    if now != actor.version or any(each.startswith(f"{actor.version} at ") for each in recorded):
        return (
            f"{actor.name}: endpoint changed; recorded is version {before}, now it is {now}: its calls are made again"
        )
    return f"{actor.name} is recorded with version {before}, and has version {now} now: its calls are made again"


@dataclass(slots=True)
class InputPlan:
    """The items of an input as it is now, by what would become of them.

    Attributes:
        name: of the file.
        fates: how many of its items are recorded, and how those stand.
        new: how many are not recorded.
        bad: how many do not fit.
        gone: how many recorded items are no longer in it.
        problem: why nothing can be said about it.
    """

    name: str
    fates: Counter[Fate] = field(default_factory=Counter)
    new: int = 0
    bad: int = 0
    gone: int = 0
    problem: str | None = None


def plan_input(command: RunCommand, parameters: dict[str, Any], plan: Plan) -> InputPlan:
    """What would become of the items of the input of a `map`. Nothing is called: keys can be told from the items."""
    source = str(parameters["source"])
    found = InputPlan(source)
    if is_stream(source):
        found.problem = "it came from standard input"
        return found
    try:
        with contextlib.chdir(command.folder):
            _compare(found, source, parameters, plan)
    except (CommandError, OSError) as error:
        found.problem = str(error)
    return found


def _compare(found: InputPlan, source: str, parameters: dict[str, Any], plan: Plan) -> None:
    fixed = read_settings(parameters["settings"] or [])
    callee = make_callee(load_actor(parameters["actor"], tool), fixed=fixed)
    group_id = group_key(ROOT_KEY, callee.name, 0).hex()[:32]
    recorded = {call.place: call for call in plan.calls if call.group_id == group_id}
    state, counts = ExecutionState(history_limit=0), Counter[bytes]()
    seen: set[bytes] = set()
    form, separator = parameters["form"], parameters.get("separator")
    is_older = form is Format.AUTO and separator is None  # a command is recorded with what was found out
    reading = Reading(form, parameters["id_field"], separator=separator, is_older=is_older)
    with open_input(source, reading) as given:
        for item in itertools.islice(given.items, parameters["limit"]):
            same = _identity(call_for(item, callee, state.parts))
            if same is None:
                found.bad += 1
                continue
            place = child_key(ROOT_KEY, callee.name, same, counts[same])
            counts[same] += 1
            seen.add(place)
            call = recorded.get(place)
            if call is None:
                found.new += 1
            else:
                found.fates[call.fate] += 1
    found.gone = len(recorded.keys() - seen)


def _identity(call: Call[Any]) -> bytes | None:
    """What makes a call this call; None if the item does not fit."""
    call.discard()  # it is looked at and not made
    if isinstance(getattr(call, "problem", None), BadInput):
        return None
    try:
        return call.identity()
    except DefinitionError:
        return None


# -- showing it -------------------------------------------------------------------------------------------------------

_LINES = (
    (Fate.REUSED, "reused", "green", "{} with a recorded value"),
    (Fate.TRIED_AGAIN, "tried again", "yellow", "{} that failed"),
    (Fate.SUPERSEDED, "made again", "yellow", "{} that was asked to be made again"),
    (Fate.REPEATED, "repeated", "yellow", "{} with a recorded failure, which the program may have acted on"),
    (Fate.CONTINUED, "continued", "yellow", "{} that was interrupted cleanly"),
    (Fate.QUESTION, "asked", "yellow", "{} for a person"),
)
_UNKNOWN = (
    (OnUnknown.RETRY, "made again", "yellow"),
    (OnUnknown.FAIL, "fails", "red"),
    (OnUnknown.ASK, "asked about", "yellow"),
)


@dataclass(frozen=True, slots=True)
class PlanView:
    """Prints a plan."""

    page: Page

    def show(self, plan: Plan, questions: Sequence[Question], code: Code, given: InputPlan | None) -> None:
        """Print what would be reused, what would run and why."""
        page = self.page
        for fate, word, style, text in _LINES:
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
            rest = "" if group.not_begun is None else f", {counted(group.not_begun, 'member')} had not begun"
            page.line(_word("goes on", "yellow"), Part(f"group {harmless(group.address)}{rest}", "", 1, True))
        below = plan.of(Fate.NOT_REACHED)
        if below:
            text = f"{counted(len(below), 'call')} below other calls, or cut off with their group"
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

    def _line(self, word: str, style: str, text: str, calls: Sequence[PlannedCall]) -> None:
        if not calls:
            return
        self.page.line(_word(word, style), Part(text, rank=1, is_elastic=True))
        if calls[0].fate is Fate.REUSED:
            names = Counter(call.name for call in calls)
            if len(names) > 1:
                listed = ", ".join(f"{count:,} {harmless(name)}" for name, count in names.most_common(_SHOWN))
                self.page.line(Part(listed, "dim", is_elastic=True), indent=_COLUMN + 2)
            return
        for call in calls[:_SHOWN]:
            key = f"@{call.key.hex()[:SHORT_KEY]}"
            self.page.line(Part(harmless(call.address)), Part(key, "dim", 1), indent=_COLUMN + 2)
            if call.message and call.fate is not Fate.QUESTION:
                self.page.paragraph(harmless(call.message, 300), "dim", indent=_COLUMN + 4)
        if len(calls) > _SHOWN:
            self.page.line(Part(f"… {len(calls) - _SHOWN:,} more", "dim"), indent=_COLUMN + 2)


def _word(word: str, style: str) -> Part:
    return Part(word.ljust(_COLUMN), style)


def _input_sentence(given: InputPlan) -> str:
    name = harmless(given.name)
    if given.problem is not None:
        return f"input {name} was not looked at: {harmless(given.problem, 500)}"
    total = sum(given.fates.values()) + given.new + given.bad
    parts = [f"{count:,} {fate.value.replace('_', ' ')}" for fate, count in given.fates.items()]
    parts += [f"{given.new:,} new"]
    parts += [f"{given.bad:,} that do not fit"] if given.bad else []
    gone = f"; {counted(given.gone, 'recorded item')} no longer in it" if given.gone else ""
    return f"input {name} as it is now: {counted(total, 'item')}: {', '.join(parts)}{gone}"


def record_of_plan(plan: Plan, code: Code, given: InputPlan | None) -> dict[str, Any]:
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
            if call.fate not in (Fate.REUSED, Fate.NOT_REACHED)
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
