"""Inputs: what calls and runs are called with, as bytes that stand for it in keys, and as texts for people.

*For keys*, the canonical form: equal inputs give equal bytes, on every machine and in every process. It is the ASCII
text of a Python literal (`ascii()` does not depend on the Unicode version, as `repr()` does). Numbers keep their kind
(`1`, `1.0` and `True` differ), mappings and sets are sorted, models and dataclasses carry the recorded name of their
class (`rh_agents.core.values.names`), so that two models with equal fields are two different inputs. Lists and tuples
are the same. The form of a large input is written in pieces (`CanonicalInput.pieces`), which together are the same
bytes.

*For people*, an excerpt (`record_inputs`): like JSON, without secrets, cut where it is too long. It is made for every
call that is recorded, so what is usual (a few short arguments) takes a short way. What is large is never written out to
be cut then: of a text the beginning is taken, of a list the first elements. No code of the program's classes runs: of
an instance its fields are shown, as they are kept in it. Secrets are taken out before a text is cut, since half of one
would not be known as one; and the value of an argument, or of a field, whose name is that of a credential is not shown
at all.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import to_json

from rh_agents.core._base.sizes import is_array
from rh_agents.core.errors import DefinitionError, UnstorableError
from rh_agents.core.redaction import Secret, redact, registered
from rh_agents.core.redaction.shapes import is_credential_name, without_credentials
from rh_agents.core.types import RecordInputs
from rh_agents.core.values import encode, encode_any, shown_value
from rh_agents.core.values.large import is_large
from rh_agents.core.values.large_inputs import InPieces
from rh_agents.core.values.names import FIELDS, PlainInt, form_of, recorded_name
from rh_agents.core.values.pieces import joined

__all__ = [
    "BRIEF",
    "BRIEF_OF_FAILURE",
    "CUT",
    "FULL",
    "CanonicalInput",
    "canonical",
    "canonical_arguments",
    "cut",
    "excerpt",
    "input_of",
    "kept_input",
    "recorded_input",
    "small_arguments",
]

# -- for keys ---------------------------------------------------------------------------------------------------------

_ATOMS = frozenset({str, int, float, bool, type(None), bytes})
_FIXED = frozenset({int, float, bool, type(None)})
"""Arguments of these types alone are not large; most calls have few others."""
_SMALL = 1 << 12
"""Characters that are written down in a moment, however many arguments they are in."""
_TEXTUAL = (datetime, date, time, timedelta, Decimal, UUID, complex)


class CanonicalInput:
    """The input of a call, whose canonical form can be had at once or in pieces.

    Args:
        value: the input; or the arguments of a function, in the order of its parameters.
        are_arguments: whether it is those.
        suffix: what else the key is to hold.
    """

    __slots__ = ("_are_arguments", "_suffix", "_value", "is_large")

    def __init__(self, value: Any, *, are_arguments: bool = False, suffix: bytes = b"") -> None:
        self._value = value
        self._are_arguments = are_arguments
        self._suffix = suffix
        self.is_large: bool = not (are_arguments and _FIXED.issuperset(map(type, value.values()))) and is_large(value)
        """Whether to write it takes so long that others would notice. That is so for all equal inputs, or for none."""

    def whole(self) -> bytes:
        """The canonical form.

        Raises:
            DefinitionError: it is not data.
        """
        data = canonical_arguments(self._value) if self._are_arguments else canonical(self._value)
        return data + self._suffix if self._suffix else data

    def pieces(self, how: InPieces | None = None) -> list[bytes]:
        """The same in pieces. A thread that makes them lets the others go on meanwhile.

        Raises:
            DefinitionError: it is not data.
        """
        with _refusals():
            how = how or InPieces()
            texts = self._argument_pieces(how) if self._are_arguments else how.pieces(_literal(self._value, how))
            return [*(text.encode("ascii") for text in texts), self._suffix]

    def _argument_pieces(self, how: InPieces) -> Iterator[str]:
        start = "{"
        for name, value in self._value.items():
            yield f"{start}{name!a}: "
            yield from how.pieces(_literal(value, how))
            start = ", "
        yield "{}" if start == "{" else "}"


def input_of(arguments: dict[str, object]) -> bytes | CanonicalInput:
    """What stands for the arguments of a function, in the order of its parameters: their canonical form, or what gives
    it in pieces, if they are large.

    Raises:
        DefinitionError: an argument is not data.
    """
    if not _FIXED.issuperset(map(type, arguments.values())) and is_large(arguments):
        return CanonicalInput(arguments, are_arguments=True)
    return canonical_arguments(arguments)


class _AtOnce:
    """How the parts of a literal are made; see `InPieces` for large ones."""

    text = staticmethod(ascii)
    in_order = staticmethod(sorted)
    content = staticmethod(bytes)

    @staticmethod
    def items(value: Iterable[Any], literal: Callable[[Any], object]) -> Any:
        """The literals of the elements of a list or a tuple."""
        return [literal(item) for item in value]


_AT_ONCE = _AtOnce()


def canonical(value: object) -> bytes:
    """The bytes that stand for `value` in a key.

    Raises:
        DefinitionError: the value is not data (a client, a connection, a function). The message names its type.
    """
    with _refusals():
        return ascii(_literal(value)).encode("ascii")


def canonical_arguments(arguments: Mapping[str, object]) -> bytes:
    """The same for the arguments of a function, in the order of its parameters.

    Raises:
        DefinitionError: an argument is not data.
    """
    if _ATOMS.issuperset(map(type, arguments.values())):
        try:
            return ascii(arguments).encode("ascii")
        except ValueError:  # an integer with thousands of digits; what follows says so
            pass
    with _refusals():
        return ascii({name: _literal(value) for name, value in arguments.items()}).encode("ascii")


def small_arguments(arguments: Mapping[str, object]) -> bytes | None:
    """The same if they are atoms and certainly small, as those of most calls are; else None."""
    room = _SMALL
    for value in arguments.values():
        if type(value) is str:
            room -= len(value)
        elif type(value) not in _FIXED:
            return None
    if room < 0:
        return None
    try:
        return ascii(arguments).encode("ascii")
    except ValueError:  # an integer with thousands of digits
        return None


@contextmanager
def _refusals() -> Iterator[None]:
    """Say it in our own words where Python itself refuses to write a value down."""
    try:
        yield
    except RecursionError as error:
        raise DefinitionError("an input contains itself, or is nested too deeply to be written down") from error
    except ValueError as error:
        raise DefinitionError(f"an input cannot be written down: {error}") from error


def _literal(value: object, how: Any = _AT_ONCE) -> object:
    """The value as nested lists of atoms. A tuple marks everything that is neither an atom nor a list."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, list | tuple) and kind in (list, tuple):
        # With all arguments: Python 3.13.0 does not look at the recursion limit when it fills in defaults.
        return [_literal(item, how) for item in value] if how is _AT_ONCE else _items(value, how)
    if isinstance(value, dict) and kind is dict:
        return ("dict", _pairs(value, how))
    return _tagged(value, how)


