"""What models cost, as far as their providers say: a table that comes with the library, and can be overridden."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

from rh_agents.core.usage import Price

__all__ = ["price_of"]

_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@cache
def _table() -> dict[str, Price]:
    text = (files("rh_agents.llms") / "prices.json").read_text(encoding="utf-8")
    rows = {name: row for name, row in json.loads(text).items() if name != "about"}
    return {name: Price(*row) for name, row in rows.items()}


def price_of(model: str) -> Price | None:
    """The price of a model by its name, with or without the date of a snapshot; None if it is not in the table."""
    return _table().get(_DATE.sub("", model))
