"""What becomes of a call, as a value; and the questions that a history answers."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from rh_agents import EventType, ExecutionEvent, ExecutionResult, ExecutionStatus, GroupStatus, HistorySet, Tool, Usage
from rh_agents.core.errors import RhAgentsError
from rh_agents.core.events import Fact
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.history import fact_of_event
from rh_agents.core.results import Outcome, describe_error, failure, success
from rh_agents.core.tracking import group_fact

ERROR = ValueError("bad")


async def handler(data: Any) -> Any:
    return data


FETCH = Tool(name="fetch", handler=handler)


def test_unwrap_gives_the_value_also_if_it_is_none() -> None:
    assert ExecutionResult(result=3).unwrap() == 3
    assert ExecutionResult[None](result=None).unwrap() is None


def test_unwrap_raises_the_exception_object_of_the_function() -> None:
    with pytest.raises(ValueError, match="bad") as caught:
        failure(ERROR, 1.0, 1, "fetch", None, "fetch").unwrap()
    assert caught.value is ERROR


def test_unwrap_of_a_failure_whose_exception_is_not_at_hand_raises_its_message() -> None:
    with pytest.raises(RhAgentsError, match="ValueError: bad"):
        ExecutionResult[int](ok=False, error_message="ValueError: bad").unwrap()
    with pytest.raises(RhAgentsError, match="the call failed"):
        ExecutionResult[int](ok=False).unwrap()


@pytest.mark.parametrize("name", ["error_message", "erro_message"])
def test_both_names_of_the_message_are_taken_and_given(name: str) -> None:
    result = ExecutionResult[int].model_validate({"ok": False, name: "bad"})
    assert (result.error_message, result.erro_message) == ("bad", "bad")
    made = ExecutionResult[int](ok=False, **{name: "bad"})  # type: ignore[arg-type]
    assert made == result
    assert result.model_dump()["error_message"] == "bad"


def test_a_result_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ExecutionResult(result=3).result = 4


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (ValueError(), "ValueError"),
        (ValueError("  \n "), "ValueError"),
        (ValueError("first\nsecond"), "ValueError: first"),
        (ValueError("\n first \r\nsecond"), "ValueError: first "),
        (KeyError("a"), "KeyError: 'a'"),
    ],
)
def test_an_error_is_described_in_one_line(error: Exception, text: str) -> None:
    assert describe_error(error) == text


def test_an_error_that_cannot_tell_its_text_is_described_by_its_kind() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert "MuteError" in describe_error(MuteError())


RESULTS = [
    (success(3, 1.5, 2, "fetch", 4, "pages[4]::fetch"), {"result": 3, "attempts": 2, "index": 4}),
    (
        failure(ERROR, None, 0, "fetch", None, "fetch"),
        {"result": None, "ok": False, "error_message": "ValueError: bad"},
    ),
    (
        Outcome(b"k", "fetch", "fetch", 3, None, 1.5, 2).as_result(7, "pages[7]::fetch"),
        {"is_replayed": True, "index": 7, "address": "pages[7]::fetch"},
    ),
]


@pytest.mark.parametrize(("result", "expected"), RESULTS)
def test_results_that_the_library_builds_are_as_if_they_had_been_validated(
    result: ExecutionResult[Any], expected: dict[str, Any]
) -> None:
    fields = {name: getattr(result, name) for name in ExecutionResult.model_fields}
    validated = ExecutionResult[Any].model_validate(fields)
    dumped = result.model_dump()
    assert dumped == validated.model_dump()
    assert dumped == {name: value for name, value in fields.items() if name != "error"}
    assert expected.items() <= dumped.items()
    assert ExecutionResult[Any].model_validate_json(result.model_dump_json()).model_dump() == dumped
    assert result.model_copy(update={"name": "other"}).name == "other"
    assert result.name == "fetch"
    assert result == result.model_copy(deep=True).model_copy(update={"error": result.error})
    assert repr(result).startswith("ExecutionResult(result=")


def fact(status: ExecutionStatus, address: str = "fetch", **fields: Any) -> Fact:
    return Fact("run", 0.0, status, FETCH.event_type, FETCH, "fetch", address, **fields)


def event(status: ExecutionStatus, address: str = "fetch", **fields: Any) -> ExecutionEvent[Any]:
    return fact(status, address, **fields).event()


def test_events_that_the_library_builds_are_as_if_they_had_been_validated() -> None:
    told = event(ExecutionStatus.COMPLETED, group_id="g", parallel_index=1, group_total=2, result=[1])
    fields = {name: getattr(told, name) for name in ExecutionEvent.model_fields}
    validated = ExecutionEvent[Any](**fields)
    assert told.model_dump() == validated.model_dump()
    assert (told.is_parallel, told.from_cache, told.event_type) == (True, False, EventType.TOOL_CALL)
    assert json.loads(told.model_dump_json())["actor"] == {"name": "fetch", "version": "1", "event_type": "tool_call"}


def test_an_event_says_when_and_what_in_a_form_for_people() -> None:
    assert event(ExecutionStatus.STARTED).datetime == "1970-01-01T00:00:00+00:00"
    assert event(ExecutionStatus.STARTED).detail == ""
    assert event(ExecutionStatus.FAILED, message="ValueError: bad").detail == "ValueError: bad"
    assert event(ExecutionStatus.COMPLETED, result={"a": 1}).detail == "{'a': 1}"
    long = event(ExecutionStatus.COMPLETED, result="x" * 500).detail
    assert (len(long), long[-1]) == (200, "…")


def test_an_event_made_by_hand_is_named_after_its_actor() -> None:
    made = ExecutionEvent[Any](actor=FETCH)
    assert (made.name, made.event_type) == ("fetch", EventType.TOOL_CALL)


@pytest.mark.parametrize(
    ("status", "is_final"),
    [
        (ExecutionStatus.PENDING, False),
        (ExecutionStatus.STARTED, False),
        (ExecutionStatus.RETRYING, False),
        (ExecutionStatus.AWAITING, False),
        (ExecutionStatus.HUMAN_INTERVENTION, False),
        (ExecutionStatus.COMPLETED, True),
        (ExecutionStatus.FAILED, True),
        (ExecutionStatus.CANCELLED, True),
        (ExecutionStatus.RECOVERED, True),
    ],
)
def test_nothing_follows_a_final_status(status: ExecutionStatus, is_final: bool) -> None:
    assert status.is_final is is_final


# -- histories --------------------------------------------------------------------------------------------------------

STARTED, COMPLETED, FAILED = ExecutionStatus.STARTED, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED
CANCELLED, RECOVERED = ExecutionStatus.CANCELLED, ExecutionStatus.RECOVERED


def history(*facts: Fact) -> HistorySet:
    made = HistorySet()
    made.extend(facts)
    return made


@pytest.mark.parametrize(
    ("last", "has_completed", "result"),
    [
        (fact(STARTED), False, None),
        (fact(COMPLETED, result=3), True, 3),
        (fact(COMPLETED, result=None), True, None),
        (fact(RECOVERED, result=3), True, 3),
        (fact(RECOVERED, message="ValueError: bad"), False, None),
        (fact(FAILED, message="ValueError: bad"), False, None),
        (fact(CANCELLED), False, None),
    ],
)
def test_a_history_knows_how_the_call_at_an_address_ended(last: Fact, has_completed: bool, result: Any) -> None:
    past = history(fact(STARTED), last)
    assert past.has_completed_event("fetch") is has_completed
    assert past.get_event_result("fetch") == result
    assert not past.has_completed_event("elsewhere")
    assert past.get_event_result("elsewhere") is None


def test_the_newest_end_counts() -> None:
    past = history(fact(FAILED, message="bad"), fact(COMPLETED, result=1), fact(STARTED))
    assert past.get_event_result("fetch") == 1


def test_a_history_lists_events_by_address_and_by_failure() -> None:
    facts = fact(STARTED), fact(COMPLETED, "other"), fact(FAILED, message="bad")
    past = history(*facts)
    first, second, failed = (each.event() for each in facts)
    assert past.at("fetch") == [first, failed]
    assert past.failures() == [failed]
    assert list(past) == [first, second, failed]
    assert (len(past), second in past, event(STARTED, "new") in past) == (3, True, False)
    assert repr(past) == "HistorySet(3 events)"


def test_a_history_lists_groups_once_in_the_order_in_which_they_started() -> None:
    def told(group_id: str, kind: EventType) -> Fact:
        return group_fact(
            kind, ParallelEventGroup(group_id=group_id, name="pages", status=GroupStatus.RUNNING), "run", 0.0
        )

    started, completed = EventType.GROUP_STARTED, EventType.GROUP_COMPLETED
    past = history(told("b", started), told("a", started), told("b", completed), told("b", started))
    assert past.groups() == ["b", "a"]
    assert len(past.of_group("b")) == 3
    failed = ParallelEventGroup(group_id="b", name="pages", status=GroupStatus.FAILED)
    past.add(group_fact(completed, failed, "run", 0.0))
    assert past.failures() == [], "what failed are the calls in it"


def test_a_history_with_a_limit_keeps_the_newest() -> None:
    past = HistorySet(limit=2)
    for number in range(5):
        past.add(fact(COMPLETED, result=number))
    assert [kept.result for kept in past] == [3, 4]
    nothing = HistorySet(limit=0)
    nothing.add(fact(STARTED))
    assert len(nothing) == 0


def test_a_history_may_grow_while_it_is_read() -> None:
    past = history(fact(STARTED))
    for _ in past:
        past.add(fact(COMPLETED))
    assert len(past) == 2


def test_the_text_of_an_error_is_one_line_that_no_terminal_obeys() -> None:
    assert describe_error(ValueError("\x1b[31mred\x07 ümlaut\nsecond line")) == "ValueError: \\x1b[31mred\\x07 ümlaut"


def test_a_fact_and_its_event_say_the_same() -> None:
    about = ParallelEventGroup(group_id="g", name="pages", status=GroupStatus.RUNNING)
    for each in (
        fact(STARTED, key=b"k" * 32, group_id="g", parallel_index=1, group_total=2, attempt=3),
        fact(COMPLETED, seconds=0.5, result=[1], more={"usage": Usage(cost=0.5), "charges": {"": 1.0}, "lost": 1}),
        fact(RECOVERED, message="bad", more={"is_replayed": True, "from_cache": True}),
        fact(FAILED, more={"retry_delay": 0.5, "tag": "t", "metadata": {"page": 1}}),
        group_fact(EventType.GROUP_STARTED, about, "run", 1.0),
    ):
        assert fact_of_event(each.event()) == each
        assert each.event().model_dump() == ExecutionEvent[Any](**dict(each.event())).model_dump()


def test_no_two_events_share_what_could_be_changed() -> None:
    first, second = fact(STARTED).event(), fact(STARTED).event()
    first.metadata["page"] = 1  # type: ignore[index]  # who does that against the type changes one event
    assert second.metadata == fact(STARTED).event().metadata == {}
