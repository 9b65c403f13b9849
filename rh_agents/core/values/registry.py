"""The classes whose instances may be stored, by name. What is not here is neither written nor made again."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import sys
import types
import typing
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar, cast
from uuid import UUID
from weakref import WeakKeyDictionary, WeakValueDictionary

import typing_extensions
from pydantic import BaseModel

from rh_agents.core.errors import DefinitionError
from rh_agents.core.values.names import PlainInt, form_of, renamed, where

__all__ = [
    "Kind",
    "Shape",
    "call_main_program",
    "class_named",
    "field_hints",
    "function_below",
    "kind_of",
    "late_shape_of",
    "learn",
    "learn_function",
    "loaded_exception",
    "name_of",
    "name_of_module",
    "recorded_place",
    "register",
    "shape_of",
    "slots_of",
    "storable",
    "unresolved_in",
    "why_unknown",
]

ClassT = TypeVar("ClassT", bound=type)
_ATOMS = (str, int, float, bytes)
_WITH_OWN_SLOTS = (BaseModel, BaseException)
_IS_HEAP_TYPE = 1 << 9  # a class that was made by a `class` statement, not by Python itself or in C


class Kind(enum.StrEnum):
    """What a class is, and with that how its instances are written."""

    ENUM = "enum"
    FLAG = "flag"
    MODEL = "model"
    DATACLASS = "dataclass"
    NAMEDTUPLE = "namedtuple"
    ATOM = "atom"
    """A class derived from str, int, float or bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What has to be known of a class to write its instances down.

    Attributes:
        fields: their names, in order.
        field_set: the same without order.
        late: fields of a class of ours that it did not always have, each with what makes its default.
        slots: the attributes that are kept in slots.
        left_out: what may be in an instance's `__dict__` and is no part of its value.
        base: the builtin class that an instance is made of.
    """

    kind: Kind
    name: str
    fields: tuple[str, ...]
    field_set: frozenset[str]
    late: Mapping[str, Callable[[], Any]]
    slots: tuple[str, ...]
    left_out: tuple[str, ...]
    base: type


_other_script: str | None = None
_classes: dict[str, type] = {}
_shapes: WeakKeyDictionary[type, Shape] = WeakKeyDictionary()
_unfinished: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""Classes and functions with hints that could not be resolved yet: they may name a class that is defined below them.

By `id`, since a class may have any notion of equality.
"""
_WELL_KNOWN: dict[str, Any] = {
    **{name: getattr(module, name) for module in (typing, collections.abc) for name in module.__all__},
    **{
        cls.__name__: cls
        for cls in (
            OrderedDict, Counter, deque, Decimal, Fraction, UUID, date, datetime, time, timedelta, timezone, tzinfo,
            Path, PurePath, PurePosixPath, PureWindowsPath,
        )
    },
}  # fmt: skip
"""What annotations may name without having imported it but for type checkers: nothing here has to be registered."""


# -- names -------------------------------------------------------------------------------------------------------------


def name_of(cls: type) -> str:
    """The name under which a class is recorded: `module.qualname`, unless it is one of ours and has moved."""
    generic = getattr(cls, "__pydantic_generic_metadata__", None)
    if isinstance(generic, dict) and generic.get("args"):
        arguments = ", ".join(name_of(each) if isinstance(each, type) else repr(each) for each in generic["args"])
        return renamed(f"{name_of(generic['origin'])}[{arguments}]")
    return renamed(f"{name_of_module(cls.__module__)}.{cls.__qualname__}")


def recorded_place(cls: type) -> tuple[str, str]:
    """The same as module and name, which errors are recorded by."""
    module, qualname = name_of_module(cls.__module__), cls.__qualname__
    now = f"{module}.{qualname}"
    recorded = renamed(now)
    if recorded == now:  # the name may have dots in it
        return module, qualname
    module, _, qualname = recorded.rpartition(".")
    return module, qualname


def name_of_module(module: str) -> str:
    """The name of a module; that of a script is the one by which others would import it."""
    return _name_of_script() if module in ("__main__", "__mp_main__") else module


def call_main_program(name: str) -> None:
    """Let classes of `__main__` have the name of another process's main program, which sent them here by value."""
    global _other_script  # noqa: PLW0603 - as `sys.modules["__main__"]`, there is one for the process
    _other_script = name


def _name_of_script() -> str:
    if _other_script is not None:
        return _other_script
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)  # python -m package.module
    file = getattr(main, "__file__", None)
    return PurePath(file).stem if isinstance(file, str) else "__main__"


