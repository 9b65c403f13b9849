"""Exceptions on their way from a worker to its parent, which many do not survive.

Pickling an exception keeps its class, its `args` and its attributes, and calls the class with `args` on the other side.
That fails for every class whose `__init__` takes anything else than it hands on, for attributes that cannot be pickled,
and for classes that the other process cannot find; it loses causes. So a failure travels as a `Failure`, plain data
about the exception, with the pickled one in it only if it was seen to come out as it went in.

Exceptions refer to each other in any shape: many members of a group may have one cause, which is a group again. So each
is described once for each level at which it is met; along every path to it, that would be without end.
"""

from __future__ import annotations

import importlib
import pickle
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from rh_agents.core.errors import CalledExit
from rh_agents.core.results import describe_error
from rh_agents.executors._workers.functions import dumps_for_the_parent

_MOST_LEVELS = 8
"""Causes of causes, and members of groups in groups."""
_MOST_OF_A_TRACE = 20_000
"""Characters. (Of 3,000 recursions Python itself shows a few.)"""

Name = tuple[str, str]


@dataclass(slots=True)
class Failure:
    """What is known of an exception.

    Attributes:
        names: module and qualified name of its class and of those that it is derived from, in their order.
        pickled: the exception itself, if that works.
        args: its arguments, each pickled, or its `repr` if it cannot be.
        state: its attributes, pickled; those that cannot be are named in `lost`.
        text: what `str` gives; None if that raises.
    """

    names: list[Name]
    pickled: bytes | None = None
    args: list[bytes | str] = field(default_factory=list)
    state: dict[str, bytes] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    text: str | None = None
    message: str = ""
    members: list[Failure] | None = None
    cause: Failure | None = None
    context: Failure | None = None
    suppresses_context: bool = False
    trace: str = ""


# -- in the worker -----------------------------------------------------------------------------------------------------


def failure_of(error: BaseException, ours: frozenset[CodeType]) -> Failure:
    """All that can be said of an exception. `ours` is the code that the traceback need not show."""
    failure = _described(error, 0, {})
    failure.trace = _trace(error, ours)
    return failure


def bare_failure_of(error: BaseException, ours: frozenset[CodeType]) -> Failure:
    """The class, the text and the traceback: if describing the rest, which runs code of the user's, raises anything."""
    return Failure(_names_of(error), text=_text(error), lost=["all that it holds"], trace=_trace(error, ours))


def _names_of(error: BaseException) -> list[Name]:
    return [(cls.__module__, cls.__qualname__) for cls in type(error).__mro__]


_Described = dict[tuple[int, int], Failure]
"""By the exception's `id` and the level."""


def _described(error: BaseException, level: int, described: _Described) -> Failure:
    known = described.get((id(error), level))
    if known is not None:
        return known
    failure = described[id(error), level] = Failure(_names_of(error), text=_text(error))
    failure.suppresses_context = error.__suppress_context__
    if level < _MOST_LEVELS:
        if error.__cause__ is not None:
            failure.cause = _described(error.__cause__, level + 1, described)
        elif error.__context__ is not None and not error.__suppress_context__:
            failure.context = _described(error.__context__, level + 1, described)
    if isinstance(error, BaseExceptionGroup) and level < _MOST_LEVELS:
        failure.message = str(error.message)
        failure.members = [_described(each, level + 1, described) for each in error.exceptions]
    else:
        failure.pickled = _pickled_if_it_survives(error)
    if failure.pickled is None:
        _describe_parts(error, failure)
    return failure


def _pickled_if_it_survives(error: BaseException) -> bytes | None:
    try:
        data = dumps_for_the_parent(error)
        found = pickle.loads(data)
        same = type(found) is type(error) and _text(found) == _text(error)
        return data if same else None
    except Exception:  # noqa: BLE001 - the class is the user's, and what it does when it is made again may be anything
        return None


def _describe_parts(error: BaseException, failure: Failure) -> None:
    if failure.members is None:
        failure.args = [_pickled(each) or _repr(each) for each in error.args]
    for name, value in list(vars(error).items()):
        data = _pickled(value)
        if data is None:
            failure.lost.append(str(name))
        else:
            failure.state[str(name)] = data


def _pickled(value: Any) -> bytes | None:
    try:
        data = dumps_for_the_parent(value)
        pickle.loads(data)
    except Exception:  # noqa: BLE001 - as above
        return None
    return data


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - as above
        return f"<{type(value).__qualname__}>"


def _text(error: BaseException) -> str | None:
    try:
        return str.__str__(str(error))
    except (Exception, SystemExit):  # noqa: BLE001 - as above
        return None


def _trace(error: BaseException, ours: frozenset[CodeType]) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code in ours:
        trace = trace.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
    except Exception:  # noqa: BLE001 - as above
        return ""
    if len(text) > _MOST_OF_A_TRACE:
        half = _MOST_OF_A_TRACE // 2
        text = f"{text[:half]}\n[…]\n{text[-half:]}"
    return text.rstrip()


