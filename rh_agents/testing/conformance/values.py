"""What comes back as it was written."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import LeaseLost, UnstorableError
from rh_agents.core.groups import GroupStatus
from rh_agents.core.ports import Store
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.testing._records import (
    AWAITING,
    CANCELLED,
    ODD_TEXTS,
    RETRYING,
    RUN,
    STARTED,
    VALUES,
    Written,
    about_group,
    completed,
    fact,
    key,
    listed,
    outcome,
    request,
    same_value,
)
from rh_agents.testing.conformance.suite import StoreSuite, nothing, on_an_event_loop, opened

__all__ = ["ValueConformance"]


class ValueConformance(StoreSuite):
    """Events, outcomes, values and errors come back as they were written. Every store needs this."""

    @on_an_event_loop
    async def test_every_fact_of_an_event_is_kept(self, store: Store) -> None:
        journal, written = await opened(store)
        member = outcome(1, [1], group_id="pages")
        actor = BaseActor(name="ask", version="2\0", event_type=EventType.LLM_CALL, handler=nothing)
        for given in (
            fact(RUN, STARTED, None),
            fact(RUN, CANCELLED, None, attempt=0, seconds=1e-9, message="stopped"),
            about_group(RUN, "pages", GroupStatus.RUNNING),
            fact(RUN, STARTED, member),
            fact(RUN, STARTED, member, actor=actor, attempt=2),
            fact(RUN, RETRYING, member, attempt=2, retry_delay=0.1 + 0.2, message="OSError: no"),
            fact(RUN, AWAITING, member, message="a question"),
            fact(RUN, ExecutionStatus.HUMAN_INTERVENTION, member),
            fact(RUN, CANCELLED, member, attempt=2, seconds=1e6),
        ):
            await written.append(journal, given)
        await written.append(journal, completed(RUN, member), member)
        failure = outcome(2, error=KeyError("x"), attempts=3, seconds=1e-7)
        await written.append(journal, completed(RUN, failure), failure)
        await written.append(journal, about_group(RUN, "pages", GroupStatus.FAILED))
        again: dict[str, Any] = {"is_replayed": True, "from_cache": True, "seconds": 0.5}
        for call, message in ((member, None), (failure, "KeyError: 'x'")):
            given = fact(RUN, ExecutionStatus.RECOVERED, call, result=call.value, message=message, **again)
            await written.append(journal, given)
        await written.check(store)

    @on_an_event_loop
    async def test_every_field_of_an_outcome_is_kept(self, store: Store) -> None:
        journal, written = await opened(store)
        for call in (
            outcome(1, "a", base=key("base"), parent=key("parent"), made_in=(3, 2, 1)),
            outcome(2, "b", group_id="pages", attempts=0, seconds=0.0),
            outcome(3, "c", name="", address="", attempts=100_000, seconds=1e9 + 0.1),
            outcome(4, None, OSError("no"), parent=key("parent"), made_in=(0, 0, 7), group_id="pages"),
            outcome(5, base=b"", parent=b"", made_in=(0, 0, 0)),
        ):
            await written.call(journal, call)
        await written.check_journal(journal)
        await journal.close(STARTED)
        await written.check_journal(await store.open_run(request()))
        await written.check(store)

    @on_an_event_loop
    async def test_values_of_every_kind_come_back_as_they_were(self, store: Store) -> None:
        journal, written = await opened(store)
        for number, value in enumerate(VALUES):
            await written.call(journal, outcome(number, value))
        await written.check_journal(journal)
        await journal.close(STARTED)
        await written.check_journal(await store.open_run(request()))
        await written.check(store)

    @on_an_event_loop
    async def test_a_value_that_is_changed_later_is_kept_as_it_was(self, store: Store) -> None:
        journal = await store.open_run(request())
        value = [1, {"a": [2]}]
        call = outcome(1, value)
        await journal.append(completed(RUN, call), call)
        value.append("changed")
        loaded = await journal.load(key(1))
        same_value(loaded.value, [1, {"a": [2]}])
        loaded.value[1]["a"].append("changed")
        same_value((await journal.load(key(1))).value, [1, {"a": [2]}])
        (stored,) = await listed(store.events(RUN))
        same_value(stored.event.result, [1, {"a": [2]}])

    @on_an_event_loop
    async def test_large_values_come_back_as_they_were(self, store: Store) -> None:
        noise = random.Random(7).randbytes(1_000_000)
        journal, written = await opened(store)
        for number, value in enumerate((noise, noise, "ü\0" * 100_000, ["x" * 40_000] * 3, "y" * 32_768, "z" * 32_767)):
            await written.call(journal, outcome(number, value))
        await journal.close(STARTED)
        journal = await store.open_run(request())
        await written.check_journal(journal)
        await written.check(store)

    @on_an_event_loop
    async def test_errors_come_back_with_their_kind_and_what_they_say(self, store: Store) -> None:
        journal, written = await opened(store)
        errors: list[Exception] = [
            ValueError("no"),
            ValueError(),
            KeyError("x"),
            OSError(2, "no such file"),
            TimeoutError("late"),
            ConnectionError("down\0"),
            RuntimeError("ü\ud800\n", 1, None),
            LeaseLost("taken over"),
        ]
        for number, error in enumerate(errors):
            await written.call(journal, outcome(number, error=error))
        await written.check_journal(journal)
        await journal.close(STARTED)
        journal = await store.open_run(request())
        await written.check_journal(journal)
        for number, error in enumerate(errors):
            assert str((await journal.load(key(number))).error) == str(error)

    @on_an_event_loop
    async def test_a_value_that_is_no_data_is_refused_and_the_journal_goes_on(self, store: Store) -> None:
        journal, written = await opened(store)
        await written.call(journal, outcome(1))
        for value in (object(), lambda: None, [1, object()], {"a": nothing}, pytest):
            call = outcome(2, value)
            with pytest.raises(UnstorableError):
                await journal.append(completed(RUN, call), call)
            with pytest.raises(UnstorableError):
                journal.note(completed(RUN, call), call)
        await written.check_journal(journal)
        await written.call(journal, outcome(2, "data"))
        await written.check_journal(journal)
        await written.check(store)

    @on_an_event_loop
    async def test_text_of_every_kind_comes_back_as_it_was(self, store: Store) -> None:
        journal = await store.open_run(request(tags=tuple(ODD_TEXTS), facts={each: each for each in ODD_TEXTS}))
        written = Written(RUN)
        for number, text in enumerate(ODD_TEXTS):
            call = outcome(number, {text: text}, name=text, address=text, group_id=text)
            await written.append(journal, fact(RUN, RETRYING, call, message=text))
            await written.append(journal, completed(RUN, call), call)
            await written.call(journal, outcome(f"failing {number}", error=ValueError(text)))
            actor = BaseActor(name=text, version=text, handler=nothing)
            await written.append(journal, fact(RUN, STARTED, outcome("x"), actor=actor))
        await written.check_journal(journal)
        await journal.close(STARTED)
        info = (journal := await store.open_run(request())).info
        assert (tuple(info.tags), dict(info.facts)) == (tuple(ODD_TEXTS), {each: each for each in ODD_TEXTS})
        for text in ODD_TEXTS:
            assert journal.recorded.orders[text] == [key(ODD_TEXTS.index(text))]
        await written.check_journal(journal)
        await written.check(store)
