"""JSON that people write: a key that stands twice in one object is an error with its place, and never the last one."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from rh_agents.cli.input.items import read_items
from rh_agents.cli.input.lines import Format
from rh_agents.cli.json_text import RepeatedKey, read_json
from rh_agents.cli.questions import parse_answer
from rh_agents.core.errors import InputError
from tests.surfaces.cli_kit import Folder, command

TWICE = '{"text": "a", "text": "b"}'


@pytest.mark.parametrize(
    "text",
    [
        *(TWICE, f"[1, {TWICE}]", '{"a": {"b": [{"x": 1, "y": 2, "x": 1}]}}', '{"": 0, "": 0}', f" {TWICE} "),
        *('{"a:": 1, "a:": 2}', '{"a": {"b": 1}, "a": 1}', '{"a": 1, "b": {}, "\\u0061": 1}', f'{{"é": [{TWICE}]}}'),
    ],
)
def test_a_key_that_stands_twice_is_refused_wherever_it_stands(text: str) -> None:
    with pytest.raises(RepeatedKey, match="appears twice in one object, so its value is ambiguous"):
        read_json(text)


@pytest.mark.parametrize("text", ['{"a": {"a": 1}, "b": {"a": 2}}', "[1, 2]", '"a"', "1e400", '{"a": NaN}', "9" * 400])
def test_all_else_is_read_as_before(text: str) -> None:
    assert repr(read_json(text)) == repr(read_json(text.encode()))
    assert json.dumps(read_json(text)) == json.dumps(json.loads(text))


def test_an_item_with_a_key_twice_fails_with_its_line_and_the_others_go_on() -> None:
    stream = io.BytesIO(f'{{"text": "x"}}\n{TWICE}\n{{"text": "y"}}\n'.encode())
    items = list(read_items(stream, "in.jsonl", Format.JSONL))
    assert [item.value for item in items] == [{"text": "x"}, None, {"text": "y"}]
    assert items[1].position == "in.jsonl:2"
    assert items[1].problem == "the key 'text' appears twice in one object, so its value is ambiguous"


def test_an_answer_with_a_key_twice_is_refused() -> None:
    with pytest.raises(InputError, match="the key 'text' appears twice"):
        parse_answer(TWICE)
    assert parse_answer("plain") == "plain"


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["run", "program.py:rate", "-i", TWICE], "--input: "),
        (["map", "program.py:rate", "in.jsonl", "--set", f"x={TWICE}"], f"--set x={TWICE}: "),
        (["fork", "r", "copy", "--at", "rate::score", "--result", TWICE], "--result: "),
    ],
)
def test_a_key_twice_on_the_command_line_is_refused_before_anything_is_called(
    folder: Folder, words: list[str], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("in.jsonl", "a")
    if words[0] == "fork":
        assert command("run", "program.py:rate", "-i", '{"text": "a"}', "--run-id", "r") == 0
    before: Any = folder.ledger
    assert command(*words) == 2
    assert f"{where}the key 'text' appears twice in one object" in capsys.readouterr().err
    assert folder.ledger == before
