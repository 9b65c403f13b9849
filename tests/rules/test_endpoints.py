"""Which URLs are the same server."""

from __future__ import annotations

import pytest

from rh_agents.llms._endpoints import endpoint_of, given_or_environment
from rh_agents.llms._providers import CHAT, MESSAGES, WireProtocol


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        (None, ""),
        ("https://api.openai.com/v1", ""),
        ("https://API.openai.com:443/v1/", ""),
        ("https://api.openai.com", ""),
        ("http://api.openai.com/v1", "http://api.openai.com/v1"),
        ("https://api.openai.com.example/v1", "https://api.openai.com.example/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("HTTP://LocalHost:80/v1///", "http://localhost/v1"),
        ("http://localhost:8000//v1", "http://localhost:8000/v1"),
        ("https://user:secret@gate.example.com/openai/?key=secret#top", "https://gate.example.com/openai"),
        ("https://gate.example.com./V1", "https://gate.example.com/V1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http://host:99999/v1", "http://host/v1"),
        ("gate.example.com/v1", "://gate.example.com/v1"),
    ],
)
def test_a_server_has_one_form_of_its_url(url: str | None, endpoint: str) -> None:
    assert endpoint_of(url, CHAT.endpoint) == endpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        (None, ""),
        ("https://api.anthropic.com", ""),
        ("https://API.anthropic.com:443/v1/", ""),
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("http://api.anthropic.com", "http://api.anthropic.com"),
        ("https://api.anthropic.com.example", "https://api.anthropic.com.example"),
        ("https://user:secret@gate.example.com/anthropic?key=secret", "https://gate.example.com/anthropic"),
    ],
)
def test_only_the_endpoint_of_the_provider_whose_protocol_it_is_has_no_name(url: str | None, endpoint: str) -> None:
    assert endpoint_of(url, MESSAGES.endpoint) == endpoint


@pytest.mark.parametrize("protocol", [CHAT, MESSAGES], ids=["OpenAI", "Anthropic"])
def test_where_no_url_is_given_the_environment_says_it(monkeypatch: pytest.MonkeyPatch, protocol: WireProtocol) -> None:
    monkeypatch.delenv(protocol.url_variable, raising=False)
    assert given_or_environment(None, protocol.url_variable) is None
    monkeypatch.setenv(protocol.url_variable, "http://127.0.0.1:1/v1")
    assert given_or_environment(None, protocol.url_variable) == "http://127.0.0.1:1/v1"
    assert given_or_environment("http://other/v1", protocol.url_variable) == "http://other/v1"
