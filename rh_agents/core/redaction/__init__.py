"""Secrets: what they are called, where they stand in texts, and how texts for people are freed of them.

There are two borders, and they follow different rules.

*What people read* (messages of events, texts of errors as they are shown, logs, terminal) passes `redact`. It takes out
registered secrets in every spelling in which they travel (as they are, in a URL, in base64, escaped), and what has the
shape of a credential: the password in a URL, a token in a query, an Authorization header, the keys of well-known
services (`rh_agents.core.redaction.shapes`). A shape can be mistaken, which costs a reader a word and no one a value.

*What a store keeps* must come back as it was: a presigned URL is a result like any other. So nothing is changed by its
shape there. Only what has been registered is taken out, since it can be put back: the value holds a reference, the name
of the secret and how it is spelt, and whoever reads it needs the secret. See `rh_agents.core.values`.

The registry belongs to the process, like the environment from which most secrets come. Threads share it: each change
makes a new table, so that readers need no lock.
"""

from __future__ import annotations

import json
import logging
import re
import reprlib
import traceback
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from pydantic_core import core_schema, to_json

from rh_agents.core._base.errors import UsageError
from rh_agents.core._base.sizes import is_array, is_large
from rh_agents.core.redaction.shapes import is_credential_name, without_credentials

__all__ = [
    "SPELLINGS",
    "Encoded",
    "RedactingFilter",
    "RedactingRepr",
    "Reference",
    "Secret",
    "expect_no_secret",
    "forget_secret",
    "is_credential_name",
    "logger",
    "parts_of",
    "redact",
    "register_found",
    "register_secret",
    "registered",
    "registered_value",
    "shown_forms",
    "stored_needles",
    "without_secrets",
]

SHORTEST = 6
"""Characters. A shorter secret is not looked for in texts: it would be found in many that have none in them."""

_SHORTEST_FOUND = 12
_MOST_NAMES = 10_000

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")


# -- secrets -----------------------------------------------------------------------------------------------------------


class Secret:
    """A secret by its name: an argument, an input or a part of a result that must not be written down.

        password = Secret("db-password", os.environ["DB_PASSWORD"])
        await run(load, password, store="runs.db")  # the journal has the name; `password.reveal()` the value

    It is registered with this process when it is made, so that its value is taken out of everything that people read.
    In keys stands its name: a changed password costs nothing. In a store stands its name as well; a process that reads
    it must have made a secret of this name, and gets the value that it has there.

    Two secrets are equal if they have one name. `str()` and `repr()` show the name.

    Args:
        name: what it is called in keys and stores, the same in every process.
        value: the text; None for one that is registered already.

    Raises:
        UsageError: there is no value, and none of this name is registered; or the name is empty.
    """

    __slots__ = ("name",)

    name: str

    def __init__(self, name: str, value: str | None = None) -> None:
        object.__setattr__(self, "name", name)
        if value is not None:
            register_secret(name, value)
        elif name not in _table.values:
            raise UsageError(f"no secret {name!r} is registered in this process: make it with Secret({name!r}, value)")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Secret cannot be changed: make another one")

    def reveal(self) -> str:
        """The value that is registered under the name now.

        Raises:
            UsageError: it has been forgotten.
        """
        value = _table.values.get(self.name)
        if value is None:
            raise UsageError(f"the secret {self.name!r} is no longer registered in this process")
        return value

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    def __str__(self) -> str:
        return _mark(self.name)

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(("secret", self.name))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[str, str]]:
        """A worker process gets the value along with the name."""
        return (type(self), (self.name, self.reveal()))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(cls, serialization=core_schema.to_string_ser_schema())


def register_secret(name: str, value: str) -> None:
    """Take a text out of everything that people read from now on, and keep it out of stores.

    Args:
        name: what stands in its place. Registering another value under the same name replaces the first one.
        value: the text. Shorter ones than 6 characters are not looked for in texts.

    Raises:
        UsageError: the name or the value is empty.
    """
    if not name or not value:
        raise UsageError("a secret needs a name and a value that are not empty")
    _use({**_table.values, name: value})


def register_found(name: str, value: str | None) -> None:
    """Register what is known to be a credential though no one has given it a name, such as the key of a model.

    Nothing happens if the value is registered already, or if it looks like the placeholder ("not-needed") that servers
    without keys are given. Another value of the same name does not replace the first one: both are in use.

    Raises:
        UsageError: the name is empty.
    """
    if value is None or value in _table.values.values():
        return
    if len(value) < _SHORTEST_FOUND or not any(map(str.isdigit, value)):
        return
    free, number = name, 1
    while free in _table.values:
        number += 1
        free = f"{name} ({number})"
    register_secret(free, value)


