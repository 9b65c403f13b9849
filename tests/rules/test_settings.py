"""The settings of models by name are the fields of their classes, and whoever asks for help is told them."""

from __future__ import annotations

import inspect
import pydoc
from typing import Any, get_type_hints

import pytest

from rh_agents.core.chat import ChatModel, ChatRequest, Fallback
from rh_agents.core.chat.messages import CallSettings
from rh_agents.core.chat.model import ModelSettings
from rh_agents.core.errors import DefinitionError
from rh_agents.testing import ScriptedLLM
from rh_agents.testing.scripted import ScriptedSettings

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")
pytest.importorskip("anthropic", reason="anthropic is not installed: pip install 'rh_agents[anthropic]'")

from rh_agents.llms import AnthropicChat, AzureChat, OpenAIChat
from rh_agents.llms._settings import AnthropicSettings, AzureSettings, OpenAISettings

OWN = {"model", "event_type", "handler", "input_model", "output_model", "engine", "resources", "effect", "on_unknown"}
"""Fields of every actor that a model sets itself, or that mean nothing for a model."""
KINDS: list[tuple[Any, Any, set[str], set[str]]] = [
    (ChatModel, ModelSettings, OWN, set()),
    (OpenAIChat, OpenAISettings, OWN | {"base_url", "api_key"}, set()),
    (AnthropicChat, AnthropicSettings, OWN | {"base_url", "api_key"}, set()),
    (AzureChat, AzureSettings, OWN | {"base_url", "api_key", "endpoint"}, {"known_as"}),
    (ScriptedLLM, ScriptedSettings, OWN - {"model"}, set()),
]


@pytest.mark.parametrize(("kind", "settings", "other", "more"), KINDS, ids=[each[0].__name__ for each in KINDS])
def test_what_a_model_can_be_made_with_are_its_fields(
    kind: Any, settings: Any, other: set[str], more: set[str]
) -> None:
    assert set(get_type_hints(settings)) == (set(kind.model_fields) - other) | more


def test_what_a_call_can_set_are_fields_of_its_request() -> None:
    of_the_call = {"messages", "tools", "tool_choice", "output_name", "output_schema"}
    assert set(get_type_hints(CallSettings)) == set(ChatRequest.model_fields) - of_the_call


@pytest.mark.parametrize("is_made_before", [False, True])
@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        (OpenAIChat, "model", "assistant_after_tools"),
        (AnthropicChat, "model", "prompt_cache"),
        (AzureChat, "deployment", "known_as"),
        (Fallback, "models", "endpoint"),
        (ScriptedLLM, "script", "endpoint"),
    ],
)
def test_help_lists_the_settings(kind: Any, first: str, last: str, is_made_before: bool) -> None:
    if is_made_before:
        kind.model_rebuild(force=True)
    names = list(inspect.signature(kind).parameters)
    assert names[0] == first
    assert {"temperature", "retry", last} <= set(names)
    assert "settings" not in names
    lines = [line.removeprefix(" |").strip() for line in pydoc.plain(pydoc.render_doc(kind)).splitlines()]
    start = next(place for place, line in enumerate(lines) if line.startswith(f"{kind.__name__}("))
    head = " ".join(lines[start : lines.index("", start)])  # Python 3.13 gives each parameter a line
    assert "temperature: float | None = ..." in head
    assert "max_tokens" in inspect.signature(kind.ask).parameters


@pytest.mark.parametrize("how", ["ask", "__call__"])
def test_a_setting_that_there_is_not_is_refused_where_a_model_is_asked(how: str) -> None:
    model: Any = ScriptedLLM(["x"])
    with pytest.raises(DefinitionError, match=r"temprature=: did you mean temperature="):
        getattr(model, how)("Hi.", temprature=1)
    with pytest.raises(DefinitionError, match="has no option tools="):
        model.ask("Hi.", tools=[])