def _items(value: list[Any] | tuple[Any, ...], how: Any) -> object:
    return how.items(value, lambda item: _literal(item, how))


def _pairs(value: Mapping[Any, Any], how: Any) -> object:
    text = how.text
    return how.in_order([text(_literal(key, how)), text(_literal(item, how))] for key, item in value.items())


def _tagged(value: object, how: Any) -> object:
    if isinstance(value, Secret):
        return ("secret", value.name)  # a changed password is the same input
    if isinstance(value, PlainInt):
        return int(value)
    if isinstance(value, Enum):
        return (recorded_name(type(value)), _literal(value.value, how))
    if isinstance(value, BaseModel):
        return (*_named_fields(value, how), _extra(value, how))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _named_fields(value, how)
    name = recorded_name(type(value))
    if isinstance(value, bytearray | memoryview):
        return (name, how.content(value))
    if isinstance(value, Mapping):
        return (name, _pairs(value, how))
    if isinstance(value, Set):
        return ("set", how.in_order(how.text(_literal(item, how)) for item in value))
    if isinstance(value, PurePath):
        return ("path", str(value))  # its class has changed its module between versions of Python
    if isinstance(value, _TEXTUAL) or type(value).__module__ == "pydantic.networks":
        return (name, str(value))
    if isinstance(value, str | int | float | bytes):
        return (name, _as_atom(value))
    if isinstance(value, tuple) and name in FIELDS:
        return _named_items(value, how)
    if isinstance(value, list | tuple):
        return (name, _items(value, how))
    raise DefinitionError(
        f"a {name} is not data, so a call with it cannot be recognised when the run is started again; mark the "
        "parameter `Annotated[..., Injected]` to leave it out of the key, or give the call `key=`"
    )


