"""A model in front of others: the first one is asked, and where it fails as stated, the next one.

To programs, keys and caches it is one model; its answer says who gave it (`ChatResponse.answered_by`). Each model is
asked under its own limits, its own pause and its own price, with its own settings where the request says nothing.

Three rules keep that honest. A server that asks to wait is not waited for while there is another model to ask. Once a
piece of an answer was delivered, no one else is asked: the reader would get two answers in one. And what a failed model
used is counted like everything else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Unpack

from pydantic import PrivateAttr

from rh_agents.core._base.key_generations import ENDPOINTS, EVERY_ENDPOINT
from rh_agents.core._base.signatures import takes_settings
from rh_agents.core._run.patience import among_others, under_limits
from rh_agents.core.chat.messages import ChatRequest, ChatResponse
from rh_agents.core.chat.model import Batcher, ChatModel, ModelSettings, room_in
from rh_agents.core.chat.schema import AnswerType
from rh_agents.core.context import again
from rh_agents.core.errors import AccessDenied, DefinitionError, ModelError, QuotaExhausted, TemporaryModelError
from rh_agents.core.policies._checks import Failure, failures, is_meant
from rh_agents.core.redaction import logger
from rh_agents.core.usage import Usage

__all__ = ["Fallback"]

_log = logger("rh_agents.models")

_SETTINGS = ("temperature", "reasoning_effort", "top_p", "max_tokens", "seed")


class Fallback(ChatModel):
    """Several models as one: each is asked if those before it failed.

        model = Fallback(OpenAIChat("gpt-4.1"), OpenAIChat("qwen3", base_url=..., endpoint="my vLLM"))

    Args:
        models: in the order in which they are asked.
        on: on which failures the next one is asked: classes of errors, functions that say of an error whether it is
            meant, or a list of both. By default those that may pass, and a key or a quota that is of no use.
        settings: fields of `ChatModel`. `retry` is for the whole: each of its attempts begins with the first model.

    Its calls have keys of their own, of which the models and their settings are part. When a model fails and the next
    one is asked, the logger `rh_agents.models` warns, once for each kind of error.

    Raises:
        DefinitionError: there are fewer than two models.
    """

    _models: tuple[ChatModel, ...] = PrivateAttr(default=())
    _on: tuple[Failure, ...] = PrivateAttr(default=())
    _reported: set[tuple[int, type[ModelError]]] = PrivateAttr(default_factory=set)
    """Which of its models failed how, as far as that was reported."""

    @takes_settings(ModelSettings)
    def __init__(
        self,
        *models: ChatModel,
        on: Failure | Iterable[Failure] = (TemporaryModelError, QuotaExhausted, AccessDenied),
        **settings: Unpack[ModelSettings],
    ) -> None:
        if len(models) < 2 or not all(isinstance(model, ChatModel) for model in models):
            raise DefinitionError("a fallback has two models or more: Fallback(OpenAIChat(...), OpenAIChat(...))")
        fields: dict[str, Any] = dict(settings)
        fields.setdefault("model", " else ".join(model.model for model in models))
        fields.setdefault("name", " else ".join(model.name for model in models))
        super().__init__(**fields)
        self._models = models
        self._on = failures("on", on)

    def __repr__(self) -> str:
        return f"Fallback({', '.join(map(repr, self._models))})"

    @property
    def models(self) -> tuple[ChatModel, ...]:
        """Those behind it, in the order in which they are asked."""
        return self._models

    @property
    def recorded_version(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Its version, and everything about the models behind it that decides what they answer."""
        return self._version_of([_described(model) for model in self._models])

    @property
    def former_versions(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """There was none when keys held no endpoints at all. Then they held those of some models."""
        former = self._version_of([_formerly_described(model) for model in self._models])
        return () if former == self.recorded_version else (former,)

    @property
    def keys_since(self) -> int:
        """The generation of keys that holds the endpoints of all models behind it."""
        return EVERY_ENDPOINT

    def _version_of(self, described: list[dict[str, Any]]) -> str:
        return f"{super().recorded_version} of {json.dumps(described)}"

    @property
    def is_told_in_pieces(self) -> bool:
        """Whether one of its models does that."""
        return self.stream or any(model.is_told_in_pieces for model in self._models)

    @property
    def known_context(self) -> int | None:
        """The given one, or the smallest of its models: any of them may be asked. None if one is not known."""
        known = [model.known_context for model in self._models]
        return self.max_context or (None if None in known else min(filter(None, known)))

    @property
    def known_room(self) -> int | None:
        """Beside the answer of each of its models, whichever is asked."""
        rooms = [
            room_in(self.max_context or model.known_context, self.max_tokens or model.reserved_output)
            for model in self._models
        ]
        return None if None in rooms else min(filter(None, rooms))

    @property
    def batcher(self) -> Batcher | None:
        """What sends the requests of one of its models: then the whole takes its time."""
        return next((model.batcher for model in self._models if model.batcher is not None), None)

    def estimate(self, request: ChatRequest) -> Usage:
        """The most that one of its models will use. Where no one knows the price of one, no one knows this one's."""
        found = [model.estimate(_for(model, request)) for model in self._models]
        return Usage(
            input_tokens=max(each.input_tokens for each in found),
            output_tokens=max(each.output_tokens for each in found),
            requests=1,
            cost=math.nan if any(math.isnan(each.cost) for each in found) else max(each.cost for each in found),
        )

    async def answer(self, request: ChatRequest, answer: AnswerType | None) -> ChatResponse:
        """One attempt: ask one after the other, until one answers.

        Raises:
            ModelError: that of the last one that was asked. What those before it said are notes on it.
        """
        said: list[str] = []
        for model in self._models[:-1]:
            with among_others(self._on) as has_delivered:
                try:
                    return await self._ask(model, request, answer)
                except ModelError as error:
                    if has_delivered() or not is_meant(error, self._on):
                        raise _noted(error, said) from error.__cause__
                    said.append(f"{model.name} was asked before: {type(error).__name__}: {error}")
                    self._report(model, error)
            await again(self.estimate(request))
        try:
            return await self._ask(self._models[-1], request, answer)
        except ModelError as error:
            raise _noted(error, said) from error.__cause__

    def _report(self, model: ChatModel, error: ModelError) -> None:
        """Say once for each kind of failure that another model answers: a wrong key is else noticed on the bill."""
        what = (id(model), type(error))
        if what not in self._reported:
            self._reported.add(what)
            _log.warning("%s: %s; the next model of the fallback is asked", type(error).__name__, error)

    async def _ask(self, model: ChatModel, request: ChatRequest, answer: AnswerType | None) -> ChatResponse:
        own = _for(model, request)
        limits = () if model.batcher is not None else model.limits  # a batch has limits of its own
        response = await under_limits(limits, lambda: model.answer(own, answer), lambda: model.estimate(own))
        name = f"{model.name} at {model.endpoint_identity}" if model.endpoint_identity else model.name
        return response.model_copy(update={"answered_by": response.answered_by or name})


def _noted(error: ModelError, said: Iterable[str]) -> ModelError:
    for each in said:
        error.add_note(each)
    return error


def _for(model: ChatModel, request: ChatRequest) -> ChatRequest:
    """The request as one model gets it, with that model's own settings where it says nothing."""
    own = {name: getattr(model, name) for name in _SETTINGS if getattr(request, name) is None}
    extra = {**model.own_fields, **model.extra, **request.extra}
    return request.model_copy(update={**own, "model": model.model, "extra": extra})


def _described(model: ChatModel) -> dict[str, Any]:
    """What of a model decides its answers."""
    return {
        **_formerly_described(model),
        "version": model.recorded_version,
        **_extra({**model.own_fields, **model.extra}),
    }


def _formerly_described(model: ChatModel) -> dict[str, Any]:
    """The same as keys had it when they held the endpoints of some models only, and nothing that only some have."""
    settings = {name: value for name in _SETTINGS if (value := getattr(model, name)) is not None}
    is_new = model.keys_since > ENDPOINTS and model.former_versions
    version = model.former_versions[0] if is_new else model.recorded_version
    return {"model": model.model, "version": version, **settings, **_extra(model.extra)}


def _extra(fields: dict[str, Any]) -> dict[str, Any]:
    return {"extra": fields} if fields else {}
