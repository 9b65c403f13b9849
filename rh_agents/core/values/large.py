"""Large values as typed JSON, to be written and read in another thread without holding up the event loop.

The text is the same typed JSON as that of small values (`rh_agents.core.values`), with line feeds where a reader can
take it apart: they stand between elements and never in strings, so lines are found without parsing. A line is one of

    [  or  {                a list or an object begins, whose parts are lines
    1,2,3,                  some elements of the list, or some pairs of the object
    "key":                  the next line is, or begins, the value of this key
    ]  or  }                it ends; a comma may follow

and a long string is a line of its own, which is taken apart between its characters. Older versions read this like any
other JSON; a text of theirs has no line feeds, and is read at once.

What is large, `rh_agents.core._base.sizes` says. The value is read while the event loop goes on: whoever changes it
meanwhile may change what is recorded, as `docs/durability.md` says.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import from_json, to_json

from rh_agents.core._base.sizes import LARGE, is_array, is_large, room_after
from rh_agents.core.errors import StoreError
from rh_agents.core.values.decoder import Ready, revive
from rh_agents.core.values.encoder import TAG, NotQuick, desugared, is_object
from rh_agents.core.values.pieces import PIECE, joined, spans

__all__ = ["LARGE", "is_large", "pieces_of", "value_in"]

_LONGEST_LINE = 16 * PIECE
"""A longer line is one string."""
_AT_ONCE = 8192
"""Elements of a list that are looked at together."""
_NUMBERS = frozenset({int, float, bool, type(None)})
_BINARY = frozenset({"bytes", "bytearray", "ndarray"})
"""Tags of values whose bytes are in base64."""


# -- writing -----------------------------------------------------------------------------------------------------------


def pieces_of(value: Any, encode: Callable[[object], bytes]) -> Iterator[bytes]:
    """The text of a large value, a piece at a time; `encode` writes what is small.

    Raises:
        NotQuick, ValueError, UnstorableError: a part of it is unusual, and the value is to be written at once.
    """
    kind = type(value)
    if kind is str:
        yield from _text(value)
    elif kind is list:
        yield from _elements(value, encode)
    elif kind is dict and is_object(value):
        yield from _pairs(value, encode)
    elif kind is bytes or kind is bytearray:
        yield from _binary({TAG: kind.__name__}, memoryview(value))
    elif is_array(value):
        yield from _array(value)
    else:
        node = desugared(value)
        if node is None:
            raise NotQuick
        yield from _pairs(node, encode)


def _text(value: str) -> Iterator[bytes]:
    yield b'"'
    for start in range(0, len(value), PIECE):
        yield to_json(value[start : start + PIECE])[1:-1]
    yield b'"'


def _elements(value: list[Any], encode: Callable[[object], bytes]) -> Iterator[bytes]:
    """The elements, of which small ones share a line."""
    yield b"[\n"
    is_first = True
    for start in range(0, len(value), _AT_ONCE):
        for line in _lines(value[start : start + _AT_ONCE]):
            if not is_first:
                yield b",\n"
            is_first = False
            if type(line) is _Alone:
                yield from pieces_of(line.item, encode)
            else:
                yield encode(line)[1:-1]
    yield b"\n]"


class _Alone:
    """An element that is large itself."""

    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item


def _lines(part: list[Any]) -> Iterator[list[Any] | _Alone]:
    """A part of a list as lists of small elements, and large ones."""
    if _NUMBERS.issuperset(map(type, part)):
        yield part
        return
    line: list[Any] = []
    room = LARGE
    for item in part:
        left = room_after(item, LARGE, 0)
        room -= LARGE - left
        if left >= 0:
            line.append(item)
        if line and (left < 0 or room < 0):
            yield line
            line, room = [], LARGE
        if left < 0:
            yield _Alone(item)
    if line:
        yield line


def _pairs(node: dict[str, Any], encode: Callable[[object], bytes]) -> Iterator[bytes]:
    """The same for an object: a tagged one, or one that has no tag."""
    yield b"{\n"
    line: list[bytes] = []
    room, is_first = LARGE, True
    for key, item in node.items():
        name = to_json(key) + b":"
        left = room_after(item, LARGE, 0)
        if left >= 0:
            line.append(name + encode(item))
            room -= LARGE - left
            if room >= 0:
                continue
        if line:
            yield (b"" if is_first else b",\n") + b",".join(line)
            line, room, is_first = [], LARGE, False
        if left < 0:
            yield (b"" if is_first else b",\n") + name + b"\n"
            yield from pieces_of(item, encode)
            is_first = False
    if line:
        yield (b"" if is_first else b",\n") + b",".join(line)
    yield b"\n}"


def _array(value: Any) -> Iterator[bytes]:
    """An array of numbers, read in its order wherever its numbers are in memory."""
    flat = value.reshape(-1)
    node = desugared(flat[:0])
    if node is None:
        raise NotQuick
    del node["v"]
    step = 3 * max(1, PIECE // (3 * value.itemsize))
    parts = (flat[start : start + step].tobytes() for start in range(0, flat.size, step))
    yield from _base64({**node, "shape": list(value.shape)}, parts)


def _binary(node: dict[str, Any], data: memoryview) -> Iterator[bytes]:
    yield from _base64(node, (bytes(data[start : start + PIECE]) for start in range(0, len(data), PIECE)))


def _base64(node: dict[str, Any], parts: Iterator[bytes]) -> Iterator[bytes]:
    """A tagged object with bytes in it, of which every part but the last can be divided by three."""
    yield b"{\n" + to_json(node)[1:-1] + b',\n"v":\n"'
    for part in parts:
        yield b2a_base64(part, newline=False)
    yield b'"\n}'


# -- reading -----------------------------------------------------------------------------------------------------------


class _Frame:
    """A list or an object of which the end has not been read."""

    __slots__ = ("container", "key")

    def __init__(self, container: Any) -> None:
        self.container = container
        self.key: str | None = None


def value_in(data: bytes, unknown_ok: bool) -> Any:
    """The value of a text that `pieces_of` has written.

    Raises:
        StoreError, ValueError: it is damaged, or was not written so.
    """
    frames: list[_Frame] = []
    for start, end in spans(data):
        token = data[start:end] if end - start <= 2 else b""
        if token in (b"[", b"{"):
            frames.append(_Frame([] if token == b"[" else {}))
            continue
        if token in (b"]", b"],", b"}", b"},"):
            container = frames.pop().container
            value = container if type(container) is list else revive(container, unknown_ok)
        else:
            end -= data[end - 1 : end] == b","
            is_long = end - start > _LONGEST_LINE
            frame = frames[-1] if frames else None
            if frame is not None and type(frame.container) is dict and data[end - 1 : end] == b":":
                frame.key = from_json(data[start : end - 1])
                continue
            if frame is not None and frame.key is None and not is_long:
                _add_line(frame.container, data[start:end], unknown_ok)
                continue
            if not is_long:
                value = revive(from_json(data[start:end]), unknown_ok)
            elif frame is not None and type(frame.container) is dict and frame.container.get(TAG) in _BINARY:
                value = _bytes(data, start, end)
            else:
                value = _string(data, start, end)
        if not frames:
            return value
        _add(frames[-1], value)
    raise StoreError("a recorded value is damaged: it ends too early")


def _add_line(container: Any, line: bytes, unknown_ok: bool) -> None:
    if type(container) is list:
        container += revive(from_json(b"[%b]" % line), unknown_ok)
    else:
        container.update(from_json(b"{%b}" % line))


def _add(frame: _Frame, value: Any) -> None:
    if frame.key is None:
        frame.container.append(value)
    else:
        frame.container[frame.key] = Ready(value)
        frame.key = None


def _inside(data: bytes, start: int, end: int) -> tuple[int, int]:
    """A long string without its quotes."""
    if data[start : start + 1] != b'"' or data[end - 1 : end] != b'"':
        raise ValueError("a long line is no string")
    return start + 1, end - 1


def _bytes(data: bytes, start: int, end: int) -> bytes:
    """The bytes of a long string in base64, which never is a text of its own."""
    start, end = _inside(data, start, end)
    places = range(start, end, PIECE)
    return joined(a2b_base64(data[place : min(place + PIECE, end)], strict_mode=True) for place in places)


def _string(data: bytes, start: int, end: int) -> str:
    """A long string. To put it together is the one thing that Python can only do at once."""
    position, last = _inside(data, start, end)
    parts: list[str] = []
    while position < last:
        cut = min(position + PIECE, last)
        if cut < last:
            cut = _between_characters(data, position, cut)
        parts.append(from_json(b'"%b"' % data[position:cut]))
        position = cut
    return "".join(parts)


def _between_characters(data: bytes, start: int, cut: int) -> int:
    """The next place before `cut` that is neither within a character nor within what a backslash begins."""
    while data[cut] & 0xC0 == 0x80:
        cut -= 1
    slash = data.rfind(b"\\", max(start, cut - 6), cut)
    if slash < 0:
        return cut
    first = slash
    while first > start and data[first - 1] == 0x5C:
        first -= 1
    return slash if (slash - first) % 2 == 0 else cut
