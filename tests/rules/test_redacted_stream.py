"""Secrets in texts that come in pieces: no part of one is ever shown, however the text is cut."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rh_agents.core.redaction import SPELLINGS, forget_secret, redact, register_secret
from rh_agents.core.redaction.streams import RedactedStream

SECRET = 'h\N{LATIN SMALL LETTER U WITH DIAERESIS}nter2 "key"/9'
TOKEN = "abcabcabd0"


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    register_secret("db", SECRET)
    register_secret("token", TOKEN)
    yield
    forget_secret("db")
    forget_secret("token")


def streamed(pieces: list[str]) -> str:
    stream = RedactedStream()
    return "".join(map(stream.add, pieces)) + stream.rest()


def cut(text: str, *places: int) -> list[str]:
    ends = [0, *sorted(places), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_that_is_split_is_never_shown_in_whatever_spelling(spelling: str) -> None:
    form = SPELLINGS[spelling](SECRET)
    text = f"it is {form} now"
    for place in range(len(text)):
        assert streamed(cut(text, place)) == redact(text)
    assert streamed(list(text)) == redact(text) == "it is <secret:db> now"


@given(st.lists(st.sampled_from([TOKEN, TOKEN[:3], TOKEN[:-1], "abc", "abd", " ", "x", "\n"]), max_size=12), st.data())
def test_whatever_stands_around_a_secret_and_however_it_is_cut_it_is_shown_as_in_a_whole_text(
    parts: list[str], data: st.DataObject
) -> None:
    text = "".join(parts) + " end"
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    assert streamed(cut(text, *places)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "the key sk-abcdefghijklmnopqrstuvwx is mine",
        "https://someone:hunter22@example.com/path and on",
        "Bearer abcdefgh12345678 is what it sent",
        '{"password": "correct horse battery", "user": "me"}',
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc is a token",
        "ghp_abcdefghijklmnopqrstuvwxyz0123 too",
    ],
)
def test_what_has_the_shape_of_a_credential_is_not_shown_however_it_is_cut(text: str) -> None:
    hidden = [word for word in text.replace('"', " ").replace("@", " ").split() if word not in redact(text)]
    hidden = [word.rpartition(":")[2] for word in hidden]
    assert hidden
    for pieces in (list(text), *(cut(text, place) for place in range(len(text)))):
        shown = streamed(pieces)
        assert [word for word in hidden if word in shown] == []


def test_a_text_without_secrets_is_given_as_it_is_soon_after_it_has_come() -> None:
    stream = RedactedStream()
    assert stream.add("Good mor") == "Good "
    assert stream.add("ning, ") == "morning, "
    assert stream.add("\N{CJK UNIFIED IDEOGRAPH-4F60}\N{CJK UNIFIED IDEOGRAPH-597D}") == "\u4f60\u597d"
    assert stream.add("world") == ""
    assert stream.rest() == "world"


def test_a_word_that_does_not_end_is_shown_while_it_goes_on() -> None:
    stream = RedactedStream()
    shown = "".join(stream.add("x" * 100) for _ in range(20))
    assert 2_000 - 600 <= len(shown) < 2_000
    assert shown + stream.rest() == "x" * 2_000


def test_a_long_text_is_kept_only_as_far_as_it_matters() -> None:
    chance = random.Random(5)
    words = ["".join(chance.choices(string.ascii_letters, k=chance.randint(1, 9))) for _ in range(20_000)]
    stream, shown = RedactedStream(), []
    for start in range(0, len(words), 10):
        shown.append(stream.add(" ".join(words[start : start + 10]) + " "))
        assert len(stream._text) < 4_000
    assert "".join(shown) + stream.rest() == " ".join(words) + " "


def test_a_value_far_behind_its_name_in_a_long_text_is_hidden() -> None:
    stream = RedactedStream()
    shown = "".join(stream.add(f"word {number} ") for number in range(2_000))
    shown += "".join(map(stream.add, 'password="tre foil bush" is it'))
    assert "foil" not in shown + stream.rest()


@pytest.mark.parametrize("form", [SECRET, TOKEN])
def test_of_a_secret_that_was_cut_off_or_has_begun_before_no_telling_part_is_shown(form: str) -> None:
    for place in range(1, len(form)):
        stream = RedactedStream()
        shown = stream.add(f"it is {form[:place]}") + stream.rest()
        assert shown.startswith("it is ")
        assert len(shown) < len("it is ") + 4
        stream = RedactedStream(is_cut=True)
        shown = stream.add(f"{form[place:]} it is") + stream.rest()
        assert shown.endswith(" it is")
        assert len(shown) < len(" it is") + 4


def test_a_text_that_has_begun_before_is_shown_from_its_second_word_on() -> None:
    stream = RedactedStream(is_cut=True)
    assert [stream.add(piece) for piece in ("be", "ginning, ", "and on ")] == ["", " ", "and on "]
    stream = RedactedStream(is_cut=True)
    assert stream.add("no end") + stream.rest() == " end"
    assert RedactedStream(is_cut=True).rest() == ""
