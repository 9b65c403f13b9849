"""Random sequences of operations on a run, each compared with a model that is as simple as can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, Protocol

import pytest
from hypothesis import strategies as st

from rh_agents.core.errors import CallCancelled, RunIsLive, StoreError
from rh_agents.core.ports import Journal, Question, RunInfo, Store
from rh_agents.core.results import Outcome
from rh_agents.core.types import ExecutionStatus
from rh_agents.testing._records import (
    AWAITING,
    BRIEF_LEASE,
    CANCELLED,
    ENDED,
    RETRYING,
    STARTED,
    SUPERSEDED,
    VALUES,
    Written,
    completed,
    counting,
    fact,
    found_run,
    key,
    listed,
    outcome,
    request,
    same_outcome,
)

_CALLS = st.integers(0, 4)
_OPERATIONS: list[tuple[str, tuple[st.SearchStrategy[Any], ...]]] = [
    ("open", ()),
    ("close", (st.sampled_from([*ENDED, STARTED, AWAITING]),)),
    ("crash", ()),
    ("start", (_CALLS, st.integers(1, 3))),
    ("retry", (_CALLS, st.integers(1, 3))),
    ("finish", (_CALLS, st.sampled_from(VALUES), st.just(True))),
    ("finish", (_CALLS, st.sampled_from(VALUES), st.just(False))),
    ("finish", (st.integers(5, 30), st.sampled_from(VALUES), st.booleans())),
    ("fail", (_CALLS, st.integers(0, 2))),
    ("supersede", (_CALLS,)),
    ("fork", (_CALLS, _CALLS)),
    ("delete", ()),
    ("stop", ()),
    ("ask", (st.integers(0, 1),)),
    ("answer", (st.integers(0, 1), st.sampled_from([b"1", b"null"]))),
    ("reject", (st.integers(0, 1),)),
]


def operations(names: Collection[str]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Any operation of these names, with whatever it is done to."""
    return st.one_of(*(st.tuples(st.just(name), *details) for name, details in _OPERATIONS if name in names))


class Places(Protocol):
    """Where the comparison gets its stores."""

    @property
    def store(self) -> Store:
        """The store as the process that is alive now has it."""
        ...

    async def crash_now(self) -> None:
        """The process dies, and `store` is what the next one finds."""
        ...

    async def take_over(self, run_id: str) -> Journal:
        """The run of an owner who has died, opened as soon as it is not taken for live any more."""
        ...


