"""Messages in the form of OpenAI's chat protocol, as those of this library.

Programs that come from another library have their conversations as dictionaries: `{"role": "user", "content": ...}`.
They are read wherever a message is taken, since `Message` reads them itself. What is in this library's own form stays
as it is, so there is no harm in reading twice.

Taken over are texts, images, files, tool calls, and what a provider wants back with its own messages (its thoughts).
`developer` is OpenAI's new name for `system`. A refusal is what the model said. Left out is what says nothing to a
model: `name`, `audio`, `annotations`, and ids of messages. Anything else is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["own_form"]

_LEFT_OUT = ("name", "audio", "annotations", "id", "object", "status")
_GIVEN_BACK = ("reasoning_content", "reasoning", "reasoning_details", "thinking_blocks")
"""What providers want to get back with a message of the assistant, under the name that it has there."""


def own_form(given: Any) -> Any:
    """A message as the fields of a `Message`; what is no mapping stays what it is.

    Raises:
        ValueError: it has a part for which there is no room here.
    """
    if not isinstance(given, Mapping):
        return given
    data = {name: value for name, value in given.items() if name not in _LEFT_OUT}
    role = data.get("role")
    if role == "developer":
        data["role"] = "system"
    if role == "function" or data.get("function_call") is not None:
        raise ValueError("function_call and the role 'function' are an old form: use tool_calls and the role 'tool'")
    data.pop("function_call", None)
    refusal = data.pop("refusal", None)
    if data.get("content") is not None:
        data["content"] = _content(data["content"])
    elif "content" in data or refusal:
        data["content"] = refusal or ""
    if "tool_calls" in data:  # a field that was not given is not set, as recorded messages have it
        data["tool_calls"] = tuple(_tool_call(call) for call in data["tool_calls"] or ())
    back = {name: data.pop(name) for name in _GIVEN_BACK if name in data}
    back = {name: value for name, value in back.items() if value}
    if back and role == "assistant":
        data["provider"] = {**back, **(data.get("provider") or {})}
    return data


def _content(content: Any) -> Any:
    if isinstance(content, list | tuple):
        return tuple(_part(part) for part in content)
    return content


def _part(part: Any) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        return part
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text"):
        return {"type": "text", "text": part.get("text", "")}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal", "")}
    if kind in ("image_url", "input_image"):
        image = part.get("image_url")
        image = {"url": image} if isinstance(image, str) else dict(image or {})
        detail = image.get("detail", part.get("detail"))
        return {"type": "image", "url": image.get("url"), **({} if detail is None else {"detail": detail})}
    if kind in ("file", "input_file"):
        return _file(part.get("file") or part)
    if kind in ("image", "document"):  # this library's own
        return part
    raise ValueError(f"a part of the type {kind!r} cannot be sent: text, image_url and file can")


def _file(file: Mapping[str, Any]) -> dict[str, Any]:
    if not file.get("file_data"):
        raise ValueError("a file is sent with its bytes: file_data is needed, an uploaded file's id means nothing here")
    return {"type": "document", "url": file["file_data"], "name": file.get("filename") or ""}


def _tool_call(call: Any) -> Any:
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        return call
    function = call["function"]
    arguments = function.get("arguments", "")
    back = {name: value for name, value in call.items() if name not in ("id", "type", "index", "function")}
    found = {
        "id": call.get("id") or "",
        "name": function.get("name"),
        "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
    }
    return {**found, "provider": back} if back else found