def _named_fields(value: object, how: Any) -> tuple[str, list[object]]:
    """The name of a class and the fields of an instance: a field that came later, only if it is set."""
    name, always, late = form_of(type(value))
    return name, [*([field, _literal(getattr(value, field), how)] for field in always), *_set_fields(value, late, how)]


def _named_items(value: tuple[Any, ...], how: Any) -> object:
    """The same for a named tuple of ours, whose fields have no names here."""
    name, always, late = form_of(type(value))
    found = _set_fields(value, late, how)
    items = [_literal(getattr(value, field), how) for field in always]
    return (name, items, found) if found else (name, items)


def _set_fields(value: object, late: Mapping[str, Callable[[], Any]], how: Any) -> list[object]:
    found: list[object] = []
    for field, default in late.items():
        item, unset = getattr(value, field), default()
        if item is not unset and how.text(_literal(item, how)) != ascii(_literal(unset)):
            found.append([field, _literal(item, how)])
    return found


def _extra(model: BaseModel, how: Any) -> object:
    """Fields beyond the declared ones come in whatever order the input had."""
    return how.in_order([field, how.text(_literal(item, how))] for field, item in (model.model_extra or {}).items())


def _as_atom(value: str | int | float | bytes) -> object:
    """A subclass of an atom may write itself in its own way; only its value counts."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    return int(value) if isinstance(value, int) else float(value)


# -- for people -------------------------------------------------------------------------------------------------------

BRIEF: Final = 256
BRIEF_OF_FAILURE: Final = 2 * 1024
"""Bytes of a call that succeeded, and of one that failed: that is the one of which somebody wants to know."""
FULL: Final = 64 * 1024
"""Bytes of one that is to be recorded as a whole."""

CUT: Final = "…"
"""Stands at the end of what was cut."""
_HIDDEN = "***"
_DEEPEST = 12
_AS_TEXT = (date, time, timedelta, Decimal, UUID, PurePath)
_LISTS = (list, tuple, set, frozenset)
_SPARE = 1_000
"""Characters beyond what is shown, in which secrets are looked for: one may begin in the last one that is."""


def recorded_input(given: Callable[[], Any], how: RecordInputs, *, ok: bool) -> str:
    """The text that is recorded of what `given` gives. Never raises: whatever that is, the outcome counts."""
    try:
        if how is RecordInputs.FULL:
            return _whole(given())
        return excerpt(given(), BRIEF if ok else BRIEF_OF_FAILURE)
    except Exception as error:  # noqa: BLE001 - it is the program's, and may be changed by another thread meanwhile
        return f"<not shown: {type(error).__name__}>"


def _whole(given: Any) -> str:
    """Typed JSON, as results are stored; of what is large, or no data, as much as there is room for."""
    if is_large(given):
        return excerpt(given, FULL)
    try:
        return cut(shown_value(encode(given)), FULL)
    except UnstorableError:
        return excerpt(given, FULL)


def kept_input(data: Any) -> tuple[bytes | None, bytes | None]:
    """The input of a run as it is kept, and what equal ones have in common. Of what is not
    serializable its type is kept.
    """
    if data is None:
        return None, None
    parts = data if isinstance(data, dict) else {"": data}
    digest = sha256()
    for piece in _canonical({name: joined(_described(value)) for name, value in parts.items()}):
        digest.update(piece)
    try:
        return encode_any(data), digest.digest()
    except UnstorableError:
        return encode_any({str(name): _storable(value) for name, value in parts.items()}), digest.digest()


def _canonical(value: Any) -> Sequence[bytes]:
    found = CanonicalInput(value)
    return found.pieces() if found.is_large else [found.whole()]


def _described(value: Any) -> Sequence[bytes]:
    try:
        return _canonical(value)
    except DefinitionError:
        return [f"a {type(value).__qualname__}".encode()]


def _storable(value: Any) -> Any:
    try:
        encode_any(value)
    except UnstorableError:
        return f"<{type(value).__qualname__}>"
    return value


def excerpt(value: object, most: int) -> str:
    """A value as a text of at most `most` bytes in UTF-8, with `CUT` as the last character if it would be longer."""
    tree, may_tell = value, True
    if type(value) is dict and len(value) <= 16 and _SHOWN.issuperset(map(_is_shown, value)):  # as most are
        may_tell = registered.anything or not _FIXED.issuperset(map(type, value.values()))
        if may_tell and not _is_short(value, most):
            tree = _Pruned(most).of(value, 0)
    else:
        tree = _Pruned(most).of(value, 0)
    try:
        text = to_json(tree, inf_nan_mode="constants").decode()
    except ValueError:  # a surrogate that stands alone
        text = json.dumps(tree)
    if may_tell:
        text = redact(text)
    return text if len(text) * 4 <= most else cut(text, most)


def cut(text: str, most: int) -> str:
    """The text in at most so many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return text
    return data[: most - len(CUT.encode())].decode("utf-8", "ignore") + CUT


