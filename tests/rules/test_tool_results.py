"""What a model is told of the result of a tool: text within its limit, images, and marks of what was cut."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from rh_agents import Agent, Tool, tool
from rh_agents.core.chat import DocumentPart, ImagePart, TextPart
from rh_agents.core.chat import tool_results as module
from rh_agents.core.chat.tool_results import content_of, cut, returns_images
from rh_agents.core.errors import DefinitionError

DOT = ImagePart.from_bytes(b"\x89PNG dot")
LINE = ImagePart.from_bytes(b"\xff\xd8\xff line", "image/jpeg")
PAGE = DocumentPart.from_bytes(b"%PDF-", name="a.pdf")


class Chart(BaseModel):
    title: str
    image: ImagePart


@dataclasses.dataclass
class Scan:
    pages: list[DocumentPart]


def text(value: str) -> TextPart:
    return TextPart(text=value)


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (DOT, (DOT,)),
        ([DOT, LINE], (DOT, LINE)),
        ((DOT, PAGE), (DOT, PAGE)),
        (["before", DOT, {"n": 1}, text("after")], (text("before"), DOT, text('{"n":1}'), text("after"))),
        ({"chart": DOT, "n": 1}, (text('{"chart":"[image 1]","n":1}'), DOT)),
        ({"a": [DOT, {"b": LINE}]}, (text('{"a":["[image 1]",{"b":"[image 2]"}]}'), DOT, LINE)),
        (Chart(title="sales", image=DOT), (text('{"title":"sales","image":"[image 1]"}'), DOT)),
        (Scan([PAGE]), (text('{"pages":["[document 1]"]}'), PAGE)),
        ([Chart(title="sales", image=DOT)], (text('{"title":"sales","image":"[image 1]"}'), DOT)),
    ],
)
def test_images_and_documents_are_found_wherever_they_are_in_a_result(value: Any, content: Any) -> None:
    assert content_of(value, 1000) == content


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("text", "text"),
        (None, "null"),
        ([1, "a"], '[1,"a"]'),
        (b"\x89PNG", '"iVBORw=="'),
        ([text("a")], '[{"type":"text","text":"a"}]'),
        ({"x": float("nan")}, '{"x":NaN}'),
    ],
)
def test_what_has_no_images_in_it_is_told_as_it_always_was(value: Any, told: str) -> None:
    assert content_of(value, 1000) == told


@pytest.mark.parametrize("code", [SystemExit(3), TypeError("no"), KeyError("x")])
def test_a_value_that_cannot_be_shown_is_told_all_the_same(code: BaseException) -> None:
    class Rude:
        def __str__(self) -> str:
            raise code

        __repr__ = __str__

    assert content_of(Rude(), 1000) == f"(a {Rude.__qualname__} that cannot be shown: {type(code).__name__})"


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x89PNG\r\n", "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"GIF89a", "gif"),
        (b"RIFF....WEBPVP8", "webp"),
        (b"who knows", "png"),
    ],
)
def test_bytes_are_images_where_the_function_says_so_and_tell_their_kind(start: bytes, kind: str) -> None:
    assert content_of(start, 1000, are_bytes_images=True) == (ImagePart.from_bytes(start, f"image/{kind}"),)


def test_a_function_marks_its_bytes_as_images() -> None:
    @tool
    def photo() -> Annotated[bytes, ImagePart]:
        return b""

    @tool
    def photos() -> list[str | Annotated[bytes, ImagePart]]:
        return []

    @tool
    def data() -> bytes:
        return b""

    assert [returns_images(each.actor) for each in (photo, photos, data)] == [True, True, False]


@pytest.mark.parametrize("length", [0, 99, 100, 101, 1000, 54_321, 2_000_000])
@pytest.mark.parametrize("most", [100, 101, 1000, 50_000])
def test_a_text_is_cut_in_its_middle_and_says_how_much_is_gone(length: int, most: int) -> None:
    whole = "".join(chr(0x4E00 + number % 5000) for number in range(length))
    told = cut(whole, most)
    if length <= most:
        assert told == whole
        return
    assert most - 10 < len(told) <= most
    head, mark, tail = told.split("\n")
    assert head
    assert tail
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert mark == f"[… {length - len(head) - len(tail):,} of {length:,} characters are cut out here …]"


def test_the_texts_of_a_result_with_images_have_one_limit_together() -> None:
    content = content_of([DOT, "a" * 700, "b" * 700, "c" * 700, "d" * 7, LINE], 1000)
    assert [part for part in content if isinstance(part, ImagePart)] == [DOT, LINE]
    texts = [part.text for part in content if isinstance(part, TextPart)]
    assert texts[0] == "a" * 700
    assert "of 700 characters are cut out here" in texts[1]
    assert len(texts[1]) <= 300
    assert texts[2:] == ["[… 707 further characters are cut out …]"]


def test_images_that_are_too_large_together_are_left_out_with_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MEDIA", len(DOT.url) + 3)
    assert content_of([DOT, LINE, LINE], 1000) == (
        DOT,
        text("[… 2 images or documents are left out: they are too large …]"),
    )


def test_a_value_that_contains_itself_or_is_very_deep_comes_to_an_end() -> None:
    circle: dict[str, Any] = {"image": DOT}
    circle["self"] = circle
    assert content_of(circle, 1000)
    deep: Any = "x"
    for _ in range(sys.getrecursionlimit()):
        deep = [deep]
    assert content_of(deep, 1000)


def test_parameters_without_a_name_are_refused_where_the_tool_is_defined() -> None:
    async def rest(city: str, *others: str) -> str:
        return city

    async def options(city: str, **more: int) -> str:
        return city

    async def first(city: str, /) -> str:
        return city

    for function, what in ((rest, r"\*others"), (options, r"\*\*more"), (first, "positional-only.*city")):
        with pytest.raises(DefinitionError, match=f"{function.__name__}: a model gives arguments by name.*{what}"):
            tool(function)
        with pytest.raises(DefinitionError, match="a model gives arguments by name"):
            Tool(name="other", handler=function)
        assert Tool(name="other", handler=function, parameters=json.loads('{"type":"object"}')).name == "other"


def test_limits_of_results_that_leave_no_room_for_a_mark_are_refused() -> None:
    for make in (
        lambda: Tool(name="t", handler=len, parameters={}, max_result=99),
        lambda: Agent(name="a", max_result=0),
    ):
        with pytest.raises(ValueError, match="max_result"):
            make()
