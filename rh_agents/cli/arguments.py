"""From the value of an item to a call: which arguments it gives, and whether they fit."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, PydanticUserError, ValidationError

from rh_agents.cli.errors import BadInput, CommandError, close_names, describe_validation
from rh_agents.cli.input.lines import Item
from rh_agents.cli.json_text import RepeatedKey, read_json
from rh_agents.core._replay.identity import identity
from rh_agents.core._run.parts import RunParts
from rh_agents.core.actors import BaseActor, Injected
from rh_agents.core.calls import ActorCall, Call, FunctionCall
from rh_agents.core.errors import InputError
from rh_agents.core.policies.retry import RetryPolicy
from rh_agents.core.values.inputs import CanonicalInput, canonical_arguments
from rh_agents.decorators import ActorFunction

__all__ = ["BadItem", "Callee", "arguments_for", "call_for", "make_callee", "read_settings"]


class Callee(Protocol):
    """Something that takes the value of an item."""

    name: str

    def call(self, value: Any, run: RunParts) -> Call[Any]:
        """The call for this value, not started.

        Raises:
            BadInput: the value does not fit what is called.
        """
        ...

    def identity(self, value: Any) -> bytes | None:
        """The identity of the call for this value, without making it; None where only the call says it."""
        ...


def make_callee(
    actor: ActorFunction[..., Any] | BaseActor,
    *,
    retry: int | None = None,
    timeout: float | None = None,
    fixed: Mapping[str, Any] | None = None,
    knows_all_names: bool = False,
    version: str | None = None,
) -> Callee:
    """What takes the values of items for this actor.

    Args:
        actor: what is to be called.
        retry: the number of attempts, instead of the actor's own policy.
        timeout: seconds for each attempt, instead of the actor's own.
        fixed: arguments that are the same in every call, instead of what an item says.
        knows_all_names: a name in a value that the function does not take is an error; else it is ignored.
        version: that of the actor, instead of its own.

    Raises:
        CommandError: there is no parameter for a fixed argument, or one that no data can fill.
    """
    policy: dict[str, Any] = {}
    if retry is not None:
        policy["retry"] = RetryPolicy.of(retry)
    if timeout is not None:
        policy["timeout"] = timeout
    if version is not None:
        policy["version"] = version
    if isinstance(actor, BaseActor):
        return _ActorCallee(actor.model_copy(update=policy), fixed or {})
    return _FunctionCallee(actor, actor.actor.model_copy(update=policy), fixed or {}, knows_all_names)


def arguments_for(function: ActorFunction[..., Any], value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a value gives a function that somebody else calls, who adds what is injected.

    Raises:
        BadInput: the value does not fit.
    """
    return _FunctionCallee(function, function.actor, {}, knows_all_names=True, is_called_here=False).arguments(value)


def call_for(item: Item, callee: Callee, run: RunParts) -> Call[Any]:
    """The call for an item: of the actor, or one that fails at once with what is wrong with the item."""
    try:
        if item.problem is not None:
            raise BadInput(item.problem)
        return callee.call(item.value, run)
    except BadInput as error:
        return BadItem(item.position, error, run)


async def _refuse() -> Annotated[None, Injected]:
    """Stands for the handler of bad items. Its annotation says that nothing of it is kept."""


class BadItem(Call[Any]):
    """An item that does not fit: fails at once, and is never recorded, because the input may be mended."""

    __slots__ = ("position", "problem")

    def __init__(self, position: str, problem: BadInput, run: RunParts) -> None:
        super().__init__(_BAD_ITEM, run)
        self.position: str = position
        self.problem: BadInput = problem

    def canonical_input(self) -> CanonicalInput:
        """It is identified by its position."""
        return CanonicalInput(self.position)

    async def begin(self, run: RunParts) -> Any:
        """Tell what is wrong."""
        raise self.problem


_BAD_ITEM: BaseActor = BaseActor(
    name="bad input", handler=_refuse, description="Stands for items that do not fit what is called."
)


