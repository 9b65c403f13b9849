"""Foreign text is harmless, numbers are readable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents import Secret, forget_secret
from rh_agents.core._base.sizes import is_large
from rh_agents.core.chat import ChatResponse, ToolCall
from rh_agents.core.values.decoder import UnknownValue
from rh_agents.display.text import brief, brief_result, crop, duration, frequency, harmless, whole_seconds, width_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m and \x7f and \x00", r"\x9b31m and \x7f and \x00"),
        ("two\r\nlines\tand a tab", r"two\r\nlines\tand a tab"),
        ("\u2028separators\u2029", r"\u2028separators\u2029"),
        ("\u202egnirts\u2066 \u200b\ufeff", r"\u202egnirts\u2066 \u200b\ufeff"),
        ("half \ud83d pair", r"half \ud83d pair"),
        ("[red]markup[/red] [/]", "[red]markup[/red] [/]"),
        ("漢字 grün 😀", "漢字 grün 😀"),
        ("a\u00a0b\u3000c", "a b c"),
        ("thumb \U0001f44d\U0001f3fd, heart \u2764\ufe0f, flag \U0001f1e9\U0001f1ea", "thumb 👍, heart ❤, flag DE"),
        ("\U000e0041tag", r"\U000e0041tag"),
    ],
)
def test_text_shows_every_character_that_could_do_something_as_python_writes_it(text: str, shown: str) -> None:
    assert harmless(text) == shown


@given(st.text())
def test_no_text_keeps_a_character_that_is_not_printable(text: str) -> None:
    assert harmless(text).isprintable()


def test_a_long_text_is_cut_before_it_is_looked_at() -> None:
    assert harmless("x" * 10_000_000, 10) == "xxxxxxxxx…"
    assert len(harmless("\u0301" * 10_000)) == 200


def test_a_value_is_shown_in_short_and_harmlessly() -> None:
    assert brief({"a": [1, 2]}) == "{'a': [1, 2]}"
    assert len(brief(["x" * 10_000] * 10_000)) <= 200
    assert brief("\x1b[2J") == r"'\x1b[2J'"


def test_a_value_whose_repr_raises_is_shown_all_the_same() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    assert brief(Broken()).startswith("<Broken instance")


@given(st.text(), st.integers(min_value=0, max_value=40))
def test_cropped_text_never_takes_more_columns_than_there_are(text: str, width: int) -> None:
    assert width_of(crop(harmless(text), width)) <= width


def test_cropping_counts_columns_and_not_characters() -> None:
    assert crop("漢字漢字", 8) == "漢字漢字"
    assert crop("漢字漢字", 7) == "漢字漢…"
    assert crop("漢字漢字", 6) == "漢字…"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.0031, "3 ms"),
        (0.099, "99 ms"),
        (0.0999, "0.10 s"),
        (0.996, "1.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (125, "2:05"),
        (3725, "1:02:05"),
        (360_000, "100:00:00"),
    ],
)
def test_durations_keep_about_two_digits(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_whole_seconds_have_no_fractions() -> None:
    assert [whole_seconds(seconds) for seconds in (0.2, 9.4, 61.0)] == ["0 s", "9 s", "1:01"]


@pytest.mark.parametrize(
    ("per_second", "shown"), [(1250.4, "1,250/s"), (5.2, "5.2/s"), (0.2, "12/min"), (0.001, "3.6/h"), (0.0, "0.0/h")]
)
def test_rates_use_the_unit_that_leaves_something_before_the_point(per_second: float, shown: str) -> None:
    assert frequency(per_second) == shown


@pytest.mark.parametrize("limit", [10, 30, 200])
def test_no_secret_is_shown_not_even_the_half_of_one(limit: int) -> None:
    Secret("shown", "hush-hush-hush")
    try:
        shown = harmless("log in as hush-hush-hush at https://u:pw@host/", limit)
        assert "hush" not in shown
        assert "pw@" not in shown
        assert "hush" not in brief({"password": "hush-hush-hush"})
    finally:
        forget_secret("shown")


LOOK = ToolCall(id="1", name="look", arguments='{"year": 2026}')


@pytest.mark.parametrize("is_loaded", [True, False])
@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (ChatResponse(text="Yes."), "'Yes.'"),
        (ChatResponse(text="x" * 1_000), f"'{'x' * 97}...{'x' * 98}'"),
        (ChatResponse(text='{"a": 1}', output={"a": 1}), "{'a': 1}"),
        (ChatResponse(refusal="Never."), "refused: Never."),
        (ChatResponse(text="Yes.", answered_by="b at here"), "'Yes.' (answered by b at here)"),
        (
            ChatResponse(tool_calls=(LOOK, ToolCall(id="2", name="go", arguments="{}"))),
            'look({"year": 2026}), go({})',
        ),
        (ChatResponse(text="\x1b[2J"), r"'\x1b[2J'"),
        (7, "7"),
    ],
)  # fmt: skip
def test_an_answer_of_a_model_is_shown_as_what_it_said(answer: Any, shown: str, is_loaded: bool) -> None:
    """Who only looks at a run may not have the class: then its fields are in what stands for it."""
    value = answer if is_loaded or answer == 7 else as_unknown(answer)
    assert brief_result(value) == shown


def as_unknown(value: Any) -> Any:
    """An object as a program reads it that does not have its class."""
    fields = {name: getattr(value, name) for name in type(value).model_fields}
    for name, field in fields.items():
        if isinstance(field, tuple):
            fields[name] = tuple(map(as_unknown, field))
    return UnknownValue(f"{type(value).__module__}.{type(value).__qualname__}", fields)


class Spelled:
    """Writes all that it has."""

    def __init__(self, held: object) -> None:
        self.held = held

    def __repr__(self) -> str:
        assert not is_large(self.held), "it was spelled out"
        return f"Spelled({self.held!r})"


def test_what_is_large_is_not_spelled_out_to_be_shown_in_short() -> None:
    many = 400_000
    assert brief(Spelled("x" * many)) == "<Spelled, large>"
    assert brief([Spelled(list(range(many)))]) == "[<Spelled, large>]"
    assert brief(Spelled("x" * 9)) == "Spelled('xxxxxxxxx')"
    assert brief(bytearray(b"x" * many)).startswith("bytearray(b'xxxx")
    assert brief(dict.fromkeys(range(many), 1)).startswith("{0: 1, 1: 1, ")
    assert brief(set(range(many))).startswith("{0, 1, 2, ")
    assert brief(frozenset(range(many))).startswith("frozenset({0, 1, 2, ")
    assert brief({3: 1, 1: 2}) == "{1: 2, 3: 1}", "small ones in their order"