def class_named(name: str) -> type | None:
    """The registered class of this name."""
    found = _classes.get(name)
    if found is None and _unfinished:
        _finish()
        found = _classes.get(name)
    return found


def loaded_exception(module: str, qualname: str) -> type[Exception] | None:
    """The class of an error, if its module is loaded. Nothing is imported, and no code of the module runs."""
    module, qualname = where(module, qualname)
    modules = ["__main__", module] if module == _name_of_script() else [module]
    for name in modules:
        found = _attribute(sys.modules.get(name), qualname)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return _subclass_named(module, qualname)


def _attribute(module: types.ModuleType | None, qualname: str) -> object:
    """Looks only into dictionaries, so that neither descriptors nor a module's `__getattr__` are asked."""
    found: object = module
    for part in qualname.split("."):
        if not isinstance(found, type | types.ModuleType):
            return None
        found = vars(found).get(part)
    return found


def _subclass_named(module: str, qualname: str) -> type[Exception] | None:
    """The same for classes that their module does not show: those defined in a function, or made when asked for."""
    seen: set[type[Exception]] = set()
    waiting: list[type[Exception]] = [Exception]
    found = None
    while waiting:
        for cls in type.__subclasses__(waiting.pop()):
            if cls not in seen:
                seen.add(cls)
                waiting.append(cls)
                if cls.__qualname__ == qualname and name_of_module(cls.__module__) == module:
                    found = cls
    return found


# -- kinds and shapes --------------------------------------------------------------------------------------------------


def kind_of(cls: type) -> Kind | None:
    """How instances of a class can be stored; None if they cannot."""
    if issubclass(cls, enum.Enum):
        return _kind_of_enum(cls)
    if issubclass(cls, PlainInt):
        return None  # the class is not recorded
    base = _builtin_base(cls)
    if base is object:
        if issubclass(cls, BaseModel):
            return None if cls is BaseModel else Kind.MODEL
        return Kind.DATACLASS if dataclasses.is_dataclass(cls) else None
    if base is tuple and cls is not tuple and isinstance(getattr(cls, "_fields", None), tuple):
        return Kind.NAMEDTUPLE
    return Kind.ATOM if base in _ATOMS and cls is not base else None


def _kind_of_enum(cls: type[enum.Enum]) -> Kind | None:
    if not issubclass(cls, enum.Flag):
        return Kind.ENUM
    # Combinations of other flags would be made by a class of the user's.
    return Kind.FLAG if getattr(cls, "_member_type_", object) in (object, int) else None


def _builtin_base(cls: type) -> type:
    """The class written in C that decides what an instance is made of."""
    base = cls
    while base.__flags__ & _IS_HEAP_TYPE and base.__base__ is not None:
        base = base.__base__
    return base


def _make_shape(cls: type, kind: Kind) -> Shape:
    fields = _fields_of(cls, kind)
    return Shape(
        kind=kind,
        name=name_of(cls),
        fields=fields,
        field_set=frozenset(fields),
        late=form_of(cls).late if fields else {},
        slots=() if kind in (Kind.ENUM, Kind.FLAG) else tuple(slots_of(cls)),
        left_out=("__orig_class__", *_cached_properties(cls)),
        base=_builtin_base(cls),
    )


def _fields_of(cls: type, kind: Kind) -> tuple[str, ...]:
    if issubclass(cls, BaseModel):
        return tuple(cls.model_fields)
    if kind is Kind.DATACLASS:
        return tuple(field.name for field in dataclasses.fields(cast(Any, cls)))
    return tuple(getattr(cls, "_fields", ())) if kind is Kind.NAMEDTUPLE else ()


def slots_of(cls: type) -> Iterator[str]:
    """The attributes that instances keep in slots, but for those that are none of the user's."""
    seen: set[str] = set()
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if name not in seen and isinstance(member, types.MemberDescriptorType) and base not in _WITH_OWN_SLOTS:
                yield name
        seen.update(vars(base))


def _cached_properties(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, cached_property):
                yield name


def shape_of(cls: type) -> Shape | None:
    """The shape of a registered class; None if it is not registered (yet)."""
    return _shapes.get(cls)


def late_shape_of(cls: type) -> Shape | None:
    """The same, after another look at the hints that could not be resolved when they were met."""
    if _unfinished:
        _finish()
    return _shapes.get(cls)


# -- registering -------------------------------------------------------------------------------------------------------


