"""What a model gets of the result of a tool: text of a limited length, and the images that are in it as images.

A tool returns any value. Text stays text, other data becomes JSON. Images are found wherever they are in it: an
`ImagePart` or a `DocumentPart`, alone, in a list, in a dictionary or in a field of a model; and `bytes`, where the
function says by `-> Annotated[bytes, ImagePart]` that they are an image. In the JSON there is a mark in the place of
each, such as `[image 1]`, and they come behind it in their order. A list of texts and parts stays in its order.

The text is cut at `max_result` characters, in the middle, since both ends of a result matter: a list names its
columns at its beginning, and a program its error at its end. A mark says how much was cut. Images cannot be cut: all
those of a result together may have `MAX_MEDIA` characters, since a request that is too large is refused as a whole.

Earlier versions cut nothing, and made text of everything. What they told models is in the keys of what models were
asked next, so runs that were begun then go on like that; see `rh_agents.core._base.key_generations`.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from rh_agents.core._loops.exits import FAILURES
from rh_agents.core.actors import BaseActor
from rh_agents.core.chat.messages import Content, DocumentPart, ImagePart, TextPart
from rh_agents.core.values import learn

__all__ = ["MAX_MEDIA", "MAX_RESULT", "content_of", "cut", "returns_images", "without_lone_surrogates"]

MAX_RESULT = 50_000
"""How many characters of the result of a tool a model gets, if nothing else is said; some 12,000 tokens."""
MAX_MEDIA = 20_000_000
"""The characters that the images and documents of one result may have together, as they are sent."""
MIN_RESULT = 100
"""The least number of characters to which a text can be cut: there has to be room for the mark."""

_MEDIA = (ImagePart, DocumentPart)
_TYPES_OF_IMAGES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
"""How files of a kind begin; see their specifications. What begins otherwise is said to be PNG."""
_DEEPEST = 50
"""Images are looked for so deep."""

Part = TextPart | ImagePart | DocumentPart
for _kind in (TextPart, ImagePart, DocumentPart):
    learn(_kind)  # a tool may return them whatever its annotations say


def content_of(value: Any, max_result: int | None, *, are_bytes_images: bool = False) -> Content:
    """The content of the message that answers a tool call: text, or parts if there are images in the value.

    Args:
        value: what the tool returned.
        max_result: the most characters of its text; None for all of it, with images as text, as it was once.
        are_bytes_images: whether `bytes` in it are images.
    """
    parts = None if max_result is None else _parts(value, are_bytes_images)
    if max_result is None or parts is None:
        return cut(without_lone_surrogates(_text(value)), max_result)
    return _limited(parts, max_result)


def returns_images(actor: BaseActor) -> bool:
    """Whether the function says that the bytes it returns are an image: `-> Annotated[bytes, ImagePart]`."""
    return _is_marked(actor.signature.hints.get("return"))


def _is_marked(hint: Any) -> bool:
    if any(mark is ImagePart for mark in getattr(hint, "__metadata__", ())):
        return True
    return any(_is_marked(part) for part in typing.get_args(hint))


def cut(text: str, most: int | None) -> str:
    """The text with at most so many characters (at least 100): a mark in its middle says what is not there."""
    if most is None or len(text) <= most:
        return text
    left = max(most - len(_mark(len(text), len(text))), 0)
    tail = left // 4
    return text[: left - tail] + _mark(len(text) - left, len(text)) + text[len(text) - tail :]


def _mark(gone: int, whole: int) -> str:
    return f"\n[… {gone:,} of {whole:,} characters are cut out here …]\n"


def without_lone_surrogates(text: str) -> str:
    """The same with a replacement character for each lone half of a surrogate pair, which no server takes."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# -- parts -------------------------------------------------------------------------------------------------------------


