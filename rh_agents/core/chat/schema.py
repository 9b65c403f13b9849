"""JSON schemas: of the tools that models may call, from signatures and docstrings, and of answers of a type."""

from __future__ import annotations

import inspect
import re
import weakref
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from rh_agents.core.actors import BaseActor, Tool
from rh_agents.core.chat._json_in_text import read_json_in
from rh_agents.core.chat.messages import ToolSpec
from rh_agents.core.errors import DefinitionError

__all__ = ["AnswerType", "parameter_descriptions", "problems", "spec_of", "strict_schema", "summary_of"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_SECTION = re.compile(r"^(Args|Arguments|Parameters):\s*$")
_ANY_SECTION = re.compile(r"^[A-Z][A-Za-z ]+:\s*$")
_ENTRY = re.compile(r"^(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_FIELD = re.compile(r"^\s*:param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)$")


_made: dict[int, ToolSpec] = {}
"""By the identity of the actor, as long as it lives: making a schema takes longer than all the rest of a call."""


def _spec(actor: BaseActor) -> ToolSpec:
    if not _NAME.fullmatch(actor.name):
        raise DefinitionError(
            f"a model cannot call a tool named {actor.name!r}: names have 1 to 64 letters, digits, _ and -"
        )
    return ToolSpec(name=actor.name, description=summary_of(actor.description), parameters=_parameters(actor))


def spec_of(actor: BaseActor) -> ToolSpec:
    """A tool, or an agent that serves as one, as a model sees it.

    Raises:
        DefinitionError: models do not take its name, or there is no JSON schema for one of its parameters.
    """
    made = _made.get(id(actor))
    if made is None:
        made = _made[id(actor)] = _spec(actor)
        weakref.finalize(actor, _made.pop, id(actor), None)
    return made


def _parameters(actor: BaseActor) -> dict[str, Any]:
    if isinstance(actor, Tool) and actor.parameters is not None:
        return actor.parameters
    if actor.input_model is not None:
        return _object_schema(actor, TypeAdapter(actor.input_model))
    actor.signature.expect_names(actor.name)
    model = actor.signature.input_model(f"{_NOT_IN_NAMES.sub('_', actor.name)}_input")
    schema = _object_schema(actor, TypeAdapter(model))
    described = parameter_descriptions(actor.description)
    for name, each in schema.get("properties", {}).items():
        if name in described and "description" not in each:
            each["description"] = described[name]
    return schema


def _object_schema(actor: BaseActor, adapter: TypeAdapter[Any]) -> dict[str, Any]:
    try:
        schema = adapter.json_schema()
    except PydanticUserError as error:
        raise DefinitionError(
            f"{actor.name}: no JSON schema can be made of its parameters, so no model can call it; mark what is not "
            f"data `Annotated[..., Injected]` ({error.message.splitlines()[0]})"
        ) from error
    if schema.get("type") != "object" and "$ref" not in schema:
        raise DefinitionError(f"{actor.name}: models call tools with named arguments, so its input must be a model")
    schema.pop("title", None)
    for each in schema.get("properties", {}).values():
        each.pop("title", None)
    return schema


def summary_of(docstring: str) -> str:
    """A docstring without the sections that begin with `Args:` and the like."""
    lines = []
    for line in inspect.cleandoc(docstring).splitlines():
        if _ANY_SECTION.match(line) or _FIELD.match(line):
            break
        lines.append(line)
    return "\n".join(lines).strip()


def parameter_descriptions(docstring: str) -> dict[str, str]:
    """What a docstring says of each parameter, in the style of Google (`Args:`) or of Sphinx (`:param x:`)."""
    found: dict[str, str] = {}
    name: str | None = None
    indent = ""
    is_inside = False
    for line in inspect.cleandoc(docstring).splitlines():
        if match := _FIELD.match(line):
            name, is_inside = str(match[1]), False
            found[name] = str(match[2])
        elif _SECTION.match(line):
            name, is_inside, indent = None, True, ""
        elif line.strip() and not line[0].isspace():
            name, is_inside = (None, False) if is_inside or not line.startswith(" ") else (name, is_inside)
        elif is_inside and (match := _ENTRY.match(line)) and (not indent or match[1] == indent):
            indent, name = str(match[1]), str(match[2])
            found[name] = str(match[3])
        elif name is not None and line.strip():
            found[name] = f"{found[name]} {line.strip()}".strip()
    return {name: text.strip() for name, text in found.items() if text.strip()}


class AnswerType:
    """A type whose values a model shall answer with. What is no object is wrapped into one, as providers want it."""

    def __init__(self, output: Any, name: str | None = None) -> None:
        self.output = output
        self.name: str = _NOT_IN_NAMES.sub("_", name or str(getattr(output, "__name__", "answer")))[:64] or "answer"
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(output)
            schema = self._adapter.json_schema()
        except PydanticUserError as error:
            raise DefinitionError(f"no model can answer with a {output!r}: {error.message.splitlines()[0]}") from error
        self._is_wrapped = schema.get("type") != "object" and not _is_object_ref(schema)
        if self._is_wrapped:
            definitions = schema.pop("$defs", None)
            schema = {"type": "object", "properties": {"answer": schema}, "required": ["answer"]}
            if definitions:
                schema["$defs"] = definitions
        self.schema: dict[str, Any] = _closed(schema)

    def read(self, text: str) -> Any:
        """The value that a model's text stands for: its JSON, whatever stands around it.

        Raises:
            ValueError: there is no JSON in it, it does not fit, or there are several values that do; a
                `ValidationError` tells the places.
        """
        return read_json_in(text, self._value, self.name)

    def _value(self, text: str) -> Any:
        try:
            return self._validated(text)
        except ValidationError as error:
            try:
                without = _without_nulls(from_json(text), error)
                return self._validated(to_json(without).decode())
            except ValueError:
                raise error from None

    def _validated(self, text: str) -> Any:
        if not self._is_wrapped:
            return self._adapter.validate_json(text)
        data = from_json(text)
        if not isinstance(data, dict) or "answer" not in data:
            raise ValueError('an object with the one field "answer" is wanted')
        return self._adapter.validate_python(data["answer"], strict=False)


def _closed(schema: Any) -> Any:
    """The schema without room for fields that no one asked for: small models fill it until they have to stop."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(each) for name, each in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def _is_object_ref(schema: dict[str, Any]) -> bool:
    reference = schema.get("$ref", "")
    definition = schema.get("$defs", {}).get(reference.rpartition("/")[2], {})
    return bool(definition.get("type") == "object")


def _without_nulls(data: Any, error: ValidationError) -> Any:
    """The data without the nulls that do not fit: models write null where they have nothing to say."""
    for item in error.errors(include_url=False, include_context=False):
        if item["input"] is not None or not item["loc"]:
            continue
        *path, last = item["loc"]
        place = data
        try:
            for step in path:
                place = place[step]
            del place[last]
        except (KeyError, IndexError, TypeError):
            continue  # the place names a type, not an entry
    return data


def strict_schema(schema: Any) -> Any:
    """The schema in the form that providers want who hold answers to it: every property is required.

    What could be left out may be null instead; `AnswerType.read` takes such a null for nothing.
    (https://platform.openai.com/docs/guides/structured-outputs)
    """
    if isinstance(schema, list):
        return [strict_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: strict_schema(each) for name, each in schema.items() if name != "default"}
    properties = strict.get("properties")
    if isinstance(properties, dict) and strict.get("type") == "object":
        required = strict.get("required", [])
        strict["properties"] = {
            name: each if name in required or _takes_null(each) else {"anyOf": [each, {"type": "null"}]}
            for name, each in properties.items()
        }
        strict["required"] = list(properties)
        strict["additionalProperties"] = False
    return strict


def _takes_null(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    return schema.get("type") == "null" or any(_takes_null(each) for each in schema.get("anyOf", ()))


def problems(error: ValueError) -> str:
    """What is wrong with an answer, for the model: a line for each place."""
    if not isinstance(error, ValidationError):
        return str(error)
    lines = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        place = ".".join(str(part) for part in item["loc"])
        lines.append(f"{place}: {item['msg']}" if place else item["msg"])
    return "\n".join(lines)
