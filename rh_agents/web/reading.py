"""What the page shows out of a store, as plain data, read through the ports of the core alone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Final

from rh_agents.core.errors import RhAgentsError, StoreError
from rh_agents.core.ports import Clock, Execution, RunInfo, RunStatus, Store
from rh_agents.core.ports.activity import Activity, activity_of_run, width_for
from rh_agents.core.ports.control import Controllable, control_of
from rh_agents.core.ports.present import present_of_run
from rh_agents.core.ports.summary import RunSummary, summary_of_run, with_children
from rh_agents.core.ports.windows import (
    MOST_RUNS,
    RunQuery,
    RunWindow,
    count_runs,
    failure_kinds,
    list_runs,
    tags_of_runs,
)
from rh_agents.core.types import ExecutionStatus
from rh_agents.web.earlier import Earlier, earlier_of_run, ended_of, may_have_earlier
from rh_agents.web.json_text import json_text
from rh_agents.web.live import Follower
from rh_agents.web.shapes import (
    actors_data,
    glance_data,
    groups_data,
    kind_data,
    lanes_data,
    now_data,
    question_data,
    request_data,
    run_data,
    run_line,
    timeline_data,
    totals_data,
)

__all__ = ["NoSuchRun", "Reading"]

_KEPT_PAGES: Final = 16
"""Runs whose summaries are kept between two looks."""
_STEP: Final = 32768
"""Events that are summed at a time, so that no reading session lasts long."""
_PATIENCE: Final = 0.2
"""Seconds after which the page of a long run is given with what has been counted so far; the rest follows."""
_SHOWN_KINDS: Final = 20
_SHOWN_REQUESTS: Final = 20


def _statuses(words: Sequence[str]) -> tuple[RunStatus, ...]:
    unknown = [word for word in words if word not in RunStatus.__members__.values()]
    if unknown:
        raise ValueError(f"status={unknown[0][:100]}: no run has this one; there are {', '.join(RunStatus)}")
    return tuple(map(RunStatus, words))


class NoSuchRun(RhAgentsError):
    """There is no run of this name in the store."""


class _Page:
    """What is kept of one run: its numbers so far, and who follows it."""

    def __init__(self, store: Store, run_id: str, clock: Clock) -> None:
        self._store = store
        self._run_id = run_id
        self._clock = clock
        self._summary = RunSummary()
        self._activity = Activity()
        self._counting = asyncio.Lock()
        self._created_at = 0.0
        self._is_behind = False
        self._first_events: dict[int, float] = {}
        self._earlier: tuple[tuple[int, int], Earlier] = ((0, 0), Earlier())
        self._not_apart: str | None = None
        self._kinds: tuple[Hashable, list[dict[str, Any]]] = (None, [])
        self.follower: Follower = Follower(self._probe, self._sections)

    async def _info(self) -> RunInfo:
        info = await self._store.find_run(self._run_id)
        if info is None:
            raise NoSuchRun(f"there is no run {self._run_id!r}")
        return info

    async def _probe(self) -> Hashable:
        info = await self._info()
        run = (info.created_at, info.updated_at, info.outcomes, info.status, info.owner, info.epoch)
        return run, self._is_behind and self._summary.until

    async def _sections(self) -> dict[str, bytes]:
        info = await self._info()
        found: dict[str, Any] = {"run": run_data(info, None), "questions": [], "now": await self._now(), "requests": []}
        problems = []
        for part in (self._asked, self._counted):
            try:
                found |= await part(info)
            except RhAgentsError as error:  # damage, or a row that is missing: what else there is, is shown
                problems.append(str(error))
        problems += [self._not_apart] if self._not_apart else []
        found["problem"] = "; ".join(problems) or None
        return {name: json_text(data) for name, data in found.items()}

    async def _asked(self, info: RunInfo) -> dict[str, Any]:
        """What the run asks people, and what they asked of it."""
        questions = await self._store.questions(self._run_id)
        return {
            "run": run_data(info, len(questions)),
            "questions": [question_data(each) for each in questions],
            "requests": await self._requests(),
        }

    async def _counted(self, info: RunInfo) -> dict[str, Any]:
        """What the journal comes to."""
        owned = self._owned(info)
        summary, activity = await self._standing(info)
        totals = totals_data(summary, info, owned) | {"earlier": self._earlier[1].total}
        executions = await self._executions(info, owned)
        return {
            "totals": totals,
            "actors": actors_data(summary, activity),
            "groups": self._with_earlier(groups_data(summary, activity)),
            "timeline": timeline_data(activity, executions, owned),
            "lanes": lanes_data(activity),
            "slowest": [call._asdict() for call in activity.slowest],
            "kinds": await self._failure_kinds(totals["failed"]),
            "failures": [failure._asdict() for failure in summary.failures],
            "counting": {"outcomes": summary.outcomes, "of": info.outcomes} if self._is_behind else None,
        }

    async def groups(self, first: int, text: str) -> dict[str, Any]:
        """Groups of the run, from one of them on."""
        return self._with_earlier(groups_data(*await self._standing(await self._info()), first, text))

    def _with_earlier(self, groups: dict[str, Any]) -> dict[str, Any]:
        for group in groups["groups"]:
            group["earlier"] = ended_of(self._earlier[1].groups.get(group["id"], {}))
        return groups

    async def _standing(self, info: RunInfo) -> tuple[RunSummary, Activity]:
        """What counts: the newest outcome of each call, and none of versions that are past."""
        summary, activity = await self._up_to_date(info)
        if not may_have_earlier(info):
            self._earlier = ((0, 0), Earlier())
        elif self._must_look_for_earlier(info):
            seen = (len(info.executions), self._summary.until)
            self._earlier, self._not_apart = (seen, Earlier()), None
            try:
                self._earlier = seen, await earlier_of_run(self._store, info)
            except StoreError as error:  # a damaged row, of which a summary needs nothing: the numbers are shown
                self._not_apart = f"versions are not kept apart: {error}"
        return self._earlier[1].left_of(summary.standing), activity

    def _must_look_for_earlier(self, info: RunInfo) -> bool:
        """Whether there may be more of versions that are past. What has been found stays so for an execution.

        A run is gone through for it. So it is not until more has been added to it than a twentieth, or it has ended.
        """
        (executions, until), found = self._earlier
        if executions != len(info.executions):
            return not self._is_behind
        added = self._summary.until - until
        return not found.total and not self._is_behind and added > (until // 20 if info.owner is not None else 0)

    async def _failure_kinds(self, failed: int) -> list[dict[str, Any]]:
        """The failures by what went wrong; looked for again when there are others, and all of them are counted."""
        recorded = sum(counts.get(ExecutionStatus.FAILED, 0) for counts in self._summary.actors.values())
        known = (failed, recorded)
        if known != self._kinds[0] and not self._is_behind:
            kinds = await failure_kinds(self._store, self._run_id) if recorded or failed else []
            shown = self._earlier[1].left_of_kinds(kinds)[:_SHOWN_KINDS]
            self._kinds = known, [kind_data(each) for each in shown]
        return self._kinds[1]

    async def _now(self) -> dict[str, Any] | None:
        """What the owner says that it is doing; None if nobody knows."""
        try:
            present = await present_of_run(self._store, self._run_id)
        except StoreError:  # the row is damaged: it says nothing of the journal
            return None
        return None if present is None else now_data(present, self._clock())

    async def _requests(self) -> list[dict[str, Any]]:
        """What was asked of the run last, newest first; nothing of a store whose runs cannot be steered."""
        if not isinstance(self._store, Controllable):
            return []
        found = await control_of(self._store, self._run_id).requests()
        return [request_data(each) for each in reversed(found[-_SHOWN_REQUESTS:])]

    def _owned(self, info: RunInfo) -> list[tuple[float, float]]:
        """The times at which the run was executed, the last of them up to the last thing that happened."""
        executions = info.executions or (Execution(info.created_at),)
        ends = [info.updated_at if each.ended_at is None else each.ended_at for each in executions]
        return [(each.began_at, max(each.began_at, end)) for each, end in zip(executions, ends, strict=True)]

    async def _executions(self, info: RunInfo, owned: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
        """The same with what was recorded before, and when something new was."""
        found = []
        for execution, (began, ended) in zip(info.executions, owned, strict=False):
            first = await self._first_event_after(execution.after) if execution.after < self._summary.until else None
            found.append(
                {
                    "began_at": began,
                    "ended_at": execution.ended_at,
                    "until": ended,
                    "epoch": execution.epoch,
                    "before": execution.after,
                    "new_at": first if first is not None and first <= ended else None,
                }
            )
        return found

    async def _first_event_after(self, sequence: int) -> float | None:
        """When the first event after this one happened; None if nobody can tell."""
        if sequence not in self._first_events:
            try:
                async for recorded in self._store.events(self._run_id, after=sequence, values=False):
                    self._first_events[sequence] = recorded.event.timestamp
                    break
            except StoreError:  # one that is read along with it is damaged: the rest of the page needs neither
                return None
        return self._first_events.get(sequence)

    async def _up_to_date(self, info: RunInfo) -> tuple[RunSummary, Activity]:
        """What is new, added to what was known: a part of the journal at a time, and not for long."""
        async with self._counting:  # a part that two have read must not be added twice
            return await self._brought_up_to_date(info)

    async def _brought_up_to_date(self, info: RunInfo) -> tuple[RunSummary, Activity]:
        clock, owned = asyncio.get_running_loop().time, self._owned(info)
        ends_at = clock() + _PATIENCE
        if info.created_at != self._created_at:  # deleted, and made anew under the same name
            self._summary, self._created_at = RunSummary(), info.created_at
            self._activity = Activity(width=width_for(sum(ended - began for began, ended in owned)))
            self._first_events = {}
        while True:
            after = self._summary.until
            part = await summary_of_run(self._store, self._run_id, after=after, until=after + _STEP)
            # Up to the same event: what both say must fit together.
            until, width = part.until, self._activity.width
            what = await activity_of_run(self._store, self._run_id, after=after, until=until, width=width)
            self._summary, self._activity = self._summary.merge(part), self._activity.merge(what).fitted(owned)
            self._is_behind = until == after + _STEP
            if not self._is_behind or clock() >= ends_at:
                return await with_children(self._store, self._run_id, self._summary), self._activity


class Reading:
    """A store as the page shows it.

    Args:
        store: where the runs are.
        clock: the time of day, seconds since 1970.
    """

    def __init__(self, store: Store, clock: Clock = time.time) -> None:
        self.store: Store = store
        self._clock = clock
        self._pages: OrderedDict[str, _Page] = OrderedDict()
        self._glances: OrderedDict[tuple[str, float], dict[str, Any]] = OrderedDict()
        self.runs: Follower = Follower(self._probe_runs, self._run_sections)

    def page(self, run_id: str) -> Follower:
        """The page of a run, for all who look at it."""
        return self._page(run_id).follower

    async def groups(self, run_id: str, first: int = 0, text: str = "") -> dict[str, Any]:
        """Groups of a run in the order in which they began, from one of them on; those that fit the text.

        Raises:
            NoSuchRun: there is no such run.
        """
        return await self._page(run_id).groups(first, text)

    def _page(self, run_id: str) -> _Page:
        page = self._pages.get(run_id)
        if page is None:
            page = self._pages[run_id] = _Page(self.store, run_id, self._clock)
            self._forget_some()
        self._pages.move_to_end(run_id)
        return page

    def _forget_some(self) -> None:
        """Keep the newest pages, and those that are followed."""
        unused = [name for name, page in self._pages.items() if not page.follower.watchers]
        for name in unused[: max(0, len(self._pages) - _KEPT_PAGES)]:
            del self._pages[name]

    async def _probe_runs(self) -> Hashable:
        return None  # the newest runs are as cheap

    async def _run_sections(self) -> dict[str, bytes]:
        """The newest runs: this is asked about once a second, however many older ones there are."""
        infos = await self.store.runs(limit=MOST_RUNS)
        return {"runs": json_text(await self._lines(infos, *await self._waiting()))}

    async def list_runs(
        self, *, status: Sequence[str] = (), tag: str | None = None, text: str = "", before: str = ""
    ) -> dict[str, Any]:
        """The newest runs that fit, at most `MOST_RUNS`; how many fit, and how many of these are newer than the first.

        Args:
            status, tag, text: which ones fit, see `RunQuery`.
            before: only those behind the run of this name, whether that fits or not.

        Raises:
            NoSuchRun: there is no run of the name `before`.
            ValueError: no run has such a status.
        """
        query = RunQuery(_statuses(status), tag=tag or None, text=text, before=before or None)
        try:
            window = await list_runs(self.store, query)
        except StoreError as error:
            if before and await self.store.find_run(before) is None:
                raise NoSuchRun(f"there is no run {before!r}, behind which the list would go on") from error
            raise
        total, newer = await self._counts(query, window)
        waiting, problem = await self._waiting()
        return {
            "runs": await self._lines(window.runs, waiting, problem),
            "total": total,
            "newer": newer,
            "older": window.next,
            "problem": problem,
            "tags": await tags_of_runs(self.store),
        }

    async def _counts(self, query: RunQuery, window: RunWindow) -> tuple[int, int]:
        """How many runs are wanted, and how many of them are newer than those of a window."""
        if query.before is None and window.next is None:
            return len(window.runs), 0
        total = await count_runs(self.store, replace(query, before=None))
        return total, 0 if query.before is None else total - await count_runs(self.store, query)

    async def _lines(
        self, infos: Sequence[RunInfo], waiting: Counter[str], problem: str | None
    ) -> list[dict[str, Any]]:
        return [run_line(info, None if problem else waiting[info.run_id]) | await self._glance(info) for info in infos]

    async def _waiting(self) -> tuple[Counter[str], str | None]:
        """How many questions each run asks, or why that cannot be said: one damaged question hides no run."""
        try:
            return Counter(each.run_id for each in await self.store.questions()), None
        except StoreError as error:
            return Counter(), str(error)

    async def _glance(self, info: RunInfo) -> dict[str, Any]:
        """What the owner of a run has said last, in a few numbers; remembered of runs that nobody executes."""
        name = (info.run_id, info.updated_at)
        known = self._glances.get(name)
        if known is None or info.owner is not None:
            try:
                present = await present_of_run(self.store, info.run_id)
            except StoreError:  # the row is damaged, or the run has just been deleted
                present = None
            known = self._glances[name] = {} if present is None else glance_data(present)
            while len(self._glances) > 4 * MOST_RUNS:
                self._glances.popitem(last=False)
        return known

    async def questions(self) -> list[dict[str, Any]]:
        """All open questions, oldest first."""
        return [question_data(each) for each in await self.store.questions()]