def _is_short(arguments: dict[str, object], most: int) -> bool:
    """Whether they can be written as they are: values that JSON has, none of them long."""
    for each in arguments.values():
        kind = type(each)
        if kind is str:
            if len(each) > most:  # type: ignore[arg-type]
                return False
        elif kind not in _FIXED:
            return False
    return True


_SHOWN = frozenset({True})


@lru_cache(maxsize=4096)
def _is_shown(name: object) -> bool:
    """Whether it is the name of an argument that is shown, with its value: there is no credential in either."""
    return type(name) is str and not is_credential_name(name) and without_credentials(name) == name


@lru_cache(maxsize=4096)
def _is_hidden(name: str) -> bool:
    return is_credential_name(name)


class _Pruned:
    """Makes of a value what JSON has, and no more of it than there is room for.

    Args:
        most: how many bytes are shown in the end.
    """

    def __init__(self, most: int) -> None:
        self._room = most + _SPARE

    def of(self, value: object, depth: int) -> Any:
        """What stands for a value."""
        kind = type(value)
        self._room -= 1
        if kind in _FIXED:
            return "<a long number>" if isinstance(value, int) and abs(value) >= 1 << 1000 else value
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if depth > _DEEPEST:
            return CUT
        if isinstance(value, dict):
            return self._mapping(dict.items(value), dict.__len__(value), depth)
        if isinstance(value, _LISTS):
            return self._list(value, depth)
        return self._other(value, depth)

    def _text(self, text: str) -> str:
        shown = text[: max(0, self._room)]
        self._room -= len(shown)
        return shown if len(shown) == len(text) else shown + CUT

    def _mapping(self, items: Iterable[tuple[object, object]], length: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, each in items:
            if self._room <= 0:
                found[CUT] = f"{length - len(found):,} more"
                break
            shown = self._text(name if isinstance(name, str) else _named(name))
            found[shown] = _HIDDEN if _is_hidden(shown) and each is not None else self.of(each, depth + 1)
        return found

    def _list(self, value: Any, depth: int) -> list[Any]:
        kind: Any = next(base for base in _LISTS if isinstance(value, base))
        found: list[Any] = []
        for each in kind.__iter__(value):
            if self._room <= 0:
                found.append(f"{CUT} {kind.__len__(value) - len(found):,} more")
                break
            found.append(self.of(each, depth + 1))
        return found

    def _other(self, value: object, depth: int) -> Any:
        if isinstance(value, Secret):
            return str(value)
        if isinstance(value, Enum):
            return self.of(value.value, depth + 1)
        if isinstance(value, _AS_TEXT):
            return self._text(str(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{memoryview(value).nbytes:,} bytes>"
        if isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
            fields = _fields_of(value)
            return self._mapping(fields.items(), len(fields), depth)
        return _named(value)


def _fields_of(value: Any) -> Mapping[str, object]:
    """The fields of an instance, without asking its class for them."""
    if isinstance(value, BaseModel):
        return value.__dict__
    return {name: getattr(value, name, None) for name in value.__dataclass_fields__}


def _named(value: object) -> str:
    """What stands for something that is not data."""
    if isinstance(value, type):
        return f"<class {value.__name__}>"
    if type(value) in _FIXED:
        return str(value)
    size = f" {value.shape}" if is_array(value) else ""  # type: ignore[attr-defined]
    return f"<{type(value).__name__}{size}>"
