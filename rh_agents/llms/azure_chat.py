"""OpenAI's models at Azure: behind deployments of a resource of your own, and behind its content filters."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Unpack
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from rh_agents.core._base.signatures import takes_settings
from rh_agents.core.errors import AccessDenied, DefinitionError
from rh_agents.core.redaction import Secret
from rh_agents.core.usage import Price
from rh_agents.llms._listings import window_of
from rh_agents.llms._settings import AzureSettings, TokenProvider
from rh_agents.llms.openai_chat import OpenAIChat

try:
    import openai
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"AzureChat needs the package {_error.name}: pip install 'rh_agents[openai]'", name=_error.name
    ) from _error

from rh_agents.llms._http import http_client

__all__ = ["AzureChat"]


class AzureChat(OpenAIChat):
    """A deployment of a model of OpenAI in a resource at Azure.

        model = AzureChat("my-deployment", "https://my-resource.openai.azure.com", api_version="2024-10-21")

    Args:
        deployment: its name, which stands in the path of requests. It is the `model` of this class.
        endpoint: of the resource, without a path; by default what the environment variable AZURE_OPENAI_ENDPOINT says.
        api_key: by default what AZURE_OPENAI_API_KEY says; sent as the header `api-key`.
        settings: fields of `OpenAIChat`, and those below. In place of its `endpoint`, `known_as` is the name of the
            resource as a part of what the model is; by default its URL.

    What the content filter does not let through is a `ModelRefused`, whether it is the prompt, the answer or the end of
    an answer of which the beginning had been streamed (the asynchronous filter); the message names what was found.
    Azure's newer addresses, which end in `/openai/v1`, need no version: there `OpenAIChat` does.

    Raises:
        DefinitionError: there is no endpoint, or it goes on behind that of the resource.
    """

    dialect: str | None = "Azure"
    api_version: str | None = None
    """Such as "2024-10-21"; by default what the environment variable OPENAI_API_VERSION says."""
    token: TokenProvider | None = Field(default=None, exclude=True, repr=False)
    """In place of a key: a function, or one with `async`, that gives a token of Microsoft Entra ID. It is asked before
    each request, so it should remember the token; those of the package azure-identity do."""
    deployed_model: str | None = None
    """The model behind the deployment, such as "gpt-4.1-mini": its price counts for budgets before it has answered."""

    endpoint_setting: ClassVar[str] = "known_as"
    has_batches: ClassVar[bool] = False
    key_variable: ClassVar[str] = "AZURE_OPENAI_API_KEY"
    key_advice: ClassVar[str] = "set AZURE_OPENAI_API_KEY, or pass api_key= or token="

    @takes_settings(AzureSettings)
    def __init__(
        self,
        deployment: str,
        endpoint: str | None = None,
        api_key: str | SecretStr | Secret | None = None,
        **settings: Unpack[AzureSettings],
    ) -> None:
        place = endpoint or os.environ.get("AZURE_OPENAI_ENDPOINT")
        if not place:
            raise DefinitionError(
                f"AzureChat({deployment!r}) has no endpoint: pass it, or set AZURE_OPENAI_ENDPOINT, "
                "for instance https://my-resource.openai.azure.com"
            )
        path = urlsplit(place).path.rstrip("/")
        if path.endswith("/openai/v1") or "/openai/deployments" in path:
            raise DefinitionError(
                f"AzureChat({deployment!r}): the endpoint of a resource ends before /openai, as in "
                "https://my-resource.openai.azure.com; an address that ends in /openai/v1 is one for OpenAIChat"
            )
        fields: dict[str, Any] = dict(settings)
        fields["endpoint"] = fields.pop("known_as", None)
        super().__init__(deployment, place, api_key, **fields)

    @property
    def known_price(self) -> Price | None:
        """The given price, or that of the table for the model behind the deployment."""
        return self.price or self._listed_price(*filter(None, (self.deployed_model, self.model)))

    @property
    def known_context(self) -> int | None:
        """The given one, or that of the table for the model behind the deployment."""
        model = self.deployed_model or self.model
        return self.max_context or window_of(model, "Azure") or window_of(model, "OpenAI")

    def _key(self) -> str | None:
        """The key; None if a token takes its place, or if the client shall look for one by itself."""
        return super()._key() if self.token is None or self.api_key is not None else None

    def _new_client(self, url: str | None, **common: Any) -> openai.AsyncOpenAI:
        version = self.api_version or os.environ.get("OPENAI_API_VERSION")
        if version is None:
            raise AccessDenied(f"{self.name}: no version: set OPENAI_API_VERSION, or pass api_version=")
        return openai.AsyncAzureOpenAI(
            azure_endpoint=url or "",
            api_version=version,
            azure_ad_token_provider=self.token,
            http_client=http_client(openai.DefaultAsyncHttpxClient, common["timeout"]),
            **common,
        )

    def _register_found_key(self, sdk: Any) -> None:
        if self.token is None:
            super()._register_found_key(sdk)
