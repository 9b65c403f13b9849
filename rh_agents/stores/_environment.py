"""The store of who names none: what the environment variable `RH_AGENTS_STORE` says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rh_agents.core.errors import OptionError
from rh_agents.core.redaction import redact
from rh_agents.stores._naming import Kind, read_name

VARIABLE: Final = "RH_AGENTS_STORE"
_NOTHING: Final = "none"
"""Records nothing, in commands and in the programs that they run."""


def named_by_environment(access: Callable[[str, int], bool] = os.access) -> str | None:
    """The path or URL that the variable says; None if it is not set, or says `none`.

    Args:
        access: whether this process may do something with a file, as `os.access` says.

    Raises:
        OptionError: it is empty, names no store, or a file that may not be written. The message names the variable.
    """
    url = os.environ.get(VARIABLE)
    if url is None or url == _NOTHING:
        return None
    if not url.strip():
        raise OptionError(f"{VARIABLE} is empty: let it name a store, such as runs.db, or unset it")
    try:
        name = read_name(url)
    except ValueError as error:
        raise OptionError(f"{VARIABLE}: {redact(str(error)).replace('; store=None records nothing', '')}") from None
    problem = None if name.kind is not Kind.FILE else _problem(Path(name.path), access)
    if problem is not None:
        raise OptionError(f"{VARIABLE}={url}: {problem}; name a file that you may write, or unset it")
    return url


def _problem(path: Path, access: Callable[[str, int], bool]) -> str | None:
    """Why a file cannot be a store of this user; None if it can."""
    path = path.absolute()
    if path.exists():
        return None if access(str(path), os.R_OK | os.W_OK) else f"no permission to read and write {path}"
    folder = next(each for each in path.parents if each.exists())
    if not folder.is_dir():
        return f"{folder} is no directory"
    return None if access(str(folder), os.W_OK | os.X_OK) else f"no permission to make {path}"
