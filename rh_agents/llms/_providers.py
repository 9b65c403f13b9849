"""What providers of the chat protocol of OpenAI do differently, as a table: a row for each, found by the host. And the
same for the Messages API of Anthropic, of which only its own provider is known.

What is here is data. Code asks a `Provider` for a property and never for its name; a model's own settings stand above
it. A server that no row knows is `UNKNOWN`: its properties are what the servers that people run themselves (vLLM,
llama.cpp, Ollama, LM Studio) have in common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import urlsplit

OutputMode = Literal["native", "tool", "prompt"]
"""How an answer of a type is asked for; see `rh_agents.llms._output_modes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider.

    Attributes:
        name: by which a program says that a server speaks this dialect.
        hosts: the ends of the names of its hosts; "openai.azure.com" stands for all hosts below it as well. What people
            run themselves has none.
        key_variable: the environment variable in which its own documents look for a key; "" for none.
        length_field: what it calls the most tokens that an answer may have.
        field_names: what it calls other fields of a request; None for one that it refuses.
        call_stand_in: the fields that the first tool call of a message gets if another model made it, where it would be
            refused without what only the provider's own models give.
        call_ids: the form that it wants the ids of tool calls to have, as a regular expression; "" for any.
        assistant_after_tools: whether it refuses a message of the user that follows one of a tool (Mistral's error
            3230, "Unexpected role 'user' after role 'tool'"), so that the assistant has to say something between them.
        output: how an answer of a type is asked for.
        output_with_tools: the same where there are tools as well.
        shows_schema: whether the provider itself shows the schema of a native output to the model. Elsewhere it is only
            a grammar, and the schema goes to the model in words.
        thoughts: the fields of a message that may have the model's thoughts as text; the first one with some counts.
        gives_back: the fields of a message with tool calls that it wants to get back.
        gives_back_in_calls: the same of the tool calls in it.
        finish_reasons: why an answer ended, in words that only this provider has.
    """

    name: str
    hosts: tuple[str, ...] = ()
    key_variable: str = ""
    length_field: str = "max_tokens"
    field_names: Mapping[str, str | None] = field(default_factory=dict)
    call_stand_in: Mapping[str, Any] = field(default_factory=dict)
    call_ids: str = ""
    assistant_after_tools: bool = False
    output: OutputMode = "native"
    output_with_tools: OutputMode = "tool"
    shows_schema: bool = True
    thoughts: tuple[str, ...] = ("reasoning_content", "reasoning")
    gives_back: tuple[str, ...] = ()
    gives_back_in_calls: tuple[str, ...] = ()
    finish_reasons: Mapping[str, str] = field(default_factory=dict)

    def call_id(self, call_id: str) -> str:
        """The id of a tool call in a form that the provider takes: the call may have been made by another model."""
        if not self.call_ids or re.fullmatch(self.call_ids, call_id, re.DOTALL):
            return call_id
        return sha256(call_id.encode()).hexdigest()[:9]


UNKNOWN = Provider(
    name="unknown",
    shows_schema=False,
    # What a server has sent is given back to the same server: proxies (LiteLLM) and open models want it.
    gives_back=("reasoning_content", "reasoning_details", "thinking_blocks"),
    gives_back_in_calls=("extra_content",),
)
OPENAI = Provider(
    name="OpenAI",
    hosts=("api.openai.com",),
    length_field="max_completion_tokens",
    output_with_tools="native",
    call_ids=r".{1,40}",
)
PROVIDERS: tuple[Provider, ...] = (
    OPENAI,
    Provider(
        name="Azure",
        hosts=("openai.azure.com",),
        call_ids=r".{1,40}",
        length_field="max_completion_tokens",
        output_with_tools="native",
    ),
    Provider(name="Anthropic", hosts=("api.anthropic.com",), key_variable="ANTHROPIC_API_KEY", output="tool"),
    Provider(
        name="DeepSeek",
        hosts=("api.deepseek.com",),
        key_variable="DEEPSEEK_API_KEY",
        output="prompt",
        gives_back=("reasoning_content",),
    ),
    Provider(
        name="Gemini",
        hosts=("generativelanguage.googleapis.com",),
        key_variable="GEMINI_API_KEY",
        gives_back=("extra_content",),
        gives_back_in_calls=("extra_content",),
        # ai.google.dev/gemini-api/docs/thought-signatures, "transferring history from a different model"
        call_stand_in={"extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}},
    ),
    Provider(name="Groq", hosts=("api.groq.com",), key_variable="GROQ_API_KEY", length_field="max_completion_tokens"),
    Provider(
        name="Mistral",
        hosts=("api.mistral.ai",),
        key_variable="MISTRAL_API_KEY",
        call_ids=r"[A-Za-z0-9]{9}",
        field_names={"seed": "random_seed", "stream_options": None},  # it tells the usage without being asked
        assistant_after_tools=True,
    ),
    Provider(
        name="OpenRouter",
        hosts=("openrouter.ai",),
        key_variable="OPENROUTER_API_KEY",
        gives_back=("reasoning_details",),
    ),
    Provider(name="xAI", hosts=("api.x.ai",), key_variable="XAI_API_KEY", length_field="max_completion_tokens"),
    Provider(
        name="Together",
        hosts=("api.together.xyz", "api.together.ai"),
        key_variable="TOGETHER_API_KEY",
        finish_reasons={"eos": "stop"},
    ),
    Provider(
        name="Fireworks",
        hosts=("api.fireworks.ai",),
        key_variable="FIREWORKS_API_KEY",
        gives_back=("reasoning_content",),
    ),
    replace(UNKNOWN, name="vLLM"),
    replace(UNKNOWN, name="llama.cpp"),
    replace(UNKNOWN, name="Ollama", hosts=("ollama.com",)),
    replace(UNKNOWN, name="LM Studio"),
    replace(UNKNOWN, name="LiteLLM"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WireProtocol:
    """A protocol in which models are asked, and who speaks it.

    Attributes:
        own: the provider whose protocol it is, which its client asks where nothing else is said.
        providers: all that are known, `own` among them.
        unknown: what other servers have in common.
        endpoint: the URLs of `own`, as a regular expression.
        path: the end of the path of requests, which the client adds to a URL.
        url_variable: the environment variable in which the client looks for another URL.
    """

    own: Provider
    providers: tuple[Provider, ...]
    unknown: Provider
    endpoint: str
    path: str
    url_variable: str

    def at(self, base_url: str | None) -> Provider:
        """The provider whose host is in a base URL. None is the one whose protocol it is."""
        if base_url is None:
            return self.own
        host = (urlsplit(base_url).hostname or "").lower()
        for provider in self.providers:
            if any(host == end or host.endswith(f".{end}") for end in provider.hosts):
                return provider
        return self.unknown

    def named(self, name: str) -> Provider:
        """The provider of this name, however it is spelled: "LM Studio" and "lm_studio" are the same.

        Raises:
            ValueError: there is none; the message lists all names.
        """
        for provider in self.providers:
            if _letters(provider.name) == _letters(name):
                return provider
        raise ValueError(f"dialect={name!r}: known are {', '.join(provider.name for provider in self.providers)}")


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


CHAT = WireProtocol(
    own=OPENAI,
    providers=PROVIDERS,
    unknown=UNKNOWN,
    endpoint=r"https://api\.openai\.com(/v1)?",
    path="/chat/completions",
    url_variable="OPENAI_BASE_URL",
)
"""The chat protocol of OpenAI."""

_IDS = r"[A-Za-z0-9_-]+"
ANTHROPIC = Provider(name="Anthropic", hosts=("api.anthropic.com",), output_with_tools="native", call_ids=_IDS)
MESSAGES = WireProtocol(
    own=ANTHROPIC,
    providers=(ANTHROPIC,),
    # Others that speak it (proxies, vLLM, llama.cpp) know tools, and pass over the field for structured outputs.
    unknown=Provider(name="unknown", output="tool", call_ids=_IDS),
    endpoint=r"https://api\.anthropic\.com(/v1)?",
    path="/messages",
    url_variable="ANTHROPIC_BASE_URL",
)
"""The Messages API of Anthropic."""
