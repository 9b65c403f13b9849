"""The JSON in what models write: everything around it is passed over, and a wrong answer is never made of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rh_agents.core.chat.schema import AnswerType, strict_schema


class Verdict(BaseModel):
    mood: str
    x: int = 0


JSON = '{"mood":"good","x":1}'
GOOD = Verdict(mood="good", x=1)
READ: dict[str, str] = {
    "bare": JSON,
    "thoughts": f'<think>\nThe user {{{{wants}}}} it, as in {{"mood": "bad"}}\n</think>\n\n{JSON}',
    "the end of thoughts": f"hmm\n</think>\n{JSON}",
    "empty thoughts": f"<think>\n\n</think>\n\n{JSON}",
    "thoughts in brackets": f"[THINK]hm[/THINK]{JSON}",
    "a block": f"```json\n{JSON}\n```",
    "a block with a large name": f"```JSON\n{JSON}\n```",
    "a block of waves": f"~~~\n{JSON}\n~~~",
    "a block that is open": f"```json\n{JSON}",
    "prose around a block": f"Here is the JSON:\n```json\n{JSON}\n```\nHope this helps!",
    "prose before": f"Sure! {JSON}",
    "prose after": f"{JSON}\nDone.",
    "braces in prose": f"As {{you}} [1] asked: {JSON}",
    "a byte order mark": f"\ufeff{JSON}",
    "a mark of a template": f"{JSON}<|im_end|>",
    "marks around it": f"<|channel|>final<|message|>{JSON}<|end|></s>",
    "twice": JSON + JSON,
    "a comma too much": '{"mood":"good","x":1,}',
    "in a list": f"[{JSON}]",
    "in an answer": f'{{"answer":{JSON}}}',
    "in its own name": f'{{"Verdict":{JSON}}}',
    "in a string": json.dumps(JSON),
}


@pytest.mark.parametrize("name", READ)
def test_json_is_read_whatever_stands_around_it(name: str) -> None:
    assert AnswerType(Verdict).read(READ[name]) == GOOD


REFUSED: dict[str, str] = {
    "a part of what is broken": '{"items":[{"mood":"good"},{"mo',
    "a part of an object that does not fit": '{"mood": {"mood": "good"}}',
    "two answers": f'{JSON} or {{"mood":"bad"}}',
    "two blocks": f'```\n{JSON}\n```\n```\n{{"mood":"bad"}}\n```',
    "a draft in thoughts": f"<think>perhaps {JSON}</think> I do not know.",
    "thoughts without an end": f"<think>perhaps {JSON}",
    "several in a list": f'[{JSON},{{"mood":"bad"}}]',
    "null": "null",
    "no number": '{"mood":"good","x":NaN}',
    "no JSON": "It is good.",
    "nothing": "",
    "too deep": "[" * 100_000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_answer_is_made_of_what_is_none_or_several(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        AnswerType(Verdict).read(REFUSED[name])


def test_strings_with_brackets_and_quotes_are_no_json_of_their_own() -> None:
    said: dict[str, Any] = {"mood": '} {"mood": "bad"} , ] \\" {'}
    assert AnswerType(Verdict).read(f"So: {json.dumps(said)}!") == Verdict(**said)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PROSE = st.text(st.characters(exclude_characters='{}[]"<>', codec="utf-8"), max_size=30)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), VALUES, min_size=2, max_size=3), PROSE, PROSE)
def test_any_object_in_any_prose_is_read_as_it_is(value: dict[str, Any], before: str, after: str) -> None:
    assert AnswerType(dict[str, Any]).read(before + json.dumps(value) + after) == value


@given(st.text(max_size=60))
def test_whatever_a_model_writes_is_an_answer_or_a_value_error(text: str) -> None:
    try:
        found = AnswerType(Verdict).read(text)
    except ValueError:
        return
    assert isinstance(found, Verdict)


class Part(BaseModel):
    size: int = 3
    name: str | None = None


class Whole(BaseModel):
    parts: list[Part]
    note: str = "none"


def test_a_strict_schema_requires_every_field_and_takes_null_for_what_may_be_left_out() -> None:
    schema = strict_schema(AnswerType(Whole).schema)
    assert schema["required"] == ["parts", "note"]
    assert schema["properties"]["note"]["anyOf"][1] == {"type": "null"}
    part = schema["$defs"]["Part"]
    assert (part["required"], part["additionalProperties"]) == (["size", "name"], False)
    assert part["properties"]["name"]["anyOf"][-1] == {"type": "null"}
    assert "default" not in json.dumps(schema)
    said = '{"parts": [{"size": null, "name": null}], "note": null}'
    assert AnswerType(Whole).read(said) == Whole(parts=[Part()])


def test_null_is_no_answer_where_something_is_required() -> None:
    with pytest.raises(ValueError, match="mood"):
        AnswerType(Verdict).read('{"mood": null}')
