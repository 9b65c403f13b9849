"""What people are told when a model's server cannot be asked: one sentence with the place and what to check."""

from __future__ import annotations

import asyncio
import socket
import traceback

import pytest

from rh_agents.core.errors import AccessDenied, DefinitionError, InvalidRequest, ModelError, ModelUnreachable
from tests.services.model_server import Reply, error, model_server

pytest.importorskip("openai", reason="openai is not installed: pip install 'rh_agents[openai]'")

from rh_agents.llms import AzureChat, OpenAIChat


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def failure_of(base_url: str) -> ModelError:
    """What a question to a server ends with."""
    async with OpenAIChat("m", base_url=base_url, api_key="none", retry=1) as model:
        with pytest.raises(ModelError) as caught:
            await model.ask("Hello")
    return caught.value


def refused_with(reply: Reply) -> tuple[ModelError, str]:
    """What a question ends with that is answered so, and the address of the server."""

    async def main() -> tuple[ModelError, str]:
        async with model_server(reply) as server:
            return await failure_of(server.base_url.replace("http://", "http://me:secret-word@")), server.base_url

    return asyncio.run(main())


def not_reached() -> tuple[ModelError, str]:
    """What a question ends with to a server that is not there, and its address."""
    url = f"http://127.0.0.1:{free_port()}/v1"
    return asyncio.run(failure_of(url)), url


def test_a_server_that_is_not_there_is_named_with_what_to_check() -> None:
    failure, url = not_reached()
    assert type(failure) is ModelUnreachable
    assert str(failure).startswith(f"m: cannot connect to {url}/chat/completions (")
    assert str(failure).endswith("): is the server running, and is base_url= right?")
    assert "\n" not in str(failure)


@pytest.mark.parametrize(
    ("reply", "kind", "remedy"),
    [
        (error(401, "Incorrect key."), AccessDenied, "the key (api_key=) and the server (base_url=)"),
        (error(403, "Not yours."), AccessDenied, "the key (api_key=) and the server (base_url=)"),
        (error(404, "No such model."), InvalidRequest, "the model's name and the server (base_url=)"),
        (Reply({"detail": "Not Found"}, 404), InvalidRequest, "the model's name and the server (base_url=)"),
        (Reply({"detail": "Method Not Allowed"}, 405), InvalidRequest, "the server (base_url=)"),
    ],
)
def test_a_refusal_that_is_mostly_a_mistake_says_where_it_came_from_and_what_to_check(
    reply: Reply, kind: type[ModelError], remedy: str
) -> None:
    failure, url = refused_with(reply)
    assert type(failure) is kind
    assert str(failure).endswith(f"(asked {url}/chat/completions: check {remedy})")
    assert "secret-word" not in str(failure)


def test_other_refusals_are_what_the_server_says() -> None:
    assert str(refused_with(error(400, "Too hot."))[0]) == "m: 400: Too hot."


def test_the_traceback_of_a_refusal_does_not_go_through_the_client() -> None:
    for failure, _ in (refused_with(error(401, "Incorrect key.")), not_reached()):
        assert not any("site-packages" in line for line in traceback.format_exception(failure))


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "localhost:8000/v1", "//host/v1", "ftp://host/v1", "http://", " "]
)
def test_an_address_that_is_no_url_is_refused_where_it_is_written(url: str) -> None:
    with pytest.raises(DefinitionError, match="with its scheme, such as http://"):
        OpenAIChat("m", base_url=url, api_key="none")


def test_an_address_that_is_refused_shows_no_credentials() -> None:
    with pytest.raises(DefinitionError, match=r"such as http://host/v1 or https://host/v1$") as caught:
        OpenAIChat("m", base_url="me:secret-word@host/v1?key=secret-word", api_key="none")
    assert "secret-word" not in str(caught.value)


def test_an_endpoint_at_azure_without_its_scheme_is_refused_where_it_is_written() -> None:
    with pytest.raises(DefinitionError, match=r"such as http://r.openai.azure.com or https://r.openai.azure.com"):
        AzureChat("d", "r.openai.azure.com", "key")


def test_an_address_in_the_environment_is_looked_at_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "127.0.0.1:8000/v1")

    async def ask() -> str:
        return await OpenAIChat("m", api_key="none").ask("Hello")

    with pytest.raises(DefinitionError, match=r"OPENAI_BASE_URL must be a URL .* http://127.0.0.1:8000/v1 or"):
        asyncio.run(ask())