def forget_secret(name: str) -> None:
    """Look for the secret no longer; nothing happens if there is none of this name."""
    _use({each: value for each, value in _table.values.items() if each != name})


def _mark(name: str) -> str:
    return f"<secret:{name}>"


# -- how they are spelt ------------------------------------------------------------------------------------------------


def _percent(text: str, space: str = "%20", digits: str = "%%%02X") -> str:
    """As in a URL."""
    quoted = (chr(byte) if byte in _UNRESERVED else digits % byte for byte in text.encode("utf-8", "surrogatepass"))
    return "".join(quoted).replace("%20", space)


def _base64(text: str) -> str:
    return b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")


def _json(text: str) -> str:
    """As in a JSON text; a result may be one, and hold another one."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _json_ascii(text: str) -> str:
    return json.dumps(text)[1:-1]


SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "": lambda text: text,
    "url": _percent,
    "form": lambda text: _percent(text, space="+"),
    "url-lower": lambda text: _percent(text, digits="%%%02x"),
    "base64": _base64,
    "base64url": lambda text: urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii"),
    "json": _json,
    "json-ascii": _json_ascii,
    "json-json": lambda text: _json(_json(text)),
    "json-ascii-json": lambda text: _json(_json_ascii(text)),
    "repr": lambda text: repr(text)[1:-1],
    "ascii": lambda text: ascii(text)[1:-1],
    "url-url": lambda text: _percent(_percent(text)),
    "form-url": lambda text: _percent(_percent(text, space="+")),
}
"""How a secret may stand in a value: by the name of the spelling, which is recorded, how it is made of the secret.

What is in a store names them, so names are added and never changed.
"""


class _Core(NamedTuple):
    """What base64 makes of a secret somewhere in longer data, such as `user:password`, without the shared edges.

    Attributes:
        value: the secret as bytes.
        offset: how many bytes stand before it in the group of three in which it begins.
    """

    value: bytes
    offset: int

    @property
    def first(self) -> int:
        """How many characters of that group stand before the core."""
        return (0, 2, 3)[self.offset]


def _cores(text: str) -> Iterator[tuple[str, _Core]]:
    data = text.encode("utf-8", "surrogatepass")
    for offset in range(3):
        core = _Core(data, offset)
        bits = (offset + len(data)) * 8
        for encode in (b64encode, urlsafe_b64encode):
            form = encode(b"\0" * offset + data)[core.first : bits // 6].decode("ascii")
            if len(form) >= SHORTEST:
                yield form, core


def _shown_forms(value: str) -> Iterator[str]:
    """All spellings in which a person could read the secret."""
    for spell in SPELLINGS.values():
        yield spell(value)
    for form, _ in _cores(value):
        yield form


class Reference(NamedTuple):
    """The place of a secret in a text that is stored: its name, and how it is spelt there."""

    name: str
    spelling: str = ""


class Encoded:
    """The place of something in base64 that has secrets in it, such as the `user:password` of HTTP Basic.

    Args:
        parts: what is encoded, and where in it the secrets stand.
        is_url: whether it is written with `-` and `_`, as in URLs.
        is_padded: whether it has the equals signs that make its length a multiple of four.
    """

    __slots__ = ("is_padded", "is_url", "parts")

    def __init__(self, parts: Sequence[bytes | Reference | Encoded], *, is_url: bool, is_padded: bool) -> None:
        self.parts: Sequence[bytes | Reference | Encoded] = parts
        self.is_url: bool = is_url
        self.is_padded: bool = is_padded


Part = str | Reference | Encoded


class _Table:
    """All that is registered, and what was worked out of it once."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values: Mapping[str, str] = values
        looked_for = {name: value for name, value in values.items() if len(value) >= SHORTEST}
        self.references: dict[str, Reference] = {}
        self.marks: dict[str, str] = {}
        for name, value in looked_for.items():
            for spelling, spell in SPELLINGS.items():
                self.references.setdefault(spell(value), Reference(name, spelling))
            for form in _shown_forms(value):
                self.marks.setdefault(form, _mark(name))
        cores = {form: core for value in looked_for.values() for form, core in _cores(value)}
        self.places: dict[str, Reference | _Core] = {**self.references, **cores}
        self.places_in_bytes: dict[str, Reference | _Core] = {
            form.encode("utf-8", "surrogatepass").decode("latin-1"): what for form, what in self.places.items()
        }
        self.needles: tuple[bytes, ...] = tuple(
            to_json(form.encode("utf-8", "replace").decode())[1:-1] for form in self.places
        )
        self.names: dict[str, str] = {}
        """Names that were freed of secrets before: the same ones come again and again."""


