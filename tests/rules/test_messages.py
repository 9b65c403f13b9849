"""Conversations as data: what came later is written only where it is set, and comes back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rh_agents import Message, Price, Usage
from rh_agents.core.chat import ChatDelta, ChatRequest, ChatResponse, DocumentPart, ImagePart, TextPart, ToolCall
from rh_agents.core.errors import ModelError, UnreadableAnswer
from rh_agents.core.values import decode, decode_error, encode, encode_error, learn
from rh_agents.core.values.inputs import canonical

CALL = ToolCall(id="c", name="n", arguments="{}")
SIGNED = CALL.model_copy(update={"provider": {"extra_content": {"google": {"thought_signature": "S"}}}})
UNSET_AND_SET: list[tuple[Any, Any]] = [
    (CALL, SIGNED),
    (Message.assistant("a", [CALL]), Message.assistant("a", [CALL], {"reasoning_content": "hm"})),
    (Message.assistant("a", [CALL]), Message.assistant("a", [SIGNED])),
    (ChatResponse(text="t"), ChatResponse(text="t", reasoning="hm")),
    (ChatResponse(text="t"), ChatResponse(text="t", provider={"reasoning_content": "hm"})),
    (ChatDelta(text="t"), ChatDelta(text="t", reasoning="hm")),
    (ChatDelta(text="t"), ChatDelta(text="t", void=True)),
    (ChatDelta(text="t"), ChatDelta(text="t", replayed=True)),
    (Usage(1, 2), Usage(1, 2, estimates=1)),
    (Usage(1, 2), Usage(1, 2, cache_write_tokens=1)),
    (Usage(1, 2), Usage(1, 2, long_cache_write_tokens=1)),
    (Price(1.0, 2.0), Price(1.0, 2.0, cache_write=1.25)),
    (Price(1.0, 2.0), Price(1.0, 2.0, long_cache_write=2.0)),
]
LATER = (b"provider", b"reasoning'", b"void", b"replayed", b"estimates", b"cache_write")


@pytest.mark.parametrize(("unset", "given"), UNSET_AND_SET, ids=lambda each: type(each).__name__)
def test_a_field_that_is_set_is_part_of_the_key_and_comes_back_and_an_unset_one_is_not_written(
    unset: Any, given: Any
) -> None:
    learn(type(unset))
    assert not any(name in canonical(unset) + encode(unset) for name in LATER)
    assert canonical(given) != canonical(unset)
    assert decode(encode(given)) == given


def test_the_next_message_gives_back_what_the_provider_wants_back() -> None:
    response = ChatResponse(tool_calls=(SIGNED,), reasoning="hm", provider={"reasoning_content": "hm"})
    message = response.message
    assert (message.provider, message.tool_calls[0].provider) == (response.provider, SIGNED.provider)
    again = ChatRequest(messages=(Message.user("q"), message))
    learn(ChatRequest)
    assert decode(encode(again)) == again
    assert message != ChatResponse(tool_calls=(SIGNED,)).message


def test_messages_and_calls_can_be_members_of_sets() -> None:
    assert len({CALL, SIGNED, CALL}) == 2
    assert len({Message.user("a"), Message.user("a"), Message.assistant("a", [], {"x": []})}) == 2


def test_an_error_says_what_was_used_only_where_that_is_known() -> None:
    assert b"usage" not in encode_error(ModelError("no"))
    assert ModelError("no").usage is None
    error = decode_error(encode_error(UnreadableAnswer("no", status=200, usage=Usage(5, 7, requests=2))))
    assert isinstance(error, UnreadableAnswer)
    assert error.usage == Usage(5, 7, requests=2)


def test_a_document_is_sent_with_its_message_or_stands_at_its_url(tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"%PDF-1.7")
    part = DocumentPart.from_file(path)
    assert (part.name, part.media_type, part.data) == ("report.pdf", "application/pdf", b"%PDF-1.7")
    assert part == DocumentPart.from_bytes(b"%PDF-1.7", name="report.pdf")
    assert DocumentPart(url="data:,a%20note").data == b"a note"
    assert DocumentPart(url="data:,a").media_type == "text/plain"
    away = DocumentPart(url="https://example.org/a.txt?x=1")
    assert (away.data, away.media_type) == (None, "text/plain")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="not that of a document"):
        DocumentPart.from_file(tmp_path / "a.png")


def test_a_message_with_documents_says_its_text_alone() -> None:
    message = Message.user("Read ", DocumentPart(url="u", name="n"), ImagePart(url="i"), "both.")
    assert message.text == "Read both."
    assert isinstance(message.content, tuple)
    assert [type(part) for part in message.content] == [TextPart, DocumentPart, ImagePart, TextPart]
    learn(Message)
    assert decode(encode(message)) == message
