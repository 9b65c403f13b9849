"""The parent's side of a call in a worker, of whatever kind: what is sent there, and what has come back."""

from __future__ import annotations

import asyncio
import functools
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rh_agents.core._loops.beside import beside_if_large
from rh_agents.core.errors import DefinitionError, UnstorableError
from rh_agents.core.ports import CallContext
from rh_agents.core.results import describe_error
from rh_agents.executors._workers.failures import Failure, raised
from rh_agents.executors._workers.functions import ByValue, Order, dumps, facts_of, refer
from rh_agents.executors._workers.wire import LARGE, Buffer, Kind, Pieces, loads

_MAIN = b"__main__"
_LARGEST_OF_SMALL_THINGS = 256 * 1024
"""Bytes. A piece of a pickle that is larger is one thing, and no name of a class."""


async def order_for(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
) -> tuple[Order, Sequence[bytes]]:
    """What a worker is to call, and its arguments, pickled.

    Raises:
        DefinitionError: a worker cannot find the function, or the arguments cannot be pickled.
    """
    reference, name = refer(function), name_of(function)
    pickle_them = functools.partial(_pickled, args, kwargs, name, is_by_value=isinstance(reference, ByValue))
    data, is_by_value = await beside_if_large((args, kwargs), pickle_them)
    return Order(reference, name, facts_of(about), is_by_value), data


def name_of(function: Callable[..., Any]) -> str:
    """What people call it."""
    name: str = getattr(function, "__qualname__", repr(function))
    return name


def _pickled(
    args: Sequence[Any], kwargs: Mapping[str, Any], name: str, *, is_by_value: bool
) -> tuple[list[bytes], bool]:
    """The arguments of a call, and whether the result may be of classes that travel by value."""
    given = tuple(args), dict(kwargs)
    try:
        if not is_by_value:
            pieces = Pieces.of(given)
            if not any(_MAIN in piece for piece in pieces if len(piece) < _LARGEST_OF_SMALL_THINGS):
                return pieces, False
        return [dumps(given)], True
    except Exception as error:
        raise DefinitionError(f"the arguments of {name} cannot be sent to a worker process: {error}") from error


async def value_in(kind: Kind, content: Buffer, name: str) -> Any:
    """What a function returned in a worker; what it raised is raised.

    Raises:
        UnstorableError: this process cannot read what it returned.
    """
    if kind is Kind.RETURNED:
        try:
            return await asyncio.to_thread(loads, content) if len(content) >= LARGE else loads(content)
        except Exception as error:
            raise UnstorableError(
                f"the result of {name} cannot be read in this process: {describe_error(error)}"
            ) from error
    failure: Failure = pickle.loads(content)
    raise raised(failure)
