"""Tables about models that come with the library as data, by the names of providers and of models.

Each file says on which day it was read, and where. The same name may mean another model at another provider. For a
server that is not known, such as a proxy, only the name is left, and that counts if it is the name of a model which
nobody but its maker can run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

T = TypeVar("T")

_DATE = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|20\d{6})$")
_MAKERS = ("OpenAI", "Anthropic", "Gemini", "xAI")
"""Whose models are not open."""


def models_in(file: str) -> dict[str, dict[str, Any]]:
    """What a file says about models, by provider and model."""
    text = (files("rh_agents.llms") / file).read_text(encoding="utf-8")
    return {provider: about["models"] for provider, about in json.loads(text)["providers"].items()}


def listed(table: Mapping[str, Mapping[str, T]], model: str, provider: str | None) -> T | None:
    """What a table has of a model by its name, with or without the date of a snapshot; None if it is not there.

    Args:
        table: by provider and model.
        model: its name, as the provider has it.
        provider: its name in the table of providers; None for a server that is not known.
    """
    lists = [table[name] for name in (_MAKERS if provider is None else (provider,)) if name in table]
    for name in (model, _DATE.sub("", model), model.removeprefix("models/")):
        for each in lists:
            if name in each:
                return each[name]
    return None


def window_of(model: str, provider: str | None = None) -> int | None:
    """The most tokens that a conversation with a model may have; None if it is not in the table `windows.json`."""
    return listed(_windows(), model, provider)


@cache
def _windows() -> dict[str, dict[str, int]]:
    return models_in("windows.json")
