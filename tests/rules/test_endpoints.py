"""Which URLs are the same server."""

from __future__ import annotations

import pytest

from rh_agents.llms._endpoints import endpoint_of, given_or_environment


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
    assert endpoint_of(url) == endpoint


def test_where_no_url_is_given_the_environment_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert given_or_environment(None) is None
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert given_or_environment(None) == "http://127.0.0.1:1/v1"
    assert given_or_environment("http://other/v1") == "http://other/v1"
