"""Which piece belongs to which tool call, whatever numbers and ids a server gives: two calls are never joined."""

from __future__ import annotations

from typing import Any

import pytest

from rh_agents.core.errors import UnreadableAnswer
from rh_agents.llms._openai_calls import CallsInPieces, tool_calls_in

DOCS = '{"folder":"docs"}'


def piece(name: str | None = None, arguments: Any = None, **fields: Any) -> dict[str, Any]:
    return {**fields, "function": {"name": name, "arguments": arguments}}


def joined(*pieces: dict[str, Any]) -> list[tuple[str, str, str]]:
    calls = CallsInPieces()
    for each in pieces:
        calls.add(each)
    return [(call.id, call.name, call.arguments) for call in calls.whole()]


def whole(*calls: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(call.id, call.name, call.arguments) for call in tool_calls_in({"tool_calls": list(calls)}, ())]


NOTHING_THEN_READ: dict[str, list[dict[str, Any]]] = {
    "no ids, one number": [piece("purge", "", index=0), piece("read", DOCS, index=0)],
    "no ids, no numbers": [piece("purge"), piece("read", DOCS)],
    "no ids, no numbers, in pieces": [piece("purge"), piece("read"), piece(None, DOCS[:5]), piece(None, DOCS[5:])],
    "one id, two numbers": [piece("purge", "", index=0, id="x"), piece("read", DOCS, index=1, id="x")],
    "one id, two numbers, in pieces": [
        piece("purge", "", index=0, id="x"),
        piece("read", "", index=1, id="x"),
        piece(None, DOCS, index=1),
    ],
    "one id, two numbers, in pieces with it": [
        piece("purge", "", index=0, id="x"),
        piece("read", "", index=1, id="x"),
        piece(None, DOCS, index=1, id="x"),
    ],
    "one id, one number": [piece("purge", "", index=0, id="x"), piece("read", DOCS, index=0, id="x")],
    "two ids, one number": [piece("purge", "", index=0, id="x"), piece("read", DOCS, index=0, id="y")],
    "nothing as null": [piece("purge", "null", index=0), piece("read", DOCS, index=0)],
}


@pytest.mark.parametrize("name", NOTHING_THEN_READ)
def test_a_tool_without_arguments_does_not_get_those_of_the_next_one(name: str) -> None:
    first, second = joined(*NOTHING_THEN_READ[name])
    assert first[1:] in [("purge", ""), ("purge", "null")]
    assert second[1:] == ("read", DOCS)
    assert first[0] != second[0]


def test_an_id_that_comes_after_the_name_makes_no_second_call() -> None:
    assert joined(piece("f", "", index=0), piece(None, "{}", index=0, id="a")) == [("a", "f", "{}")]
    assert joined(piece("f", "", index=0), piece("f", "{}", index=0, id="a")) == [("a", "f", "{}")]


def test_a_call_whose_name_changes_is_not_made() -> None:
    """It may be the rest of a name, or another tool that lacks its id: "read" could be the beginning of "read_all"."""
    with pytest.raises(UnreadableAnswer, match="'read' first, and then '_all'"):
        joined(piece("read", "", index=0, id="a"), piece("_all", "", index=0), piece(None, "{}", index=0))


def test_each_call_has_an_id_of_its_own_for_its_result() -> None:
    f, g = {"name": "f", "arguments": "{}"}, {"name": "g", "arguments": "{}"}
    expected = [("x", "f", "{}"), ("call_1", "g", "{}")]
    assert whole({"id": "x", "function": f}, {"id": "x", "function": g}) == expected
    assert joined({"id": "x", "index": 0, "function": f}, {"id": "x", "index": 1, "function": g}) == expected
    assert whole({"function": f}, {"id": "call_0", "function": g}) == [("call_0_", "f", "{}"), ("call_0", "g", "{}")]
    assert whole({"function": f}, {"function": f}) == [("call_0", "f", "{}"), ("call_1", "f", "{}")]


def test_a_call_that_is_said_once_more_with_its_id_is_one_call() -> None:
    call = {"id": "x", "function": {"name": "pay", "arguments": '{"cents":5}'}}
    other = {"id": "x", "function": {"name": "pay", "arguments": '{"cents":6}'}}
    assert whole(call, call) == joined({"index": 0, **call}, {"index": 1, **call}) == [("x", "pay", '{"cents":5}')]
    assert whole(call, other, call, other) == [("x", "pay", '{"cents":5}'), ("call_1", "pay", '{"cents":6}')]
