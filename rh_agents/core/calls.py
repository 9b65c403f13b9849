"""Calls: what `fetch(url)` and `ExecutionEvent(actor=a)(input)` give. They start when they are awaited."""

from __future__ import annotations

import asyncio
import functools
import inspect
import warnings
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, Generic, Self, TypeVar

from rh_agents.core._former import known_place
from rh_agents.core._identifying import Identities, identified_in_turn
from rh_agents.core._postponed import Postponed
from rh_agents.core._runner import Job, run_job
from rh_agents.core._unstarted import Unstarted, Use, short_repr
from rh_agents.core.actors import BaseActor
from rh_agents.core.address import child_address
from rh_agents.core.codec import CanonicalInput
from rh_agents.core.errors import DefinitionError, StopRun, UndefinedOrderError, UndefinedOrderWarning
from rh_agents.core.keys import Canonical, child_key, identity
from rh_agents.core.ports import RunHandle
from rh_agents.core.results import ExecutionResult
from rh_agents.core.scope import ENDED, Claim, Claimant, Scope, current_scope
from rh_agents.core.usage import Usage

__all__ = ["ActorCall", "Call", "FunctionCall", "claim_in_order", "report_undefined_order"]

T = TypeVar("T")
_NOT_STARTED, _AWAITED = Use.NOT_STARTED, Use.AWAITED