def register(cls: type) -> bool:
    """Allow instances of a class to be stored; False if they cannot be.

    Of two classes of one name the last one counts: it is what a notebook has after a cell was executed again. Only a
    script that is imported as well keeps its own.
    """
    if cls in _shapes:
        return True
    kind = kind_of(cls)
    if kind is None:
        return False
    shape = _shapes[cls] = _make_shape(cls, kind)
    before = _classes.get(shape.name)
    if before is None or before.__module__ != "__main__" or cls.__module__ == "__main__":
        _classes[shape.name] = cls
    return True


def storable(cls: ClassT) -> ClassT:
    """Decorate a class whose instances calls return, where no annotation names it (a subclass, for instance).

    Raises:
        DefinitionError: it is neither an enum, a dataclass, a model, a named tuple nor a kind of str, int or float.
    """
    if not _is_class(cls) or not register(cls):
        raise DefinitionError(
            f"{getattr(cls, '__qualname__', cls)!s} cannot be stored: only enums, dataclasses, Pydantic models, named "
            "tuples and kinds of str, int, float and bytes can. (Put @storable above @dataclass.)"
        )
    learn(cls)
    return cls


def _is_class(candidate: object) -> bool:
    return isinstance(candidate, type)


def learn(hint: Any) -> None:
    """Register every enum, dataclass, model and named tuple that a type annotation names, at whatever depth.

    Subclasses of what it names are not included.
    """
    _Walk().visit(hint)


def learn_function(function: Callable[..., Any]) -> None:
    """The same for the parameters and the result of whatever can be called."""
    below = function_below(function)
    if below is not None:
        _Walk().visit_function(below)


def function_below(target: object) -> types.FunctionType | None:
    """The function whose annotations say what a callable takes and returns; None for a class, or what is written in C.

    It may be below `functools.partial`, a decorator that uses `functools.wraps`, a method, or an object with a
    `__call__`. Nothing is hashed or compared, so that it may be any object.
    """
    for _ in range(_DEEPEST):
        if isinstance(target, partial):
            target = target.func
        elif isinstance(target, types.MethodType):
            target = target.__func__
        elif isinstance(target, type):
            return None
        elif (wrapped := _quietly(lambda: getattr(target, "__wrapped__", None))) is not None:  # noqa: B023 - at once
            target = wrapped
        elif isinstance(target, types.FunctionType):
            return target
        else:
            target = type(target).__call__ if callable(target) else None
            if not isinstance(target, types.FunctionType):
                return None
    return None


_DEEPEST = 50
"""Layers of decorators and partials; an object whose attributes are all made up has no end of them."""


def _finish() -> None:
    """Look again at hints that could not be resolved when they were met."""
    for each in list(_unfinished.values()):
        _Walk().visit(each) if isinstance(each, type) else _Walk().visit_function(each)


def _note_unfinished(owner: Any, is_complete: bool) -> None:
    if not is_complete:
        _unfinished[id(owner)] = owner
    else:
        _unfinished.pop(id(owner), None)


def unresolved_in(function: Callable[..., Any]) -> str | None:
    """A name in the annotation of a function's result that means nothing (yet); None if there is none.

    Names that only type checkers see (`if TYPE_CHECKING:`) mean nothing when the program runs.
    """
    below = function_below(function)
    if below is None:
        return None
    hint = (_quietly(partial(inspect.get_annotations, below)) or {}).get("return")
    return None if hint is None else _unresolved_name("return", hint, below)


def why_unknown(class_name: str) -> str:
    """Words in brackets that say which annotation would have made a class known, if its name meant something there."""
    name = class_name.rpartition(".")[2]
    for owner in list(_unfinished.values()):
        for part, hint in (_quietly(partial(inspect.get_annotations, owner)) or {}).items():
            if _unresolved_name(part, hint, owner) == name:
                return f" ({name!r} in the annotations of {owner.__qualname__} means nothing when the program runs)"
    return ""


def _unresolved_name(name: str, hint: Any, owner: Any) -> str | None:
    try:
        _resolved_one(name, hint, _space_of(owner))
    except (NameError, AttributeError) as error:
        return error.name or str(hint)
    except Exception:  # noqa: BLE001 - annotations are the user's code, and may be anything
        return None
    return None


