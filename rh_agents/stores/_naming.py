"""How stores are named: what a path or a URL means, decided in one place for programs and for the command line."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

FILE_OPTIONS: Final = ("artifacts", "busy_timeout", "mode")
"""What the URL of a file may say after its question mark."""
_ENDINGS: Final = (".db", ".sqlite", ".sqlite3")
_SHORT: Final = re.compile(rf"(?P<path>.*(?:{'|'.join(map(re.escape, _ENDINGS))}))(?:\?(?P<query>.*))?", re.I | re.S)
_IN_MEMORY: Final = ("memory:", "memory://", ":memory:")
_OF_A_FILE: Final = ("sqlite", "file")
_OF_POSTGRESQL: Final = ("postgresql", "postgres")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9.+-]+):")
_VARIABLE: Final = re.compile(r"\$(?:\w+|\{\w+\})")
_THERE_ARE: Final = (
    "there are 'memory:', 'sqlite:///runs.db' (or a path that ends in .db or .sqlite) and 'postgresql://host/database'"
)


class Kind(Enum):
    """What keeps the runs."""

    MEMORY = "memory"
    FILE = "file"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True, slots=True)
class StoreName:
    """What a name means.

    Attributes:
        kind: what keeps the runs.
        url: the name as it was given.
        path: of a file: where it is, with `~` replaced.
        options: of a file: what its URL says after the question mark.
    """

    kind: Kind
    url: str
    path: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @property
    def absolute(self) -> str:
        """The same store seen from any directory."""
        if self.kind is not Kind.FILE:
            return self.url
        path = os.path.abspath(self.path)
        if not self.options and _SHORT.fullmatch(path):
            return path
        query = "&".join(f"{name}={quote(value)}" for name, value in self.options.items())
        return f"sqlite:///{quote(path)}{query and f'?{query}'}"

    @property
    def artifacts(self) -> str:
        """Of a file: where its large results are, a directory or a URL."""
        return self.options.get("artifacts", f"{os.path.abspath(self.path)}-artifacts")


def read_name(url: str | os.PathLike[str]) -> StoreName:
    """What a path or a URL names. Nothing is opened.

    Raises:
        ValueError: it names no store; the message says what would.
    """
    if not isinstance(url, str):
        path = os.fspath(url)
        if not isinstance(path, str):
            raise ValueError(f"no store for {path!r}: a path is a text, as in {os.fsdecode(path)!r}")
        return StoreName(Kind.FILE, path, expanded(path))
    if url in _IN_MEMORY:
        return StoreName(Kind.MEMORY, url)
    found = _SCHEME.match(url)
    if found is not None and url.startswith("//", found.end()):
        return _of_url(url, found[1].lower(), url[found.end() + 2 :])
    _refuse_half_a_url(url)
    short = _SHORT.fullmatch(url)
    if short is None:
        raise ValueError(f"no store for {url!r}: {_remedy(url)}")
    return _of_file(url, short["path"], short["query"])


def expanded(path: str) -> str:
    """The path with the home directory in place of `~`.

    Raises:
        ValueError: it is a path of no file.
    """
    if "\0" in path:
        raise ValueError(f"no store for {path!r}: a path has no NUL character in it")
    found = os.path.expanduser(path)
    first = PurePath(path).parts[:1]
    if found == path and path.startswith("~") and not os.path.lexists(first[0]):
        raise ValueError(f"no store for {path!r}: {first[0]!r} has no home directory; write ./{path} for such a folder")
    if _VARIABLE.match(path) and not os.path.lexists(first[0]):
        raise ValueError(
            f"no store for {path!r}: variables are replaced by a shell only; write os.path.expandvars({path!r}), or "
            f"./{path} for such a folder"
        )
    return found


def _of_url(url: str, scheme: str, rest: str) -> StoreName:
    if scheme in _OF_POSTGRESQL:
        return StoreName(Kind.POSTGRESQL, url)
    if scheme not in _OF_A_FILE:
        base = scheme.partition("+")[0]
        known = base in (*_OF_A_FILE, *_OF_POSTGRESQL)
        # What follows a scheme may have a password.
        raise ValueError(f"no store for '{scheme}://…': " + (f"write {base}://…" if known else _THERE_ARE))
    if not rest and scheme == "sqlite":
        raise ValueError(f"{url!r} names no file: write sqlite:///runs.db, or memory: for a store in memory")
    parts = urlsplit(url)
    if parts.netloc and not (scheme == "file" and parts.netloc == "localhost"):
        where = f"{parts.netloc}{parts.path}"
        raise ValueError(f"{url!r} has {parts.netloc!r} where a host would stand: write {scheme}:///{where}")
    # `sqlite:///runs.db` is relative, `sqlite:////runs.db` is not; `file:///runs.db` has no relative form.
    path = unquote(parts.path.removeprefix("/") if scheme == "sqlite" else parts.path)
    if parts.fragment:
        raise ValueError(f"{url!r} names no file: a # in the name of a file is written %23")
    if path in ("", "/"):
        raise ValueError(f"{url!r} names no file: write sqlite:///runs.db")
    if path == ":memory:":
        if parts.query:
            raise ValueError(f"{url!r}: a store in memory has no options")
        return StoreName(Kind.MEMORY, url)
    return _of_file(url, path, parts.query)


def _of_file(url: str, path: str, query: str | None) -> StoreName:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query or "", keep_blank_values=True):
        if name not in FILE_OPTIONS:
            raise ValueError(f"a store in a file has no option {name!r}: there are {', '.join(FILE_OPTIONS)}")
        if name in options:
            raise ValueError(f"{url!r} says {name} twice")
        options[name] = value
    if "artifacts" in options and "://" not in options["artifacts"]:
        options["artifacts"] = expanded(options["artifacts"])
    return StoreName(Kind.FILE, url, expanded(path), options)


def _refuse_half_a_url(url: str) -> None:
    """`sqlite:runs.db` would be a file of just that name, which nobody wants."""
    found = _SCHEME.match(url)
    scheme = "" if found is None else found[1].lower()
    if scheme in (*_OF_A_FILE, *_OF_POSTGRESQL):
        is_file = scheme in _OF_A_FILE
        example = f"sqlite:///{url[len(scheme) + 1 :]}" if is_file else "postgresql://host/database"
        raise ValueError(f"no store for {f'{url!r}' if is_file else f'{scheme}:…'}: write {example}")


def _remedy(url: str) -> str:
    if not url.strip():
        return f"{_THERE_ARE}; store=None records nothing"
    if url == "none":
        return f"store=None records nothing; otherwise {_THERE_ARE}"
    if os.path.isdir(os.path.expanduser(url)):
        return f"it is a directory; name a file in it, such as {os.path.join(url, 'runs.db')}"
    if url == "memory":
        return "write memory:"
    if url != url.strip() and _SHORT.fullmatch(url.strip()):
        return f"write {url.strip()!r}, without the space"
    return f"{_THERE_ARE}; a pathlib.Path may have any ending"