class Call(Unstarted, Generic[T]):
    """A call that has not started. `await call` starts it and gives its value or raises what the function raised.

    It can be awaited more than once; each time it is another call of the same function with the same input. One that
    is thrown away before it was awaited warns, as coroutines do.
    """

    __slots__ = ("actor", "key", "run")

    def __init__(self, actor: BaseActor, run: RunHandle | None = None, key: str | None = None) -> None:
        self.actor: BaseActor = actor
        self.run: RunHandle | None = run
        self.key: str | None = key
        self.use: Use = _NOT_STARTED

    @property
    def described(self) -> str:
        """The call as its user wrote it, in short."""
        return f"{self.actor.name}(...)"

    @property
    def claimant(self) -> Claimant | None:
        """The task in whose order the call is numbered among identical ones: the one that awaits it."""
        return asyncio.current_task()

    def __await__(self) -> Generator[Any, None, T]:
        self.use = _AWAITED
        return self._value().__await__()

    async def _value(self) -> T:
        return (await self.outcome()).unwrap()

    async def outcome(self) -> ExecutionResult[T]:
        """Start the call and wait for its result, which holds the failure if it failed."""
        self.use = _AWAITED
        scope = self._parent_scope()
        run = scope.run
        await run.open()
        postponed: Postponed | None = None
        if not run.records and self.actor.cache is None:
            job = self._numbered(run, scope, None, None)
        else:
            _ = self.actor.has_known_types
            claimant, data = self.claimant, self.needed_input(self.key)
            if data is not None and data.is_large:
                postponed = Postponed()
                job = await identified_in_turn(
                    scope,
                    functools.partial(self.identities_of_large, self.key, data),
                    lambda identities: self._numbered(run, scope, claimant, identities),
                    postponed,
                )
            else:
                identities = self.identities(self.key, b"" if data is None else data.whole())
                job = self._numbered(run, scope, claimant, identities)
        if postponed is not None and postponed.is_due:
            if not job.is_recorded:
                postponed.raise_now()
            job.postponed = postponed
        token = current_scope.set(scope)
        try:
            caller = scope.job
            if caller is None or caller.passage is None:
                return self._counted(run, await run_job(job))
            async with caller.passage.lent():
                return self._counted(run, await run_job(job))
        except StopRun as stop:
            scope.tell_stop(stop)
            raise
        finally:
            current_scope.reset(token)
            job.let_go()

    def _numbered(self, run: RunHandle, scope: Scope, claimant: Claimant | None, identities: Identities | None) -> Job:
        """Give the call its number among identical ones, and with it its key and address."""
        base, key, tries = b"", None, 0
        claim = Claim(0, True)
        if run.records and identities is not None:
            claim = claim_in_order(scope, identities.same, claimant, self.actor.name, run)
            base = child_key(scope.key, "", identities.same, claim.occurrence)
            if self.actor.former_versions:
                base = known_place(scope, self.actor.name, None, base, identities.former, self.actor.keys_since)
            key, tries = scope.resolve(base)
            if not self.actor.is_stored:
                key = None
        address = child_address(scope.address, self.actor.name, claim.occurrence)
        own = Scope(run, base, address, scope.group_id)
        own.tries = tries
        job = self.job(run, own, scope, self.actor.name, key)
        self.share(job, identities)
        job.is_recorded = key is not None and run.is_recorded(key, self.actor)
        return job

    def _counted(self, run: RunHandle, result: ExecutionResult[T]) -> ExecutionResult[T]:
        run.count_call(self.actor.name, result)
        return result

    def _parent_scope(self) -> Scope:
        """The call that is under way in this context, if it belongs to the same run; else the root of the run."""
        scope = current_scope.get()
        if self.run is None:
            if scope is None:
                scope = default_run().root
            return scope
        return scope if scope is not None and scope.run is self.run else self.run.root

    def job(self, run: RunHandle, scope: Scope, parent: Scope, name: str, key: bytes | None) -> Job:
        """What the runner needs to execute the call at this place."""
        actor = self.actor
        job = Job(run, actor, name, scope, parent, lambda: self.begin(run), key)
        if actor.has_policy:
            job.retry = actor.retry
            job.timeout = actor.timeout
            job.breaker = actor.breaker
            job.limits = actor.limits
        if scope.ledgers or job.limits or actor.budget is not None:
            job.estimate = self.estimate
        return job

    def estimate(self) -> Usage | None:
        """What it will use at most, for budgets and rate limits; None if nobody knows."""
        return None

    def share(self, job: Job, identities: Identities | None) -> None:
        """Let the call have the result of an equal one, if its actor says so.

        Raises:
            DefinitionError: its input is not data.
        """
        if self.actor.cache is None or job.run.is_validation:
            return
        if identities is None or identities.equal is None:
            identities = self.identities(None, self.canonical_input().whole())
        job.cached_as, job.formerly_cached_as = identities.equal, identities.formerly_equal

    def identity(self) -> bytes:
        """What it has in common with identical calls.

        Raises:
            DefinitionError: its input is not data, and it has no `key`.
        """
        data = self.needed_input(self.key)
        return self.identities(self.key, b"" if data is None else data.whole()).same

    def needed_input(self, key: str | None) -> CanonicalInput | None:
        """The input, if it takes part in the identities of the call that has this `key`; one that is only to be known
        for a cache is needed early if it is large.
        """
        if key is None:
            return self.canonical_input()
        if self.actor.cache is None:
            return None
        data = self.canonical_input()
        return data if data.is_large else None

    def identities(self, key: str | None, data: Canonical) -> Identities:
        """What it has in common with others if `key` and `data`, its input in canonical form, say who it is."""
        actor = self.actor
        name, version = actor.name, actor.recorded_version
        same = identity(name, version, data, key)
        versions = actor.former_versions
        former = tuple(identity(name, each, data, key) for each in versions) if versions else ()
        if key is None:
            return Identities(same, former, same, former)
        if not data:
            return Identities(same, former)
        formerly_equal = tuple(identity(name, each, data, None) for each in versions)
        return Identities(same, former, identity(name, version, data, None), formerly_equal)

    def identities_of_large(self, key: str | None, data: CanonicalInput) -> Identities:
        """The same for a large input, for a thread.

        Raises:
            DefinitionError: the input is not data, and there is no `key`.
        """
        try:
            return self.identities(key, data.pieces())
        except DefinitionError:
            if key is None:
                raise
            return self.identities(key, b"")  # it only cannot be cached, and the call says so

    def canonical_input(self) -> CanonicalInput:
        """What stands for its input."""
        raise NotImplementedError

    def begin(self, run: RunHandle) -> Awaitable[T]:
        """Start one attempt."""
        raise NotImplementedError


