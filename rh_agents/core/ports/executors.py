"""Where handlers run that do not run on the event loop: engines, by name, and what executes a call on each of them.

The engine computes, the journal decides: an executor calls a function once and hands back what came of it. It records
nothing, and it never repeats a call by itself, since an attempt that the journal does not know of may have had its
effect twice. What it cannot know (its worker died) it says by `WorkerLost`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from rh_agents.core.actors import BaseActor, engines_named_so_far
from rh_agents.core.errors import DefinitionError
from rh_agents.core.results import ExecutionResult
from rh_agents.core.types import Engine

__all__ = [
    "WORKERS",
    "CallContext",
    "Executor",
    "Executors",
    "Placement",
    "Recall",
    "ShardOptions",
    "Sharding",
    "set_executors",
    "set_sharding",
    "sharding",
]


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a called function may know of its call, wherever it runs: plain data, so it can travel.

    Attributes:
        run_id: the run it belongs to.
        address: its readable place.
        attempt: the number of the attempt under way, from 1; 0 outside of calls.
        idempotency_key: the same at every attempt and after every restart, so that a service which gets it can tell
            that it has seen the request before: also when a call that failed for good is made again, since the service
            may have done what it was asked for all the same. In a run without a store, the same at every attempt.
        group_id: the innermost group within which the call is made.
        trace: the context of a trace, as headers that a tracing library reads (`traceparent`, `tracestate`); empty
            where nothing is traced.
        resources: what its actor wants of the engine.
    """

    run_id: str
    address: str
    attempt: int
    idempotency_key: str
    group_id: str | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)


class Executor(Protocol):
    """Runs the handlers of one engine, away from the event loop. The suite
    `rh_agents.testing.conformance.executors.ExecutorConformance` is what one has to do.

    One that runs them in another process lets `current()` give `about` there, and raises `WorkerLost` if that process
    dies before it has reported the outcome. It makes a call once: what is to be made again is decided by the run.

    One in which calls wait for their turn awaits `rh_agents.core.context.expect_lease` when the turn has come: a
    process that stood still meanwhile must begin nothing in a run that another one has taken over.

    One that has an attribute `takes_coroutine_functions` which is True gets coroutine functions as well, and gives what
    awaiting them gives. Any other one is given only functions that are none.
    """

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
    ) -> Any:
        """Call the function and return what it returns, or raise what it raises.

        If the awaiting task is cancelled, it does not wait for the function, which is stopped if that can be done.

        Args:
            function: what to call.
            args: its arguments by position.
            kwargs: its arguments by name.
            about: what `current()` gives while it runs; `about.resources` is what the call wants of the engine.

        Raises:
            WorkerLost: whether the function was called, or came to its end, is unknown.
        """
        ...


class Placement(Protocol):
    """Has members of a group made in other processes."""

    @property
    def most(self) -> int:
        """How many members are on their way at a time, at most."""
        ...

    async def result_of(self, item: Any, frame: Any) -> ExecutionResult[Any]:
        """What a member came to, when its outcome is in the journal of its run.

        Args:
            item: what the member's function is applied to.
            frame: the call: its key, its place, its number.
        """
        ...

    def set_max_workers(self, count: int) -> None:
        """This many members run at a time in each process, of those that are placed from now on."""
        ...

    async def aclose(self, *, goes_on: bool) -> None:
        """The block of the group has been left: let nothing go on that it has no use for.

        Args:
            goes_on: whether the next start of the run goes on with the group: only this process is ending.
        """
        ...


WORKERS: Final = "workers"
"""Where shards are executed by `rh-agents worker` processes, on whatever machines."""


class ShardOptions(NamedTuple):
    """How the items of a `map` are made in other processes.

    Attributes:
        size: how many items one process gets at a time.
        on: the name of the engine that has the processes; `WORKERS`, or that with a colon and the name of a queue, for
            `rh-agents worker` processes.
        workers: how many processes work at a time; None: as many as the engine has.
    """

    size: int
    on: str
    workers: int | None = None


class Recall(Protocol):
    """What workers have of a group, of an earlier execution, taken back when the first member has to be made."""

    async def made(self, frame: Any) -> ExecutionResult[Any]:
        """Make a member, as soon as it is known whether it has an outcome there."""
        ...

    async def aclose(self) -> None:
        """The block of the group has been left: leave what has not been taken back to the next start of the run."""
        ...


