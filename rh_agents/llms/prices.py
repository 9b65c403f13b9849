"""What models cost, as far as it could be read: a table that comes with the library, and tables of users.

The table is data (`prices.json`). The same name may cost something else at another provider, so each has prices of its
own; how models are looked up, `rh_agents.llms._listings` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from rh_agents.core.usage import Price
from rh_agents.llms._listings import listed, models_in

__all__ = ["PriceSource", "PriceTable", "load_prices", "price_in", "price_of"]

PriceTable = Mapping[str, Price]
"""Prices by the names of models."""
PriceSource = str | Path | Mapping[str, Price | Mapping[str, Any]]
"""A file of prices, or a mapping."""

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
    steps = listed(_table(), model, provider)
    day = (on or datetime.now(UTC).date()).isoformat()
    return None if steps is None else [price for since, price in steps if since <= day][-1]


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
    return {
        provider: {model: _steps(model, row) for model, row in rows.items()}
        for provider, rows in models_in("prices.json").items()
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
