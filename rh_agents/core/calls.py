"""Calls: what `fetch(url)` and `ExecutionEvent(actor=a)(input)` give. They start when they are awaited."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from rh_agents.core._base.mistakes import Unstarted
from rh_agents.core._base.tracebacks import trimmed
from rh_agents.core._loops.beside import beside, beside_if_large
from rh_agents.core._loops.postponed import Postponed
from rh_agents.core._replay.identity import ENDED, Canonical, Claim, Claimant, child_address, child_key, identity
from rh_agents.core._run.frame import Frame, current_frame, leave, root_of
from rh_agents.core._run.identifying import Identities, has_outcome_of_next, identified_in_turn, known_key
from rh_agents.core._run.parts import RunParts
from rh_agents.core._run.runner import run_frame
from rh_agents.core.actors import BaseActor
from rh_agents.core.actors.signature import expect_fitting
from rh_agents.core.errors import DefinitionError, StopRun, UndefinedOrderError, UndefinedOrderWarning
from rh_agents.core.policies._options import takes_options
from rh_agents.core.redaction import registered, without_secrets
from rh_agents.core.redaction.described import short_repr
from rh_agents.core.results import ExecutionResult
from rh_agents.core.usage import Usage
from rh_agents.core.values.inputs import CanonicalInput, input_of

__all__ = ["ActorCall", "Call", "FunctionCall", "report_undefined_order"]

T = TypeVar("T")
_new_tuple = tuple.__new__  # a third of the time that a NamedTuple takes to be called


# What has become of a call.
NOT_STARTED: Final = "not started"
AWAITED: Final = "awaited"
GIVEN: Final = "given to a group"
HANDED_OVER: Final = "given to asyncio"
"""Which makes a task that awaits it, unless that is cancelled before its first step."""
DISCARDED: Final = "discarded"
"""No one awaits it, and no one forgot to: another one stands for it, or it was refused."""


class Call(Unstarted, Generic[T]):
    """A call that has not started. `await call` starts it and gives its value or raises what the function raised.

    It can be awaited more than once; each time it is another call of the same function with the same input. One that
    is thrown away before it was awaited warns, as coroutines do.
    """

    __slots__ = ("actor", "key", "run", "use")

    claimant: Claimant | None = None
    """The task in whose order the call is numbered among identical ones; None for the one that awaits it."""
    gives_value: ClassVar[bool] = True
    """Whether awaiting it gives the value, or raises; else its result, whatever became of it."""

    def __init__(self, actor: BaseActor, run: RunParts | None = None, key: str | None = None) -> None:
        self.actor: BaseActor = actor
        self.run: RunParts | None = run
        self.key: str | None = key
        self.use: str = NOT_STARTED

    @property
    def described(self) -> str:
        """The call as its user wrote it, in short."""
        return f"{self.actor.name}(...)"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.described}: {self.use}>"

    def __del__(self) -> None:
        try:
            if self.use is not NOT_STARTED:
                return
        except AttributeError:  # its own `__init__` raised
            return
        if not sys.is_finalizing():  # then there may be nobody left to tell
            warnings.warn(f"{self.described} was never awaited", RuntimeWarning, stacklevel=2, source=self)

    @property
    def _asyncio_future_blocking(self) -> None:
        """Asked for by `asyncio.isfuture`, with which asyncio begins whatever it does with something awaitable.

        It is none: what has it must give something else than None. But whoever hands a call to `asyncio.wait_for` or
        `asyncio.gather` has not forgotten it, even where asyncio itself cancels its task before that awaits the call.
        """
        if self.use is NOT_STARTED:
            self.use = HANDED_OVER

    def discard(self) -> None:
        """No one will await it, and that is right."""
        self.use = DISCARDED

    def __await__(self) -> Generator[Any, None, T]:
        self.use = AWAITED
        return self._outcome(unwraps=self.gives_value).__await__()

    def outcome(self) -> Coroutine[Any, Any, ExecutionResult[T]]:
        """Start the call and wait for its result, which holds the failure if it failed.

        Raises:
            UndefinedOrderError: (strict runs, when it is awaited) an identical call was made by another task, so that
                no replay could tell them apart.
            StopRun: (when it is awaited) the run is being stopped.
        """
        self.use = AWAITED
        return self._outcome(unwraps=False)

    async def _outcome(self, *, unwraps: bool) -> Any:
        """The result of the call, or the value in it: in one coroutine, so that calls nest deeply."""
        parent = self._parent()
        run = parent.run
        home, recording = run.home, run.recording
        is_here = home is not None and home.loop() is asyncio.get_running_loop()
        if not is_here or not recording.is_open or recording.broken is not None:
            await run.open()
        if run.records or self.actor.cache is not None:
            _ = self.actor.has_known_types
            data = self.input_for(self.key)
            if isinstance(data, bytes):
                claimant = self.claimant or asyncio.current_task()
                frame = self._numbered(parent, claimant, self.identities(self.key, data))
            else:
                frame = await self._numbered_in_turn(parent, data)
        else:
            frame = self._numbered(parent, None, None)
        token = current_frame.set(parent)
        try:
            if parent.permits is None:
                result = await run_frame(frame)
            else:
                async with parent.permits.released(gives_result=True):
                    result = await run_frame(frame)
        except StopRun as stop:
            parent.report_stop(stop)
            await parent.let_others_end()
            raise
        finally:
            leave(token)
            frame.let_go()
        try:
            run.counter.actors[self.actor.name].add(result)
            return (result.result if result.ok else result.unwrap()) if unwraps else result
        except Exception as error:
            trimmed(error)
            raise
        finally:
            del result, frame, parent  # an error in the result leads to this coroutine, and would be held by it

    async def has_outcome(self) -> bool:
        """Whether the journal says what becomes of it, if it is the next call that is made here. Nothing is made.

        For code that has to decide again what an earlier execution decided: what was recorded then, it has to do.

        Raises:
            DefinitionError: its input is not data.
        """
        parent = self._parent()
        await parent.run.open()
        if not parent.run.recording.is_resumed:
            return False
        _ = self.actor.has_known_types
        data = self.input_for(self.key)
        if isinstance(data, bytes):
            found = self.identities(self.key, data)
        else:
            found = await beside(functools.partial(self.identities_of_large, self.key, data))
        return has_outcome_of_next(parent, found.same, found.former, self.actor.keys_since)

    async def _numbered_in_turn(self, parent: Frame, data: CanonicalInput) -> Frame:
        """The same when it takes long to find out who the call is."""
        claimant, postponed = self.claimant or asyncio.current_task(), Postponed()
        frame = await identified_in_turn(
            parent,
            functools.partial(self.identities_of_large, self.key, data),
            lambda identities: self._numbered(parent, claimant, identities),
            postponed,
        )
        if postponed.is_due:
            if not frame.is_recorded:
                postponed.raise_now()
            frame.postponed = postponed
        return frame

    def _numbered(self, parent: Frame, claimant: Claimant | None, identities: Identities | None) -> Frame:
        """Give the call its number among identical ones, and with it its key and address."""
        run, name = parent.run, self.actor.name
        shown = without_secrets(name) if registered.anything else name
        base, key, tries = b"", None, 0
        claim = Claim(0, True)
        if run.records and identities is not None:
            claim = parent.claim(identities.same, claimant, _has_ended)
            if not claim.is_ordered:
                report_undefined_order(parent, name, run)
            base = child_key(parent.base, "", identities.same, claim.occurrence)
            if identities.former:
                base = known_key(parent, name, None, base, identities.former, self.actor.keys_since)
            key, tries = parent.try_of(base)
            if not self.actor.is_stored:
                key = None
        address = child_address(parent.address, shown, claim.occurrence)
        frame = Frame(run, base, address, parent.innermost_group, parent, self.actor, name, shown, key, tries)
        self.prepare(frame)
        if self.actor.cache is not None:
            self.share(frame, identities)
        if key is not None and key in run.recording.recorded.finished:
            frame.is_recorded = run.recording.recovers(key, is_external=self.actor.is_external)
        return frame

    def _parent(self) -> Frame:
        """The call that is under way in this context, if it belongs to the same run; else the root of the run."""
        frame = current_frame.get()
        if self.run is None:
            if frame is None:
                frame = root_of(default_run())
            return frame
        return frame if frame is not None and frame.run is self.run else root_of(self.run)

    def prepare(self, frame: Frame) -> None:
        """Set what the runner needs to execute the call.

        Raises:
            DefinitionError: the run does not have its engine.
        """
        actor, run = self.actor, frame.run
        if actor.engine is not None:
            run.executors.expect(actor)
        frame.begin = functools.partial(self.begin, run)
        frame.given = self.given
        if actor.has_policy:
            frame.retry = actor.retry
            frame.timeout = actor.timeout
            frame.breaker = actor.breaker
            frame.limits = actor.limits
        frame.estimate = self.estimate

    def given(self) -> Any:
        """What it is called with, for people."""
        return None

    def estimate(self) -> Usage | None:
        """What it will use at most, for budgets and rate limits; None if no one knows."""
        return None

    def share(self, frame: Frame, identities: Identities | None) -> None:
        """Let the call have the result of an equal one, as its actor (`cache=`) says.

        Raises:
            DefinitionError: its input is not data.
        """
        if frame.run.is_validation:
            return
        if identities is None or identities.equal is None:
            identities = self.identities(None, self.canonical_input().whole())
        frame.cached_as, frame.formerly_cached_as = identities.equal, identities.formerly_equal

    def identity(self) -> bytes:
        """What it has in common with identical calls.

        Raises:
            DefinitionError: its input is not data, and it has no `key`.
        """
        data = self.input_for(self.key)
        return self.identities(self.key, data if isinstance(data, bytes) else data.whole()).same

    def input_for(self, key: str | None) -> bytes | CanonicalInput:
        """What of its input takes part in the identities of the call that has this `key`: the canonical form, or the
        input itself, if that is large. One that is only to be known for a cache is needed early if it is large.

        Raises:
            DefinitionError: it is not data.
        """
        if key is None:
            data = self.canonical_input()
            return data if data.is_large else data.whole()
        if self.actor.cache is None:
            return b""
        data = self.canonical_input()
        return data if data.is_large else b""

    def identities(self, key: str | None, data: Canonical) -> Identities:
        """What it has in common with others if `key` and `data`, its input in canonical form, say who it is."""
        actor = self.actor
        name, version = actor.name, actor.recorded_version
        same = identity(name, version, data, key)
        versions = actor.former_versions
        former = tuple(identity(name, each, data, key) for each in versions) if versions else ()
        if key is None:
            return _new_tuple(Identities, (same, former, same, former))
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

    def begin(self, run: RunParts) -> Awaitable[T]:
        """Start one attempt."""
        raise NotImplementedError


class FunctionCall(Call[T]):
    """The call of a decorated function, with that function's own parameters.

    Raises:
        TypeError: the arguments do not fit them; as when the function itself is called so, at once.
    """

    __slots__ = ("_bound", "args", "kwargs")

    def __init__(self, actor: BaseActor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if kwargs or len(args) != actor.signature.arity:
            expect_fitting(actor.name, actor.signature, args, kwargs)
        self.actor = actor  # not by `super()`: many calls are made, and this takes a third of the time
        self.run: RunParts | None = None
        self.key: str | None = None
        self.use = NOT_STARTED
        self.args: tuple[Any, ...] = args
        self.kwargs: Mapping[str, Any] = kwargs
        self._bound: dict[str, Any] | None = None

    @property
    def described(self) -> str:
        """The call as its user wrote it, in short."""
        given = [*map(short_repr, self.args), *(f"{name}={short_repr(value)}" for name, value in self.kwargs.items())]
        return f"{self.actor.name}({', '.join(given)})"

    @takes_options("with_options()")
    def with_options(self, *, key: str) -> Self:
        """The same call with another identity: `key` stands for the input when the run is executed again."""
        self.discard()
        call = type(self)(self.actor, self.args, self.kwargs)
        call.key = key
        return call

    def canonical_input(self) -> CanonicalInput:
        """Its arguments, by parameter name."""
        return CanonicalInput(self.given(), are_arguments=True)

    def input_for(self, key: str | None) -> bytes | CanonicalInput:
        """As for every call; most have few arguments, which take a shorter way."""
        return input_of(self.given()) if key is None else super().input_for(key)

    def given(self) -> dict[str, Any]:
        """Its arguments, by parameter name."""
        bound = self._bound
        if bound is None:
            signature, args = self.actor.signature, self.args
            if signature.is_simple and not self.kwargs and len(args) == signature.arity:
                bound = dict(zip(signature.positional, args, strict=False))  # their number is the same
            else:
                bound = signature.bind(args, self.kwargs)
            self._bound = bound
        return bound

    def begin(self, run: RunParts) -> Awaitable[T]:
        """Call the function, on the event loop or where its actor says."""
        actor = self.actor
        if actor.is_async:
            return actor.handler(*self.args, **self.kwargs)  # type: ignore[no-any-return]
        return _executed(actor, self.args, self.kwargs, run)


class ActorCall(Call["ExecutionResult[T]"], Generic[T]):  # quoted: Pydantic would build a model for it at import
    """The call of an actor with one input. `await call` gives an `ExecutionResult`, whatever becomes of the call."""

    __slots__ = ("extra_context", "input_data", "marks")

    def __init__(
        self,
        actor: BaseActor,
        input_data: Any,
        extra_context: Any,
        run: RunParts | None = None,
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

    gives_value = False

    def canonical_input(self) -> CanonicalInput:
        """Its input."""
        return CanonicalInput(self.input_data)

    def given(self) -> Any:
        """Its input."""
        return self.input_data

    def prepare(self, frame: Frame) -> None:
        """As for every call; the preconditions come before the first attempt."""
        super().prepare(frame)
        if self.marks is not None:
            frame.marks = self.marks
        if self.actor.preconditions or self.actor.input_model is not None:
            frame.check = lambda: self._check(frame.run)

    def estimate(self) -> Usage | None:
        """What the actor says about this input."""
        return self.actor.estimate_input(self.input_data)

    async def _check(self, run: RunParts) -> None:
        actor, given = self.actor, self.input_data
        if actor.input_model is not None:
            self.input_data = await beside_if_large(given, actor.validate_input, given)
        for condition in self.actor.preconditions:
            await _awaited(condition(self.input_data, self.extra_context, run.state))

    async def begin(self, run: RunParts) -> Any:
        """Call the handler, then see whether its result is what the actor promises."""
        actor = self.actor
        args, kwargs = actor.signature.fill(self.input_data, self.extra_context, run.state)
        if actor.is_async:
            value = await actor.handler(*args, **kwargs)
        else:
            value = await _executed(actor, args, kwargs, run)
        if actor.output_model is not None:
            value = await beside_if_large(value, actor.validate_output, value)
        for condition in actor.postconditions:
            await _awaited(condition(value, self.extra_context, run.state))
        return value


def _executed(actor: BaseActor, args: Sequence[Any], kwargs: Mapping[str, Any], run: RunParts) -> Awaitable[Any]:
    """Call the handler where its engine runs it; for an attempt of the call that is under way."""
    frame = current_frame.get()
    assert frame is not None
    return run.executors.of(actor).call(actor.handler, args, kwargs, frame.about())


async def _awaited(value: Any) -> None:
    if inspect.isawaitable(value):
        await value


def _has_ended(claimant: Claimant) -> bool:
    return claimant is ENDED or (isinstance(claimant, asyncio.Task) and claimant.done())


def report_undefined_order(frame: Frame, name: str, run: RunParts) -> None:
    """Warn, or raise in a strict run.

    Raises:
        UndefinedOrderError: the run is strict.
    """
    message = (
        f"two identical calls of {name} under {frame.address or 'the run'} are made side by side by different tasks or "
        "groups, so nothing says which is which when the run is started again; tell them apart: "
        f"{name}(...).with_options(key='...')"
    )
    if run.strict:
        raise UndefinedOrderError(message)
    warnings.warn(message, UndefinedOrderWarning, stacklevel=4)


def _no_default_run() -> RunParts:
    raise RuntimeError("rh_agents.core.execution has not been imported")


_make_default_run: Callable[[], RunParts] = _no_default_run


def default_run() -> RunParts:
    """A run for a call that is made outside of any."""
    return _make_default_run()


def set_default_run(make: Callable[[], RunParts]) -> None:
    """Tell how to make one. The runtime does this once, when it is imported."""
    global _make_default_run  # noqa: PLW0603 - the one hook that keeps this module below the runtime's facade
    _make_default_run = make