def _parts(value: Any, are_bytes_images: bool) -> list[Part] | None:
    """The parts of a result that has images in it; None if it has none."""
    gathered = _Gathered(are_bytes_images)
    if not isinstance(value, list | tuple) or hasattr(value, "_fields"):
        rest = gathered.without_media(value)
        if not gathered.media:
            return None
        # An image alone needs no words beside it.
        return list(gathered.media) if gathered.is_medium(value) else [TextPart(text=_text(rest)), *gathered.media]
    parts: list[Part] = []
    for each in value:
        before = len(gathered.media)
        rest = gathered.without_media(each)
        found = gathered.media[before:]
        if gathered.is_medium(each):
            parts += found
        else:
            parts += [each if isinstance(each, TextPart) else TextPart(text=_text(rest)), *found]
    return parts if gathered.media else None


class _Gathered:
    """The images and documents of a value, and what is left of it."""

    def __init__(self, are_bytes_images: bool) -> None:
        self.media: list[ImagePart | DocumentPart] = []
        self._are_bytes_images = are_bytes_images

    def is_medium(self, value: Any) -> bool:
        """Whether the value is an image or a document itself."""
        return isinstance(value, _MEDIA) or (self._are_bytes_images and isinstance(value, bytes | bytearray))

    def without_media(self, value: Any, depth: int = 0) -> Any:
        """The value with a mark in the place of each image and document; the same object if there is none."""
        if self.is_medium(value):
            return self._mark(value)
        if depth >= _DEEPEST:
            return value
        inner = _entries(value)
        if inner is None:
            return value
        entries, rebuilt = inner
        before = len(self.media)
        changed = {name: self.without_media(each, depth + 1) for name, each in entries.items()}
        return value if len(self.media) == before else rebuilt(changed)

    def _mark(self, value: Any) -> str:
        part = ImagePart.from_bytes(bytes(value), _type_of(value)) if isinstance(value, bytes | bytearray) else value
        self.media.append(part)
        kind = "image" if isinstance(part, ImagePart) else "document"
        return f"[{kind} {sum(type(each) is type(part) for each in self.media)}]"


_Rebuilt = Callable[[dict[Any, Any]], Any]


def _entries(value: Any) -> tuple[dict[Any, Any], _Rebuilt] | None:
    """What is in a value, by name or place, and how plain data is made of it again; None for what has nothing in it."""
    if isinstance(value, Mapping):
        return dict(value), lambda found: found
    if isinstance(value, BaseModel):
        return dict(value), lambda found: found
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}, lambda found: found
    if isinstance(value, list | tuple):
        return dict(enumerate(value)), lambda found: list(found.values())
    return None


def _type_of(data: bytes | bytearray) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _TYPES_OF_IMAGES if data.startswith(start)), "image/png")


def _limited(parts: list[Part], max_result: int) -> Content:
    """The parts within their limits: the text of all together, and the images of all together."""
    limited: list[Part] = []
    text_left, media_left = max_result, MAX_MEDIA
    characters = media = 0
    for part in parts:
        if not isinstance(part, TextPart):
            if len(part.url) > media_left:
                media += 1
                continue
            media_left -= len(part.url)
            limited.append(part)
        elif text_left < MIN_RESULT and len(part.text) > text_left:
            characters += len(part.text)
        else:
            text = cut(without_lone_surrogates(part.text), text_left)
            text_left = text_left - len(text) if len(part.text) <= text_left else 0
            limited.append(TextPart(text=text))
    if characters:
        limited.append(TextPart(text=f"[… {characters:,} further characters are cut out …]"))
    if media:
        limited.append(TextPart(text=f"[… {media:,} images or documents are left out: they are too large …]"))
    return tuple(limited)


# -- text --------------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    """A value as text: as JSON, or what Python shows of it if it is not serializable."""
    if isinstance(value, str):
        return value
    try:
        data = to_jsonable_python(value, fallback=str, bytes_mode="base64")
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    except FAILURES:  # it contains itself, is nested too deeply, or its `__str__` fails
        return _shown(value)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except FAILURES as error:
        return f"(a {type(value).__qualname__} that cannot be shown: {type(error).__name__})"
