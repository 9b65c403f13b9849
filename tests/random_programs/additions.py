"""What programs of later seeds do besides: they ask people, and call functions in worker processes, some of which die.

It is added to a program that has been drawn as ever, from a source of chance of its own, so that earlier seeds mean
what they always meant.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from tests.random_programs.programs import (
    FOREVER,
    PEOPLE,
    Agent,
    Ask,
    Block,
    Chains,
    Group,
    Leaf,
    Program,
    draw_program,
)

__all__ = ["ADDED_FROM", "draw_any_program"]

ADDED_FROM = 200_000
"""The first of those seeds."""
_MOST_QUESTIONS = 4


def draw_any_program(seed: int, size: int = 12) -> Program:
    """The program of a seed, with what is added if it is a later one."""
    program = draw_program(seed, size)
    return program if seed < ADDED_FROM else _Adding(random.Random(f"additions {seed}")).program(program)


class _Adding:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.questions = 0
        self.leaves: dict[str, Leaf] = {}
        """By label: calls that are made twice are changed in the same way."""

    def program(self, program: Program) -> Program:
        people = self.chance.choice(PEOPLE)
        return replace(program, body=self._block(program.body), people=people)

    def _block(self, block: Block) -> Block:
        statements = [self._part(each) for each in block]
        if self.questions < _MOST_QUESTIONS and self.chance.random() < 0.3:
            statements.insert(self.chance.randint(0, len(statements)), self._question())
        return tuple(statements)

    def _question(self) -> Ask:
        self.questions += 1
        return Ask(f"q{self.questions}", self.chance.choice([0.0, 1.0, 3.0]), self.chance.random() < 0.3)

    def _part(self, part: Any) -> Any:
        if isinstance(part, Leaf):
            if part.label not in self.leaves:
                self.leaves[part.label] = self._leaf(part)
            return self.leaves[part.label]
        if isinstance(part, Agent):
            return replace(part, body=self._block(part.body))
        if isinstance(part, Chains):
            return replace(part, branches=tuple(map(self._block, part.branches)))
        if isinstance(part, Group):
            inside = self._block(part.inside) if part.inside else ()
            return replace(part, members=tuple(map(self._part, part.members)), inside=inside)
        return part

    def _leaf(self, leaf: Leaf) -> Leaf:
        more: dict[str, Any] = {}
        if leaf.external is not None and self.chance.random() < 0.4:
            more["external"] = "ask"
        # Payments whose workers die are what matters most, and too rare if nothing is done about it.
        share, deaths = (0.15, [0, 0, 0, 1, 2, FOREVER]) if leaf.external is None else (0.5, [0, 1, 1, 2, FOREVER])
        if not leaf.hangs and self.chance.random() < share:
            more |= {"process": True, "blocks": False, "dies": self.chance.choice(deaths)}
        return replace(leaf, **more)
