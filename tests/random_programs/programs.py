"""Programs as data: what a workflow does, drawn at random from a seed.

A program is a tree. Its statements are calls, agents with statements of their own, groups, chains that
`asyncio.gather` executes side by side, questions to people, and pauses. Nothing in it knows how it is executed (see
`interpreter`), and equal seeds give equal programs: a seed, a size and the list `KNOWN` say everything.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from tests.random_programs.values import ERRORS, KINDS

__all__ = [
    "FOREVER",
    "KNOWN",
    "PEOPLE",
    "Agent",
    "Ask",
    "Block",
    "Chains",
    "Group",
    "Leaf",
    "Pause",
    "Plain",
    "Program",
    "draw_change",
    "draw_program",
    "everything_in",
    "is_timeless",
    "source_of",
    "width_of",
]

KNOWN: dict[str, str] = {}
"""Features that are left out for now, each with the reason: a fault that is known and not mended yet."""

FOREVER = 99
"""More attempts than anything has."""


@dataclass(frozen=True)
class Leaf:
    """A call of a tool.

    Attributes:
        label: its only argument. Two calls with one label are identical.
        kind: what it returns, see `values`.
        seconds: how long it takes, in units.
        fails: how many of its first attempts fail.
        fails_at_first: it fails in the first attempt of the agent around it.
        hangs: how many of its first attempts never end; each has a timeout then.
        attempts: how many it has.
        error: how it fails.
        external: None, or what becomes of it when nothing tells whether it was done: "retry", "fail" or "ask". Whoever
            is asked says that it fails.
        cache: None, "run" or "store".
        limit: None, "slots" or "rate".
        blocks: whether it is a plain function, which runs in a thread where there are threads.
        process: whether it is called in a worker process.
        dies: in how many of its first attempts that dies under it.
    """

    label: str
    kind: str = "text"
    seconds: float = 1.0
    fails: int = 0
    fails_at_first: bool = False
    hangs: int = 0
    attempts: int = 1
    error: str = "boom"
    external: str | None = None
    cache: str | None = None
    limit: str | None = None
    blocks: bool = False
    process: bool = False
    dies: int = 0


@dataclass(frozen=True)
class Plain:
    """A member of a group that is a coroutine function without decorator.

    `given` says how it is given to `add`: as a "coroutine" or as a "callable"; `named` whether with a name.
    """

    label: str
    kind: str = "text"
    seconds: float = 1.0
    fails: int = 0
    error: str = "boom"
    given: str = "callable"
    named: bool = False


@dataclass(frozen=True)
class Agent:
    """A call of an agent, which executes `body` and returns what that came to.

    Attributes:
        attempts: how many it has.
        fails: how many of its first attempts fail at their end.
        timeout: units for each attempt, if any.
        budget: how many calls it may make, until a larger budget is given.
        cache: None or "run".
    """

    label: str
    body: Block
    attempts: int = 1
    fails: int = 0
    timeout: float | None = None
    budget: int | None = None
    cache: str | None = None


@dataclass(frozen=True)
class Group:
    """A group.

    Attributes:
        enrol: how its members come into it: "add", "map", "map_async", or "map_failing" (the iterable raises at its
            end).
        inside: what the block does between that and reading.
        read: "gather", "dict", "stream", "ordered", "crawl" (each result adds the next member), "nothing", and the
            endings "leave", "cancel" and "raise", each after `after` results of a stream, and "cancel_later", after a
            pause of `after` units.
    """

    name: str
    members: tuple[Member, ...]
    workers: int = 2
    enrol: str = "add"
    inside: Block = ()
    read: str = "gather"
    after: int = 1
    strategy: str = "fail_slow"
    fail_after: int | float | None = None
    timeout: float | None = None
    item_timeout: bool = False
    retry: int | None = None
    limit: str | None = None
    budget: int | None = None


@dataclass(frozen=True)
class Chains:
    """Blocks side by side, each in a task of its own.

    `how` says who makes the tasks, and what becomes of the others when one cannot go on: "all" (`asyncio.gather` waits
    for all of them, and then it is raised), "first" (`asyncio.gather` raises the first exception, and the others go on
    alone), "careless" (exceptions are taken for results), "task_group" (`asyncio.TaskGroup` cancels the others).
    """

    branches: tuple[Block, ...]
    how: str = "all"


@dataclass(frozen=True)
class Ask:
    """A question to a person, who needs some time, and may give an answer first that does not fit."""

    label: str
    seconds: float = 1.0
    errs: bool = False


@dataclass(frozen=True)
class Pause:
    """Nothing for some units."""

    seconds: float = 1.0


Member = Leaf | Agent | Plain
Statement = Leaf | Agent | Group | Chains | Ask | Pause
_PARTS = Leaf | Plain | Agent | Group | Chains | Ask | Pause
Block = tuple[Statement, ...]


@dataclass(frozen=True)
class Program:
    """A workflow, and how its run is opened.

    `budget` is how many calls the run may make, until a larger one is given. `people` says who answers its questions:
    somebody who is there ("there"), who answers while the run is not executed ("away"), or now so and now so ("both").
    """

    body: Block
    durability: str = "sync"
    budget: int | None = None
    people: str = "there"


PEOPLE = ("there", "away", "both")


# -- what is to be known of a program ----------------------------------------------------------------------------------


def everything_in(part: Any) -> Iterator[Any]:
    """Each statement and member of a program or a part of it."""
    if isinstance(part, tuple):
        for each in part:
            yield from everything_in(each)
    elif isinstance(part, _PARTS | Program):
        yield part
        for value in vars(part).values():
            if isinstance(value, tuple):
                yield from everything_in(value)


def is_timeless(program: Program) -> bool:
    """Whether its value depends neither on the order in which calls end, nor on how long they take, nor on crashes."""
    return not any(_looks_at_time(part) for part in everything_in(program)) and not _shares_by_chance(program)


def _shares_by_chance(program: Program) -> bool:
    """Whether equal calls share a result that some of them fail to make: it depends on who comes first what they get.

    A group that retries lets a call succeed that fails elsewhere.
    """
    succeeds: dict[str, set[bool]] = {}
    for part in everything_in(program):
        retry = part.retry if isinstance(part, Group) else None
        blocks = part.branches if isinstance(part, Chains) else [getattr(part, "body", getattr(part, "inside", ()))]
        calls: list[tuple[Any, int | None]] = [(call, None) for block in blocks for call in block]
        calls += [(member, retry) for member in getattr(part, "members", ())]
        for call, attempts in calls:
            if isinstance(call, Leaf) and call.cache is not None and call.external is None:
                most = call.attempts if call.attempts > 1 else attempts or 1
                succeeds.setdefault(call.label, set()).add(max(call.fails, call.hangs) < most)
    return any(len(each) > 1 for each in succeeds.values())


_EARLY = ("leave", "cancel", "cancel_later", "raise")


_BY_TIME = ("leave", "cancel", "cancel_later", "raise", "crawl")


def _looks_at_time(part: Any) -> bool:
    if isinstance(part, Leaf):
        return part.external in ("fail", "ask")
    if isinstance(part, Agent):
        return part.timeout is not None
    if isinstance(part, Group):
        ends_early = part.timeout is not None or part.fail_after is not None or part.strategy == "fail_fast"
        return ends_early or part.read in _BY_TIME
    return False


def width_of(part: Any) -> int:
    """How many functions may be under way at once."""
    if isinstance(part, tuple):
        return max((width_of(each) for each in part), default=0)
    if isinstance(part, Program):
        return width_of(part.body)
    if isinstance(part, Agent):
        return width_of(part.body)
    if isinstance(part, Chains):
        return sum(width_of(branch) for branch in part.branches)
    if isinstance(part, Group):
        widths = sorted((width_of(member) for member in part.members), reverse=True)
        return sum(widths[: part.workers]) + width_of(part.inside)
    return 0 if isinstance(part, Pause) else 1


def source_of(part: Any, indent: str = "") -> str:
    """The program as Python source, without what is as usual."""
    if isinstance(part, tuple):
        if not part:
            return "()"
        deeper = indent + "  "
        return "(\n" + "".join(f"{deeper}{source_of(each, deeper)},\n" for each in part) + f"{indent})"
    if not isinstance(part, _PARTS | Program):
        return repr(part)
    usual = {each.name: each.default for each in fields(part)}
    given = {name: getattr(part, name) for name in usual if getattr(part, name) != usual[name]}
    shown = ", ".join(f"{name}={source_of(value, indent)}" for name, value in given.items())
    return f"{type(part).__name__}({shown})"


# -- drawing one -------------------------------------------------------------------------------------------------------


def draw_program(seed: int, size: int = 12) -> Program:
    """The program of this seed; `size` is about how many functions it calls."""
    return _Drawing(random.Random(f"program {seed}"), size).program()


def draw_change(program: Program, chance: random.Random) -> Program:
    """The program after somebody has worked at it: a step or an item more, one less, or in another order.

    What is new has a label that begins with "new". Programs that look at time, and items that have no identity of their
    own, are left as they are: what becomes of those is not promised. So are programs with chains, since a step that is
    moved there may come to stand beside an identical one.
    """
    body = list(program.body)
    if not is_timeless(program) or any(isinstance(part, Chains) for part in everything_in(program)):
        return program
    for number in range(chance.randint(1, 3)):
        groups = [place for place, part in enumerate(body) if isinstance(part, Group) and _has_identities(part)]
        if groups and chance.random() < 0.7:
            place = chance.choice(groups)
            group = body[place]
            assert isinstance(group, Group)
            body[place] = replace(group, members=tuple(_changed(list(group.members), number, chance)))
        else:
            body = _changed(body, number, chance)
    return replace(program, body=tuple(body))


def _has_identities(group: Group) -> bool:
    return not any(isinstance(member, Plain) for member in group.members)


def _changed(parts: list[Any], number: int, chance: random.Random) -> list[Any]:
    how = chance.choice(["more", "less", "order"])
    if how == "more":
        parts.insert(chance.randint(0, len(parts)), Leaf(f"new{number}", seconds=0.0))
    elif how == "less" and len(parts) > 1:
        del parts[chance.randrange(len(parts))]
    else:
        chance.shuffle(parts)
    return parts


_MOST_NESTED = 3
_MEMBERS_MORE_OFTEN = ("gather", "gather", "stream", "stream", "ordered", "dict", "nothing", "crawl")


class _Drawing:
    def __init__(self, chance: random.Random, size: int) -> None:
        self.chance = chance
        self.left = size
        self.labels = 0
        self.names = 0
        self.shared: list[Leaf] = []
        """Cached calls, which may be made again elsewhere."""
        self.in_chain = False
        """Whether another task may make identical calls in the same place, whose order nothing defines."""

    def program(self) -> Program:
        chance = self.chance
        body: list[Statement] = []
        while self.left > 0:
            body.append(self.statement(0))
        durability = "sync" if self._rarely(0.85) else chance.choice(["async", "exit"])
        return Program(tuple(body), durability, chance.randint(2, 8) if self._has("budget", 0.1) else None)

    # -- chance --

    def _rarely(self, share: float) -> bool:
        return self.chance.random() < share

    def _has(self, feature: str, share: float) -> bool:
        """Whether a feature is drawn; those that are known to fail are not."""
        drawn = self._rarely(share)
        return drawn and feature not in KNOWN

    def _units(self) -> float:
        return self.chance.choice([0.0, 0.5, 1.0, 1.0, 2.0, 3.0, 5.0])

    def _label(self) -> str:
        self.labels += 1
        return f"c{self.labels}"

    # -- statements --

    def block(self, depth: int, most: int = 3) -> Block:
        return tuple(self.statement(depth) for _ in range(self.chance.randint(1, most)))

    def statement(self, depth: int) -> Statement:
        kinds = ["leaf", "leaf", "pause"]
        if depth < _MOST_NESTED and self.left > 1:
            kinds += ["agent", "group", "group", "group", "group", "chains"]
        kind = self.chance.choice(kinds)
        if kind == "pause":
            return Pause(self._units()) if self._rarely(0.5) else self.leaf()
        drawn: Statement = getattr(self, kind)() if kind == "leaf" else getattr(self, kind)(depth + 1)
        return drawn

    def leaf(self) -> Leaf:
        chance = self.chance
        self.left -= 1
        if self.shared and not self.in_chain and self._has("cache", 0.1):
            return chance.choice(self.shared)
        label, seconds = self._label(), self._units()
        more: dict[str, Any] = {"kind": chance.choice(KINDS), "error": chance.choice(ERRORS)}
        attempts = chance.choice([1, 1, 1, 2, 3])
        if self._has("failures", 0.35):
            more["fails"] = chance.choice([1, 2, FOREVER])
        elif self._has("fails_at_first", 0.1):
            more["fails_at_first"] = True
        elif self._has("hangs", 0.08):
            more["hangs"] = chance.choice([1, FOREVER])
        what = self.chance.random()
        if what < 0.12:
            more["external"] = chance.choice(["retry", "fail"])
        elif what < 0.25:
            more["cache"] = chance.choice(["run", "store"])
            more.pop("fails_at_first", None)
        if self._has("limits", 0.1):
            more["limit"] = chance.choice(["slots", "rate"])
        if not more.get("hangs") and self._has("threads", 0.1):
            more["blocks"] = True
        leaf = Leaf(label, seconds=seconds, attempts=attempts, **more)
        if leaf.cache is not None:
            self.shared.append(leaf)
        return leaf

    def agent(self, depth: int) -> Agent:
        chance = self.chance
        more: dict[str, Any] = {}
        if self._has("agent_attempts", 0.3):
            more["attempts"] = chance.choice([2, 3])
            more["fails"] = chance.choice([0, 1, 1, 2, FOREVER])
        elif self._has("agent_failures", 0.1):
            more["fails"] = FOREVER
        if self._has("agent_timeout", 0.12):
            more["timeout"] = chance.choice([1.5, 2.5, 4.5])
            more["attempts"] = chance.choice([1, 2, 3])
        if self._has("budget", 0.06):
            more["budget"] = chance.randint(1, 4)
        elif self._has("cache", 0.06):
            more["cache"] = "run"
        outer, self.in_chain = self.in_chain, False
        body = self.block(depth)
        self.in_chain = outer
        return Agent(self._label(), body, **more)

    def chains(self, depth: int) -> Chains:
        outer, self.in_chain = self.in_chain, True
        branches = tuple(self.block(depth, 2) for _ in range(self.chance.randint(2, 3)))
        self.in_chain = outer
        return Chains(branches, self.chance.choice(["all", "first", "careless", "task_group"]))

    def group(self, depth: int) -> Group:
        chance = self.chance
        self.names += 1
        name = f"g{self.names}"
        members = tuple(self.member(depth) for _ in range(chance.randint(1, 6)))
        if self._has("identical", 0.15):
            members += tuple(chance.choice(members) for _ in range(chance.randint(1, 2)))
        more: dict[str, Any] = {"read": chance.choice(_MEMBERS_MORE_OFTEN), "workers": chance.randint(1, 4)}
        if self._has("early_endings", 0.35):
            self._let_it_end_early(more, len(members))
        if self._rarely(0.15):
            more["inside"] = self.block(depth, 2)
        if self._rarely(0.1):
            more["item_timeout"] = True
        if self._rarely(0.15):
            more["retry"] = chance.choice([2, 3])
            members = tuple(_repeatable(member) for member in members)
        if self._has("limits", 0.06):
            more["limit"] = chance.choice(["slots", "rate"])
        if self._has("budget", 0.06):
            more["budget"] = chance.randint(1, 4)
        more["enrol"] = "add" if more["read"] == "crawl" else chance.choice(["add", "add", "map", "map_async"])
        if more["enrol"] == "map" and self._rarely(0.2):
            more["enrol"] = "map_failing"
        return Group(name, members, **more)

    def _let_it_end_early(self, more: dict[str, Any], size: int) -> None:
        chance = self.chance
        how = chance.choice([*_EARLY, "fail_fast", "fail_fast", "fail_after", "timeout", "timeout"])
        if how == "fail_fast":
            more["strategy"] = how
        elif how == "fail_after":
            more["fail_after"] = chance.choice([1, 2, 0.1, 0.5])
        elif how == "timeout":
            more["timeout"] = chance.choice([0.5, 1.5, 2.5, 4.5, 1.0])
        else:
            more["read"] = how
        more["after"] = chance.randint(0, size)

    def member(self, depth: int) -> Member:
        if self._rarely(0.2):
            self.left -= 1
            fails = self.chance.choice([0, 0, 1, FOREVER])
            return Plain(
                self._label(),
                self.chance.choice(KINDS),
                self._units(),
                fails,
                self.chance.choice(ERRORS),
                self.chance.choice(["coroutine", "callable"]),
                self._rarely(0.5),
            )
        if depth < _MOST_NESTED and self.left > 1 and self._rarely(0.3):
            return self.agent(depth + 1)
        return self.leaf()


def _repeatable(member: Member) -> Member:
    """A group that retries takes no coroutines."""
    if isinstance(member, Plain) and member.given == "coroutine":
        return replace(member, given="callable")
    return member
