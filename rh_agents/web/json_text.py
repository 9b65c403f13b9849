"""The one border through which everything goes that a browser gets: there secrets are taken out."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from rh_agents.core.redaction import redact

__all__ = ["json_text", "shown"]


def shown(data: Any) -> Any:
    """The same data without secrets in its texts."""
    if isinstance(data, str):
        return redact(data)
    if isinstance(data, dict):
        return {redact(str(name)): shown(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [shown(each) for each in data]
    return data


def json_text(data: Any) -> bytes:
    """JSON for a browser: without secrets; what is not finite is null, as JSON has no word for it."""
    return to_json(shown(data), inf_nan_mode="null")
