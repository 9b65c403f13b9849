"""Which function a worker is to call: by name where it can be imported, by value where it cannot."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import cloudpickle

from rh_agents.core._loops.worker_imports import imported_for_a_worker
from rh_agents.core.errors import DefinitionError
from rh_agents.core.ports import CallContext

_MOST_WRAPPED = 50


class ByName(NamedTuple):
    """A function at the top level of a module, or below a class there; `unwrap` decorators stand in its place."""

    module: str
    file: str | None
    qualname: str
    unwrap: int


class ByValue(NamedTuple):
    """The function itself, pickled. `module` is that of the main program, if it is of there."""

    data: bytes
    module: str | None


Reference = ByName | ByValue


class Order(NamedTuple):
    """What the parent wants to have called. A tuple, which is pickled several times as fast as a dataclass.

    Attributes:
        function: which function.
        name: how people call it.
        context: the fields of the `CallContext` that `current()` gives there.
        is_by_value: whether classes of the main program may be among the arguments and in the result.
    """

    function: Reference
    name: str
    context: tuple[Any, ...]
    is_by_value: bool


def facts_of(about: CallContext) -> tuple[Any, ...]:
    """What a `CallContext` is made of, as it travels."""
    where = about.run_id, about.address, about.attempt, about.idempotency_key, about.group_id
    return (*where, dict(about.trace), dict(about.resources))


def refer(function: Callable[..., Any]) -> Reference:
    """How a worker finds the function.

    Raises:
        DefinitionError: it cannot: the function is local, or carries what cannot be pickled.
    """
    name, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if "<" in qualname:  # a lambda, or a local function: by value it would see copies of what it closes over
        raise DefinitionError(
            f"{qualname} cannot run in a worker process: define it at the top level of a module to be imported"
        )
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or not isinstance(name, str):
        return ByValue(_pickled(function, None), None)
    if not _can_be_imported(module):
        return ByValue(_pickled(function, module), name)
    unwrap = _steps_to(function, module, qualname)
    if unwrap is None:  # a method of an object, a partial, or what a decorator has replaced
        return ByValue(_pickled(function, None), None)
    return ByName(name, getattr(module, "__file__", None), qualname, unwrap)


def _can_be_imported(module: ModuleType) -> bool:
    """Whether a worker can have the module by importing it, which for the main program would be executing it again."""
    return module.__name__ not in ("__main__", "__mp_main__") and getattr(module, "__spec__", None) is not None


def _steps_to(function: Callable[..., Any], module: ModuleType, qualname: str) -> int | None:
    """How many decorators stand between what has this name in the module and the function; None if it is not there."""
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    for step in range(_MOST_WRAPPED):
        if found is function:
            return step
        found = getattr(found, "__wrapped__", None)
    return None


def _pickled(function: Callable[..., Any], module: ModuleType | None) -> bytes:
    try:
        return dumps(function, module)
    except Exception as error:
        where = f" of {module.__name__}" if module is not None else ""
        name = getattr(function, "__qualname__", repr(function))
        raise DefinitionError(
            f"{name}{where} cannot be sent to a worker process ({error}): define it, and what it uses, at the top "
            "level of a module to be imported"
        ) from error


def dumps(value: Any, module: ModuleType | None = None) -> bytes:
    """The value as bytes, in the parent; functions and classes of `module` (and of the main program) by value."""
    with io.BytesIO() as file, nullcontext() if module is None else _by_value(module):
        _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
        return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # ships no types
    """With functions under `functools.cache` by value, too: the worker begins with an empty cache.

    A cache says by itself that it is found by its name, and a worker has nothing of that name.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _Cache) and _goes_by_value(obj.__module__):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        return super().reducer_override(obj)


_Cache = type(functools.lru_cache(len))


def _cached(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., Any]:
    cached: Callable[..., Any] = functools.lru_cache(**parameters)(function)
    return cached


def _goes_by_value(module: str) -> bool:
    return module == "__main__" or module in cloudpickle.list_registry_pickle_by_value()


@contextmanager
def _by_value(module: ModuleType) -> Iterator[None]:
    if _goes_by_value(module.__name__):
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


# -- in the worker -----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def find(reference: Reference) -> Callable[..., Any]:
    """The function; its module is imported, or its value is loaded, the first time."""
    if isinstance(reference, ByValue):
        loaded: Callable[..., Any] = pickle.loads(reference.data)
        return loaded
    found: Any = _imported(reference)
    try:
        for part in reference.qualname.split("."):
            found = getattr(found, part)
        for _ in range(reference.unwrap):
            found = found.__wrapped__
    except AttributeError as error:
        raise DefinitionError(
            f"a worker process imported {reference.module} and did not find {reference.qualname} there: define it at "
            "the top level of the module, not only where it runs as the main program"
        ) from error
    function: Callable[..., Any] = found
    return function


def _imported(reference: ByName) -> ModuleType:
    token = imported_for_a_worker.set(reference.module)
    try:
        return importlib.import_module(reference.module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{reference.module}.".startswith(f"{error.name}.") or reference.file is None:
            raise
        return _loaded(reference.module, reference.file)  # the parent knows it by its file only
    finally:
        imported_for_a_worker.reset(token)


def _loaded(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"no module named {name!r}, and {file} is none either", name=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# -- from the worker to the parent -------------------------------------------------------------------------------------


_came_by_value: dict[tuple[str, str], Any] = {}
"""The classes and functions of the main program that this worker has, as far as they have been sent back."""


class _Homeward(pickle.Pickler):
    """Sends classes and functions that came by value back by name: the parent has the originals.

    By value they would replace the methods of those by copies.
    """

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, type | FunctionType) or "<locals>" in obj.__qualname__:
            return NotImplemented
        module = sys.modules.get(obj.__module__)
        if module is not None and _can_be_imported(module):
            return NotImplemented
        name = (obj.__module__, obj.__qualname__)
        _came_by_value[name] = obj
        return _original, name


def _original(module: str, qualname: str) -> Any:
    found: Any = _came_by_value.get((module, qualname))
    if found is None:
        found = sys.modules[module]
        for part in qualname.split("."):
            found = getattr(found, part)
    return found


def dumps_for_the_parent(value: Any) -> bytes:
    """The value as bytes, in a worker; what is of the main program is named there, and found by the parent."""
    file = io.BytesIO()
    _Homeward(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()