class FunctionCall(Call[T]):
    """The call of a decorated function, with that function's own parameters.

    Raises:
        TypeError: the arguments do not fit them; as when the function itself is called so, at once.
    """

    __slots__ = ("args", "kwargs")

    def __init__(self, actor: BaseActor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if kwargs or len(args) != actor.signature.arity:
            actor.signature.check(args, kwargs)
        super().__init__(actor)
        self.args: tuple[Any, ...] = args
        self.kwargs: Mapping[str, Any] = kwargs

    @property
    def described(self) -> str:
        """The call as its user wrote it, in short."""
        given = [*map(short_repr, self.args), *(f"{name}={short_repr(value)}" for name, value in self.kwargs.items())]
        return f"{self.actor.name}({', '.join(given)})"

    def with_options(self, *, key: str) -> Self:
        """The same call with another identity: `key` stands for the input when the run is executed again."""
        self.discard()
        call = type(self)(self.actor, self.args, self.kwargs)
        call.key = key
        return call

    def canonical_input(self) -> CanonicalInput:
        """Its arguments, by parameter name."""
        return CanonicalInput(self.actor.signature.bind(self.args, self.kwargs), are_arguments=True)

    def begin(self, run: RunHandle) -> Awaitable[T]:
        """Call the function, on the event loop or where its actor says."""
        actor = self.actor
        if actor.is_async:
            return actor.handler(*self.args, **self.kwargs)  # type: ignore[no-any-return]
        return run.executor(actor).call(actor.handler, self.args, self.kwargs)


class ActorCall(Call["ExecutionResult[T]"], Generic[T]):  # quoted: Pydantic would build a model for it at import
    """The call of an actor with one input. `await call` gives an `ExecutionResult`, whatever becomes of the call."""

    __slots__ = ("extra_context", "input_data", "marks")

    def __init__(
        self,
        actor: BaseActor,
        input_data: Any,
        extra_context: Any,
        run: RunHandle | None = None,
        marks: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(actor, run)
        self.input_data: Any = input_data
        self.extra_context: Any = extra_context
        self.marks: Mapping[str, Any] | None = marks

    @property
    def described(self) -> str:
        """The call as its user wrote it, in short."""
        return f"{self.actor.name}({short_repr(self.input_data)})"

    async def _value(self) -> ExecutionResult[T]:
        return await self.outcome()  # type: ignore[return-value]

    def canonical_input(self) -> CanonicalInput:
        """Its input."""
        return CanonicalInput(self.input_data)

    def job(self, run: RunHandle, scope: Scope, parent: Scope, name: str, key: bytes | None) -> Job:
        """As for every call; the preconditions come before the first attempt."""
        job = super().job(run, scope, parent, name, key)
        if self.marks is not None:
            job.marks = self.marks
        if self.actor.preconditions or self.actor.input_model is not None:
            job.check = lambda: self._check(run)
        return job

    def estimate(self) -> Usage | None:
        """What the actor says about this input."""
        return self.actor.estimate_input(self.input_data)

    async def _check(self, run: RunHandle) -> None:
        self.input_data = self.actor.validate_input(self.input_data)
        for condition in self.actor.preconditions:
            await _awaited(condition(self.input_data, self.extra_context, run))

    async def begin(self, run: RunHandle) -> Any:
        """Call the handler, then see whether its result is what the actor promises."""
        actor = self.actor
        args, kwargs = actor.signature.fill(self.input_data, self.extra_context, run)
        if actor.is_async:
            value = await actor.handler(*args, **kwargs)
        else:
            value = await run.executor(actor).call(actor.handler, args, kwargs)
        value = actor.validate_output(value)
        for condition in actor.postconditions:
            await _awaited(condition(value, self.extra_context, run))
        return value


async def _awaited(value: Any) -> None:
    if inspect.isawaitable(value):
        await value


def claim_in_order(scope: Scope, same: bytes, claimant: Claimant | None, name: str, run: RunHandle) -> Claim:
    """Number a call in its scope, and say so if nothing defines its order among identical ones.

    Raises:
        UndefinedOrderError: nothing does, and the run is strict.
    """
    claim = scope.claim(same, claimant, _has_ended)
    if not claim.is_ordered:
        report_undefined_order(scope, name, run)
    return claim


def _has_ended(claimant: Claimant) -> bool:
    return claimant is ENDED or (isinstance(claimant, asyncio.Task) and claimant.done())


def report_undefined_order(scope: Scope, name: str, run: RunHandle) -> None:
    """Warn, or raise in a strict run."""
    message = (
        f"two identical calls of {name} under {scope.address or 'the run'} are made side by side by different tasks or "
        "groups, so nothing says which is which when the run is started again; tell them apart: "
        f"{name}(...).with_options(key='...')"
    )
    if run.strict:
        raise UndefinedOrderError(message)
    warnings.warn(message, UndefinedOrderWarning, stacklevel=4)


def _no_default_run() -> RunHandle:
    raise RuntimeError("rh_agents.core.execution has not been imported")


_make_default_run: Callable[[], RunHandle] = _no_default_run


def default_run() -> RunHandle:
    """A run for a call that is made outside of any."""
    return _make_default_run()


def set_default_run(make: Callable[[], RunHandle]) -> None:
    """Tell how to make one. The runtime does this once, when it is imported."""
    global _make_default_run  # noqa: PLW0603 - the one hook that keeps this module below the runtime's facade
    _make_default_run = make
