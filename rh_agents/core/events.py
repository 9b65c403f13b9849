"""Facts about calls and groups, of which the journal of a run is the list, and events, which are views of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from datetime import datetime as DateTime
from typing import Any, ClassVar, Generic, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SerializeAsAny, field_serializer
from typing_extensions import TypeVar

from rh_agents.core._base.current import Caller, current_call
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import DefinitionError, UsageError
from rh_agents.core.groups import NOTHING_COUNTED, Counted, GroupEnding, ParallelEventGroup
from rh_agents.core.redaction import redact
from rh_agents.core.results import ExecutionResult, trusted
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.core.usage import Charge, Usage

__all__ = [
    "COSTS",
    "OF_FEW",
    "ExecutionEvent",
    "ExecutionResult",
    "Fact",
    "Subscriber",
    "spender_of",
]

OutputT = TypeVar("OutputT", default=Any)

_DETAIL_LENGTH = 200


class ExecutionEvent(BaseModel, Generic[OutputT]):
    """One fact about a call or a group; and, made by hand around an actor, the way to call it:

        result = await ExecutionEvent(actor=my_tool)(input_data, extra_context, state)

    gives an `ExecutionResult`, which holds the failure if there is one. The event that is called is never changed: what
    happens is reported by new ones.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        defer_build=True, frozen=True, arbitrary_types_allowed=True, extra="forbid"
    )

    actor: SerializeAsAny[BaseActor]
    name: str = ""
    """The actor's name, or the one that a member was given in its group."""
    event_type: EventType = EventType.FUNCTION_CALL
    execution_status: ExecutionStatus = ExecutionStatus.STARTED
    run_id: str = ""
    address: str = ""
    key: str | None = None
    """The identity of the call within its run, in hexadecimal; None where nothing is recorded."""
    timestamp: float = 0.0
    """Seconds since 1970."""
    execution_time: float | None = None
    """Seconds that the call took with all attempts; only in events that tell its end."""
    attempt: int = 1
    waited: float = 0.0
    """Seconds of those without work: it waited for a limit, a budget, its next attempt, a person, a pause."""
    retry_delay: float | None = None
    """Seconds until the next attempt; in RETRYING events, and in WAITING events as far as it is known."""
    result: Any = None
    """The value; only in COMPLETED and RECOVERED events."""
    message: str | None = None
    """One line that says what went wrong."""
    is_replayed: bool = False
    """Whether the outcome was recorded by an earlier execution of the run."""
    from_cache: bool = False
    """Whether nothing was called: the outcome was recorded by an earlier execution, or for an equal call (`cache=`)."""
    usage: Usage | None = None
    """What the call has used since its last event that had one; in RETRYING events and in those that tell its end."""
    charges: Mapping[str, float] | None = None
    """The parts of the run with a budget of their own that this counts for, by the key of their place in hexadecimal
    ("" is the run), each with the seconds that it has been under way if its budget limits those, else 0.0."""
    lost: int = 0
    """How many workers the call has lost, in events that follow such a loss: no one knows what those have done."""
    progress: Any = None
    """What a call under way tells, for instance a `ChatDelta`; only in PROGRESS events."""
    group_id: str | None = None
    """The group of which the call is a member."""
    parallel_index: int | None = None
    """Its place in that group, from 0."""
    is_parallel: bool = False
    group_total: int | None = None
    """How many members the group will have, as far as is known now."""
    group: ParallelEventGroup | None = Field(default=None)
    """How the group stands; only in events about groups."""
    control: Mapping[str, JsonValue] | None = None
    """What was asked of the run, by whom, and what came of it; only in CONTROL events."""

    taken_over: Mapping[str, JsonValue] | None = None
    """{"run": RUN, "until": N}: with this event, the journal of RUN is in this one up to its entry N. That run has
    executed a part of a group in another process."""

    tag: str = ""
    """What the caller calls this call, for people who look for it: in all its events, and no part of its key."""
    metadata: Mapping[str, JsonValue] = Field(default_factory=dict)
    """What else the caller wants to be kept with these events: data that JSON has, and no part of the key."""

    def __init__(self, **data: Any) -> None:
        """An event made by hand is named after its actor.

        Raises:
            DefinitionError: there is no field of this name, or `actor` is neither an actor nor a decorated function.
        """
        if not data.keys() <= type(self).model_fields.keys():
            self._refuse_unknown(data)
        actor = data.get("actor")
        if "actor" in data and not isinstance(actor, BaseActor):
            actor = data["actor"] = _actor_of(actor)
        if isinstance(actor, BaseActor):
            data.setdefault("name", actor.name)
            data.setdefault("event_type", actor.event_type)
        super().__init__(**data)

    def _refuse_unknown(self, data: Mapping[str, Any]) -> None:
        """Say which fields there are. (A derived class may have others, under other names, or take what it gets.)"""
        fields, config = type(self).model_fields, type(self).model_config
        given = (alias for field in fields.values() for alias in (field.alias, field.validation_alias))
        aliases = {alias for alias in given if isinstance(alias, str)}
        unknown = [name for name in data if name not in fields and name not in aliases]
        if unknown and config.get("extra") == "forbid":
            raise DefinitionError(
                f"{type(self).__name__} has no field {', '.join(map(repr, unknown))}; it has: {', '.join(fields)}. "
                "What else is to be kept with a call goes into metadata={...}"
            )

    @property
    def datetime(self) -> str:
        """The time of the event in UTC, in ISO format."""
        return DateTime.fromtimestamp(self.timestamp, UTC).isoformat()

    @property
    def detail(self) -> str:
        """A short text of the result or of what went wrong, "" if there is neither."""
        if self.message is not None:
            return self.message
        text = "" if self.result is None else redact(repr(self.result))
        return text if len(text) <= _DETAIL_LENGTH else text[: _DETAIL_LENGTH - 1] + "…"

    def __repr__(self) -> str:
        """For people, so without secrets; the result itself has them."""
        return f"{type(self).__name__}({self._shown(', ')})"

    def __str__(self) -> str:
        """The same without the name of the class."""
        return self._shown(" ")

    def _shown(self, between: str) -> str:
        """The fields, each without secrets but for the key: it looks like a credential, and people search by it."""
        pairs = ((name, f"{name}={value!r}") for name, value in self.__repr_args__())
        return between.join(text if name == "key" else redact(text) for name, text in pairs)

    @field_serializer("actor")
    def _serialize_actor(self, actor: BaseActor) -> dict[str, str]:
        """Who was called, without the code behind it."""
        return {"name": actor.name, "version": actor.recorded_version, "event_type": actor.event_type.value}

    def __call__(
        self, input_data: Any = None, extra_context: Any = None, execution_state: Caller | None = None
    ) -> Awaitable[ExecutionResult[OutputT]]:
        """Call the actor. What comes back starts when it is awaited, and can be started again by a group's retry.

        Without `execution_state` the call belongs to the run in which it is made.

        Raises:
            UsageError: no run was given and none is under way.
        """
        run = execution_state
        if run is None:
            call = current_call.get()
            if call is None:
                raise UsageError(
                    f"no run is under way, so ExecutionEvent(actor={self.actor.name!r}) needs one: "
                    "event(input_data, extra_context, ExecutionState())"
                )
            run = call.run.state
        return run.start(self.actor, input_data, extra_context, self._marks())

    def _marks(self) -> dict[str, Any] | None:
        """What all events of the call are to have; people read it."""
        if not self.tag and not self.metadata:
            return None
        return {"tag": redact(self.tag), "metadata": _redacted(dict(self.metadata))}


