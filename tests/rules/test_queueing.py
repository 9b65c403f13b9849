"""What decides about submitted runs without a store: which owners are gone, and whether a function is the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from rh_agents.core._base.sources import fingerprint
from rh_agents.core.errors import UsageError
from rh_agents.core.queueing import HeldRun, parts_of_flow, queues_of
from rh_agents.workers.leases import LeaseWatch

LEASE = 15.0


def held(number: int, heartbeat: int = 1, *, is_gone: bool = False) -> HeldRun:
    return HeldRun(f"run {number}", "m:f", (number, 1, heartbeat), LEASE, is_gone)


def test_fifty_runs_of_a_machine_that_is_gone_are_free_one_lease_after_it_was_last_heard_of() -> None:
    watch = LeaseWatch()
    runs = [held(number) for number in range(50)]
    at = [now for now in range(40) if len(watch.silent(runs, float(now))) == 50]
    assert at[0] == LEASE


def test_a_sign_of_life_begins_the_lease_again_and_another_owner_is_another_lease() -> None:
    watch = LeaseWatch()
    assert watch.silent([held(1), held(2)], 0.0) == []
    assert watch.silent([held(1, 2), held(2)], 14.0) == []
    assert watch.silent([held(1, 2), held(2)], 15.0) == [held(2).sign]
    assert watch.silent([held(1, 2)], 28.9) == []
    assert watch.silent([held(1, 2)], 29.0) == [held(1, 2).sign]


def test_an_owner_that_certainly_exists_no_more_is_not_waited_for() -> None:
    assert LeaseWatch().silent([held(1, is_gone=True), held(2)], 0.0) == [held(1).sign]


def test_a_lease_that_was_not_seen_in_between_is_watched_anew() -> None:
    watch = LeaseWatch()
    watch.silent([held(1)], 0.0)
    watch.silent([], 1.0)
    assert watch.silent([held(1)], 16.0) == []


SOURCE = """
def tool(function):
    return function

@tool
async def survey(urls: list[str], *, depth: int = 2) -> int:
    # counts
    if urls:
        return len(urls) * depth

    return 0
"""


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ("    # counts\n", "", True),
        ("    # counts\n", "\n\n    # something else\n", True),
        ("(urls: list[str], *, depth: int = 2)", "(\n    urls: list[str],\n    *,\n    depth: int = 2\n)", True),
        ("        return len(urls) * depth\n", "            return len(urls) * depth\n", True),
        ("len(urls) * depth", "len(urls) + depth", False),
        ("depth: int = 2", "depth: int = 3", False),
        ("@tool\n", "", False),
        ("\n    return 0", "\n        return 0", False),
    ],
)
def test_a_fingerprint_is_of_what_is_said_and_not_of_its_layout(
    tmp_path: Path, before: str, after: str, is_same: bool
) -> None:
    assert before in SOURCE
    one = fingerprint(module_of(tmp_path / "one.py", SOURCE).survey)
    other = fingerprint(module_of(tmp_path / "other.py", SOURCE.replace(before, after)).survey)
    assert one is not None
    assert (one == other) is is_same


def test_what_has_no_source_has_no_fingerprint() -> None:
    assert fingerprint(len) is None
    made: dict[str, object] = {}
    exec("def made(): return 1", made)
    assert fingerprint(made["made"]) is None  # type: ignore[arg-type]


def module_of(path: Path, source: str) -> ModuleType:
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_flow_names_a_function_and_perhaps_its_fingerprint() -> None:
    assert parts_of_flow("shop.flows:survey@0123") == ("shop.flows:survey", "0123")
    assert parts_of_flow("shop/flows.py:survey") == ("shop/flows.py:survey", None)


def test_a_store_without_queues_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match="PostgreSQL"):
        queues_of(object())