class _ActorCallee:
    """An actor with one input, as its input model has it."""

    def __init__(self, actor: BaseActor, fixed: Mapping[str, Any]) -> None:
        self.name = actor.name
        self._actor = actor
        self._fixed = fixed

    def call(self, value: Any, run: RunParts) -> Call[Any]:
        if self._fixed:
            if not isinstance(value, dict):
                raise BadInput(f"a JSON object is needed to add {', '.join(self._fixed)} to, not a {_kind(value)}")
            value = {**value, **self._fixed}
        try:
            return ActorCall(self._actor, self._actor.validate_input(value), None, run)
        except InputError as error:
            cause = error.__cause__
            text = describe_validation(cause) if isinstance(cause, ValidationError) else str(error)
            raise BadInput(text) from error

    def identity(self, value: Any) -> bytes | None:
        return None


class _FunctionCallee:
    """A decorated function with parameters of its own.

    Args:
        function, actor: what is called, and by which policy.
        fixed, knows_all_names: as in `make_callee`.
        is_called_here: else it is only seen which arguments a value gives, and somebody else adds what is injected.
    """

    def __init__(
        self,
        function: ActorFunction[..., Any],
        actor: BaseActor,
        fixed: Mapping[str, Any],
        knows_all_names: bool,
        *,
        is_called_here: bool = True,
    ) -> None:
        self.name = actor.name
        self._actor = actor
        self._fixed = fixed
        self._knows_all_names = knows_all_names
        self._model = _input_model(function)
        self._fields = self._model.model_fields
        parameters = actor.signature.parameters
        self._positional_only = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]
        if is_called_here:
            self._refuse_injected()
        for name in fixed:
            if name not in self._fields:
                raise CommandError(f"{self.name} takes no {name!r}{close_names(name, self._fields)}")
        self._whole = self._parameter_for_objects()
        self._kinds = self._kinds_of_parameters()
        self._text = next(iter(self._kinds)) if self._kinds and [*self._kinds.values()] == [str] else None
        self._identity = partial(identity, actor.name, actor.recorded_version)

    def call(self, value: Any, run: RunParts) -> Call[Any]:
        return FunctionCall(self._actor, *self.arguments(value))

    def arguments(self, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the function is called with for this value.

        Raises:
            BadInput: the value does not fit.
        """
        args = self._as_it_is(value)
        if args is not None:
            return args, {}
        named, leave_out = self._named(value)
        try:
            given = self._model.model_validate({**named, **self._fixed})
        except ValidationError as error:
            raise BadInput(describe_validation(error, leave_out)) from error
        # Only what was given: the function knows its own defaults.
        arguments = {name: getattr(given, name) for name in self._fields if name in given.model_fields_set}
        given_by_place = tuple(arguments.pop(name) for name in self._positional_only if name in arguments)
        return given_by_place, arguments

    def identity(self, value: Any) -> bytes | None:
        if type(value) is str and self._text is not None and value.isascii():
            return self._identity(canonical_arguments({self._text: value}), None)
        args = self._as_it_is(value)
        if args is None or self._kinds is None:
            return None
        data = canonical_arguments(dict(zip(self._kinds, args, strict=True)))
        return self._identity(data, None)

    def _as_it_is(self, value: Any) -> tuple[Any, ...] | None:
        """The arguments, if there is nothing to validate about them, as for nearly all items of a large input."""
        kinds = self._kinds
        if kinds is None:
            return None
        if type(value) is dict:
            if self._knows_all_names:
                self._refuse_unknown(value)
            args = tuple([value.get(name) for name in kinds])
        else:
            args = (value,)
        if len(args) != len(kinds):
            return None
        for argument, kind in zip(args, kinds.values(), strict=True):
            if type(argument) is not kind or (isinstance(argument, str) and not argument.isascii()):
                return None
        return args

    def _kinds_of_parameters(self) -> dict[str, type] | None:
        """The types of the parameters, if all of them take such values as they are.

        None if they may not, or if what stands for the function takes its arguments in its own way.
        """
        its, fields = self._actor.signature, self._fields
        kinds: dict[str, Any] = {
            name: kind for kind in _AS_THEY_ARE for name, field in fields.items() if field.annotation is kind
        }
        is_simple = (
            its.is_simple and list(its.positional) == list(fields) and not hasattr(self._actor.handler, "__wrapped__")
        )
        if self._fixed or not fields or not is_simple or self._whole is not None or len(kinds) != len(fields):
            return None
        return None if any(field.metadata for field in fields.values()) else {name: kinds[name] for name in fields}

    def _named(self, value: Any) -> tuple[dict[str, Any], str]:
        """The value as arguments by name; and the name that is ours if the whole value goes to one parameter."""
        if not isinstance(value, dict):
            return {self._parameter_for_values(value): value}, ""
        if self._whole is not None and self._is_whole(value, self._whole):
            return {self._whole: value}, self._whole
        if self._knows_all_names:
            self._refuse_unknown(value)
        return value, ""

    def _parameter_for_objects(self) -> str | None:
        """The single parameter, if its type takes a whole JSON object."""
        free = [name for name in self._fields if name not in self._fixed]
        return free[0] if len(free) == 1 and _takes_objects(self._fields[free[0]].annotation) else None

    def _is_whole(self, value: dict[str, Any], name: str) -> bool:
        """`{"review": …}` for a parameter `review` names it, unless its model has a field of that name as well."""
        return name not in value or name in _fields_of(self._fields[name].annotation)

    def _parameter_for_values(self, value: Any) -> str:
        """The parameter for a line or a JSON value that is no object: the only one, or the only one with no default."""
        free = [name for name in self._fields if name not in self._fixed]
        required = [name for name in free if self._fields[name].is_required()]
        for names in (free, required):
            if len(names) == 1:
                return names[0]
        if not free:
            raise BadInput(f"{self.name} takes no input")
        raise BadInput(
            f"{self.name} takes {', '.join(free)}: a JSON object with these names is needed, not a {_kind(value)}"
        )

    def _refuse_unknown(self, value: dict[str, Any]) -> None:
        for name in value:
            if name not in self._fields:
                raise BadInput(f"{self.name} takes no {name!r}{close_names(name, self._fields)}")

    def _refuse_injected(self) -> None:
        signature = self._actor.signature
        for name in signature.injected:
            if name not in signature.defaults:
                raise CommandError(
                    f"{self.name} needs {name!r}, which is not serializable and so cannot come from the command line: "
                    "give it a default, or name a function that fills it in"
                )


def _input_model(function: ActorFunction[..., Any]) -> type[BaseModel]:
    try:
        model: type[BaseModel] = function.input_model
        model.model_rebuild()
    except (PydanticUserError, NameError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CommandError(
            f"what {function.actor.name} takes cannot be inferred from its parameters: {reason}"
        ) from error
    return model


def _takes_objects(annotation: Any) -> bool:
    if annotation in (Any, object):
        return True
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_takes_objects(part) for part in typing.get_args(annotation))
    kind = origin or annotation
    if not isinstance(kind, type):
        return False
    return issubclass(kind, BaseModel | Mapping) or dataclasses.is_dataclass(kind)


def _fields_of(annotation: Any) -> set[str]:
    """The names that a model has, also under another name."""
    names: set[str] = set()
    for kind in typing.get_args(annotation) or (annotation,):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names.update(kind.model_fields)
            names.update(str(field.alias) for field in kind.model_fields.values() if field.alias)
        elif isinstance(kind, type):
            names.update(getattr(kind, "__annotations__", {}))
    return names


_AS_THEY_ARE = (str, int, float, bool)
"""Types whose values Pydantic gives back as they are. (A text that is no Unicode is refused, if it is not ASCII.)"""
_KINDS = {"str": "text", "int": "number", "float": "number", "bool": "truth value", "NoneType": "null"}


def _kind(value: Any) -> str:
    name = type(value).__name__
    return _KINDS.get(name, name)


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`name=JSON`. What is not JSON is text, so that `language=de` needs no quotes within quotes.

    Raises:
        CommandError: one has no name, or an object in it a key twice.
    """
    fixed: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise CommandError(f"--set {setting}: write NAME=JSON")
        try:
            fixed[name] = read_json(text)
        except RepeatedKey as error:
            raise CommandError(f"--set {setting}: {error}") from error
        except ValueError:
            fixed[name] = text
    return fixed
