"""What spans say of actors, groups and usage: the same of a run under way and of one in its journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rh_agents.core.actors import BaseActor
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.redaction import without_secrets
from rh_agents.core.types import EventType
from rh_agents.core.usage import Usage
from rh_agents.telemetry import _names as names

__all__ = ["NOT_WORK", "OPERATIONS", "of_actor", "of_group", "of_usage", "sendable", "sendable_values", "shown"]

OPERATIONS: Mapping[EventType, str] = {
    EventType.AGENT_CALL: names.INVOKE_AGENT,
    EventType.TOOL_CALL: names.EXECUTE_TOOL,
    EventType.LLM_CALL: names.CHAT,
}
NOT_WORK: Final = frozenset({EventType.QUESTION, EventType.WAIT})
"""What waits for people, times and events may wait for days, and in another process: that is no open span."""


def sendable(text: str) -> str:
    """A text as UTF-8 can have it. Half a character, as names of files have it, would cost a receiver other spans."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(name: str) -> str:
    """The name of an actor, a group or a model: without secrets, and `sendable`."""
    return sendable(without_secrets(name))


def sendable_values(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes whose texts are `sendable`."""
    return {name: sendable(value) if isinstance(value, str) else value for name, value in attributes.items()}


def of_actor(actor: BaseActor, operation: str | None) -> dict[str, Any]:
    """Who is called, in the names of the conventions. (Of a journal, the actor has a name and a version only.)"""
    if operation is None:
        return {}
    found: dict[str, Any] = {names.OPERATION: operation}
    if operation == names.INVOKE_AGENT:
        found[names.AGENT_NAME] = shown(actor.name)
        found[names.AGENT_VERSION] = shown(actor.version)
    elif operation == names.EXECUTE_TOOL:
        found[names.TOOL_NAME] = shown(actor.name)
        found[names.TOOL_TYPE] = "function"
    elif operation == names.CHAT:
        found[names.REQUEST_MODEL] = shown(str(getattr(actor, "model", actor.name)))
        provider = getattr(getattr(actor, "provider", None), "name", None)
        if isinstance(provider, str):
            found[names.PROVIDER] = provider.lower()
    return found


def of_group(group: ParallelEventGroup) -> dict[str, Any]:
    """What a group came to."""
    found: dict[str, Any] = {
        names.STATUS: group.status.value,
        names.GROUP_MEMBERS: group.enrolled,
        names.GROUP_COMPLETED: group.completed,
        names.GROUP_FAILED: group.failed,
        names.GROUP_CANCELLED: group.cancelled,
        names.RECOVERED: group.recovered,
        names.RETRIES: group.retries,
    }
    if group.ending is not None:
        found[names.GROUP_ENDING] = group.ending.cause.value
    return found


def of_usage(usage: Usage, *, is_chat: bool) -> dict[str, Any]:
    """What a call has used itself. Sums over the spans of questions to models are what these have cost, each once."""
    if not is_chat:
        return {
            names.USED_INPUT: usage.input_tokens,
            names.USED_OUTPUT: usage.output_tokens,
            names.COST: usage.cost,
        }
    found: dict[str, Any] = {
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.COST: usage.cost,
    }
    if usage.cached_tokens:
        found[names.CACHE_READ_TOKENS] = usage.cached_tokens
    if usage.cache_write_tokens:
        found[names.CACHE_WRITE_TOKENS] = usage.cache_write_tokens
    return found