def _actor_of(given: Any) -> BaseActor:
    """The actor that a decorated function stands for."""
    actor = getattr(given, "actor", None)
    if isinstance(actor, BaseActor) and callable(given):  # a call has one as well, and arguments that would be lost
        return actor
    if callable(given) and not isinstance(given, type):
        name = getattr(given, "__name__", None) or type(given).__name__
        remedy = f"decorate {name} with @tool, @llm or @agent, or write Tool(name={name!r}, handler={name})"
    else:
        remedy = "write Tool(name=..., handler=...), or give a function that is decorated with @tool, @llm or @agent"
    shown = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
    raise DefinitionError(f"ExecutionEvent(actor=...) takes an actor or a decorated function, not {shown}: {remedy}")


def _redacted(data: Any) -> Any:
    if isinstance(data, str):
        return redact(data)
    if isinstance(data, dict):
        return {_redacted(name): _redacted(value) for name, value in data.items()}
    return [_redacted(each) for each in data] if isinstance(data, list) else data


COSTS = ("usage", "charges", "lost", "from_cache", "waited")
"""What few facts have that counts for spending. (A mark with one of them would be paid for a second time.)"""


def spender_of(actor: BaseActor, name: str) -> str:
    """To whom usage is put down: the actor, or the name of a plain function."""
    return name if actor.event_type is EventType.FUNCTION_CALL and name else actor.name


