"""How long conversations with models may be, as far as it could be read: a table that comes with the library.

The table is data (`windows.json`), made in the same way as that of prices, and looked up in the same way.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

_DATE = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|20\d{6})$")
_MAKERS = ("OpenAI", "Anthropic", "Gemini", "xAI")
"""Whose models are not open, so that the name says which model it is, whoever serves it."""


def window_of(model: str, provider: str | None = None) -> int | None:
    """The most tokens that a conversation with a model may have; None if it is not in the table.

    Args:
        model: its name, as the provider has it, with or without the date of a snapshot.
        provider: its name in the table of providers; None for a server that is not known.
    """
    table = _table()
    names = _MAKERS if provider is None else (provider,)
    lists = [table[name] for name in names if name in table]
    for name in (model, _DATE.sub("", model), model.removeprefix("models/")):
        for each in lists:
            if name in each:
                return each[name]
    return None


@cache
def _table() -> dict[str, dict[str, int]]:
    text = (files("rh_agents.llms") / "windows.json").read_text(encoding="utf-8")
    return {provider: about["models"] for provider, about in json.loads(text)["providers"].items()}
