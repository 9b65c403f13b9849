"""Executes a program through the public interface, and tells the ledger what was called and what the program sees."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from rh_agents import (
    Budget,
    ConcurrencyLimit,
    ExecutionResult,
    ParallelExecutionManager,
    RateLimit,
    RetryPolicy,
    StoreError,
    agent,
    current,
    parallel,
    tool,
)
from rh_agents.core.errors import StopRun
from rh_agents.core.policies.limits import Limit
from rh_agents.core.ports import CallContext, Executor, Question, Store
from rh_agents.decorators import ActorFunction
from rh_agents.errors import WorkerLost
from tests.random_programs.ledger import Line, Write
from tests.random_programs.programs import (
    Agent,
    Ask,
    Block,
    Chains,
    Group,
    Leaf,
    Member,
    Pause,
    Plain,
    Program,
    Statement,
    everything_in,
)
from tests.random_programs.values import Boom, describe, describe_result, make_error, make_value

__all__ = ["Interpreter", "answer_some"]

_thread: ContextVar[str] = ContextVar("thread", default="main")
"""Where the program is, see `Line.thread`."""
_attempt: ContextVar[int] = ContextVar("attempt", default=1)
"""The attempt of the agent around a call."""


_STOP = f"<{StopRun.__name__} "
"""How a stop is described."""
_interpreter: ContextVar[Interpreter] = ContextVar("interpreter")


async def _leaf(label: str) -> Any:
    return await _interpreter.get().work(label)


def _blocking_leaf(label: str) -> Any:
    return _interpreter.get().work_in_thread(label)


def _process_leaf(label: str) -> Any:
    """Is never called: `_Workers` calls `_in_worker` in its place."""
    raise AssertionError(label)


def _in_worker(part: Leaf, nonce: str, seconds: float, dies: bool, fails: bool) -> Any:
    """What a function does in a worker process."""
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)
    if fails:
        raise make_error(part.error, part.label, nonce)
    return make_value(part.kind, part.label, nonce)


class _Workers:
    """Executes `engine="process"`, and tells the ledger of it in the process of the run."""

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
    ) -> Any:
        """What the executor port asks for."""
        return await _interpreter.get().work_in_process(args[0], about)


class _NoWorkers:
    """Stands for worker processes where there are none: in virtual time."""

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
    ) -> Any:
        """The same."""
        part, nonce, seconds, dies, fails = args
        if dies:
            raise WorkerLost("the worker process was killed by signal 9 (out of memory?)")
        await asyncio.sleep(seconds)
        return function(part, nonce, 0.0, dies, fails)


async def _branch(label: str) -> list[str]:
    return await _interpreter.get().be_agent(label)


@functools.lru_cache(maxsize=1024)
def _leaf_actor(
    retry: RetryPolicy | None,
    timeout: float | None,
    cache: str | None,
    external: str | None,
    limit: Limit | None,
    handler: Any,
    version: str,
) -> ActorFunction[[str], Any]:
    effect = None if external is None else "external"
    made: ActorFunction[[str], Any] = tool(
        name="leaf",
        version=version,
        retry=retry,
        timeout=timeout,
        cache=cache,
        effect=effect,
        on_unknown=external,
        limits=limit,
        engine="process" if handler is _process_leaf else None,
    )(handler)
    return made


@functools.lru_cache(maxsize=1024)
def _branch_actor(
    retry: RetryPolicy | None, timeout: float | None, budget: Budget | None, cache: str | None
) -> ActorFunction[[str], list[str]]:
    return agent(name="branch", retry=retry, timeout=timeout, budget=budget, cache=cache)(_branch)


class Interpreter:
    """One execution of a program.

    Args:
        program: what to do.
        write: adds a line to the ledger.
        nonces: what every nonce of this execution begins with.
        unit: seconds.
        generosity: what budgets are multiplied with.
        has_threads: whether plain functions may run in threads.
        trial: tells programs apart that share a store, where one would otherwise find what another one has cached.
        workers: what executes functions in processes.
    """

    def __init__(
        self,
        program: Program,
        write: Write,
        nonces: str,
        *,
        unit: float = 1.0,
        generosity: int = 1,
        has_threads: bool = False,
        trial: str = "1",
        workers: Executor | None = None,
    ) -> None:
        self._program = program
        self._write = write
        self._nonces = (f"{nonces}.{number}" for number in itertools.count(1))
        self._unit = unit
        self._generosity = generosity
        self._has_threads = has_threads
        self._trial = trial
        self._misled: set[str] = set()
        """Threads that have taken a stop for a result."""
        self._workers = workers or _NoWorkers()
        self._chance = random.Random(f"people {trial} {nonces}")
        self._parts = {part.label: part for part in everything_in(program) if isinstance(part, Leaf | Plain | Agent)}
        self._questions = {part.label: part for part in everything_in(program) if isinstance(part, Ask)}
        self._limits: dict[str, Limit] = {
            "slots": ConcurrencyLimit(2, name="slots"),
            "rate": RateLimit(requests=3, per=2 * unit, name="rate"),
        }

    @property
    def executors(self) -> dict[str, Executor]:
        """Who executes what is no coroutine function."""
        return {"process": _Workers()}

    @property
    def answerer(self) -> Callable[[Question], Awaitable[object]] | None:
        """The person who is there, if anybody is."""
        return None if self._program.people == "away" else self._answer

    @property
    def budget(self) -> Budget | None:
        """What the run may spend."""
        return self._budget(self._program.budget)

    async def workflow(self) -> list[str]:
        """What the run executes. Its value is what the program came to, without the order in which that happened."""
        _interpreter.set(self)
        return await self._block(self._program.body)

    def _budget(self, calls: int | None) -> Budget | None:
        return None if calls is None else Budget(calls=calls * self._generosity)

    def _retry(self, attempts: int | None) -> RetryPolicy | None:
        if attempts is None or attempts == 1:
            return None
        return RetryPolicy(max_attempts=attempts, initial_delay=0.5 * self._unit, jitter=False)

    def _see(self, text: str) -> str:
        self._tell_seen(Line("seen", _thread.get(), text=text))
        return text

    def _tell_seen(self, line: Line) -> None:
        """Tell what the program sees, unless it has taken a stop for a result: what it makes of that is no story."""
        if _STOP in line.text:
            self._misled.add(line.thread)
        if line.thread not in self._misled:
            self._write(line)

    # -- what is called --

    def _begin(self, label: str) -> tuple[int, Callable[[str], None], str]:
        call = current()
        nonce = next(self._nonces)
        line = functools.partial(
            Line, thread=_thread.get(), key=call.idempotency_key, label=label, attempt=call.attempt, nonce=nonce
        )
        self._write(line("begun", group=call.group_id or ""))
        return call.attempt, lambda kind: self._write(line(kind)), nonce

    async def work(self, label: str) -> Any:
        """What every coroutine function does, be it a tool or not."""
        part = self._parts[label]
        assert isinstance(part, Leaf | Plain)
        attempt, tell, nonce = self._begin(label)
        hangs = part.hangs if isinstance(part, Leaf) else 0
        try:
            if attempt <= hangs:
                await asyncio.get_running_loop().create_future()
            elif not hangs and part.seconds:
                await asyncio.sleep(part.seconds * self._unit)
        except asyncio.CancelledError:
            tell("cut")
            raise
        return self._end(part, attempt, tell, nonce)

    def work_in_thread(self, label: str) -> Any:
        """What a plain function does."""
        part = self._parts[label]
        assert isinstance(part, Leaf)
        attempt, tell, nonce = self._begin(label)
        return self._end(part, attempt, tell, nonce)

    async def work_in_process(self, label: str, about: CallContext) -> Any:
        """What a function does that is called in a worker process."""
        part = self._parts[label]
        assert isinstance(part, Leaf)
        attempt, tell, nonce = self._begin(label)
        dies, fails = attempt <= part.dies, self._fails(part, attempt)
        try:
            arguments = (part, nonce, part.seconds * self._unit, dies, fails)
            value = await self._workers.call(_in_worker, arguments, {}, about)
        except asyncio.CancelledError:
            tell("cut")
            raise
        except WorkerLost as error:
            tell("lost" if error.has_begun else "cut")
            raise
        except Exception:
            tell("failing")
            raise
        tell("done")
        return value

    def _fails(self, part: Leaf | Plain, attempt: int) -> bool:
        return attempt <= part.fails or (isinstance(part, Leaf) and part.fails_at_first and _attempt.get() == 1)

    def _end(self, part: Leaf | Plain, attempt: int, tell: Callable[[str], None], nonce: str) -> Any:
        if self._fails(part, attempt):
            tell("failing")
            raise make_error(part.error, part.label, nonce)
        tell("done")
        return make_value(part.kind, part.label, nonce)

    async def be_agent(self, label: str) -> list[str]:
        """What an agent does."""
        part = self._parts[label]
        assert isinstance(part, Agent)
        call = current()
        around = _thread.get()
        self._write(Line("entered", around, call.idempotency_key, label, call.attempt, call.group_id or ""))
        thread = _thread.set(f"{around}/{label}.{call.idempotency_key[:8]}#{call.attempt}")
        attempt = _attempt.set(call.attempt)
        try:
            value = await self._block(part.body)
            if call.attempt <= part.fails:
                raise Boom(f"{label} failed")
            return value
        finally:  # a call that is awaited directly shares the context of its caller
            _thread.reset(thread)
            _attempt.reset(attempt)

    def _call(self, part: Leaf | Agent) -> Any:
        """A call of an actor whose policy is what the program says."""
        if isinstance(part, Agent):
            timeout = None if part.timeout is None else part.timeout * self._unit
            return _branch_actor(self._retry(part.attempts), timeout, self._budget(part.budget), part.cache)(part.label)
        timeout = 0.5 * max(self._unit, 0.02) if part.hangs else None
        limit = None if part.limit is None else self._limits[part.limit]
        blocks = part.blocks and self._has_threads
        handler = _process_leaf if part.process else _blocking_leaf if blocks else _leaf
        cache = None if part.external else part.cache
        retry = self._retry(part.attempts)
        return _leaf_actor(retry, timeout, cache, part.external, limit, handler, self._trial)(part.label)

    # -- statements --

    async def _block(self, block: Block) -> list[str]:
        return [await self._statement(number, statement) for number, statement in enumerate(block)]

    async def _statement(self, number: int, statement: Statement) -> str:
        if isinstance(statement, Pause):
            await asyncio.sleep(statement.seconds * self._unit)
            return "paused"
        if isinstance(statement, Chains):
            return await self._chains(number, statement)
        if isinstance(statement, Group):
            return await self._group(statement)
        try:
            value = await (self._ask(statement) if isinstance(statement, Ask) else self._call(statement))
        except StoreError:  # the program is over
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the program sees it
            return self._see(f"{statement.label} raised {describe(error)}")
        return self._see(f"{statement.label} gave {describe(value)}")

    async def _chains(self, number: int, chains: Chains) -> str:
        async def branch(name: int, block: Block) -> list[str]:
            _thread.set(f"{_thread.get()}/{number}-{name}")
            return await self._block(block)

        branches = [branch(name, block) for name, block in enumerate(chains.branches)]
        if chains.how == "first":
            return describe(await asyncio.gather(*branches))
        if chains.how == "task_group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each) for each in branches]
            return describe([task.result() for task in tasks])
        values = await asyncio.gather(*branches, return_exceptions=True)
        for value in values:
            if isinstance(value, BaseException) and chains.how == "all":
                raise value
        return describe(values)

    # -- people --

    def _ask(self, part: Ask) -> Awaitable[str]:
        return current().run.ask(part.label, str)

    async def _answer(self, question: Question) -> object:
        """What somebody says who is there. Whether a call is made of which nothing is known, nobody wants."""
        part = self._questions.get(question.text)
        if self._program.people == "both" and self._chance.random() < 0.3:
            return None
        if part is None:
            return "fail"
        if part.errs and question.problem is None:
            return 5
        _, tell, nonce = self._begin(part.label)
        try:
            await asyncio.sleep(part.seconds * self._unit)
        except asyncio.CancelledError:
            tell("cut")
            raise
        tell("done")
        return f"{part.label} ~{nonce}~"

    # -- groups --

    async def _group(self, group: Group) -> str:
        unit = self._unit
        manager = parallel(
            group.workers,
            group.strategy,
            None if group.timeout is None else group.timeout * unit,
            group.name,
            fail_after=group.fail_after,
            item_timeout=1_000.0 if group.item_timeout else None,
            retry=self._retry(group.retry),
            limits=() if group.limit is None else self._limits[group.limit],
            budget=self._budget(group.budget),
        )
        try:
            async with manager as p:
                try:
                    value = await self._in_block(p, group)
                except StoreError:
                    raise
                except Exception as error:
                    self._see(f"in {group.name}: {describe(error)}")
                    raise
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the program sees it
            value = f"{group.name} raised {describe(error)}"
        self._tell_seen(Line("ended", _thread.get(), manager.group_id, group.name, text=value))
        return value

    async def _in_block(self, p: ParallelExecutionManager, group: Group) -> str:
        members = iter(group.members)
        if group.read == "crawl":
            self._add(p, next(members))
        else:
            self._enrol(p, group)
        inside = await self._block(group.inside)
        value: str = await getattr(self, f"_read_{group.read}")(p, group, members)
        return f"{group.name}: {describe(inside)} {value}" if inside else f"{group.name}: {value}"

    def _enrol(self, p: ParallelExecutionManager, group: Group) -> None:
        if group.enrol == "add":
            for member in group.members:
                self._add(p, member)
            return
        labels = [member.label for member in group.members]
        items: Any = _failing(labels) if group.enrol == "map_failing" else labels
        p.map(self._work_for, self._slowly(labels) if group.enrol == "map_async" else items)

    def _add(self, p: ParallelExecutionManager, member: Member) -> None:
        if not isinstance(member, Plain):
            p.add(self._call(member))
            return
        name = f"plain {member.label}" if member.named else None
        work: Any = functools.partial(self.work, member.label)
        p.add(work() if member.given == "coroutine" else work, name)

    def _work_for(self, label: str) -> Awaitable[Any]:
        """What `map` applies to each item."""
        part = self._parts[label]
        return self.work(label) if isinstance(part, Plain) else self._call(part)

    async def _slowly(self, labels: list[str]) -> AsyncIterator[str]:
        for label in labels:
            await asyncio.sleep(0.5 * self._unit)
            yield label

    # -- reading groups --

    async def _read_gather(self, p: ParallelExecutionManager, group: Group, _: Iterator[Member]) -> str:
        return self._see_all(await p.gather())

    async def _read_dict(self, p: ParallelExecutionManager, group: Group, _: Iterator[Member]) -> str:
        results = await p.gather_dict()
        self._see(describe(list(results)))
        return self._see_all(list(results.values()))

    async def _read_nothing(self, p: ParallelExecutionManager, group: Group, _: Iterator[Member]) -> str:
        return "not read"

    async def _read_stream(self, p: ParallelExecutionManager, group: Group, _: Iterator[Member]) -> str:
        return await self._stream(p, ordered=False)

    async def _read_ordered(self, p: ParallelExecutionManager, group: Group, _: Iterator[Member]) -> str:
        return await self._stream(p, ordered=True)

    async def _stream(self, p: ParallelExecutionManager, *, ordered: bool) -> str:
        results = []
        async for result in p.stream(ordered=ordered):
            self._see(describe_result(result))
            results.append(result)
        return _in_order(results)

    async def _read_crawl(self, p: ParallelExecutionManager, group: Group, members: Iterator[Member]) -> str:
        results = []
        async for result in p.stream():
            self._see(describe_result(result))
            results.append(result)
            for member in itertools.islice(members, 2):
                self._add(p, member)
        return _in_order(results)

    async def _first(self, p: ParallelExecutionManager, count: int) -> list[str]:
        seen: list[str] = []
        if count:
            async for result in p.stream():
                seen.append(self._see(describe_result(result)))
                if len(seen) == count:
                    break
        return seen

    async def _read_leave(self, p: ParallelExecutionManager, group: Group, _: Iterator[Member]) -> str:
        return f"left after {describe(await self._first(p, max(1, group.after)))}"

    async def _read_raise(self, p: ParallelExecutionManager, group: Group, _: Iterator[Member]) -> str:
        await self._first(p, group.after)
        raise LookupError("the block has had enough")

    async def _read_cancel(self, p: ParallelExecutionManager, group: Group, _: Iterator[Member]) -> str:
        first = await self._first(p, group.after)
        p.cancel()
        return f"cancelled after {describe(first)} {self._see_all(await p.gather())}"

    async def _read_cancel_later(self, p: ParallelExecutionManager, group: Group, _: Iterator[Member]) -> str:
        await asyncio.sleep(group.after * self._unit)
        p.cancel()
        return f"cancelled {self._see_all(await p.gather())}"

    def _see_all(self, results: Sequence[ExecutionResult[Any]]) -> str:
        self._see(describe(results))
        return _in_order(results)


async def answer_some(store: Store, run_id: str, chance: random.Random, *, all_of_them: bool) -> None:
    """Somebody looks at what the run has asked while it is not executed, and answers most of it, or all of it."""
    for question in await store.questions(run_id):
        if all_of_them or chance.random() < 0.7:
            is_about_a_call = question.schema is not None and "enum" in json.loads(question.schema)
            answer = "fail" if is_about_a_call else f"{question.text} ~person {chance.random()}~"
            await store.answer(run_id, question.id, json.dumps(answer).encode(), "somebody")


def _in_order(results: Sequence[ExecutionResult[Any]]) -> str:
    """Results without what depends on the order in which they came."""
    return "; ".join(
        describe_result(result, timeless=True) for result in sorted(results, key=lambda each: each.index or 0)
    )


def _failing(labels: list[str]) -> Iterator[str]:
    yield from labels
    raise LookupError("no more items")
