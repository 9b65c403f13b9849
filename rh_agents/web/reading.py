"""What the page shows out of a store, as plain data, read through the ports of the core alone."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, Final

from rh_agents.core.errors import RhAgentsError, StoreError
from rh_agents.core.ports import Clock, RunInfo, Store, status_of
from rh_agents.core.ports.activity import Activity, activity_of_run, width_for
from rh_agents.core.ports.control import Controllable, control_of
from rh_agents.core.ports.present import present_of_run
from rh_agents.core.ports.summary import RunSummary, summary_of_run
from rh_agents.core.ports.windows import failure_kinds
from rh_agents.web.json_text import json_text
from rh_agents.web.live import Follower
from rh_agents.web.shapes import (
    actors_data,
    glance_data,
    groups_data,
    kind_data,
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
_STEP: Final = 16384
"""Events that are summed at a time, so that no reading session lasts long."""
_MOST_RUNS: Final = 200
_SHOWN_KINDS: Final = 20
_SHOWN_REQUESTS: Final = 20


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
        self._created_at = 0.0
        self._kinds: tuple[int, list[dict[str, Any]]] = (0, [])
        self.follower: Follower = Follower(self._probe, self._sections)

    async def _info(self) -> RunInfo:
        info = await self._store.find_run(self._run_id)
        if info is None:
            raise NoSuchRun(f"there is no run {self._run_id!r}")
        return info

    async def _probe(self) -> Hashable:
        info = await self._info()
        return info.created_at, info.updated_at, info.outcomes, info.status, info.owner, info.epoch

    async def _sections(self) -> dict[str, bytes]:
        info = await self._info()
        found: dict[str, Any] = {"run": run_data(info, None), "questions": [], "now": await self._now(), "requests": []}
        problems = []
        for part in (self._asked, self._counted):
            try:
                found |= await part(info)
            except RhAgentsError as error:  # damage, or a row that is missing: what else there is, is shown
                problems.append(str(error))
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
        summary, activity = await self._up_to_date(info)
        totals = totals_data(summary, info)
        return {
            "totals": totals,
            "actors": actors_data(summary, activity),
            "groups": groups_data(summary, activity),
            "timeline": timeline_data(activity),
            "slowest": [call._asdict() for call in activity.slowest],
            "kinds": await self._failure_kinds(totals["failed"]),
            "failures": [failure._asdict() for failure in summary.failures],
        }

    async def _failure_kinds(self, failed: int) -> list[dict[str, Any]]:
        """The failures by what went wrong; looked for again when there are others."""
        if failed != self._kinds[0]:
            kinds = await failure_kinds(self._store, self._run_id)
            self._kinds = failed, [kind_data(each) for each in kinds[:_SHOWN_KINDS]]
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

    async def _up_to_date(self, info: RunInfo) -> tuple[RunSummary, Activity]:
        """What is new, added to what was known: a part of the journal at a time."""
        if info.created_at != self._created_at:  # deleted, and made anew under the same name
            self._summary, self._created_at = RunSummary(), info.created_at
            self._activity = Activity(width=width_for(info.updated_at - info.created_at))
        while True:
            after = self._summary.until
            part = await summary_of_run(self._store, self._run_id, after=after, until=after + _STEP)
            # Up to the same event: what both say must fit together.
            until, width = part.until, self._activity.width
            what = await activity_of_run(self._store, self._run_id, after=after, until=until, width=width)
            self._summary, self._activity = self._summary.merge(part), self._activity.merge(what).fitted()
            if until < after + _STEP:
                return self._summary, self._activity


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
        page = self._pages.get(run_id)
        if page is None:
            page = self._pages[run_id] = _Page(self.store, run_id, self._clock)
            self._forget_some()
        self._pages.move_to_end(run_id)
        return page.follower

    def _forget_some(self) -> None:
        """Keep the newest pages, and those that are followed."""
        unused = [name for name, page in self._pages.items() if not page.follower.watchers]
        for name in unused[: max(0, len(self._pages) - _KEPT_PAGES)]:
            del self._pages[name]

    async def _probe_runs(self) -> Hashable:
        return None  # the list as a whole is as cheap

    async def _run_sections(self) -> dict[str, bytes]:
        return {"runs": json_text((await self.list_runs())["runs"])}

    async def list_runs(self, *, status: Sequence[str] = (), tag: str | None = None, text: str = "") -> dict[str, Any]:
        """The newest runs that fit, at most `_MOST_RUNS`, and how many fit."""
        infos = await self.store.runs(tag=tag or None)
        waiting, problem = await self._waiting()
        found = [
            info
            for info in infos
            if (not status or status_of(info).value in status)
            and text.lower() in f"{info.run_id} {info.workflow}".lower()
        ]
        return {
            "runs": [
                run_line(info, None if problem else waiting[info.run_id]) | await self._glance(info)
                for info in found[:_MOST_RUNS]
            ],
            "total": len(found),
            "problem": problem,
            "tags": sorted({tag for info in infos for tag in info.tags})[:100],
        }

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
            while len(self._glances) > 4 * _MOST_RUNS:
                self._glances.popitem(last=False)
        return known

    async def questions(self) -> list[dict[str, Any]]:
        """All open questions, oldest first."""
        return [question_data(each) for each in await self.store.questions()]
