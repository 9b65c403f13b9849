"""What the code of an actor is: of its function, and of the prompts and settings of models and agents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from rh_agents.core._base.sources import code_digest, digest_of
from rh_agents.core.actors import LLM, Agent, BaseActor

__all__ = ["codes_of"]

_SETTINGS: Final = (
    "instructions", "tool_choice", "max_turns", "temperature", "reasoning_effort", "top_p", "max_tokens", "seed",
    "extra", "model", "parallel_tool_calls", "max_result",
)  # fmt: skip
"""What decides about answers, besides the input."""


def codes_of(actors: Iterable[BaseActor]) -> dict[str, str | None]:
    """Digests of the code of actors, by name and version: `fetch@1`; None for what cannot be seen.

    Of several actors of one name and version all count.
    """
    found: dict[str, str | None] = {}
    for actor in actors:
        code = _code_of(actor)
        label = f"{actor.name}@{actor.recorded_version}"
        known = found.get(label, code)
        found[label] = known if known == code else _both(known, code)
    return found


def _both(one: str | None, other: str | None) -> str | None:
    return None if one is None or other is None else digest_of("".join(sorted((one, other))))


def _code_of(actor: BaseActor) -> str | None:
    """A digest of one; None if its function has no source that can be read."""
    settings = _settings_of(actor)
    module = getattr(actor.handler, "__module__", None) or ""
    if module.partition(".")[0] == __name__.partition(".")[0]:  # the model decides, or is asked, or another process
        return digest_of(settings) if settings else None
    code = code_digest(actor.handler)
    return None if code is None else digest_of(f"{code}{settings}")


def _settings_of(actor: BaseActor) -> str:
    """Prompts and settings as text; "" for a function."""
    if not isinstance(actor, Agent | LLM):
        return ""
    given = {name: getattr(actor, name, None) for name in _SETTINGS}
    texts = [f"{name}={value!r}" for name, value in given.items() if value not in (None, "", {})]
    if isinstance(actor, Agent):
        texts += [f"tool={tool.name}:{tool.description}" for _, tool in actor.tools]
        texts += [f"handoff={each.name}" for each in actor.handoffs]
        texts += [f"output={_shape(actor.output)}"] if actor.output is not None else []
        texts += [f"llm={_settings_of(actor.llm)}"] if actor.llm is not None else []
    return "\n".join(texts)


def _shape(output: Any) -> str:
    """The type of an answer as models see it."""
    fields = getattr(output, "model_fields", None)
    return (
        repr(output) if fields is None else f"{output.__qualname__} {sorted((n, repr(f)) for n, f in fields.items())}"
    )
