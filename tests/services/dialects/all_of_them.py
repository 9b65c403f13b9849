"""All dialects, in the order of the table in the documentation."""

from __future__ import annotations

from tests.services.dialects import (
    anthropic,
    azure,
    deepseek,
    fireworks,
    gemini,
    groq,
    litellm,
    llama_cpp,
    lm_studio,
    mistral,
    ollama,
    openai,
    openrouter,
    together,
    vllm,
    xai,
)
from tests.services.dialects.kit import Dialect

__all__ = ["DIALECTS"]

DIALECTS: dict[str, Dialect] = {
    module.DIALECT.name: module.DIALECT
    for module in (
        openai, azure, anthropic, gemini, mistral, groq, deepseek, xai, openrouter, together, fireworks, vllm,
        llama_cpp, ollama, lm_studio, litellm,
    )
}  # fmt: skip