# -- in the parent -----------------------------------------------------------------------------------------------------


def raised(failure: Failure) -> Exception:
    """The exception again: what the function raised, with the worker's traceback as a note.

    What is no `Exception` (`SystemExit`, `KeyboardInterrupt`) was meant for the worker's process, which is ours; so it
    is a `CalledExit`, and the failure of that call only.
    """
    error = _made(failure, {})
    if not isinstance(error, Exception):
        error = _meant_for_the_process(error)
    if failure.lost:
        error.add_note(f"left in the worker process, as it cannot be pickled: {', '.join(failure.lost)}")
    if failure.trace:
        error.add_note(f"in the worker process:\n{failure.trace}")
    return error


def _meant_for_the_process(error: BaseException) -> CalledExit:
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        stand_in = CalledExit(f"called sys.exit({code})")
    else:
        stand_in = CalledExit(f"raised {describe_error(error)}")
    stand_in.__cause__ = error
    return stand_in


def _made(failure: Failure, made: dict[int, BaseException]) -> BaseException:
    """The exception of a failure; `made` has those of failures that were met before, by their `id`."""
    known = made.get(id(failure))
    if known is not None:
        return known
    error = _loaded(failure)
    if error is None:
        error = _built(failure, made)
    made[id(failure)] = error
    if failure.cause is not None:
        error.__cause__ = _made(failure.cause, made)
    elif failure.context is not None:
        error.__context__ = _made(failure.context, made)
    error.__suppress_context__ = failure.suppresses_context
    return error


def _loaded(failure: Failure) -> BaseException | None:
    if failure.pickled is None:
        return None
    try:
        found = pickle.loads(failure.pickled)
    except Exception:  # noqa: BLE001 - it may need what only the worker has
        return None
    return found if isinstance(found, BaseException) and _text(found) == failure.text else None


def _built(failure: Failure, made: dict[int, BaseException]) -> BaseException:
    """The exception without its `__init__`, whose arguments are gone."""
    members = None if failure.members is None else [_made(each, made) for each in failure.members]
    args = tuple(each if isinstance(each, str) else _unpickled(each) for each in failure.args)
    state = {name: _unpickled(data) for name, data in failure.state.items()}
    cls = _class_of(failure)
    error = _instance(cls, args, members, failure.message)
    error.__dict__.update(state)
    if _text(error) != failure.text:  # its `__str__` wants what was left behind
        error = _instance(_speaking(cls, failure.text or ""), args, members, failure.message)
        error.__dict__.update(state)
    return error


def _unpickled(data: bytes) -> Any:
    try:
        return pickle.loads(data)
    except Exception as error:  # noqa: BLE001 - as above
        return f"<{describe_error(error)}>"


def _class_of(failure: Failure) -> type[BaseException]:
    """The class; if this process does not have it, one of its name, derived from the first base that is here."""
    missing: Name | None = None
    for name in failure.names:
        found = _found(name)
        if found is not None and failure.members is None and issubclass(found, BaseExceptionGroup):
            found = None  # it is so deep that its members were left behind, and no group is without any
        if found is not None:
            return found if missing is None else _derived(found, failure.names[0], {})
        missing = missing or name
    return Exception


def _found(name: Name) -> type[BaseException] | None:
    module, qualname = name
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except Exception:  # noqa: BLE001 - importing executes the user's code
        return None
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _derived(base: type[BaseException], name: Name, members: dict[str, Any]) -> type[BaseException]:
    module, qualname = name
    return type(qualname.rpartition(".")[2], (base,), {"__module__": module, "__qualname__": qualname, **members})


def _speaking(cls: type[BaseException], text: str) -> type[BaseException]:
    return _derived(cls, (cls.__module__, cls.__qualname__), {"__str__": lambda _: text})


def _instance(
    cls: type[BaseException], args: tuple[Any, ...], members: list[BaseException] | None, message: str
) -> BaseException:
    if members is not None:
        return _group(cls, message, members)
    base = next(each for each in cls.__mro__ if each.__module__ == "builtins")
    try:
        error: BaseException = cls.__new__(cls, *args)
    except Exception:  # noqa: BLE001 - as above
        error = base.__new__(cls, *args)  # type: ignore[call-overload, unused-ignore]
    with suppress(Exception):  # a UnicodeError without its five arguments
        base.__init__(error, *args)  # type: ignore[misc] # what Python itself keeps of them: `args`, `errno`
    return error


def _group(cls: type[BaseException], message: str, members: list[BaseException]) -> BaseException:
    try:
        group: BaseException = BaseExceptionGroup.__new__(cls, message, members)  # type: ignore[type-var]
    except TypeError:  # a group of exceptions that holds something else
        group = BaseExceptionGroup(message, members)
    return group
