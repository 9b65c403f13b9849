"""The tool calls of an answer, whole and bit by bit. Where two calls could be mixed, an error is better.

The protocol numbers the calls of a stream, and names each in its first piece. Servers differ: some number all of them 0
or none at all, some repeat the name, some give no ids and send each call whole. To join two calls is to call a tool
with the arguments of another one, so a piece begins a new call wherever it can: with an id that no call has yet, with a
number that no call has yet, with another name than the call so far, and with a name and arguments though that one is
whole, where there is no id or (Gemini) the same id for all calls of an answer.

Ids tell the model later which result belongs to which call. So a call without one, or with that of another call, gets
an id of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from rh_agents.core.chat.messages import ChatDelta, ToolCall
from rh_agents.llms._server_json import kind_of, listed, object_at, text_at, unreadable


def tool_calls_in(message: Mapping[str, Any], gives_back: Sequence[str]) -> tuple[ToolCall, ...]:
    """The tool calls of a whole message, with the fields of each that the provider wants to get back.

    Raises:
        UnreadableAnswer: one of them has not the form that the protocol asks for.
    """
    calls = listed(message.get("tool_calls"), "tool_calls")
    if not calls and message.get("function_call"):  # as it was before there could be several
        calls = [{"function": message["function_call"]}]
    return _told_apart([_whole(object_at(call, "a tool call"), gives_back) for call in calls])


def _whole(call: Mapping[str, Any], gives_back: Sequence[str]) -> ToolCall:
    function = object_at(call.get("function"), "function")
    return _made(
        text_at(call.get("id"), "id"),
        text_at(function.get("name"), "name"),
        _arguments(function.get("arguments")),
        {name: call[name] for name in gives_back if call.get(name)},
    )


def _made(call_id: str, name: str, arguments: str, provider: dict[str, Any]) -> ToolCall:
    if not name:
        raise unreadable("a tool call names no tool")
    call = ToolCall(id=call_id, name=name, arguments=arguments)
    return call.model_copy(update={"provider": provider}) if provider else call


def _told_apart(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """The calls with an id for each. One that is said once more, in every point the same, is one call."""
    found: list[ToolCall] = []
    taken: dict[str, list[ToolCall]] = {}
    given = {call.id for call in calls}
    for call in calls:
        same_id = taken.setdefault(call.id, []) if call.id else []
        if call in same_id:
            continue
        own = call if call.id and not same_id else call.model_copy(update={"id": _free_id(len(found), given)})
        given.add(own.id)
        same_id.append(call)
        found.append(own)
    return tuple(found)


def _free_id(number: int, given: set[str]) -> str:
    found = f"call_{number}"
    while found in given:
        found += "_"
    return found


def _arguments(value: Any) -> str:
    """The arguments of a tool call, or a piece of them, as the text of JSON. Some servers have read them already."""
    return to_json(value).decode() if isinstance(value, dict) else text_at(value, "arguments")


def _goes_on_behind_its_end(arguments: str) -> bool:
    """Whether something follows a whole object: a piece of another call, then, which that one lacks."""
    try:
        value, end = json.JSONDecoder().raw_decode(arguments.lstrip())
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(arguments.lstrip()[end:].strip())


class _CallInPieces:
    """A tool call that comes bit by bit."""

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments = ""
        self.provider: dict[str, Any] = {}

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are complete, so that nothing can be added to them."""
        try:
            return isinstance(from_json(self.arguments), dict)
        except ValueError:
            return False

    def is_another(self, name: str, arguments: str) -> bool:
        """Whether a piece with this name and these arguments is the beginning of another call."""
        if not name or not self.name:
            return False
        return name != self.name or bool(arguments and self.is_whole)


class CallsInPieces:
    """Which piece belongs to which tool call.

    Args:
        gives_back: the fields of a call that the provider wants to get back.
    """

    def __init__(self, gives_back: Sequence[str] = ()) -> None:
        self._calls: list[_CallInPieces] = []
        self._gives_back = gives_back

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Mapping[str, Any]) -> ChatDelta:
        """Take in the next piece; what is new in it.

        Raises:
            UnreadableAnswer: it has not the form that the protocol asks for.
        """
        index = call.get("index")
        if index is not None and type(index) is not int:
            raise unreadable(f"the index of a tool call is {kind_of(index)}, not a number")
        function = object_at(call.get("function") or {}, "function")
        name, arguments = text_at(function.get("name"), "name"), _arguments(function.get("arguments"))
        call_id = text_at(call.get("id"), "id")
        again = self._said_before(call_id, name, arguments)
        if again is not None:
            return ChatDelta(tool_index=again)
        found = self._call_of(call_id, index, name, arguments)
        found.name = found.name or name
        found.arguments += arguments
        found.provider.update({field: call[field] for field in self._gives_back if call.get(field)})
        return ChatDelta(tool_index=self._calls.index(found), tool_name=name, arguments=arguments)

    def _said_before(self, call_id: str, name: str, arguments: str) -> int | None:
        """Which call it is that a server says as a whole once more; to make it twice would be a deed too many."""
        for index, call in enumerate(self._calls):
            if call_id and arguments and (call.id, call.name, call.arguments) == (call_id, name, arguments):
                return index if call.is_whole else None
        return None

    def _call_of(self, call_id: str, index: int | None, name: str, arguments: str) -> _CallInPieces:
        """The call to which such a piece belongs."""
        same = self._calls if index is None else [call for call in self._calls if call.index == index]
        if call_id:
            late = same[-1:] if same and not same[-1].id else []  # its id comes after its name
            same_id = [call for call in self._calls if call.id == call_id]
            same = [call for call in same_id if None in (index, call.index) or index == call.index]
            # A server may count its pieces instead of its calls: only with a name is another number another call.
            same = same or ([] if name else same_id) or late
        elif same and same[-1].id and name not in ("", same[-1].name) and index is not None:
            raise unreadable(f"a tool call is named {same[-1].name!r} first, and then {name!r}")
        if not same or same[-1].is_another(name, arguments):
            same = [_CallInPieces(index)]
            self._calls += same
        same[-1].id = same[-1].id or call_id
        return same[-1]

    def whole(self) -> tuple[ToolCall, ...]:
        """All of them, in the order of their numbers, and of their beginnings where those are equal or missing.

        Raises:
            UnreadableAnswer: one of them has no name.
        """
        if any(_goes_on_behind_its_end(call.arguments) for call in self._calls):
            raise unreadable(
                "a tool call goes on behind the end of its arguments: calls were mixed, none can be trusted"
            )
        calls = sorted(self._calls, key=lambda call: call.index or 0)
        return _told_apart([_made(call.id, call.name, call.arguments, call.provider) for call in calls])