Subscriber = Callable[
    ["ExecutionEvent[Any]"], Awaitable[object] | object
]  # quoted: Pydantic would build a model for it at import
"""What gets events: a function or a coroutine function."""


class Fact(NamedTuple):
    """One entry of a journal, as it is recorded and kept. An `ExecutionEvent` is a view of it, made for those who look.

    Thousands of facts a second are made, and hardly any is looked at: a tuple costs a fifth of what an event does.
    """

    run_id: str
    timestamp: float
    """Seconds since 1970."""
    status: ExecutionStatus
    kind: EventType
    actor: BaseActor
    name: str
    address: str
    key: bytes | None = None
    group_id: str | None = None
    parallel_index: int | None = None
    group_total: int | None = None
    attempt: int = 1
    seconds: float | None = None
    """What the call took with all attempts; only with its end."""
    message: str | None = None
    result: Any = None
    more: Mapping[str, Any] | None = None
    """Fields of the event that few events have, by their names; None if there are none."""

    def event(self) -> ExecutionEvent[Any]:
        """What people and subscribers see of it."""
        fields = {
            **OF_FEW,
            "run_id": self.run_id,
            "timestamp": self.timestamp,
            "execution_status": self.status,
            "event_type": self.kind,
            "actor": self.actor,
            "name": self.name,
            "address": self.address,
            "key": None if self.key is None else self.key.hex(),
            "group_id": self.group_id,
            "parallel_index": self.parallel_index,
            "is_parallel": self.group_id is not None,
            "group_total": self.group_total,
            "attempt": self.attempt,
            "execution_time": self.seconds,
            "message": self.message,
            "result": self.result,
            "metadata": {},  # each has its own
        }
        if self.more is not None:
            fields.update(self.more)
        return trusted(ExecutionEvent, fields)

    def superseding(self, timestamp: float) -> Fact:
        """The fact that says that the call is to be made again: like this one, but for its value and its cost."""
        more = {name: value for name, value in (self.more or {}).items() if name not in COSTS}
        marked = self._replace(status=ExecutionStatus.SUPERSEDED, timestamp=timestamp)
        return marked._replace(result=None, more=more or None)

    def with_more(self, **fields: Any) -> Fact:
        """The same with further fields of the event that few events have."""
        return self._replace(more={**(self.more or {}), **fields})

    @property
    def group(self) -> ParallelEventGroup | None:
        """How the group stands that it is about."""
        return None if self.more is None else self.more.get("group")

    @property
    def ending(self) -> GroupEnding | None:
        """How the group ended early that it is about."""
        group = None if self.more is None else self.more.get("group")
        return None if group is None else group.ending

    @property
    def charge(self) -> Charge | None:
        """What it says was spent, workers included; None if nothing was."""
        more = self.more
        if more is None:
            return None
        usage, places, is_free, lost = more.get("usage"), more.get("charges"), more.get("from_cache"), more.get("lost")
        if usage is None and places is None and not is_free and not lost:
            return None
        return Charge(spender_of(self.actor, self.name), usage, places, bool(is_free), lost or 0)

    @property
    def control(self) -> Mapping[str, Any] | None:
        """What was asked of the run, if it is about that."""
        return None if self.more is None else self.more.get("control")

    @property
    def counted(self) -> Counted:
        """What of its `more` counts when a run is resumed."""
        more = self.more
        return (self.charge, self.ending, self.control, more.get("taken_over")) if more else NOTHING_COUNTED


OF_FEW: Mapping[str, Any] = {
    "retry_delay": None, "is_replayed": False, "from_cache": False, "usage": None, "charges": None, "lost": 0,
    "progress": None, "group": None, "control": None, "taken_over": None, "tag": "", "metadata": {}, "waited": 0.0,
}  # fmt: skip
"""Fields that few events have, with what they are in all others."""
