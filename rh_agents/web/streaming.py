"""Streams of server-sent events of one run: everything, for programs, and text of one call, for its page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from rh_agents.core.errors import RhAgentsError
from rh_agents.core.ports import Store, status_of
from rh_agents.core.ports.streaming import WATCHED_FOR, StreamedPiece, streamed_text, watch_text
from rh_agents.core.ports.windows import call_of_run
from rh_agents.display.streamer import event_json
from rh_agents.integrations.ag_ui import AgUi
from rh_agents.stores.following import Followed, follow
from rh_agents.web.json_text import json_text
from rh_agents.web.live import SPACING

__all__ = ["FORMATS", "ag_ui_messages", "run_messages", "text_messages"]

_LINE_ENDS: Final = tuple((each.encode(), b"\\u%04x" % ord(each)) for each in "\x85\u2028\u2029")
_LOOK_AT_CALL_EVERY: Final = 1.0
"""Seconds between two looks whether a call has ended, which cost more than looks for text."""


async def run_messages(store: Store, run_id: str, after: str) -> AsyncIterator[bytes]:
    """What happens in a run until nobody executes it: `event`, `text`, and at the end `end` with its status.

    Where it cannot go on, `gone` says why.

    Each has an id; with the id of the last one (`Last-Event-ID`) the stream goes on behind it.
    """
    last = after
    try:
        async for each in follow(store, run_id, after=after):
            last = each.id
            yield _message(_kind_of(each), _data_of(each), each.id)
        info = await store.find_run(run_id)
    except RhAgentsError as error:
        yield _gone(error)
    else:
        yield _message("end", json_text({"status": None if info is None else status_of(info).value}), last)


def _kind_of(followed: Followed) -> str:
    return "text" if followed.event is None else "event"


def _data_of(followed: Followed) -> bytes:
    recorded = followed.event
    if recorded is None:
        return json_text({"pieces": [piece._asdict() for piece in followed.pieces]})
    about = json_text({"sequence": recorded.sequence, "has_outcome": recorded.has_outcome})
    return about[:-1] + b',"event":' + event_json(recorded.event).encode() + b"}"


async def ag_ui_messages(store: Store, run_id: str, _: str) -> AsyncIterator[bytes]:
    """The same as events of AG-UI. Its clients keep no place in a stream, so it begins at the beginning each time."""
    translator = AgUi(run_id)
    try:
        async for each in follow(store, run_id):
            for event in translator.text(each.pieces) if each.event is None else translator.event(each.event):
                yield _data(event)
        end = translator.end(await store.find_run(run_id), await store.questions(run_id))
    except RhAgentsError as error:
        end = translator.break_off(str(error))
    for event in end:
        yield _data(event)


FORMATS: Final[dict[str, Callable[[Store, str, str], AsyncIterator[bytes]]]] = {
    "": run_messages,
    "ag-ui": ag_ui_messages,
}
"""How a run is written for programs, by the name of the format."""


async def text_messages(store: Store, run_id: str, key: str, after: str) -> AsyncIterator[bytes]:
    """Text of one call as it streams, at most every `SPACING` seconds: `text`, and `done` when there will be no more.

    Each has an id, as above. Comments in between are signs of life.
    """
    clock = asyncio.get_running_loop().time
    watched_at = looked_at = -WATCHED_FOR
    is_live = True
    yield b"retry: 1000\n\n"
    try:
        while True:
            now = clock()
            if now - watched_at >= WATCHED_FOR / 3:
                watched_at = now
                is_live = await watch_text(store, run_id, key)
                yield b": alive\n\n"
            found = await streamed_text(store, run_id, key, after=after)
            if found.pieces:
                after = found.after
                yield _message("text", json_text({"pieces": list(map(_piece_data, found.pieces))}), after)
            elif not is_live:
                break
            elif now - looked_at >= _LOOK_AT_CALL_EVERY:
                looked_at = now
                record = await call_of_run(store, run_id, key)
                if record is not None and record.call.ended_at is not None:
                    break
            await asyncio.sleep(SPACING)
        yield _message("done", b"{}", after)
    except RhAgentsError as error:
        yield _gone(error)


def _gone(error: RhAgentsError) -> bytes:
    return b"event: gone\ndata: %s\n\n" % json_text({"error": str(error)})


def _piece_data(piece: StreamedPiece) -> dict[str, Any]:
    return {
        "attempt": piece.attempt,
        "position": piece.position,
        "kind": piece.kind.value,
        "text": piece.text,
        "tool_index": piece.tool_index,
        "tool_name": piece.tool_name,
        "is_gap": piece.is_gap,
    }


def _message(kind: str, data: bytes, name: str) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (name.encode(), kind.encode(), _on_one_line(data))


def _data(event: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % _on_one_line(json_text(event))


def _on_one_line(data: bytes) -> bytes:
    """JSON on one line also for clients that take other characters than those of the standard for the end of one.

    `str.splitlines` does, and with it a client of ours would get half of an event.
    """
    for each, escaped in _LINE_ENDS:
        data = data.replace(each, escaped)
    return data