def _finder(forms: Mapping[str, object], text: str) -> re.Pattern[str] | None:
    """Finds those forms that are in the text, the longest first: one may be the beginning of another one.

    One pattern for all forms would look for each of them at each letter, which takes seconds for a long text.
    """
    present = [form for form in forms if form in text]
    return re.compile("|".join(map(re.escape, sorted(present, key=len, reverse=True)))) if present else None


_table = _Table({})


class Registered:
    """What may be asked for each name and each text, of which a call has several, before those are looked through.

    Attributes:
        anything: whether there is any secret that is looked for in texts.
    """

    __slots__ = ("anything",)

    def __init__(self) -> None:
        self.anything: bool = False


registered: Registered = Registered()


def _use(values: Mapping[str, str]) -> None:
    global _table  # noqa: PLW0603 - one registry for the process; readers take the whole table at once
    _table = _Table(values)
    registered.anything = bool(_table.references)


# -- in values that are stored -----------------------------------------------------------------------------------------


def stored_needles() -> tuple[bytes, ...]:
    """What has to be looked for in the JSON text of a value; () if nothing is registered."""
    return _table.needles


def parts_of(text: str, *, is_bytes: bool = False) -> list[Part] | None:
    """The text with references for the secrets in it; None if there are none.

    `is_bytes`: each character of the text stands for a byte of UTF-8.
    """
    table = _table
    places, references = table.places_in_bytes if is_bytes else table.places, table.references
    finder = _finder(places, text)
    if finder is None:
        return None
    parts: list[Part] = []
    end = at = 0
    while found := finder.search(text, at):
        what = places[found[0]]
        if isinstance(what, _Core) and found[0] in references and not _RUN.match(text, found.end()):
            what = references[found[0]]  # it stands there alone
        start, at, part = (
            (found.start(), found.end(), what)
            if isinstance(what, Reference)
            else _encoded(text, found.start(), found.end(), what, end)
        )
        if part is not None:
            if start > end:
                parts.append(text[end:start])
            parts.append(part)
            end = at
    if not parts:
        return None
    if end < len(text):
        parts.append(text[end:])
    return parts


_RUN = re.compile(r"[A-Za-z0-9+/_-]+")
_OTHER_SIGNS = {True: re.compile("[+/]"), False: re.compile("[-_]")}


