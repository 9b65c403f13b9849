"""Language models: behind any OpenAI-compatible endpoint, Anthropic's, and a small one on this machine (`local`).

A provider is one file: a class that derives from `rh_agents.core.chat.ChatModel` and writes `complete`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rh_agents.llms._batches import Batches, in_batches
    from rh_agents.llms.anthropic_chat import AnthropicChat
    from rh_agents.llms.azure_chat import AzureChat
    from rh_agents.llms.openai_chat import OpenAIChat

__all__ = ["AnthropicChat", "AzureChat", "Batches", "OpenAIChat", "in_batches"]

_MODULES = {
    "AnthropicChat": "anthropic_chat",
    "AzureChat": "azure_chat",
    "Batches": "_batches",
    "OpenAIChat": "openai_chat",
    "in_batches": "_batches",
}


def __getattr__(name: str) -> Any:
    """Load a provider when it is asked for: each needs a package of its own."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"rh_agents.llms.{_MODULES[name]}"), name)