class Sharding(Protocol):
    """What `map` needs to have items made in other processes, and what a run finds of that when it is resumed."""

    def place(self, group: Any, function: Callable[[Any], Any] | BaseActor, options: ShardOptions) -> Placement:
        """Who has the members of this group made.

        Raises:
            UsageError: it cannot be: the run is not recorded where others can read it, or the group has options that
                hold in one process only.
        """
        ...

    async def take_up(self, run: Any) -> None:
        """Let the journal of a run have what earlier executions of it have left in those of others.

        What workers still have is put into `run.shards_left`.
        """
        ...

    def recall(self, group: Any) -> Recall:
        """What takes back what workers have of a group whose members are made in this process from now on."""
        ...


_sharding: list[Sharding] = []


def set_sharding(sharding: Sharding) -> None:
    """Say who has items made in other processes. The facade does this once, when it is imported."""
    _sharding[:] = [sharding]


def sharding() -> Sharding:
    """Who has items made in other processes."""
    return _sharding[0]


_makers: dict[str, Callable[[], Executor]] = {}


def set_executors(makers: Mapping[Engine, Callable[[], Executor]]) -> None:
    """Say how the executors of the engines are made that every run has. The facade does this once, at its import."""
    _makers.update({str(name): make for name, make in makers.items()})


class Executors:
    """The executors of one run. Those that it was not given are made when they are first used.

    Args:
        given: by the name of their engine.

    Raises:
        DefinitionError: one of them is none, or is for the event loop.
    """

    def __init__(self, given: Mapping[Engine, Executor] | Mapping[str, Executor]) -> None:
        if not isinstance(given, Mapping):
            raise DefinitionError(f"executors= takes a mapping by engine, as in {{'ray': ...}}, not {given!r}")
        for name, each in given.items():
            _expect_executor(name, each)
        self._by_engine: dict[str, Executor] = {str(name): each for name, each in given.items()}

    @property
    def engines(self) -> list[str]:
        """The names of the engines that the run has, besides the event loop."""
        return sorted({*self._by_engine, *_makers})

    def expect(self, actor: BaseActor) -> None:
        """Refuse an actor whose handler this run cannot execute.

        Raises:
            DefinitionError: the run has no engine of this name, or that takes no coroutine functions.
        """
        engine = actor.engine
        if engine is None or engine in _makers or engine == Engine.ASYNC:
            return
        executor = self._by_engine.get(engine)
        if executor is None:
            raise self._unknown(engine, actor.name)
        if actor.is_coroutine_function and not getattr(executor, "takes_coroutine_functions", False):
            raise DefinitionError(
                f"{actor.name}: engine {engine!r} is for plain functions, and {actor.name} is an `async def`: without "
                "engine= it runs on the event loop"
            )

    def expect_all(self, actors: Iterable[BaseActor]) -> None:
        """The same for each of them; nothing is taken from `actors` if no actor of this process could be refused.

        Raises:
            DefinitionError: this run cannot execute the handler of one of them.
        """
        if engines_named_so_far:
            for actor in actors:
                self.expect(actor)

    def _unknown(self, engine: str, who: str) -> DefinitionError:
        near = difflib.get_close_matches(engine, self.engines, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        return DefinitionError(
            f"{who}: this run has no engine {engine!r}, only {', '.join(map(repr, self.engines))}{meant}; "
            f"give it one: run(..., executors={{{engine!r}: ...}})"
        )

    def named(self, engine: str, who: str) -> Executor:
        """The executor of an engine; `who` wants it.

        Raises:
            DefinitionError: the run has no engine of this name.
        """
        executor = self._by_engine.get(engine)
        if executor is None:
            if engine not in _makers:
                raise self._unknown(engine, who)
            executor = self._by_engine[engine] = _makers[engine]()
        return executor

    def of(self, actor: BaseActor) -> Executor:
        """Who runs the handler of this actor.

        Raises:
            DefinitionError: no one does.
        """
        engine = actor.engine or Engine.THREAD
        if engine not in self._by_engine:
            self.expect(actor)
        return self.named(engine, actor.name)


def _expect_executor(name: object, given: object) -> None:
    if not isinstance(name, str) or not name or name == Engine.ASYNC:
        raise DefinitionError(f"executors= has {name!r}: an engine is named by a text, and not {Engine.ASYNC.value!r}")
    if isinstance(given, type):
        raise DefinitionError(f"executors={{{str(name)!r}: ...}} takes an executor, not its class: {given.__name__}()")
    if not callable(getattr(given, "call", None)):
        raise DefinitionError(f"executors={{{str(name)!r}: ...}} takes an executor, and {given!r} has no method `call`")
