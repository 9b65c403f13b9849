"""What providers of the chat protocol of OpenAI do differently, as a table: a row for each, found by the host.

What is here is data. Code asks a `Provider` for a property and never for its name; a model's own settings stand above
it. A server that no row knows is `UNKNOWN`: its properties are what the servers that people run themselves (vLLM,
llama.cpp, Ollama, LM Studio) have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["OPENAI", "PROVIDERS", "UNKNOWN", "Provider", "provider_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider.

    Attributes:
        name: for people and for tests.
        hosts: the ends of the names of its hosts; "openai.azure.com" stands for all hosts below it as well.
        length_field: what it calls the most tokens that an answer may have.
    """

    name: str
    hosts: tuple[str, ...] = ()
    length_field: str = "max_tokens"


UNKNOWN = Provider(name="unknown")
OPENAI = Provider(name="OpenAI", hosts=("api.openai.com",), length_field="max_completion_tokens")
PROVIDERS: tuple[Provider, ...] = (
    OPENAI,
    Provider(name="Azure", hosts=("openai.azure.com",), length_field="max_completion_tokens"),
    Provider(name="Anthropic", hosts=("api.anthropic.com",)),
    Provider(name="DeepSeek", hosts=("api.deepseek.com",)),
    Provider(name="Gemini", hosts=("generativelanguage.googleapis.com",)),
    Provider(name="Groq", hosts=("api.groq.com",), length_field="max_completion_tokens"),
    Provider(name="Mistral", hosts=("api.mistral.ai",)),
    Provider(name="OpenRouter", hosts=("openrouter.ai",)),
    Provider(name="xAI", hosts=("api.x.ai",)),
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
