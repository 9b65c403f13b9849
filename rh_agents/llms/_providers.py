"""What providers of the chat protocol of OpenAI do differently, as a table: a row for each, found by the host.

What is here is data. Code asks a `Provider` for a property and never for its name; a model's own settings stand above
it. A server that no row knows is `UNKNOWN`: its properties are what the servers that people run themselves (vLLM,
llama.cpp, Ollama, LM Studio) have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["OPENAI", "PROVIDERS", "UNKNOWN", "Provider", "provider_at", "provider_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider.

    Attributes:
        name: by which a model can be told that its server speaks this dialect.
        hosts: the ends of the names of its hosts; "openai.azure.com" stands for all hosts below it as well. What people
            run themselves has none.
        length_field: what it calls the most tokens that an answer may have.
        field_names: what it calls other fields of a request; None for one that it refuses.
        assistant_after_tools: whether it refuses a message of the user that follows one of a tool (Mistral's error
            3230, "Unexpected role 'user' after role 'tool'"), so that the assistant has to say something between them.
    """

    name: str
    hosts: tuple[str, ...] = ()
    length_field: str = "max_tokens"
    field_names: Mapping[str, str | None] = field(default_factory=dict)
    assistant_after_tools: bool = False


UNKNOWN = Provider(name="unknown")
OPENAI = Provider(name="OpenAI", hosts=("api.openai.com",), length_field="max_completion_tokens")
PROVIDERS: tuple[Provider, ...] = (
    OPENAI,
    Provider(name="Azure", hosts=("openai.azure.com",), length_field="max_completion_tokens"),
    Provider(name="Anthropic", hosts=("api.anthropic.com",)),
    Provider(name="DeepSeek", hosts=("api.deepseek.com",)),
    Provider(name="Gemini", hosts=("generativelanguage.googleapis.com",)),
    Provider(name="Groq", hosts=("api.groq.com",), length_field="max_completion_tokens"),
    Provider(
        name="Mistral",
        hosts=("api.mistral.ai",),
        field_names={
            "seed": "random_seed",
            "stream_options": None,
        },  # it tells the usage without being asked
        assistant_after_tools=True,
    ),
    Provider(name="OpenRouter", hosts=("openrouter.ai",)),
    Provider(name="xAI", hosts=("api.x.ai",), length_field="max_completion_tokens"),
    Provider(name="Together", hosts=("api.together.xyz", "api.together.ai")),
    Provider(name="Fireworks", hosts=("api.fireworks.ai",)),
    Provider(name="vLLM"),
    Provider(name="llama.cpp"),
    Provider(name="Ollama", hosts=("ollama.com",)),
    Provider(name="LM Studio"),
    Provider(name="LiteLLM"),
)


def provider_at(base_url: str | None) -> Provider:
    """The provider whose host is in a base URL. None is OpenAI, which the client takes where nothing else is said."""
    if base_url is None:
        return OPENAI
    host = (urlsplit(base_url).hostname or "").lower()
    for provider in PROVIDERS:
        if any(host == end or host.endswith(f".{end}") for end in provider.hosts):
            return provider
    return UNKNOWN


def provider_named(name: str) -> Provider:
    """The provider of this name, however it is spelled: "LM Studio" and "lm_studio" are the same.

    Raises:
        ValueError: there is none; the message lists all names.
    """
    for provider in PROVIDERS:
        if _letters(provider.name) == _letters(name):
            return provider
    raise ValueError(f"dialect={name!r}: known are {', '.join(provider.name for provider in PROVIDERS)}")


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
