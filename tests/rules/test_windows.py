"""The table of windows: how it is looked up, and that it says what its sources say."""

from __future__ import annotations

import importlib.util
import json
from importlib.resources import files
from typing import Any

import pytest

from rh_agents.llms._listings import window_of

TABLE: dict[str, Any] = json.loads((files("rh_agents.llms") / "windows.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("model", "provider", "expected"),
    [
        ("gpt-4o-mini", "OpenAI", 128_000),
        ("gpt-4o-mini-2024-07-18", None, 128_000),
        ("gpt-5", "OpenAI", 272_000),
        ("claude-sonnet-4-5-20250929", "Anthropic", 200_000),
        ("models/gemini-2.5-flash", "Gemini", 1_048_576),
        ("openai/gpt-oss-120b", "Groq", 131_072),
        ("openai/gpt-oss-120b", None, None),
        ("gpt-4o-mini", "Groq", None),
        ("gpt-4o-mini", "vLLM", None),
        ("nobody's", None, None),
    ],
)
def test_a_window_is_found_by_the_provider_and_the_name_with_or_without_its_date(
    model: str, provider: str | None, expected: int | None
) -> None:
    assert window_of(model, provider) == expected


def test_every_list_says_where_it_was_read() -> None:
    for about in TABLE["providers"].values():
        assert all(source.startswith("https://") for source in about["sources"])
        assert about["sources"]
        assert all(isinstance(size, int) and size > 0 for size in about["models"].values())


@pytest.mark.skipif(importlib.util.find_spec("genai_prices") is None, reason="genai-prices comes with pydantic-ai")
def test_no_window_is_larger_than_the_source_that_is_installed_says() -> None:
    from genai_prices.data import providers as known  # noqa: PLC0415

    from tests.services.prices_table import PROVIDERS, names_of  # noqa: PLC0415

    by_id = {provider.id: provider for provider in known}
    for name, (mine, _) in PROVIDERS.items():
        listed = {each: model for model in by_id[mine].models for each in names_of(model)}
        for model, size in TABLE["providers"][name]["models"].items():
            assert size <= (listed[model].context_window or 0), (name, model)


def test_models_know_their_windows_or_what_they_are_told() -> None:
    pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")
    pytest.importorskip("anthropic", reason="anthropic is not installed: pip install 'rh_agents[anthropic]'")
    from rh_agents.llms import AnthropicChat, AzureChat, OpenAIChat  # noqa: PLC0415

    assert OpenAIChat("gpt-4o", api_key="k").known_context == 128_000
    assert OpenAIChat("gpt-4o", api_key="k", max_context=9_000).known_context == 9_000
    assert OpenAIChat("qwen3", "http://127.0.0.1:1/v1", "k").known_context is None
    assert AnthropicChat("claude-haiku-4-5", api_key="k").known_context == 200_000
    assert AnthropicChat("claude-haiku-4-5", api_key="k", max_tokens=20_000).known_room == 180_000
    assert AnthropicChat("claude-haiku-4-5", api_key="k", thinking=50_000).reserved_output > 50_000, "it says how many"
    assert OpenAIChat("gpt-4o", api_key="k").known_room == 128_000
    azure = AzureChat("mine", "https://a.openai.azure.com", api_key="k", api_version="v", deployed_model="gpt-4o")
    assert azure.known_context == 128_000
