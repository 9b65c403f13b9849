"""What models cost, as far as it could be read: a table that comes with the library, and tables of users.

The table is data (`prices.json`), with the day on which it was read and where. The same name may cost something else at
another provider, so each has prices of its own. For a server that is not known, such as a proxy, only the name is left,
and that counts if it is the name of a model which nobody but its maker can run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from rh_agents.core.usage import Price

__all__ = ["PriceSource", "PriceTable", "load_prices", "price_in", "price_of"]

PriceTable = Mapping[str, Price]
"""Prices by the names of models."""
PriceSource = str | Path | Mapping[str, Price | Mapping[str, Any]]
"""A file of prices, or a mapping."""

_DATE = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|20\d{6})$")
_MAKERS = ("OpenAI", "Anthropic", "Gemini", "xAI")
"""Whose models are not open."""
_NAMES = frozenset(each.name for each in fields(Price)) - {"above"}
_Steps = tuple[tuple[str, Price], ...]
"""Prices with the days from which they hold, the oldest first; the first one holds since ever."""


def price_of(model: str, provider: str | None = None, *, on: date | None = None) -> Price | None:
    """The price of a model by its name, with or without the date of a snapshot; None if it is not in the table.

    Args:
        model: its name, as the provider has it.
        provider: its name in the table of providers; None for a server that is not known.
        on: the day for which the price is wanted; today unless it is given.
    """
    table = _table()
    lists = [table[provider]] if provider in table else [table[name] for name in _MAKERS] if provider is None else []
    return _found(lists, model, on or datetime.now(UTC).date())


def price_in(own: PriceTable | None, provider: str | None, *models: str) -> Price | None:
    """The price of the first of these names that has one: in a table of the user's own, or else in the library's."""
    for model in models:
        if own and model in own:
            return own[model]
    return next((found for model in models if (found := price_of(model, provider)) is not None), None)


def load_prices(source: PriceSource) -> PriceTable:
    """A table of prices of your own, from a file or a mapping, for `prices=` of a model.

        {"my-model": {"input": 0.5, "output": 1.5, "cached_input": 0.1},
         "other": {"input": 1, "output": 4, "above": {"tokens": 200000, "input": 2, "output": 6}}}

    Args:
        source: a file with such JSON, or the mapping itself; its values may be `Price`s.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such table; the message names the model.
    """
    if isinstance(source, str | Path):
        source = json.loads(Path(source).read_text(encoding="utf-8"))
    if not isinstance(source, Mapping):
        raise ValueError(f"prices are an object with an entry for each model, not a {type(source).__name__}")
    return {model: row if isinstance(row, Price) else _price(model, row) for model, row in source.items()}


@cache
def _table() -> dict[str, dict[str, _Steps]]:
    text = (files("rh_agents.llms") / "prices.json").read_text(encoding="utf-8")
    rows = json.loads(text)["providers"]
    return {
        provider: {model: _steps(model, row) for model, row in about["models"].items()}
        for provider, about in rows.items()
    }


def _steps(model: str, row: Mapping[str, Any]) -> _Steps:
    later = sorted(row.get("from", {}).items())
    now = _price(model, {name: value for name, value in row.items() if name != "from"})
    return (("", now), *((day, _price(model, each)) for day, each in later))


def _price(model: str, row: Any) -> Price:
    if not isinstance(row, Mapping):
        raise ValueError(f"{model}: a price is an object with `input` and `output`, not {row!r}")
    unknown = sorted(set(row) - _NAMES - {"above"})
    if unknown or "input" not in row or "output" not in row:
        known = ", ".join(sorted(_NAMES))
        raise ValueError(
            f"{model}: a price has `input` and `output`, and may have {known} and above; it has {list(row)}"
        )
    try:
        numbers: dict[str, Any] = {name: float(row[name]) for name in _NAMES if row.get(name) is not None}
        price = Price(**numbers)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{model}: {error}") from error
    above = row.get("above")
    if above is None:
        return price
    tokens = above.get("tokens") if isinstance(above, Mapping) else None
    if not isinstance(tokens, int):
        raise ValueError(f"{model}: `above` needs `tokens`, from how many on it holds, and prices of its own")
    return replace(price, above=(tokens, _price(model, {key: each for key, each in above.items() if key != "tokens"})))


def _found(lists: Iterable[Mapping[str, _Steps]], model: str, day: date) -> Price | None:
    for name in (model, _DATE.sub("", model), model.removeprefix("models/")):
        for each in lists:
            if name in each:
                return [price for since, price in each[name] if since <= day.isoformat()][-1]
    return None