class _Walk:
    """Goes through annotations, and through the fields of the classes it meets, each of them once."""

    def __init__(self) -> None:
        self.seen: set[Any] = set()

    def visit(self, hint: Any) -> None:
        if isinstance(hint, type):
            self._visit_class(hint)
        elif isinstance(hint, TypeVar):
            self._visit_all([hint.__bound__, *hint.__constraints__])
        elif isinstance(hint, typing.NewType):
            self.visit(hint.__supertype__)
        elif type(hint).__name__ == "TypeAliasType":
            self._visit_alias(hint)
        else:
            self._visit_parts(hint)

    def _visit_all(self, hints: Any) -> None:
        for hint in hints:
            self.visit(hint)

    def _visit_alias(self, alias: Any) -> None:
        if alias not in self.seen:  # an alias may name itself
            self.seen.add(alias)
            value = _quietly(lambda: alias.__value__)
            self.visit(value)

    def _visit_parts(self, hint: Any) -> None:
        origin = typing.get_origin(hint)
        if origin is typing.Annotated:
            self.visit(typing.get_args(hint)[0])
        elif origin is typing.Literal:
            self._visit_all(type(each) for each in typing.get_args(hint) if isinstance(each, enum.Enum))
        elif origin is not None:
            self.visit(origin)
            self._visit_all(typing.get_args(hint))

    def _visit_class(self, cls: type) -> None:
        if cls in self.seen:
            return
        self.seen.add(cls)
        if register(cls) or typing_extensions.is_typeddict(cls):
            for base in vars(cls).get("__orig_bases__", ()):
                self._visit_all(typing.get_args(base))
            self._visit_fields(cls)

    def _visit_fields(self, cls: type) -> None:
        generic = getattr(cls, "__pydantic_generic_metadata__", None)
        if isinstance(generic, dict) and generic.get("origin") is not None:
            self._visit_all([generic["origin"], *generic["args"]])
        if issubclass(cls, BaseModel):
            self._visit_all(field.annotation for field in cls.model_fields.values())
        hints, is_complete = field_hints(cls)
        self._visit_all(hints.values())
        _note_unfinished(cls, is_complete)

    def visit_function(self, function: types.FunctionType) -> None:
        if not function.__annotations__:
            return
        hints, is_complete = _resolved(function)
        self._visit_all(hints.values())
        _note_unfinished(function, is_complete)


def field_hints(cls: type) -> tuple[dict[str, Any], bool]:
    """The types of what instances of a class hold, and whether all of them could be resolved."""
    hints, is_complete = _resolved(cls)
    if issubclass(cls, BaseModel):
        wanted = {*cls.model_fields, *cls.__private_attributes__, "__pydantic_extra__"}
        hints = {name: hint for name, hint in hints.items() if name in wanted}
    return hints, is_complete


def _resolved(owner: Any) -> tuple[dict[str, Any], bool]:
    """The hints of a class or a function. If one cannot be resolved, those that can."""
    hints = _quietly(partial(typing_extensions.get_type_hints, owner, include_extras=True))
    if hints is not None:
        return hints, True
    hints, is_complete = {}, True
    for holder in reversed(owner.__mro__) if isinstance(owner, type) else [owner]:
        space = _space_of(holder)
        for name, hint in (_quietly(partial(inspect.get_annotations, holder)) or {}).items():
            found = _quietly(partial(_resolved_one, name, hint, space))
            is_complete = is_complete and found is not None
            hints |= found or {}
    return hints, is_complete


def _space_of(owner: Any) -> dict[str, Any]:
    """What names mean in the annotations of a class or function, also of one that is defined within a function."""
    module = sys.modules.get(owner.__module__)
    names = vars(module) if module else {}
    return {**_WELL_KNOWN, **names, **getattr(owner, "__globals__", {}), **_names_around(owner)}


def _names_around(owner: Any) -> Mapping[str, Any]:
    """The local names of the function within which a class or function is being defined."""
    outer, is_local, _ = owner.__qualname__.rpartition(".<locals>.")
    if not is_local:
        return {}
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_qualname == outer and frame.f_globals.get("__name__") == owner.__module__:
            return frame.f_locals
        frame = frame.f_back
    return {}


def _resolved_one(name: str, hint: Any, space: dict[str, Any]) -> dict[str, Any]:
    holder = types.SimpleNamespace(__annotations__={name: hint})
    return typing_extensions.get_type_hints(holder, space, {}, include_extras=True)


def _quietly(resolve: Callable[[], Any]) -> Any:
    """What an annotation means; None if no one can tell (yet)."""
    try:
        return resolve()
    except Exception:  # noqa: BLE001 - annotations are the user's code, and may be anything
        return None
