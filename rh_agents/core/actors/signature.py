"""How a handler wants to be called: its parameters, which of them are data, and what it says that it returns."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from rh_agents.core.errors import DefinitionError
from rh_agents.core.values.registry import function_below, unresolved_in

__all__ = [
    "Injected",
    "Signature",
    "awaits",
    "expect_fitting",
    "expect_resolved",
    "is_injected",
    "is_of",
    "problems",
    "returned",
]

_NAMES_OF_STATE = frozenset({"state", "execution_state"})
_NAMES_OF_CONTEXT = frozenset({"context", "extra_context"})


class Injected:
    """Marks a parameter that is not serializable (a client, a connection): it is in no key, store or input model.

    async def fetch(url: str, client: Annotated[Client, Injected]) -> str: ...

    A function that returns such a thing marks its result in the same way, and is called again when a run goes on.
    """


class Signature:
    """The parameters of a handler: how to fill them, and which of them are data."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        try:
            parameters = list(inspect.signature(handler).parameters.values())
            self.is_known: bool = True
            """Whether the handler says which parameters it has."""
        except (TypeError, ValueError):  # some callables of C extensions do not tell
            parameters = [inspect.Parameter("input_data", inspect.Parameter.POSITIONAL_ONLY)]
            self.is_known = False
        self.parameters = parameters
        self.hints: dict[str, Any] = _hints(handler)
        self.injected: frozenset[str] = frozenset(
            p.name for p in parameters if is_injected(self.hints.get(p.name, p.annotation))
        )
        self.positional: tuple[str, ...] = tuple(p.name for p in parameters if p.kind in _POSITIONAL)
        self.defaults: dict[str, Any] = {p.name: p.default for p in parameters if p.default is not p.empty}
        self.is_simple: bool = not self.injected and len(self.positional) == len(parameters)
        self.arity: int = len(self.positional) if len(self.positional) == len(parameters) else -1
        """How many positional arguments fit for certain; -1 if that depends on more than their number."""
        can_all_be_named = self.is_simple and all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        self._names = dict.fromkeys(self.positional if can_all_be_named else ()).keys()
        """The names of arguments that fit for certain if they are all given by name; none if that depends on more."""
        self._bind = inspect.Signature(parameters).bind
        self._order = _roles(self.positional)
        self._named_roles = {
            p.name: role for p in parameters if p.kind is p.KEYWORD_ONLY and (role := _role(p.name)) is not None
        }

    def fill(self, input_data: Any, extra_context: Any, run: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for a handler that takes (input, extra context, run) or fewer."""
        sources = (input_data, extra_context, run)
        named = {name: sources[role] for name, role in self._named_roles.items()}
        return tuple(sources[role] for role in self._order), named

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that do not fit.

        Raises:
            TypeError: they do not fit the parameters.
        """
        if kwargs and not args and kwargs.keys() == self._names:
            return
        self._bind(*args, **kwargs)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter, with defaults filled in and injected ones left out.

        Raises:
            TypeError: they do not fit the parameters, as when the function itself is called so.
        """
        if kwargs and not args and kwargs.keys() == self._names:
            return {name: kwargs[name] for name in self.positional}
        bound = self._bind(*args, **kwargs)
        bound.apply_defaults()
        return {name: value for name, value in bound.arguments.items() if name not in self.injected}

    def bind_partial(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The same where some arguments may be missing.

        Raises:
            TypeError: one is given that does not fit.
        """
        bound = inspect.Signature(self.parameters).bind_partial(*args, **kwargs)
        bound.apply_defaults()
        return {name: value for name, value in bound.arguments.items() if name not in self.injected}

    def expect_names(self, function: str) -> None:
        """Refuse parameters that cannot be given by name.

        Raises:
            DefinitionError: there are such.
        """
        for each in self.parameters:
            if each.kind in _NAMELESS and each.name not in self.injected:
                raise DefinitionError(
                    f"{function}: a model gives arguments by name, so a tool cannot have {_NAMELESS[each.kind]} "
                    f"({str(each).partition(':')[0].partition('=')[0].strip()}); name its parameters, "
                    "or state input_model="
                )

    def input_model(self, name: str) -> type[BaseModel]:
        """A model with a field for each parameter that is data.

        Raises:
            DefinitionError: Pydantic has no room for a parameter's name, such as `_x` or `copy`.
        """
        fields: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.name in self.injected or parameter.kind in _VARIADIC:
                continue
            hint = self.hints.get(parameter.name, Any)
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hint, default)
            if parameter.name.startswith("_") or hasattr(BaseModel, parameter.name):
                raise DefinitionError(
                    f"{name}: a parameter named {parameter.name!r} cannot be a field of a Pydantic model; rename it"
                )
        return create_model(name, __config__=ConfigDict(arbitrary_types_allowed=True), **fields)


