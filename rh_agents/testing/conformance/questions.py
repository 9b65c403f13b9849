"""Questions to people."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import ClassVar

import pytest

from rh_agents.core.errors import InputError, LeaseLost, StoreError
from rh_agents.core.ports import Journal, Question, Store
from rh_agents.testing._records import AWAITING, BRIEF_LEASE, COMPLETED, ODD_TEXTS, RUN, request
from rh_agents.testing.conformance.suite import StoreSuite, expect_refusals, on_an_event_loop

__all__ = ["QuestionConformance"]


class QuestionConformance(StoreSuite):
    """Runs ask questions, and people answer them."""

    operations: ClassVar[tuple[str, ...]] = ("ask", "answer", "reject")

    @on_an_event_loop
    async def test_only_runs_that_are_there_have_questions(self, store: Store) -> None:
        assert await store.questions() == []
        await expect_refusals(store, lambda: store.answer(RUN, "question", b"1"))
        with pytest.raises(StoreError):
            await store.questions()

    @on_an_event_loop
    async def test_a_journal_that_was_closed_asks_nothing(self, store: Store) -> None:
        journal = await store.open_run(request())
        await journal.close(COMPLETED)
        await self._expect_none(journal, StoreError)
        await store.open_run(request())
        await self._expect_none(journal, StoreError)
        assert await store.questions() == []

    async def _expect_none(self, journal: Journal, kind: type[StoreError]) -> None:
        with pytest.raises(kind):
            await journal.ask(Question(RUN, "refused", "", "Why?"))
        with pytest.raises(kind):
            await journal.reject_answer("refused", "no")

    @on_an_event_loop
    async def test_questions_go_with_the_run_that_asked_them(self, store: Store) -> None:
        journal = await store.open_run(request())
        await journal.ask(Question(RUN, "question", "", "Why?"))
        await journal.close(AWAITING)
        await store.delete_run(RUN)
        assert await store.questions(is_open=False) == []

    @on_an_event_loop
    async def test_questions_are_answered_in_any_order_while_the_run_is_live_and_after(self, store: Store) -> None:
        journal = await store.open_run(request())
        asked = [
            Question(
                RUN, f"question {number}", f"survey::ask[{number}]", "Really?", '{"type": "boolean"}', 1e9 + number
            )
            for number in range(3)
        ]
        for question in asked:
            assert await journal.ask(question) == question
            assert await journal.ask(question) == question
        assert await store.questions() == asked
        answered = await store.answer(RUN, "question 1", b" true", by="Ada")
        assert (answered.answer, answered.answered_by, answered.problem) == (b" true", "Ada", None)
        assert answered.answered_at is not None
        assert answered == await journal.ask(asked[1])
        assert await store.questions(RUN) == [asked[0], asked[2]]
        await journal.close(AWAITING)
        await store.answer(RUN, "question 0", b"false")
        assert await store.questions() == [asked[2]]
        journal = await store.open_run(request())
        assert (await journal.ask(asked[0])).answer == b"false"
        assert (await journal.ask(asked[0])).answered_by is None
        assert await journal.ask(asked[1]) == answered
        assert await journal.ask(asked[2]) == asked[2]
        assert [each.id for each in await store.questions(RUN, is_open=False)] == [each.id for each in asked]

    @on_an_event_loop
    async def test_questions_are_there_after_a_crash(self, store: Store) -> None:
        journal = await store.open_run(request(lease=BRIEF_LEASE))
        asked = [Question(RUN, name, "", "Why?", None, 1e9) for name in ("first", "second")]
        for question in asked:
            await journal.ask(question)
        await store.answer(RUN, "first", b"1")
        del journal
        store = await self._crashed(store)
        assert await store.questions() == asked[1:]
        journal = await self._taken_over(store)
        assert (await journal.ask(asked[0])).answer == b"1"

    @on_an_event_loop
    async def test_text_of_every_kind_is_asked_and_answered(self, store: Store) -> None:
        journal = await store.open_run(request())
        for number, text in enumerate(ODD_TEXTS):
            question = Question(RUN, text, text, text, text, 1e9 + number)
            assert await journal.ask(question) == question
            answered = await store.answer(RUN, text, b'"\\ud800\\u0000"', by=text)
            assert (answered.id, answered.answered_by, answered.answer) == (text, text, b'"\\ud800\\u0000"')
            await journal.reject_answer(text, text)
            assert await journal.ask(question) == dataclasses.replace(question, problem=text)

    @on_an_event_loop
    async def test_an_answer_that_is_rejected_opens_the_question_again(self, store: Store) -> None:
        journal = await store.open_run(request())
        question = Question(RUN, "question", "survey::ask", "Really?", None, 1e9)
        await journal.ask(question)
        await store.answer(RUN, "question", b'"perhaps"', by="Ada")
        await journal.reject_answer("question", "yes or no\0")
        expected = dataclasses.replace(question, problem="yes or no\0")
        assert await journal.ask(question) == expected
        assert await store.questions() == [expected]
        await journal.close(AWAITING)
        answered = await store.answer(RUN, "question", b'"yes"', by="Bob")
        assert (answered.answer, answered.answered_by, answered.problem) == (b'"yes"', "Bob", None)
        journal = await store.open_run(request())
        assert await journal.ask(question) == answered
        with pytest.raises(StoreError):
            await journal.reject_answer("another", "no")

    @on_an_event_loop
    async def test_an_answer_that_does_not_fit_the_question_is_refused_and_the_question_stays_open(
        self, store: Store
    ) -> None:
        journal = await store.open_run(request())
        schema = '{"type": "object", "properties": {"pages": {"type": "integer"}}, "required": ["pages"]}'
        await journal.ask(Question(RUN, "question", "", "How many?", schema))
        for wrong in (b"null", b"{}", b'{"pages": "five"}', b"[5]"):
            with pytest.raises(InputError, match=r"^the answer does not fit: "):
                await store.answer(RUN, "question", wrong)
        (found,) = await store.questions()
        assert (found.answer, found.problem) == (None, None)
        await store.answer(RUN, "question", b'{"pages": 5}')
        with pytest.raises(StoreError):  # it has an answer: whether this one fits does not matter
            await store.answer(RUN, "question", b"{}")

    @on_an_event_loop
    async def test_a_question_is_answered_once_and_only_if_it_was_asked_and_in_json(self, store: Store) -> None:
        journal = await store.open_run(request())
        await journal.ask(Question(RUN, "question", "", "Really?"))
        with pytest.raises(StoreError, match="another"):
            await store.answer(RUN, "another", b"1")
        for broken in (b"", b"yes", b"{", b"\xff", b"1 2"):
            with pytest.raises(StoreError):
                await store.answer(RUN, "question", broken)
        assert len(await store.questions()) == 1
        await store.answer(RUN, "question", b"1")
        with pytest.raises(StoreError, match="question"):
            await store.answer(RUN, "question", b"2")
        (found,) = await store.questions(is_open=False)
        assert found.answer == b"1"

    @on_an_event_loop
    async def test_of_many_who_answer_one_is_heard(self, store: Store) -> None:
        journal = await store.open_run(request())
        await journal.ask(Question(RUN, "question", "", "Who?"))
        answers = [store.answer(RUN, "question", b"%d" % number) for number in range(10)]
        given = await asyncio.gather(*answers, return_exceptions=True)
        heard = [each for each in given if isinstance(each, Question)]
        assert len(heard) == 1
        assert {type(each) for each in given if not isinstance(each, Question)} == {StoreError}
        assert (await journal.ask(Question(RUN, "question", "", "Who?"))).answer == heard[0].answer

    @on_an_event_loop
    async def test_questions_of_different_runs_are_apart_and_the_oldest_comes_first(self, store: Store) -> None:
        asked = []
        for number, run_id in enumerate(("monday", "tuesday", "monday", "tuesday")):
            question = Question(run_id, f"question {number // 2}", "", run_id, None, 1e9 - number)
            journal = await store.open_run(request(run_id))
            asked.append(await journal.ask(question))
            await journal.close(AWAITING)
        assert await store.questions() == asked[::-1]
        assert await store.questions("tuesday") == [asked[3], asked[1]]
        assert await store.questions("nobody") == []
        await store.answer("monday", "question 0", b"1")
        assert await store.questions() == [asked[3], asked[2], asked[1]]

    @on_an_event_loop
    async def test_who_lost_the_run_asks_no_questions(self, store: Store) -> None:
        _, zombie, successor = await self._zombie(store)
        asked = await successor.ask(Question(RUN, "mine", "", "Yes?"))
        await store.answer(RUN, "mine", b"true")
        with pytest.raises(LeaseLost):
            await zombie.ask(Question(RUN, "theirs", "", "No?"))
        with pytest.raises(LeaseLost):
            await zombie.reject_answer("mine", "no")
        (found,) = await store.questions(RUN, is_open=False)
        assert (asked.id, found.id, found.answer, found.problem) == ("mine", "mine", b"true", None)
