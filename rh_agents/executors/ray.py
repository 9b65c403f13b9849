"""Functions as tasks of a Ray cluster, for work that needs more machines or other ones (processors, GPUs, memory).

It needs Ray 2.52 or later: `pip install 'rh_agents[ray]'`, in the same version on all machines, and this package there
as well. Ray places the tasks and carries arguments and results; this process decides and records. Workers never see
the store of a run, so a cluster needs no access to it.

Ray repeats tasks by itself if it may, and the journal would show one attempt where there were two. So each is
submitted with `max_retries=0`: what Ray has lost is a `WorkerLost`, and `on_unknown` says what becomes of the call.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import os
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rh_agents.core.context import expect_lease, report_usage
from rh_agents.core.errors import DefinitionError, WorkerLost
from rh_agents.core.policies._checks import amounts, at_least
from rh_agents.core.ports import CallContext
from rh_agents.core.usage import Usage
from rh_agents.executors._workers.calling import outcome_of
from rh_agents.executors._workers.exchange import order_for, value_in
from rh_agents.executors._workers.pool import Slots
from rh_agents.executors._workers.wire import LARGE, Buffer, Kind, frames_in, header

try:
    import ray
    from ray import exceptions as ray_errors
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"RayExecutor needs the package {_error.name}: pip install 'rh_agents[ray]'", name=_error.name
    ) from _error

__all__ = ["RayExecutor"]

_NAMED = ("num_cpus", "num_gpus", "memory")
"""Resources that Ray takes as options of their own; all others are names that the nodes were started with."""
_LOCAL = "local"
_NEVER_CALLED = (
    ray_errors.RuntimeEnvSetupError,
    ray_errors.TaskUnschedulableError,
    ray_errors.TaskPlacementGroupRemoved,
)
_connecting = threading.Lock()


class RayExecutor:
    """Calls functions as tasks of a Ray cluster, one task for a call.

        @tool(engine="ray", resources={"num_gpus": 1}, timeout=600)
        def embed(path: str) -> list[float]: ...

        await run(index, paths, executors={"ray": RayExecutor("auto")})

    Functions go by module and name, so that the machines of the cluster have the module as it is there (see
    `runtime_env`); functions and classes of the main program and of notebooks go by value. Coroutine functions are
    taken as well, each has an event loop of its own in its worker. `current()` and `report_usage` work there; what a
    call has used is reported with its outcome. What a function raises is raised here, with the worker's traceback as a
    note. If the caller is cancelled or times out, the task is cancelled and its worker killed. A task costs about a
    millisecond: this is for functions of 50 ms and more.

    The first call connects this process to Ray, unless the program has done so (`ray.init`); then the connection is
    used as it is, and `address` and `runtime_env` mean nothing. It ends with the process.

    Args:
        address: of the cluster: "auto" for the one that this machine is part of, or "HOST:PORT". None means that of the
            environment variable RAY_ADDRESS, or, without it, a cluster of its own on this machine, which ends with this
            process and asks for a token (before Ray 2.59, RAY_AUTH_MODE=token has to be set for that).
        max_in_flight: how many tasks the cluster has at a time; further calls wait here.
        max_lost: how many workers one call may lose before it fails with `WorkerLost`, when `on_unknown` says that it
            is made again.
        resources: what calls need whose actor does not say: "num_cpus", "num_gpus", "memory" (bytes), or names of
            resources that nodes were started with. None means Ray's own default, one processor. An actor's own
            `resources=` are added to these, name by name.
        runtime_env: what workers need that the machines do not have, as `ray.init` takes it, such as
            `{"working_dir": "."}` for the modules of the program.

    Raises:
        ValueError: a number means nothing.
        DefinitionError: `address` is one of a Ray client (`ray://`).
    """

    takes_coroutine_functions: bool = True

    def __init__(
        self,
        address: str | None = None,
        *,
        max_in_flight: int = 1000,
        max_lost: int = 3,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        if address is not None and address.startswith("ray://"):
            raise DefinitionError(
                f"RayExecutor({address!r}): a Ray client stands between the program and its tasks and cannot say what "
                "became of one that it lost; start the program on a machine of the cluster, with 'auto' or HOST:PORT"
            )
        self._address = address
        self._slots = Slots(at_least(1, "max_in_flight", max_in_flight))
        self._max_lost = at_least(1, "max_lost", max_lost)
        self._resources = amounts("resources", resources or {})
        self._runtime_env = None if runtime_env is None else dict(runtime_env)
        self._is_connected = False
        self._task = functools.lru_cache(maxsize=256)(_make_task)

    async def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], about: CallContext
    ) -> Any:
        """Call the function in a task and return what it returns.

        Raises:
            DefinitionError: a worker cannot find the function or this package, the arguments cannot be pickled, or this
                process may not connect to the cluster.
            UnstorableError: what it returned cannot be pickled.
            WorkerLost: the worker or its machine died, or Ray has lost what the function returned.
        """
        async with self._slots.one():
            order, arguments = await order_for(function, args, kwargs, about)
            if not (self._is_connected and ray.is_initialized()):
                await asyncio.to_thread(self._connect)
            submit = functools.partial(self._submit, order.name, about.resources, pickle.dumps(order), arguments)
            await expect_lease()  # it may have waited for its turn
            is_large = sum(map(len, arguments)) >= LARGE
            task = await asyncio.to_thread(submit) if is_large else submit()
            kind, content = await self._outcome(task, order.name)
        return await value_in(kind, content, order.name)

    def _submit(self, name: str, resources: Mapping[str, float], order: bytes, arguments: Sequence[bytes]) -> Any:
        needs = tuple(sorted({**self._resources, **resources}.items()))
        return self._task(name, needs).remote(order, b"".join(arguments))

    async def _outcome(self, task: Any, name: str) -> tuple[Kind, Buffer]:
        try:
            report = await task
        except asyncio.CancelledError:
            _stop(task)
            raise
        except ray_errors.RayTaskError as error:
            raise DefinitionError(
                f"a Ray worker cannot call {name}: {_in_short(error.cause or error)}; its machine needs rh_agents in "
                "the version of this process, and the module of the function: install them there, or name them in "
                "RayExecutor(runtime_env=...)"
            ) from error
        except ray_errors.RayError as error:
            raise WorkerLost(
                f"the Ray task of {name} was lost: {_in_short(error)}",
                has_begun=not isinstance(error, _NEVER_CALLED),
                max_lost=self._max_lost,
            ) from error
        *usages, frame = frames_in(report)
        for _, usage in usages:
            report_usage(pickle.loads(usage))
        return frame

    def _connect(self) -> None:
        """Connect this process to Ray. On a thread of its own: it takes seconds, and sets no handler of signals so."""
        with _connecting:
            if not ray.is_initialized():
                address = self._address or os.environ.get("RAY_ADDRESS") or _LOCAL
                _expect_token(address)
                options: dict[str, Any] = {"address": address, "logging_level": logging.ERROR}
                if self._runtime_env is not None:
                    options["runtime_env"] = self._runtime_env
                if address == _LOCAL:
                    options["include_dashboard"] = False
                ray.init(**options)
            _expect_token(ray.get_runtime_context().gcs_address)  # "auto" may be any; a local one listens everywhere
            self._is_connected = True


# -- in a worker -------------------------------------------------------------------------------------------------------


def _report_of(order: bytes, arguments: bytes) -> bytes:
    """Make a call; gives frames with what the function has used, and with what came of it.

    One object of bytes in each direction, which Ray carries as it is; and no error of a function's is ever Ray's.
    """
    frames: list[bytes] = []

    def take(usage: Usage) -> None:
        _add(frames, Kind.USAGE, [pickle.dumps(usage)])

    kind, content = outcome_of(pickle.loads(order), arguments, take, lambda: None)
    _add(frames, kind, content)
    return b"".join(frames)


def _add(frames: list[bytes], kind: Kind, content: Sequence[bytes]) -> None:
    frames += [header(kind, sum(map(len, content))), *content]


# -- what Ray is told --------------------------------------------------------------------------------------------------


def _make_task(name: str, needs: tuple[tuple[str, float], ...]) -> Any:
    """What is called `name` on Ray's dashboard, and takes so much there. Ray never repeats it."""
    options: dict[str, Any] = {each: amount for each, amount in needs if each in _NAMED}
    others = {each: amount for each, amount in needs if each not in _NAMED}
    if others:
        options["resources"] = others
    return ray.remote(max_retries=0, retry_exceptions=False, **options)(_report_of).options(name=name)


def _stop(task: Any) -> None:
    """No one waits for the task any more: take it back, or kill the worker that executes it."""
    with suppress(ray_errors.RayError):  # the cluster is gone, and the task with it
        ray.cancel(task, force=True)


def _in_short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _expect_token(address: str) -> None:
    """Refuse a cluster over a network whose members need not show a token: whoever reaches it executes code there.

    Raises:
        DefinitionError: with the remedy.
    """
    if _is_loopback(address) or os.environ.get("RAY_AUTH_MODE", "").lower() not in ("", "disabled"):
        return
    raise DefinitionError(
        f"the Ray cluster at {address} asks for no token, so anyone who reaches it can execute code there, with what "
        "your calls get: set RAY_AUTH_MODE=token on each of its machines and here, and RAY_AUTH_TOKEN or "
        "RAY_AUTH_TOKEN_PATH to its token (`ray get-auth-token`)"
    )


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if address in (_LOCAL, "auto") or host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
