"""One call in a worker, of whatever kind: find the function, call it, and put what came of it into bytes."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from rh_agents.core.context import RemoteCall, remote_call
from rh_agents.core.errors import DefinitionError, UnstorableError
from rh_agents.core.ports import CallContext
from rh_agents.core.ports.tracing import entering
from rh_agents.core.results import describe_error
from rh_agents.core.usage import Usage
from rh_agents.executors._workers.failures import bare_failure_of, failure_of
from rh_agents.executors._workers.functions import Order, dumps_for_the_parent, find
from rh_agents.executors._workers.wire import Buffer, Kind, Pieces, loads


def outcome_of(
    order: Order, arguments: Buffer, report_usage: Callable[[Usage], None], begins: Callable[[], None]
) -> tuple[Kind, Sequence[bytes]]:
    """Make a call; gives what the function returned, or how it failed, pickled. It raises nothing.

    Args:
        order: what to call.
        arguments: with what, pickled.
        report_usage: takes what the function says that it has used.
        begins: called just before the function is.
    """
    try:
        return Kind.RETURNED, _called(order, arguments, report_usage, begins)
    except BaseException as error:  # noqa: BLE001 - whatever it raises is what came of the call
        return Kind.RAISED, [_pickled_failure(error)]


def _called(
    order: Order, arguments: Buffer, report_usage: Callable[[Usage], None], begins: Callable[[], None]
) -> Sequence[bytes]:
    args, kwargs = _read_arguments(order, arguments)
    function = find(order.function)
    about = CallContext(*order.context)
    token = remote_call.set(RemoteCall(about, report_usage))
    begins()
    try:
        with entering(about.trace):
            value = function(*args, **kwargs)
            if inspect.iscoroutine(value) and inspect.iscoroutinefunction(function):
                value = asyncio.run(value)
    finally:
        remote_call.reset(token)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
    try:
        return [dumps_for_the_parent(value)] if order.is_by_value else Pieces.of(value)
    except Exception as error:
        raise UnstorableError(
            f"{order.name} returned a value that cannot leave its worker process: {describe_error(error)}"
        ) from error


def _read_arguments(order: Order, data: Buffer) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        args, kwargs = loads(data)
    except Exception as error:
        raise DefinitionError(
            f"a worker process cannot read the arguments of {order.name}: {describe_error(error)}"
        ) from error
    return args, kwargs


_OUR_CODE = frozenset({outcome_of.__code__, _called.__code__})


def _pickled_failure(error: BaseException) -> bytes:
    try:
        return pickle.dumps(failure_of(error, _OUR_CODE))
    except BaseException:  # noqa: BLE001 - it runs code of the user's, which must not end the worker
        return pickle.dumps(bare_failure_of(error, _OUR_CODE))
