"""What becomes of a call: `ExecutionResult` for the caller, `Outcome` for the store."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import typing_extensions
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from rh_agents.core._base.latency import LatencyHistogram
from rh_agents.core._base.sizes import is_large
from rh_agents.core.errors import RhAgentsError
from rh_agents.core.redaction import redact
from rh_agents.core.redaction.described import describe_error
from rh_agents.core.types import Generation
from rh_agents.core.usage import Usage
from rh_agents.core.values.registry import storable

__all__ = ["ExecutionResult", "MemberResult", "Outcome", "OutcomeHeader", "UnreadOutcome", "describe_error"]

T = TypeVar("T")
ValueT = typing_extensions.TypeVar("ValueT", default=Any)
ItemT = typing_extensions.TypeVar("ItemT", default=Any)


@storable  # a call may return the results of its group
class ExecutionResult(BaseModel, Generic[T]):
    """The value or the failure of one call, with what is worth knowing about it. Immutable."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True, frozen=True, arbitrary_types_allowed=True)

    result: T | None = None
    """The value; None if the call failed (and, of course, if None is the value)."""
    ok: bool = True
    error_message: str | None = Field(default=None, validation_alias=AliasChoices("error_message", "erro_message"))
    """One line that says what went wrong; None if the call succeeded."""
    error: BaseException | None = Field(default=None, exclude=True, repr=False)
    """The exception itself, as the called function raised it."""
    execution_time: float | None = None
    """Seconds from the start of the call to its outcome, with all attempts and the waits between them."""
    attempts: int = 1
    """How often the function was called; 0 if a breaker refused it or the call was cancelled before it began."""
    name: str = ""
    index: int | None = None
    """The place in its group, counted from 0 in the order in which the members were enrolled; None outside a group."""
    address: str = ""
    is_replayed: bool = False
    """Whether the outcome was recorded by an earlier execution of the run, so that nothing was called."""
    from_cache: bool = False
    """Whether nothing was called because an equal call had been made (`cache=`)."""
    usage: Usage | None = None
    """What the call itself used, with all its attempts, not what calls below it did; None if it reported nothing."""
    requeued: bool = False
    """Whether the stream of its group gave an earlier result of this member: a failure that a person asked to be made
    again (`parallel(requeue=True)`). The newest result of a member is the one that counts."""

    def __repr__(self) -> str:
        """For people, so without secrets; the result itself has them."""
        return redact(super().__repr__())

    def __str__(self) -> str:
        """The same without the name of the class."""
        return redact(super().__str__())

    @cached_property
    def item(self) -> Any:
        """The item of `map` that the function was called with; None for what `add` enrolled, and outside a group.

        It belongs to the execution that made the result: it is no field, so it is neither recorded nor part of a key.
        """
        return None

    @property
    def erro_message(self) -> str | None:
        """Another name of `error_message`, which existing code uses."""
        return self.error_message

    def unwrap(self) -> T:
        """The value of a call that succeeded.

        Raises:
            BaseException: the call failed; this is the exception object that the called function raised.
        """
        if self.ok:
            return cast(T, self.result)
        try:
            raise self.error or RhAgentsError(self.error_message or "the call failed")
        finally:
            del self  # else the error would hold its result, by its traceback, and be held by it


ModelT = TypeVar("ModelT", bound=BaseModel)
_new = object.__new__
# The slots of every Pydantic model. Setting them through their descriptors takes half the time of `object.__setattr__`.
_set_values = BaseModel.__dict__["__dict__"].__set__
_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__
_names: dict[type[BaseModel], set[str]] = {}


def trusted(model: type[ModelT], fields: dict[str, Any]) -> ModelT:
    """An instance of `model` that takes over `fields`, which must name every field of it.

    `BaseModel.model_construct` does the same for any input; it takes several times as long, because it looks for
    aliases and defaults, and three of these are built for every call.
    """
    instance = _new(model)
    _set_values(instance, fields)
    names = _names.get(model)
    if names is None:
        names = _names[model] = set(fields)
    _set_fields_set(instance, names)
    _set_extra(instance, None)
    _set_private(instance, None)
    return instance


if TYPE_CHECKING:

    class MemberResult(ExecutionResult[ValueT], Generic[ValueT, ItemT]):
        """The result of a member of a group: `MemberResult[Page, str]`, where an item is a `str` and gives a `Page`.

        A name for annotations. At run time the results of groups are plain `ExecutionResult`s, which is the class that
        journals name.
        """

        index: int = 0  # pyright: ignore[reportIncompatibleVariableOverride] - it is frozen, which pyright cannot see
        """Its place in the group, counted from 0 in the order in which the members were enrolled."""

        @cached_property
        def item(self) -> ItemT:
            """The item of `map` that the function was called with; None for what `add` enrolled."""
            ...

else:

    class MemberResult:
        """See above: in annotations that something reads at run time, it is the class of the result."""

        def __class_getitem__(cls, parameters):
            return ExecutionResult[parameters[0] if isinstance(parameters, tuple) else parameters]


def success(value: T, seconds: float, attempts: int, name: str, index: int | None, address: str) -> ExecutionResult[T]:
    """The result of a call that returned."""
    return trusted(
        ExecutionResult,
        {
            "result": value,
            "ok": True,
            "error_message": None,
            "error": None,
            "execution_time": seconds,
            "attempts": attempts,
            "name": name,
            "index": index,
            "address": address,
            "is_replayed": False,
            "from_cache": False,
            "usage": None,
            "requeued": False,
        },
    )


