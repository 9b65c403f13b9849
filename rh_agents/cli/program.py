"""The program of a recorded run as it is now: its actors, and what has changed about them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rh_agents.cli.errors import CommandError
from rh_agents.cli.recorded_command import RunCommand
from rh_agents.cli.targets import known_actors, load_actor
from rh_agents.core._base.key_generations import EVERY_ENDPOINT
from rh_agents.core._replay.codes import changed_codes, changed_sentence, recorded_codes
from rh_agents.core.actors import BaseActor
from rh_agents.core.actors.code import codes_of
from rh_agents.core.plan import Fate, Plan, PlannedCall
from rh_agents.core.types import OnUnknown
from rh_agents.decorators import agent, tool

__all__ = ["Program", "load_program"]


@dataclass(slots=True)
class Program:
    """The program as it is now, as far as it can be loaded.

    Attributes:
        actors: by name.
        problem: why it cannot be loaded.
        keys_generation: which keys the run has, see `rh_agents.core._base.key_generations`.
        facts: what is known of the run; None says nothing of its code.
    """

    actors: dict[str, BaseActor] = field(default_factory=dict)
    problem: str | None = None
    keys_generation: int = EVERY_ENDPOINT
    facts: Mapping[str, str] | None = None

    def changed(self, plan: Plan) -> list[str]:
        """Which actors had another version, or other code, when the calls were recorded: a sentence for each."""
        return self._other_versions(plan) + self._other_code(plan)

    def _other_code(self, plan: Plan) -> list[str]:
        """What is to be said of the code of those whose results are reused: what is not seen is not unchanged."""
        if self.facts is None:
            return []
        now, known, reused = codes_of(self.actors.values()), recorded_codes(self.facts), plan.names(Fate.REUSED)
        anew = {name for name, actor in self.actors.items() if _is_another(actor, plan.versions.get(name, set()))}
        changed = [name for name in changed_codes(self.facts, now) if reused[name]]
        said = [changed_sentence(changed, reused)] if changed else []
        for label, code in now.items():
            name = label.rpartition("@")[0]
            if not reused[name] or name in changed or name in anew:
                continue
            if label not in known:
                said.append(f"the code of {name!r} was not recorded with its results, so it may have changed")
            elif code is None or None in known[label]:
                said.append(f"the code of {name!r} is unknown, so it may have changed: there is no source to be read")
        return said

    def _other_versions(self, plan: Plan) -> list[str]:
        return [
            sentence
            for name, versions in plan.versions.items()
            if name in self.actors and (sentence := _change(self.actors[name], versions, self.keys_generation))
        ]

    def asks_about(self, call: PlannedCall) -> bool:
        """Whether a call that is retried may have had its external effect, so that it is not repeated silently."""
        actor = self.actors.get(call.name)
        return call.fate is Fate.TRIED_AGAIN and call.may_be_done and actor is not None and actor.marks_attempts

    def decision(self, call: PlannedCall) -> OnUnknown:
        """What would be done about a call whose outcome is unknown."""
        actor = self.actors.get(call.name)
        return OnUnknown.RETRY if actor is None else actor.on_unknown or OnUnknown.RETRY


def load_program(command: RunCommand | None, parameters: dict[str, Any]) -> Program:
    """Import what a run was started with."""
    if command is None:
        return Program(problem="the run was started from Python code, not by a command")
    kind, spec = (tool, parameters["actor"]) if command.kind == "map" else (agent, parameters["flow"])
    try:
        with contextlib.chdir(command.folder):
            target = load_actor(spec, kind)
    except (CommandError, OSError) as error:
        return Program(problem=str(error))
    return Program(known_actors(target))


def _is_another(actor: BaseActor, recorded: set[str]) -> bool:
    """Whether all that is recorded is of other versions, so that nothing of it is reused."""
    return bool(recorded) and recorded.isdisjoint({actor.recorded_version, *actor.former_versions})


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