def _encoded(text: str, at: int, end: int, core: _Core, after: int) -> tuple[int, int, Encoded | None]:
    """Where the base64 around a core begins and ends, and what it is; None if the secret is not in it as a whole.

    It begins with the group of four characters in which the secret begins, since groups before it do not depend on
    the secret, and reaches as far as there is base64, since all that follows does if the secret comes to be longer.
    """
    start = at - core.first
    run = _RUN.match(text, start) if start >= after else None
    if run is None or run.end() < end:
        return at, at + 1, None
    sign = next((letter for letter in run[0] if letter in "+/-_"), "+")
    is_url = sign in "-_"
    body = _OTHER_SIGNS[is_url].split(run[0], maxsplit=1)[0]
    encode = urlsafe_b64encode if is_url else b64encode
    for length in (len(body), len(body) // 4 * 4):
        body = body[:length]
        if len(body) % 4 == 1 or start + len(body) < end:
            continue
        data = b64decode(body + "=" * (-len(body) % 4), "-_" if is_url else None)
        if encode(data).decode("ascii").rstrip("=") != body:  # some bits belong to nothing
            continue
        if not data.startswith(core.value, core.offset):
            break
        parts = parts_of(data.decode("latin-1"), is_bytes=True) or []
        inner = [part.encode("latin-1") if isinstance(part, str) else part for part in parts]
        padding = "=" * (-len(body) % 4)
        is_padded = text.startswith(padding, start + len(body))
        stop = start + len(body) + (len(padding) if is_padded else 0)
        return start, stop, Encoded(inner, is_url=is_url, is_padded=is_padded) if inner else None
    return at, at + 1, None


def expect_no_secret(run_id: str) -> None:
    """Refuse a secret in the name of a new run: the run is found by it, so no reference can stand in its place.

    Raises:
        UsageError: there is one, however it is spelt.
    """
    if without_secrets(run_id) != run_id:
        raise UsageError(
            f"the name of a run is stored and shown as it is, and {without_secrets(run_id)!r} has a secret in it: "
            "choose another name"
        )


def without_secrets(text: str) -> str:
    """The text with the names of registered secrets in their place, and otherwise as it is.

    For names and addresses, which are shown as well as stored and are no part of a key.
    """
    table = _table
    if not table.marks or not text:
        return text
    clean = table.names.get(text)
    if clean is None:
        finder = _finder(table.marks, text)
        clean = text if finder is None else finder.sub(lambda found: table.marks[found[0]], text)
        if len(table.names) < _MOST_NAMES:
            table.names[text] = clean
    return clean


def registered_value(name: str) -> str | None:
    """The value of a secret; None if this process has none of this name."""
    return _table.values.get(name)


# -- in texts that people read -----------------------------------------------------------------------------------------


def redact(text: str) -> str:
    """The text as people may read it: without registered secrets, and without what has the shape of a credential.

    In place of a secret stands its name (`<secret:db-password>`), in place of a credential `***`.
    """
    marks = _table.marks
    finder = _finder(marks, text) if marks else None
    if finder is not None:
        text = finder.sub(lambda found: marks[found[0]], text)
    return without_credentials(text)


def shown_forms() -> Mapping[str, str]:
    """Every spelling in which a registered secret is taken out of texts, with what `redact` puts in its place.

    It is the same object until another secret is registered or forgotten.
    """
    return _table.marks


class RedactingRepr(reprlib.Repr):
    """A short `repr` for people. Secrets are taken out before texts are cut: half of one would not be known as one.

    What is large is not spelled out first: of a list or a mapping the first elements are shown, and of anything else
    that would write all that it holds, the name of its class.
    """

    def repr_str(self, x: str, level: int) -> str:
        """A text."""
        return super().repr_str(redact(x[:_MOST_CUT]), level)

    def repr_bytes(self, value: bytes, level: int) -> str:
        """Bytes; they are cut like other objects."""
        return self.repr_instance(value[:_MOST_CUT], level)

    repr_bytearray = repr_bytes

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """A mapping; of a large one some entries, which need not be the first in any order."""
        return super().repr_dict(dict(islice(x.items(), _MOST_ENTRIES)) if len(x) > _MOST_ENTRIES else x, level)

    def repr_set(self, x: set[Any], level: int) -> str:
        """The same for a set."""
        return super().repr_set(set(islice(x, _MOST_ENTRIES)) if len(x) > _MOST_ENTRIES else x, level)

    def repr_frozenset(self, x: frozenset[Any], level: int) -> str:
        """The same."""
        return super().repr_frozenset(frozenset(islice(x, _MOST_ENTRIES)) if len(x) > _MOST_ENTRIES else x, level)

    def repr_instance(self, x: Any, level: int) -> str:
        """Any other object, by its own `repr`."""
        if not is_array(x) and is_large(x):  # an array writes itself in short
            return f"<{type(x).__name__}, large>"
        try:
            text = redact(repr(x)[:_MOST_CUT])
        except Exception:  # noqa: BLE001 - it is the user's
            return f"<{type(x).__name__} instance at {id(x):#x}>"
        if len(text) <= self.maxother:
            return text
        half = max(0, (self.maxother - 3) // 2)
        return f"{text[:half]}...{text[len(text) - half :]}"


_MOST_ENTRIES = 1_000
"""Of a mapping or a set, which are shown in order."""
_MOST_CUT = 20_000
"""Characters of a long text that are looked at if a few of them are to be shown."""


# -- logs --------------------------------------------------------------------------------------------------------------


class RedactingFilter(logging.Filter):
    """Takes secrets out of log records: messages and tracebacks. The library's own loggers have it.

    To free other records of them, add it to a handler: `handler.addFilter(RedactingFilter())`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; it is always kept."""
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = redact("".join(traceback.format_exception(record.exc_info[1]))).rstrip()
        return True


def logger(name: str) -> logging.Logger:
    """The logger of this name, without secrets in what it logs."""
    found = logging.getLogger(name)
    if not any(isinstance(each, RedactingFilter) for each in found.filters):
        found.addFilter(RedactingFilter())
    return found