def failure(
    error: BaseException, seconds: float | None, attempts: int, name: str, index: int | None, address: str
) -> ExecutionResult[Any]:
    """The result of a call that raised, or that was cancelled."""
    return _result(None, error, seconds, attempts, name, index, address, False)


def _result(
    value: Any,
    error: BaseException | None,
    seconds: float | None,
    attempts: int,
    name: str,
    index: int | None,
    address: str,
    is_replayed: bool,
    usage: Usage | None = None,
) -> ExecutionResult[Any]:
    return trusted(
        ExecutionResult,
        {
            "result": value,
            "ok": error is None,
            "error_message": None if error is None else describe_error(error),
            "error": error,
            "execution_time": seconds,
            "attempts": attempts,
            "name": name,
            "index": index,
            "address": address,
            "is_replayed": is_replayed,
            "from_cache": False,
            "usage": usage,
            "requeued": False,
        },
    )


_COUNTED_AT_ONCE = 256
"""Durations: to add one to the others takes longer than to note it."""


class ResultCounts:
    """How the calls of one actor have ended."""

    __slots__ = ("_durations", "_latency", "cached", "calls", "failed", "replayed", "retries")

    def __init__(self) -> None:
        self.calls: int = 0
        self.failed: int = 0
        self.replayed: int = 0
        self.cached: int = 0
        self.retries: int = 0
        self._latency = LatencyHistogram()
        self._durations: list[float] = []
        """Those that are not in it yet."""

    def add(self, result: ExecutionResult[Any]) -> None:
        """Another one has ended so. What was taken from an earlier execution took no time here."""
        self.calls += 1
        self.failed += not result.ok
        if result.is_replayed:
            self.replayed += 1
            return
        self.cached += result.from_cache
        attempts, seconds = result.attempts, result.execution_time
        if attempts > 1:
            self.retries += attempts - 1
        if seconds is not None:
            self._durations.append(seconds)
            if len(self._durations) >= _COUNTED_AT_ONCE:
                self._count()

    def _count(self) -> None:
        durations, self._durations = self._durations, []
        for seconds in durations:
            self._latency.record(seconds)

    @property
    def latency(self) -> LatencyHistogram:
        """How long they took that were made."""
        self._count()
        return self._latency


class Outcome(NamedTuple):
    """What a store keeps of a call that has ended: recorded once, and returned unchanged ever after.

    Attributes:
        key: the identity of the call within its run.
        name: the name of what was called.
        address: the readable place of the call when it was made.
        value: what the function returned.
        error: what it raised; None if it returned.
        seconds: how long it took, with all attempts.
        attempts: how many there were.
        group_id: the group of which the call was a member.
        base: the place of the call in the program: its key, unless it had failed before and was made again.
        parent: the place of the call that made it.
        made_in: which execution of the parent's body made it.
        usage: what the call used, with all its attempts in the execution that recorded it; None for nothing.
        input: what it was called with, in brief and for people, where that is to be recorded (`record_inputs`). None in
            what a store gives: `UnreadOutcome` and windows of calls have it.
    """

    key: bytes
    name: str
    address: str
    value: Any
    error: Exception | None
    seconds: float
    attempts: int
    group_id: str | None = None
    base: bytes = b""
    parent: bytes = b""
    made_in: Generation = (0, 0, 0)
    usage: Usage | None = None
    input: str | None = None

    def as_result(self, index: int | None, address: str) -> ExecutionResult[Any]:
        """The result that the caller gets when the run is executed again."""
        return _result(self.value, self.error, self.seconds, self.attempts, self.name, index, address, True, self.usage)

    @property
    def is_large(self) -> bool:
        """Whether its text takes so long to write that it is to be done in a thread."""
        return is_large(self.value if self.error is None else self.error)

    @property
    def header(self) -> OutcomeHeader:
        """All of it but the value and the error."""
        return OutcomeHeader._make((*self[:3], self.error is None, *self[5:12]))


class OutcomeHeader(NamedTuple):
    """All of an outcome but its value and its error: which call ended, and how. The fields are those of `Outcome`.

    Those who need only keys and addresses read these, and no class of the program has to be known for that.
    """

    key: bytes
    name: str
    address: str
    ok: bool
    seconds: float
    attempts: int
    group_id: str | None = None
    base: bytes = b""
    parent: bytes = b""
    made_in: Generation = (0, 0, 0)
    usage: Usage | None = None

    def with_value(self, value: Any) -> Outcome:
        """An outcome of the same call, which returned this value."""
        return Outcome._make((*self[:3], value, None, *self[4:], None))


class UnreadOutcome(NamedTuple):
    """An outcome as a store has it, whose value has not been decoded.

    Attributes:
        header: which call ended, and how.
        read: decodes the value or the error. It may read a file, and raises `StoreError` for a value of a class that
            this program does not know; `read(unknown_ok=True)` gives an `UnknownValue` in its place.
        is_large: whether that takes so long that it is to be done in a thread.
        input: what the call was called with, for people; None where that was not recorded.
    """

    header: OutcomeHeader
    read: Callable[..., Outcome]
    is_large: bool = False
    input: str | None = None
