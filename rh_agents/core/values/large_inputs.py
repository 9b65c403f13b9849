"""The canonical form of a large input, a piece at a time: the same bytes, without holding up the event loop.

`rh_agents.core.values.inputs` turns an input into nested lists of atoms, its *literal*, of which `ascii` writes the
text in one step. For a hundred megabytes that step takes seconds, and it would hold the interpreter's lock in any
thread. So here the text is written by many steps, none of which touches much:

- A long text is escaped slice by slice. Python chooses the quotes of a text by what is in all of it, so that is looked
  for first.
- Of a long list some elements at a time become a literal and text (`Many`), so there never is a literal of all of it.
- What a mapping or a set holds is sorted as text. A long text stands there as its pieces (`Long`), and many are sorted
  in runs, which are merged.

What is made here is let go of bit by bit, too: to free a million lists at once takes a tenth of a second.

That both ways give the same bytes is not a wish: keys are made of them. A property test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import chain, islice
from typing import Any, ClassVar

from rh_agents.core.values.pieces import PIECE

__all__ = ["InPieces", "Long", "Many"]

_NUMBERS = frozenset({int, float, bool, type(None)})
_NUMBERS_AT_ONCE = 32
"""How many times as many numbers are written together: nothing is made of them."""
_DEEPEST = 100
"""Levels of lists in lists that are taken apart; what is below is written at once."""


class Long:
    """A text, or bytes, given as pieces, which stands in a literal for what they are together."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[str] | list[bytes]) -> None:
        self.parts: list[str] | list[bytes] = parts

    def whole(self) -> Any:
        """All of it. Only what is equal to its beginning has to be compared so."""
        return self.parts[0][:0].join(self.parts)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return ascii(self.whole())

    def __eq__(self, other: object) -> bool:
        return bool(self.whole() == _whole(other))

    def __lt__(self, other: object) -> bool:
        return bool(self.whole() < _whole(other))

    def __gt__(self, other: object) -> bool:
        return bool(self.whole() > _whole(other))

    __hash__: ClassVar[None]  # type: ignore[assignment]


def _whole(text: object) -> Any:
    return text.whole() if isinstance(text, Long) else text


class Many:
    """A list of which some elements are made at a time. It can be read once."""

    __slots__ = ("chunks",)

    def __init__(self, chunks: Iterator[list[Any]]) -> None:
        self.chunks: Iterator[list[Any]] = chunks

    def __repr__(self) -> str:
        return ascii(list(chain.from_iterable(self.chunks)))