def expect_fitting(name: str, signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments that do not fit the parameters of what is called.

    Raises:
        TypeError: they do not; it says what was probably meant.
    """
    try:
        signature.check(args, kwargs)
    except TypeError as error:
        problem = f"{name}(): {error}{_meant(name, signature, args, kwargs)}"
    else:
        return
    raise TypeError(problem)


def _meant(name: str, signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What was probably meant by arguments that do not fit."""
    names = [each.name for each in signature.parameters]
    for unknown in kwargs:
        if unknown not in names and (near := difflib.get_close_matches(unknown, names, n=1)):
            return f"; did you mean {near[0]}=?"
    item = args[0] if len(args) == 1 and not kwargs else None
    if isinstance(item, tuple | list) and _fits(signature, item):
        return (
            f"; it was given one {type(item).__name__}, so spread it: {name}(*item), or in a group "
            f"p.map(lambda item: {name}(*item), items)"
        )
    if isinstance(item, Mapping) and set(item) <= set(names):
        return (
            f"; it was given one mapping, so spread it: {name}(**item), or in a group "
            f"p.map(lambda item: {name}(**item), items)"
        )
    return f"; its parameters are ({', '.join(names)})"


def _fits(signature: Signature, args: Sequence[Any]) -> bool:
    try:
        signature.check(args, {})
    except TypeError:
        return False
    return True


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMELESS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional-only parameters",
    inspect.Parameter.VAR_POSITIONAL: "any number of positional arguments",
    inspect.Parameter.VAR_KEYWORD: "any number of named arguments",
}
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _roles(names: Sequence[str]) -> tuple[int, ...]:
    """For each parameter which of (input, extra context, run) it gets: by its name if that tells, else in order."""
    roles: list[int] = []
    for position, name in enumerate(names[:3]):
        named = _role(name) if position else None
        roles.append(position if named is None else named)
    return tuple(roles)


def _role(name: str) -> int | None:
    """Which of (input, extra context, run) a parameter of this name gets; None if its place decides."""
    if name in _NAMES_OF_STATE:
        return 2
    return 1 if name in _NAMES_OF_CONTEXT else None


def _hints(handler: Callable[..., Any]) -> dict[str, Any]:
    """Type hints; none where a name in them cannot be resolved, which only costs the input model its types."""
    try:
        return typing.get_type_hints(inspect.unwrap(handler), include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def returned(handler: Callable[..., Any]) -> Any:
    """What a handler's annotations say that it returns; as text if that names something unknown here."""
    hints = _hints(handler)
    return (
        hints["return"] if "return" in hints else getattr(inspect.unwrap(handler), "__annotations__", {}).get("return")
    )


def is_injected(hint: Any) -> bool:
    """Whether an annotation is marked with `Injected`, also where it is a text that cannot be resolved."""
    if isinstance(hint, str):
        return "Injected" in hint
    if any(mark is Injected or isinstance(mark, Injected) for mark in getattr(hint, "__metadata__", ())):
        return True
    return any(is_injected(part) for part in typing.get_args(hint) if typing.get_origin(part) is Annotated)


def expect_resolved(function: Callable[..., Any], name: str) -> None:
    """Refuse a function that says what it returns by a name that means nothing.

    Raises:
        DefinitionError: it does.
    """
    missing = unresolved_in(function)
    if missing is not None and not is_injected(returned(function_below(function) or function)):
        raise DefinitionError(
            f"{name}: the annotation of its result names {missing!r}, and there is no such name when the program runs "
            "(is it imported for type checkers only?): import it, since recorded results are made of the classes that "
            "annotations name"
        )


def awaits(handler: Callable[..., Any]) -> bool:
    """Whether what it returns has to be awaited."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


def is_of(value: Any, model: Any) -> bool:
    """Whether a value is of this model, so that it needs no validation."""
    return isinstance(model, type) and issubclass(model, BaseModel) and isinstance(value, model)


def problems(error: ValidationError) -> str:
    """What is wrong, in one line: `url: Field required; depth: Input should be a valid integer`."""
    found = []
    for item in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in item["loc"])
        found.append(f"{place}: {item['msg']}" if place else item["msg"])
    return "; ".join(found)
