"""Building Pydantic models from values that this library made itself, without validating them again."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound=BaseModel)
_new = object.__new__
# The slots of every Pydantic model. Setting them through their descriptors takes half the time of `object.__setattr__`.
_set_values = BaseModel.__dict__["__dict__"].__set__
_set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__
_names: dict[type[BaseModel], set[str]] = {}


def trusted(model: type[ModelT], fields: dict[str, Any]) -> ModelT:
    """An instance of `model` that takes over `fields`, which must name every field of it.

    `BaseModel.model_construct` does the same for any input; it takes several times as long, because it looks for
    aliases and defaults, and three of these are built for every call.
    """
    instance = _new(model)
    _set_values(instance, fields)
    names = _names.get(model)
    if names is None:
        names = _names[model] = set(fields)
    _set_fields_set(instance, names)
    _set_extra(instance, None)
    _set_private(instance, None)
    return instance