class InPieces:
    """How the parts of a large literal are made, see `rh_agents.core.values.inputs`.

    Args:
        piece: characters or bytes that are written together, about.
        at_once: elements that are made, sorted and written together. What is made of so few is gone before Python's
            garbage collector looks for it, which would look at all that the program has, and hold the lock meanwhile.
    """

    def __init__(self, piece: int = PIECE, at_once: int = 128) -> None:
        self._piece = piece
        self._at_once = at_once

    def text(self, literal: object) -> Any:
        """What `ascii` gives."""
        if _rest(literal, self._piece, 0) >= 0:
            return ascii(literal)
        return Long(list(self.pieces(literal)))

    def items(self, value: Iterable[Any], literal: Callable[[Any], object]) -> Any:
        """The literals of the elements of a list or a tuple."""
        if len(value) <= self._at_once:  # type: ignore[arg-type]
            return [literal(item) for item in value]
        return Many(self._literals(value, literal))

    def _literals(self, value: Iterable[Any], literal: Callable[[Any], object]) -> Iterator[list[Any]]:
        for part in self._chunks(value, _NUMBERS_AT_ONCE * self._at_once):
            if _NUMBERS.issuperset(map(type, part)):
                yield part
            else:
                yield from ([literal(item) for item in some] for some in self._chunks(part))

    def in_order(self, texts: Iterable[Any]) -> Any:
        """What `sorted` gives."""
        runs = [sorted(part) for part in self._chunks(texts)]
        if len(runs) <= 1:
            return runs[0] if runs else []
        return Many(self._chunks(merge(*map(_taken_apart, runs))))

    def content(self, value: bytearray | memoryview) -> Any:
        """What `bytes` gives."""
        if len(value) <= self._piece or not isinstance(value, bytearray):
            return bytes(value)
        return Long([bytes(part) for part in self._slices(value)])

    def _chunks(self, items: Iterable[Any], size: int = 0) -> Iterator[list[Any]]:
        items = iter(items)
        while chunk := list(islice(items, size or self._at_once)):
            yield chunk

    def _slices(self, value: Any) -> Iterator[Any]:
        return (value[start : start + self._piece] for start in range(0, len(value), self._piece))

    # -- the text of a literal -----------------------------------------------------------------------------------------

    def pieces(self, literal: Any, depth: int = 0) -> Iterator[str]:
        """The text that `ascii` gives, in pieces."""
        kind = type(literal)
        if depth > _DEEPEST:
            yield ascii(literal)
        elif kind is Many:
            yield "["
            yield from self._elements(literal.chunks, depth)
            yield "]"
        elif kind is list or kind is tuple:
            yield "[" if kind is list else "("
            yield from self._elements(self._chunks(literal), depth)
            yield "]" if kind is list else ",)" if len(literal) == 1 else ")"
        elif kind is Long:
            yield from _quoted(literal.parts)
        elif (kind is str or kind is bytes) and len(literal) > self._piece:
            yield from _quoted(list(self._slices(literal)))
        else:
            yield ascii(literal)

    def _elements(self, chunks: Iterable[list[Any]], depth: int) -> Iterator[str]:
        comma = ""
        for chunk in chunks:
            for part in self._parts(chunk):
                yield comma
                comma = ", "
                if type(part) is list:
                    yield ascii(part)[1:-1]
                else:
                    yield from self.pieces(part.element, depth + 1)

    def _parts(self, chunk: list[Any]) -> Iterator[Any]:
        """Some elements as lists of small ones, and large ones, each of these alone."""
        if _NUMBERS.issuperset(map(type, chunk)):
            yield chunk
            return
        small: list[Any] = []
        room = self._piece
        for element in chunk:
            left = _rest(element, self._piece, 0)
            room -= self._piece - left
            if left >= 0:
                small.append(element)
            if small and (left < 0 or room < 0):
                yield small
                small, room = [], self._piece
            if left < 0:
                yield _Alone(element)
        if small:
            yield small


class _Alone:
    """An element that is large itself."""

    __slots__ = ("element",)

    def __init__(self, element: Any) -> None:
        self.element = element


def _taken_apart(run: list[Any]) -> Iterator[Any]:
    run.reverse()
    while run:
        yield run.pop()


def _rest(literal: Any, room: int, depth: int) -> int:
    """The room that is left after the text of a literal; less than none if it is large."""
    kind = type(literal)
    if kind is str or kind is bytes:
        return room - len(literal) - 4
    if kind is list or kind is tuple:
        if depth > _DEEPEST:
            return room
        room -= 4 * len(literal)
        for element in literal:
            if room < 0:
                return room
            room = _rest(element, room, depth + 1)
        return room
    return -1 if kind is Long or kind is Many else room - 8


def _quoted(parts: list[Any]) -> Iterator[str]:
    """A long text as a literal. With both kinds of quotes in it, those that Python puts around it are escaped; a double
    one at the end of each part has Python choose the same quotes for all of them.
    """
    single, double, start = ("'", '"', 1) if type(parts[0]) is str else (b"'", b'"', 2)
    has_single = any(single in part for part in parts)
    has_both = has_single and any(double in part for part in parts)
    quote = '"' if has_single and not has_both else "'"
    yield quote if start == 1 else f"b{quote}"
    for part in parts:
        yield ascii(part + double)[start:-2] if has_both else ascii(part)[start:-1]
    yield quote