class Comparison:
    """One run in a store, and what it should be."""

    def __init__(self, places: Places, run_id: str, *, has_questions: bool) -> None:
        self.places = places
        self.run_id = run_id
        self.has_questions = has_questions
        self.forks = 0
        self.written = Written(run_id)
        self.questions: dict[str, Question] = {}
        self.journal: Journal | None = None
        self.info: RunInfo | None = None
        """As the store should have it; None while there is no such run."""

    @property
    def store(self) -> Store:
        return self.places.store

    async def execute(self, operations: list[tuple[Any, ...]]) -> None:
        for name, *details in operations:
            await getattr(self, f"do_{name}")(*details)
            await self.check()
        if self.journal is not None:
            await self.journal.close(STARTED)

    async def check(self) -> None:
        """Whether the store has what it should have."""
        if self.journal is not None:
            await self.journal.flush()
        found = await self.store.find_run(self.run_id)
        if self.info is None or found is None:
            assert found is self.info
            return
        assert (found.status, found.epoch) == (self.info.status, self.info.epoch)
        assert (found.owner is None) == (self.journal is None)
        if self.journal is not None:
            await self.written.check_journal(self.journal)
        await self.written.check(self.store)
        assert found.outcomes == len(self.written.outcomes)
        if not self.has_questions:
            return
        asked = sorted(self.questions.values(), key=lambda each: each.asked_at)
        assert await self.store.questions(self.run_id, is_open=False) == asked
        assert await self.store.questions(self.run_id) == [each for each in asked if each.answer is None]

    async def do_open(self) -> None:
        if self.journal is not None:
            with pytest.raises(RunIsLive):
                await self.store.open_run(request(self.run_id))
            return
        journal = await self.store.open_run(request(self.run_id, lease=BRIEF_LEASE))
        if self.info is None:
            self.info = RunInfo(self.run_id)
        epoch = self.info.epoch + (self.info.status in ENDED)
        assert (journal.info.status, journal.info.epoch) == (self.info.status, epoch)
        self.info = dataclasses.replace(self.info, status=STARTED, epoch=epoch)
        self.journal = journal

    async def do_close(self, status: ExecutionStatus) -> None:
        if self.journal is not None and self.info is not None:
            await self.journal.close(status)
            self.journal = None
            self.info = dataclasses.replace(self.info, status=status)

    async def do_crash(self) -> None:
        was_open, self.journal = self.journal is not None, None
        await self.places.crash_now()
        if was_open:
            self.journal = await self.places.take_over(self.run_id)

    async def opened(self) -> Journal:
        if self.journal is None:
            await self.do_open()
        assert self.journal is not None
        return self.journal

    async def do_start(self, number: int, attempt: int) -> None:
        self.written.note(await self.opened(), fact(self.run_id, STARTED, outcome(number), attempt=attempt))

    async def do_retry(self, number: int, attempt: int) -> None:
        given = fact(self.run_id, RETRYING, outcome(number), attempt=attempt, retry_delay=0.5, message="no")
        await self.written.append(await self.opened(), given)

    async def do_finish(self, number: int, value: Any, waits: bool) -> None:
        group_id = "pages" if number % 2 else None
        await self._end(outcome(number, value, group_id=group_id), waits)

    async def do_fail(self, number: int, attempt: int) -> None:
        error = CallCancelled("not needed") if attempt == 2 else ValueError(attempt)
        await self._end(outcome(number, error=error, made_in=(0, 0, attempt)), True)

    async def _end(self, call: Outcome, waits: bool) -> None:
        journal = await self.opened()
        first = self.written.outcomes.get(call.key)
        if first is not None:
            same_outcome(await counting(journal, first), first)
        elif waits:
            await self.written.append(journal, completed(self.run_id, call), call)
        else:
            self.written.note(journal, completed(self.run_id, call), call)

    async def do_supersede(self, number: int) -> None:
        if self.info is None or self.journal is not None:
            with pytest.raises(StoreError):
                await self.store.supersede(self.run_id, [key(number)])
            return
        await self.store.supersede(self.run_id, [key(number)])
        if key(number) not in self.written.outcomes:
            return
        *_, added = await listed(self.store.events(self.run_id))
        assert (added.event.execution_status, added.event.key) == (SUPERSEDED, key(number).hex())
        superseded = next(given for given, result in self.written.entries if result and result.key == key(number))
        added_at = added.event.timestamp
        self.written.entries.append((superseded._replace(status=SUPERSEDED, result=None, timestamp=added_at), None))

    async def do_fork(self, left_out: int, edited: int) -> None:
        """Go on with a fork instead."""
        if self.info is None or self.journal is not None:
            return
        outcomes = self.written.outcomes
        changed = []
        if key(edited) in outcomes and edited != left_out:
            changed = [outcomes[key(edited)]._replace(value="edited", error=None)]
        self.forks += 1
        name = f"{self.run_id} fork {self.forks}"
        await self.store.fork_run(self.run_id, name, [key(left_out)], changed)
        await self.written.check(self.store)
        self.written = self._forked(name, key(left_out), changed)
        self.run_id = name
        self.questions = {}
        self.info = await found_run(self.store, name)
        assert self.info.status not in ENDED

    def _forked(self, name: str, left_out: bytes, edited: list[Outcome]) -> Written:
        """What is written in a fork: nothing of the call that is left out, and of an edited one its new outcome."""
        fork = Written(name)
        for given, result in self.written.entries:
            copy = given._replace(run_id=name)
            if given.key == left_out:
                continue
            for each in edited:
                if given.key == each.key and result is not None:
                    copy, result = completed(name, each)._replace(timestamp=given.timestamp), each
            is_stale = given.status is SUPERSEDED and any(given.key == each.key for each in edited)
            if not is_stale:
                fork.entries.append((copy, result))
        return fork

    async def do_delete(self) -> None:
        if self.journal is not None or self.info is None:
            with pytest.raises(StoreError):
                await self.store.delete_run(self.run_id)
            return
        await self.store.delete_run(self.run_id)
        self.info = None
        self.written.entries.clear()
        self.questions.clear()

    async def do_stop(self) -> None:
        if self.info is None:
            return
        assert await self.store.request_stop(self.run_id, "enough") == (self.journal is not None)
        if self.journal is None and self.info.status not in ENDED:
            self.info = dataclasses.replace(self.info, status=CANCELLED)

    async def do_ask(self, number: int) -> None:
        journal = await self.opened()
        question = Question(self.run_id, f"question {number}", "survey::ask", "Why?", None, 1e9 + number)
        expected = self.questions.setdefault(question.id, question)
        assert await journal.ask(question) == expected

    async def do_answer(self, number: int, answer: bytes) -> None:
        name = f"question {number}"
        question = self.questions.get(name)
        if question is None or question.answer is not None:
            with pytest.raises(StoreError):
                await self.store.answer(self.run_id, name, answer)
            return
        answered = await self.store.answer(self.run_id, name, answer, "Ada")
        expected = dataclasses.replace(question, answer=answer, answered_by="Ada", problem=None)
        assert answered == dataclasses.replace(expected, answered_at=answered.answered_at)
        self.questions[name] = answered

    async def do_reject(self, number: int) -> None:
        journal = await self.opened()
        name = f"question {number}"
        question = self.questions.get(name)
        if question is None:
            with pytest.raises(StoreError):
                await journal.reject_answer(name, "no")
            return
        await journal.reject_answer(name, "no")
        nothing: dict[str, Any] = {"answer": None, "answered_at": None, "answered_by": None}
        self.questions[name] = dataclasses.replace(question, problem="no", **nothing)
