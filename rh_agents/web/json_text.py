"""The one border through which everything goes that a browser gets: there secrets are taken out."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from rh_agents.core.redaction import redact

__all__ = ["encodable", "json_text", "shown"]


def shown(data: Any) -> Any:
    """The same data without secrets in its texts, which can all be encoded."""
    if isinstance(data, str):
        return encodable(redact(data))
    if isinstance(data, dict):
        return {encodable(redact(str(name))): shown(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [shown(each) for each in data]
    return data


def encodable(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which a store keeps and no encoding can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def json_text(data: Any) -> bytes:
    """JSON for a browser: without secrets; what is not finite is null, as JSON has no word for it."""
    return to_json(shown(data), inf_nan_mode="null")
