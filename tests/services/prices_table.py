"""Makes `prices.json` and `windows.json` in `rh_agents/llms` anew: python -m tests.services.prices_table FILE.

FILE is the list of litellm. A price gets into the table only if two lists that were made independently of each other,
and that both name the provider's own page as their source, say the same on the day when the table is made: that of the
package `genai-prices`, and `model_prices_and_context_window_backup.json` of the package `litellm`. Where they differ,
or only one of them has a model, it is left out. Of the sizes of windows, which they round in different ways, the
smaller one gets into the table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from genai_prices import types as listed
from genai_prices.data import providers as known

__all__ = ["PROVIDERS", "current", "names_of", "row_of", "windows"]

PROVIDERS = {
    "OpenAI": ("openai", ""),
    "Azure": ("azure", "azure/"),
    "Anthropic": ("anthropic", ""),
    "Gemini": ("google", "gemini/"),
    "Mistral": ("mistral", "mistral/"),
    "Groq": ("groq", "groq/"),
    "DeepSeek": ("deepseek", "deepseek/"),
    "xAI": ("x-ai", "xai/"),
    "Together": ("together", "together_ai/"),
    "Fireworks": ("fireworks", "fireworks_ai/"),
}
"""The rows of the provider table: their names in the one list, and what stands before their models in the other."""

ABOUT = (
    "US dollars for a million tokens, standard tier, at the dearest time of the day. Only prices on which two lists "
    "agree that were made independently of each other and name the provider's page as their source: those of the "
    "packages genai-prices 0.2.3 and litellm 1.110.2. Prices change: give price= or prices= where money matters. "
    "`above`: what the whole request costs with more input tokens than that. `from`: what it will cost from then on."
)
ABOUT_WINDOWS = (
    "The most tokens that a conversation with a model may have. Only models of which two lists say it that were made "
    "independently of each other and name the provider's page as their source, those of the packages genai-prices "
    "0.2.3 and litellm 1.110.2; where they differ (one of them leaves room for the answer, or rounds), the smaller "
    "number. State max_context= of a model where it has another one."
)
FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
}


def names_of(model: listed.ModelInfo) -> list[str]:
    """The names under which a model is known, without patterns."""

    def walk(clause: Any) -> Iterator[str]:
        if isinstance(clause, listed.ClauseEquals):
            yield clause.equals
        for each in getattr(clause, "or_", ()):
            yield from walk(each)

    return list(dict.fromkeys([model.id, *walk(model.match)]))


def current(model: listed.ModelInfo, day: date) -> tuple[listed.ModelPrice | None, dict[str, listed.ModelPrice]]:
    """What a model costs on that day, and what it will cost later, by day. At the dearest time of the day if there are
    several prices in it: a budget has to hold whenever the call is made."""
    if isinstance(model.prices, listed.ModelPrice):
        return model.prices, {}
    now: listed.ModelPrice | None = None
    by_hour: list[listed.ModelPrice] = []
    later: dict[str, listed.ModelPrice] = {}
    for each in model.prices:
        rule = each.constraint
        if rule is None or (isinstance(rule, listed.StartDateConstraint) and rule.start_date <= day):
            now = each.prices
        elif isinstance(rule, listed.StartDateConstraint):
            later[rule.start_date.isoformat()] = each.prices
        else:
            by_hour.append(each.prices)
    return max((price for price in (now, *by_hour) if price is not None), key=_dearness, default=None), later


def _dearness(price: listed.ModelPrice) -> float:
    """What orders prices of one model."""
    row = row_of(price)
    return 0.0 if row is None else float(row["input"] + row["output"])


def row_of(price: listed.ModelPrice) -> dict[str, Any] | None:
    """A price as the table has it; None if it is not one for texts, or has more than one step."""
    row: dict[str, Any] = {}
    above: dict[str, Any] = {}
    for name, field in FIELDS.items():
        value = getattr(price, field)
        if isinstance(value, listed.TieredPrices):
            if len(value.tiers) != 1 or above.get("tokens", value.tiers[0].start) != value.tiers[0].start:
                return None
            above |= {"tokens": value.tiers[0].start, name: float(value.tiers[0].price)}
            value = value.base
        if value is not None:
            row[name] = float(value)
    if "input" not in row or "output" not in row:
        return None
    if above:
        row["above"] = {**{name: value for name, value in row.items() if name != "above"}, **above}
    return row


def _agrees(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the other list has the same price for input and output."""
    pairs = ((row["input"], "input_cost_per_token"), (row["output"], "output_cost_per_token"))
    return all(isinstance(other.get(name), float) and abs(other[name] * 1e6 - mine) < 1e-6 for mine, name in pairs)


def _models(provider: listed.Provider, prefix: str, others: Mapping[str, Any], day: date) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for model in provider.models:
        price, later = current(model, day)
        row = None if price is None or model.deprecated else row_of(price)
        if row is None:
            continue
        steps = {since: row_of(each) for since, each in later.items()}
        for name in names_of(model):
            other = others.get(f"{prefix}{name}")
            if other is not None and other.get("mode") in ("chat", "responses") and _agrees(row, other):
                found[name] = {**row, **({"from": steps} if steps else {})}
    return dict(sorted(found.items()))


def table(others: Mapping[str, Any], day: date) -> dict[str, Any]:
    """The whole table."""
    by_id = {provider.id: provider for provider in known}
    rows = {}
    for name, (mine, prefix) in PROVIDERS.items():
        models = _models(by_id[mine], prefix, others, day)
        rows[name] = {"sources": list(by_id[mine].pricing_urls or ())[:2], "models": models}
    return {
        "about": ABOUT,
        "read": day.isoformat(),
        "providers": rows,
    }


def windows(others: Mapping[str, Any], day: date) -> dict[str, Any]:
    """The whole table of windows."""
    by_id = {provider.id: provider for provider in known}
    rows: dict[str, Any] = {}
    for name, (mine, prefix) in PROVIDERS.items():
        models: dict[str, int] = {}
        for model in by_id[mine].models:
            for each in names_of(model) if model.context_window and not model.deprecated else ():
                other = others.get(f"{prefix}{each}", {})
                if other.get("mode") in ("chat", "responses") and isinstance(other.get("max_input_tokens"), int):
                    models[each] = min(model.context_window, other["max_input_tokens"])
        rows[name] = {"sources": list(by_id[mine].pricing_urls or ())[:2], "models": dict(sorted(models.items()))}
    return {"about": ABOUT_WINDOWS, "read": day.isoformat(), "providers": rows}


def _written(made: Mapping[str, Any]) -> str:
    """As JSON with a line for each model, so that a change can be read."""
    text = json.dumps(made, indent=2)
    for row in made["providers"].values():
        for price in row["models"].values():
            spread = json.dumps(price, indent=2).replace("\n", "\n        ")
            text = text.replace(spread, json.dumps(price))
    return f"{text}\n"


if __name__ == "__main__":
    listing = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    made = table(listing, date.today())  # noqa: DTZ011 - the day on which somebody reads prices is theirs
    Path("rh_agents/llms/prices.json").write_text(_written(made), encoding="utf-8")
    sizes = windows(listing, date.today())  # noqa: DTZ011 - as above
    Path("rh_agents/llms/windows.json").write_text(f"{json.dumps(sizes, indent=2)}\n", encoding="utf-8")
    print({name: len(row["models"]) for name, row in made["providers"].items()})
