"""How long a conversation is: what the provider said of its last request, and a likely estimate of the rest."""

from __future__ import annotations

import base64

import pytest

from rh_agents.core.chat import ChatRequest, DocumentPart, ImagePart, Message
from rh_agents.core.chat._compaction.lengths import Measure, Size
from rh_agents.core.usage import Usage

FILE = base64.b64encode(b"\0" * 3_000_000).decode()
PDF = DocumentPart(url=f"data:application/pdf;base64,{FILE}")
PICTURE = ImagePart(url=f"data:image/png;base64,{FILE}")


def words(count: int) -> Message:
    return Message.user("word " * count)


def request(*messages: Message) -> ChatRequest:
    return ChatRequest(messages=messages)


def size(measure: Measure, *messages: Message) -> int:
    return Size(measure, request(*messages), messages)(messages)


def told(*answers: tuple[ChatRequest, int]) -> Measure:
    measure = Measure()
    for asked, tokens in answers:
        measure.learn(asked, Usage(input_tokens=tokens))
    return measure


def test_before_any_answer_a_token_is_four_bytes_and_a_file_is_no_text() -> None:
    assert size(Measure(), words(800)) == pytest.approx(1_000, rel=0.02)
    assert size(Measure(), Message.user("漢" * 1_000)) == pytest.approx(750, rel=0.02)
    assert size(Measure(), Message.user(PICTURE)) == pytest.approx(1_000, rel=0.02)
    assert size(Measure(), Message.user(PDF)) == pytest.approx(200_000, rel=0.02)
    assert size(Measure(), Message.user(DocumentPart(url="https://example.com/a.pdf"))) == pytest.approx(
        10_000, rel=0.02
    )


def test_a_text_that_is_sent_as_a_file_counts_as_text() -> None:
    note = DocumentPart.from_bytes(b"word " * 8_000, "text/plain", "note.txt")
    assert size(Measure(), Message.user(note)) == pytest.approx(13_000, rel=0.05)


def test_after_an_answer_it_is_what_was_told_and_what_is_new_with_the_rate_of_what_was_new_before() -> None:
    first = (words(800),)
    measure = told((request(*first), 2_000))
    assert size(measure, *first) == 2_000
    assert size(measure, *first, words(400)) == pytest.approx(3_000, rel=0.02)
    assert size(measure, words(400)) == pytest.approx(1_000, rel=0.02), "half of it went"
    measure = told((request(*first), 2_000), (request(*first, words(800)), 2_600))
    assert size(measure, *first, words(800), words(800)) == pytest.approx(3_200, rel=0.02), "the latest rate counts"


def test_a_large_document_does_not_spoil_what_is_known_of_the_text_around_it() -> None:
    asked = Message.user("Read this.", PDF)
    measure = told((request(asked), 50_000), (request(asked, words(8_000)), 60_000))
    assert size(measure, asked, words(8_000), words(8_000)) == pytest.approx(70_000, rel=0.02)
    assert size(measure, asked) == pytest.approx(50_000, rel=0.02)
    another = Message.user("And this.", PDF)
    assert size(measure, asked, words(8_000), another) == pytest.approx(110_000, rel=0.02), "as large as the first one"


def test_something_is_left_however_much_is_thought_to_have_gone() -> None:
    asked = (words(800), Message.user("Read this.", PDF))
    measure = told((request(asked[0]), 1_000), (request(*asked), 1_200))
    assert 500 <= size(measure, asked[0]) <= 1_200


def test_nothing_is_learned_from_estimates_and_from_little_and_wild_figures_are_not_believed() -> None:
    measure = Measure()
    measure.learn(request(words(800)), Usage(input_tokens=9_000, estimates=1))
    measure.learn(request(words(800)), Usage())
    assert not measure.is_reported
    assert size(measure, words(800)) == pytest.approx(1_000, rel=0.02)
    measure = told((request(words(800)), 1_000), (request(words(800), words(10)), 9_000))
    assert size(measure, words(800), words(10), words(800)) == pytest.approx(10_000, rel=0.02)
    measure = told((request(words(800)), 90_000))
    assert size(measure, words(800), words(800)) == pytest.approx(94_000, rel=0.02)
