"""Lists of runs: which ones fit, how many there are, and where the next window begins."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rh_agents.core.errors import StoreError
from rh_agents.core.ports import RunStatus, Store
from rh_agents.core.ports.windows import RunQuery, count_runs, every_run, list_runs, tags_of_runs
from rh_agents.core.queueing import Queueing, Submission
from rh_agents.testing._records import (
    AWAITING,
    CANCELLED,
    COMPLETED,
    FAILED,
    ODD_TEXTS,
    STARTED,
    found_run,
    request,
)
from rh_agents.testing.conformance.suite import StoreSuite, on_an_event_loop

__all__ = ["RunViewConformance"]


class RunViewConformance(StoreSuite):
    """What people see of many runs. A store need not find them itself."""

    @on_an_event_loop
    async def test_runs_are_listed_and_counted_as_if_all_were_looked_at(self, store: Store) -> None:
        statuses = [COMPLETED, STARTED, AWAITING, FAILED, CANCELLED, COMPLETED]
        for number, status in enumerate(statuses):
            tags = ("all", f"tag {number % 2}")
            asked = request(f"Run {number}", tags=tags, workflow=f"Flow É {number % 3}")
            await (await store.open_run(asked)).close(status)
        live = await store.open_run(request("live", tags=("all",)))
        await store.fork_run("Run 0", "a copy", [], [])
        if isinstance(store, Queueing):
            await store.submit(Submission("submitted", "m:f", "m:f", b"[]", b"x" * 32))
        moment = (await found_run(store, "Run 3")).updated_at
        infos = await store.runs()
        queries = [
            RunQuery(),
            *(RunQuery((status,)) for status in RunStatus),
            RunQuery((RunStatus.FAILED, RunStatus.RUNNING)),
            RunQuery((RunStatus.INTERRUPTED, RunStatus.DAMAGED)),
            RunQuery((RunStatus.COMPLETED,), with_damaged=True),
            *(RunQuery(tag=tag) for tag in ("all", "tag 1", "tag", "")),
            *(RunQuery(text=text) for text in ("run", "RUN 3", "flow É", "flow é 1", "live", "%", "_", "no such")),
            RunQuery(updated_since=moment),
            RunQuery(updated_before=moment),
            RunQuery((RunStatus.COMPLETED,), tag="tag 1", text="flow", updated_since=moment),
            RunQuery(forks_of=("Run 0", "Run 1")),
            RunQuery(forks_of=("Run 1",)),
        ]
        for query in queries:
            expected = [info for info in infos if query.fits(info)]
            assert list((await list_runs(store, query)).runs) == expected, query
            assert await count_runs(store, query) == len(expected), query
        assert [info.run_id for info in (await list_runs(store, RunQuery((RunStatus.RUNNING,)))).runs] == ["live"]
        assert await count_runs(store, RunQuery(text="RUN")) == 6
        assert await count_runs(store, RunQuery(text="flow é 1")) == 0, "only letters of ASCII have a case here"
        await live.close(COMPLETED)
        assert await count_runs(store, RunQuery((RunStatus.RUNNING,))) == 0

    @on_an_event_loop
    async def test_windows_of_runs_follow_one_another_without_a_gap(self, store: Store) -> None:
        for number in range(7):
            await (await store.open_run(request(str(number)))).close(FAILED if number % 3 else COMPLETED)
        assert await _windows(store, RunQuery(n=3)) == [["6", "5", "4"], ["3", "2", "1"], ["0"]]
        assert await _windows(store, RunQuery(n=7)) == [["6", "5", "4", "3", "2", "1", "0"]]
        assert await _windows(store, RunQuery((RunStatus.FAILED,), n=2)) == [["5", "4"], ["2", "1"]]
        assert [info.run_id async for info in every_run(store, RunQuery((RunStatus.FAILED,), n=1))] == list("5421")
        behind = RunQuery((RunStatus.FAILED,), before="3")
        assert [info.run_id for info in (await list_runs(store, behind)).runs] == ["2", "1"], "itself it does not fit"
        assert await count_runs(store, behind) == 2
        for refused in (list_runs(store, RunQuery(before="unknown")), count_runs(store, RunQuery(before="unknown"))):
            with pytest.raises(StoreError, match="unknown"):
                await refused
        with pytest.raises(ValueError, match="before="):
            RunQuery(n=0)

    @on_an_event_loop
    async def test_runs_are_found_by_odd_texts_and_all_their_tags_are_known(self, store: Store) -> None:
        for text in ODD_TEXTS:
            await (await store.open_run(request(f"run {text}", tags=("x", text), workflow=text))).close(STARTED)
        await (await store.open_run(request("b", tags=(", ", "[]")))).close(STARTED)
        for text in (*ODD_TEXTS, ", ", '", "', "[", "[]"):
            for query in (RunQuery(tag=text), RunQuery(text=text)):
                expected = [info.run_id for info in await store.runs() if query.fits(info)]
                assert [info.run_id for info in (await list_runs(store, query)).runs] == expected, query
                assert await count_runs(store, query) == len(expected), query
        assert await tags_of_runs(store) == sorted({"x", ", ", "[]", *ODD_TEXTS})
        assert await tags_of_runs(store, 3) == sorted({"x", ", ", "[]", *ODD_TEXTS})[:3]


async def _windows(store: Store, query: RunQuery) -> Sequence[list[str]]:
    found: list[list[str]] = []
    before: str | None = None
    while not found or before is not None:
        window = await list_runs(store, RunQuery(query.status, n=query.n, before=before))
        found.append([info.run_id for info in window.runs])
        before = window.next
    return found
