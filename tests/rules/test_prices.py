"""The price table: what stands in it, how it is looked up, and that it says what its sources say."""

from __future__ import annotations

import importlib.util
import json
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from rh_agents import Price, Usage
from rh_agents.llms.prices import load_prices, price_of

TABLE: dict[str, Any] = json.loads((files("rh_agents.llms") / "prices.json").read_text(encoding="utf-8"))
READ = date.fromisoformat(TABLE["read"])
SONNET = Price(3.0, 15.0, 0.3, 3.75, above=(200_000, Price(6.0, 22.5, 0.6, 7.5)))


def test_every_list_says_where_it_was_read_and_every_price_can_be_found() -> None:
    for provider, about in TABLE["providers"].items():
        assert about["sources"]
        assert all(source.startswith("https://") for source in about["sources"])
        for model in about["models"]:
            price = price_of(model, provider, on=READ)
            assert price is not None, model
            assert price.output > 0


@pytest.mark.skipif(importlib.util.find_spec("genai_prices") is None, reason="genai-prices comes with pydantic-ai")
def test_the_prices_are_those_of_the_source_that_is_installed() -> None:
    """When it is upgraded, this tells which prices have changed since: `python -m tests.services.prices_table`."""
    from genai_prices.data import providers as known  # noqa: PLC0415

    from tests.services.prices_table import PROVIDERS, current, names_of, row_of  # noqa: PLC0415

    by_id = {provider.id: provider for provider in known}
    for name, (mine, _) in PROVIDERS.items():
        listed = {each: model for model in by_id[mine].models for each in names_of(model)}
        for model, row in TABLE["providers"][name]["models"].items():
            price, later = current(listed[model], READ)
            assert price is not None
            assert {key: each for key, each in row.items() if key != "from"} == row_of(price), (name, model)
            assert row.get("from", {}) == {since: row_of(each) for since, each in later.items()}


@pytest.mark.parametrize(
    ("model", "provider", "expected"),
    [
        ("gpt-4.1-mini", "OpenAI", Price(0.4, 1.6, 0.1)),
        ("gpt-4.1-mini-2025-04-14", "OpenAI", Price(0.4, 1.6, 0.1)),
        ("claude-sonnet-4-5-20250929", "Anthropic", SONNET),
        ("models/gemini-2.5-flash", "Gemini", price_of("gemini-2.5-flash", "Gemini")),
        ("gpt-4.1-mini", None, Price(0.4, 1.6, 0.1)),
        ("claude-sonnet-4-5", None, SONNET),
        ("openai/gpt-oss-120b", "Groq", Price(0.15, 0.6, 0.075)),
        ("openai/gpt-oss-120b", "Together", Price(0.15, 0.6)),
        ("openai/gpt-oss-120b", None, None),
        ("deepseek-flash", None, None),
        ("gpt-4.1-mini", "Mistral", None),
        ("gpt-4.1-mini", "OpenRouter", None),
        ("no such model", "OpenAI", None),
    ],
)
def test_a_name_has_the_price_of_its_provider(model: str, provider: str | None, expected: Price | None) -> None:
    """What anybody can run has no price at a server that is not known."""
    assert price_of(model, provider, on=READ) == expected


def test_a_price_that_will_change_changes_on_its_day() -> None:
    before, after = price_of("gemini-3.8-flash", "Gemini", on=READ), price_of("gemini-3.8-flash", "Gemini", on=date.max)
    assert before == price_of("gemini-3.8-flash", "Gemini", on=date(2026, 12, 31)) == Price(0.75, 3.75, 0.075)
    assert after == price_of("gemini-3.8-flash", "Gemini", on=date(2027, 1, 1)) == Price(1.5, 7.5, 0.15)


def test_long_requests_have_a_price_of_their_own_for_all_that_is_in_them() -> None:
    short, long = Usage(200_000, 1_000, requests=1), Usage(200_001, 1_000, requests=1)
    assert SONNET.cost(short) == pytest.approx(0.2 * 3 + 0.001 * 15)
    assert SONNET.cost(long) == pytest.approx(0.200001 * 6 + 0.001 * 22.5)


def test_your_own_table_comes_from_a_file_or_a_mapping(tmp_path: Path) -> None:
    row = {"input": 1, "output": 2, "cache_write": 1.25, "above": {"tokens": 10, "input": 3, "output": 4}}
    mine = tmp_path / "prices.json"
    mine.write_text(json.dumps({"m": row}), encoding="utf-8")
    expected = {"m": Price(1.0, 2.0, None, 1.25, above=(10, Price(3.0, 4.0)))}
    assert load_prices(mine) == load_prices(str(mine)) == load_prices({"m": row}) == load_prices(expected) == expected


@pytest.mark.parametrize(
    "row",
    [
        3,
        {"input": 1},
        {"input": 1, "output": 2, "cashed_input": 1},
        {"input": 1, "output": -2},
        {"input": 1, "output": 2, "above": {"input": 1, "output": 2}},
        {"input": 1, "output": 2, "above": {"tokens": 5, "input": 1}},
        {"input": "x", "output": 2},
    ],
)
def test_what_is_no_price_is_refused_with_the_name_of_the_model(row: Any) -> None:
    with pytest.raises(ValueError, match="my-model"):
        load_prices({"my-model": row})


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match="an entry for each model"):
        load_prices(tmp_path / "prices.json")
