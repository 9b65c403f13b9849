"""pyarrow, which reads and writes tables and knows the codec of zstd: imported when a file needs it."""

from __future__ import annotations

import importlib
from typing import Any

from rh_agents.cli.errors import CommandError

__all__ = ["arrow_module", "first_line"]


def arrow_module(what: str, module: str = "pyarrow") -> Any:
    """pyarrow, or a part of it.

    Args:
        what: what needs it, for people: `a.parquet is a Parquet file`.
        module: which part.

    Raises:
        CommandError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != "pyarrow":
            raise
        raise CommandError(f"{what}, which needs pyarrow: pip install 'rh_agents[formats]'") from error


def first_line(error: Exception) -> str:
    """What pyarrow says of an error, without the place in its code."""
    return str(error).partition("\n")[0].rstrip(".")
