"""The settings of models behind official clients by name (see `SharedSettings`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from rh_agents.core.chat.model import SharedSettings
from rh_agents.llms._providers import OutputMode
from rh_agents.llms.prices import PriceSource

Caching = Literal["5m", "1h"]
TokenProvider = Callable[[], str | Awaitable[str]]


class ClientSettings(SharedSettings, total=False):
    """Fields of every model behind a client, but for the name of its server."""

    headers: Mapping[str, str]
    connect_timeout: float
    max_bytes: int
    dialect: str | None
    prices: PriceSource | None
    output_mode: OutputMode | None
    finish_reasons: Mapping[str, str]


class AnthropicSettings(ClientSettings, total=False):
    """Fields of `AnthropicChat`."""

    endpoint: str | None
    thinking: int | Literal["adaptive"] | None
    prompt_cache: Caching | None


class _ChatSettings(ClientSettings, total=False):
    """Fields of models that speak OpenAI's chat protocol."""

    strict: bool
    length_field: str | None
    assistant_after_tools: bool | None


class OpenAISettings(_ChatSettings, total=False):
    """Fields of `OpenAIChat`."""

    endpoint: str | None


class AzureSettings(_ChatSettings, total=False):
    """Fields of `AzureChat`."""

    api_version: str | None
    token: TokenProvider | None
    deployed_model: str | None
    known_as: str | None
