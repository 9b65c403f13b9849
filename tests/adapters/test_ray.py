"""Functions on a Ray cluster, a real one on loopback: its workers, its nodes and its programs are killed."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rh_agents import current, parallel, run_sync, tool
from rh_agents.core.errors import DefinitionError
from rh_agents.core.ports import CallContext
from rh_agents.testing.conformance.executors import ExecutorConformance
from tests.services.ray_cluster import SLOW_START, RayCluster, expect_ray

expect_ray()
from rh_agents.executors.ray import RayExecutor  # noqa: E402 - it needs Ray

ROOT = Path(__file__).parents[2]
ABOUT = CallContext("run", "here", 1, "key")


@pytest.fixture(scope="module", autouse=True)
def quiet_ray() -> Iterator[None]:
    """Ray reports nothing to its makers, and its workers find the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield


# -- without a cluster -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["max_in_flight", "max_lost"])
def test_numbers_that_mean_nothing_are_refused(option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(ValueError, match=f"{option}=0"):
        RayExecutor(**options)


def test_a_client_that_cannot_say_what_it_has_lost_is_refused() -> None:
    with pytest.raises(DefinitionError, match="start the program on a machine of the cluster"):
        RayExecutor("ray://head:10001")


@pytest.mark.parametrize("address", ["10.0.0.7:6379", "head.example.org:6379", "[2001:db8::1]:6379"])
@pytest.mark.parametrize("where", ["argument", "environment"])
def test_a_cluster_over_a_network_without_a_token_is_refused_with_the_remedy(
    address: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", address if where == "environment" else "127.0.0.1:1")
    executor = RayExecutor(address if where == "argument" else None)
    with pytest.raises(DefinitionError, match=r"asks for no token.*set RAY_AUTH_MODE=token on each of its machines"):
        asyncio.run(executor.call(len, ("a",), {}, ABOUT))


# -- a cluster that a program starts -----------------------------------------------------------------------------------


def test_a_program_calls_functions_on_a_cluster_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one start of Ray that is not among the slow tests: calls, errors, a killed worker and a timeout."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-m", "tests.adapters.ray_program", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=ROOT)
    if SLOW_START in done.stderr and not os.environ.get("CI"):
        pytest.skip("this machine is so busy that Ray gives up starting")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "squares": [number * number for number in range(20)],
        "error": "LookupError('nothing there')",
        "attempt": 2,
        "same key": True,
        "timeout": "CallTimeout",
        "is stopped": True,
        "elsewhere": True,
        "address": "where",
        "asks for a token": True,
    }


# -- a cluster whose machines die --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """One for all slow tests of this module. It has a token: Ray asks for one where `ray.init` starts it."""
    with pytest.MonkeyPatch.context() as patch, RayCluster() as cluster:
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster


@pytest.mark.slow
class TestRay(ExecutorConformance):
    """The same suite as for worker processes."""

    factory = "rh_agents.executors.ray:RayExecutor"
    _cluster: RayCluster

    @pytest.fixture(autouse=True)
    def _with_nodes(self, cluster: RayCluster) -> None:
        self._cluster = cluster
        cluster.expect_nodes(2)

    def make_executor(self) -> RayExecutor:
        return RayExecutor()

    def lose_node(self, process: int) -> bool:
        self._cluster.kill_node_of(process)
        self._cluster.expect_nodes(2)
        return True


@tool(engine="ray", resources={"num_cpus": 0.5, "special": 1})
def where() -> str:
    import ray  # noqa: PLC0415

    return str(ray.get_runtime_context().get_assigned_resources())  # type: ignore[no-untyped-call]


@tool(engine="ray")
def count_inside(folder: str, number: int) -> int:
    """How many are inside at the same time."""
    mark = Path(folder) / f"inside {number}"
    mark.touch()
    inside = len(list(Path(folder).glob("inside *")))
    threading.Event().wait(0.05)
    mark.unlink()
    return inside


_ITEMS, _AT_A_TIME = 120, 5


@tool
async def step(item: tuple[str, int]) -> int:
    """Slow enough to be killed; it keeps a ledger."""
    folder, number = item
    with open(Path(folder) / "ledger", "a") as ledger:  # noqa: ASYNC230 - a line
        ledger.write(f"{number} {os.getpid()} {current().idempotency_key}\n")
    await asyncio.sleep(0.1)
    return 2 * number


def _called(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "ledger").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_machine_that_dies_with_shards_on_it_costs_what_was_in_flight_whatever_the_store_is(
    kind: str, cluster: RayCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(tmp_path / "runs.db") if kind == "sqlite" else request.getfixturevalue("postgresql_url")
    (tmp_path / "ledger").touch()
    cluster.expect_nodes(2)

    def kill_a_machine() -> None:
        while len(_called(tmp_path)) < _ITEMS // 4:
            threading.Event().wait(0.02)
        cluster.kill_node_of(int(_called(tmp_path)[-1][1]))

    async def flow() -> int:
        async with parallel(max_workers=_AT_A_TIME, name="items") as p:
            p.map(step, [(str(tmp_path), number) for number in range(_ITEMS)], shard=20, on="ray", workers=4)
            return sum([result.unwrap() async for result in p.stream()])

    killer = threading.Thread(target=kill_a_machine)
    killer.start()
    try:
        assert run_sync(flow, store=url, run_id="monday", executors={"ray": RayExecutor()}) == _ITEMS * (_ITEMS - 1)
    finally:
        killer.join()
    called = _called(tmp_path)
    assert {int(number) for number, _, _ in called} == set(range(_ITEMS))
    assert len(called) - _ITEMS <= 2 * _AT_A_TIME, "a machine has two processors, and so two shards"
    assert len({key for _, _, key in called}) == _ITEMS, "a call that is made again has its idempotency key"


@pytest.mark.slow
def test_a_task_takes_the_resources_of_its_actor_and_of_the_executor(cluster: RayCluster) -> None:
    cluster.add_node(resources={"special": 1, "common": 1})

    async def flow() -> str:
        return await where()

    executor = RayExecutor(resources={"common": 0.25, "num_cpus": 1})
    assigned = ast.literal_eval(run_sync(flow, executors={"ray": executor}))
    assert {name: assigned[name] for name in ("CPU", "special", "common")} == {"CPU": 0.5, "special": 1, "common": 0.25}


@pytest.mark.slow
def test_no_more_tasks_are_with_ray_at_a_time_than_it_is_told(cluster: RayCluster, tmp_path: Path) -> None:
    cluster.expect_nodes(2)

    async def flow() -> list[int]:
        async with parallel(max_workers=20) as p:
            for number in range(10):
                p.add(count_inside(str(tmp_path), number))
            return [result.unwrap() for result in await p.gather()]

    assert set(run_sync(flow, executors={"ray": RayExecutor(max_in_flight=1)})) == {1}
