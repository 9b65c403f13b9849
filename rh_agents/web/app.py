"""The routes: each reads a request, asks what shows it, and answers with JSON, events, CSV or a file."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from rh_agents.core.errors import RhAgentsError, StoreError
from rh_agents.core.ports.windows import ORDERS, RANGES, Within
from rh_agents.core.types import ExecutionStatus
from rh_agents.web.acting import Acting
from rh_agents.web.calls import RUNNING, Calls, Wanted
from rh_agents.web.export import export_run
from rh_agents.web.json_text import json_text
from rh_agents.web.live import Follower
from rh_agents.web.planning import compared, planned, validated
from rh_agents.web.reading import NoSuchRun, Reading
from rh_agents.web.static_files import KINDS, static_files
from rh_agents.web.streaming import FORMATS, text_messages

__all__ = ["About", "make_app"]

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

About = dict[str, Any]
"""What the page says of its server."""


def make_app(reading: Reading, acting: Acting, about: About, closing: asyncio.Event) -> Starlette:
    """The application behind the guard.

    Args:
        reading: what is shown.
        acting: what can be asked for.
        about: what the page says of its server.
        closing: set when streams are to end.
    """
    api = _Api(reading, acting, about, closing)
    static = static_files()
    routes = [Route("/", _file("index.html", static["index.html"]))]
    routes += [Route(f"/static/{name}", _file(name, data)) for name, data in static.items() if name != "index.html"]
    routes += [Route(path, handler) for path, handler in api.reads.items()]
    routes += [Route(path, handler, methods=["POST"]) for path, handler in api.acts.items()]
    return Starlette(routes=routes, exception_handlers=_HANDLERS)


def _file(name: str, data: bytes) -> Handler:
    kind = KINDS[name.rpartition(".")[2]]

    async def serve(_: Request) -> Response:
        return Response(data, media_type=kind)

    return serve


def _json(data: Any, status: int = 200) -> Response:
    return Response(json_text(data), status, media_type="application/json")


async def _failed(_: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, NoSuchRun) else 409 if isinstance(error, StoreError) else 422
    return _json({"error": str(error)}, status)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)


async def _senseless(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 400)


_EVENT_ID = re.compile(r"[!-~]{0,100}")
_CALL_KEY = re.compile(r"[0-9a-f]{64}")
_HANDLERS: Mapping[Any, Any] = {RhAgentsError: _failed, HTTPException: _refused, ValueError: _senseless}


class _Api:
    def __init__(self, reading: Reading, acting: Acting, about: About, closing: asyncio.Event) -> None:
        self._reading = reading
        self._acting = acting
        self._calls = Calls(reading.store)
        self._about = about
        self._closing = closing
        self.reads: dict[str, Handler] = {
            "/api/about": self.about,
            "/api/runs": self.runs,
            "/api/runs/events": self.runs_events,
            "/api/run": self.run,
            "/api/run/events": self.run_events,
            "/api/calls": self.calls,
            "/api/calls.csv": self.calls_csv,
            "/api/call": self.call,
            "/api/call/children": self.children,
            "/api/call/text": self.call_text,
            "/api/call/value": self.value,
            "/api/questions": self.questions,
            "/api/groups": self.groups,
            "/api/plan": self.plan,
            "/api/compare": self.compare,
            "/api/validation": self.validation,
            "/api/export": self.export,
            "/events": self.events,
        }
        self.acts: dict[str, Handler] = {"/api/answer": self.answer, "/api/act": self.act}

    # -- runs ----------------------------------------------------------------------------------------------------------

    async def about(self, _: Request) -> Response:
        return _json(self._about)

    async def runs(self, request: Request) -> Response:
        given = request.query_params
        status = [word for word in given.get("status", "").split(",") if word]
        text, before = given.get("text", ""), given.get("before", "")
        found = self._reading.list_runs(status=status, tag=given.get("tag"), text=text, before=before)
        return _json(await _while_read(request, found))

    async def runs_events(self, request: Request) -> Response:
        return self._stream(self._reading.runs, request)

    async def run(self, request: Request) -> Response:
        update = await self._reading.page(_name(request)).now()
        etag = f'"{update.id}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag})
        return Response(_joined(update.sections, update.id), media_type="application/json", headers={"etag": etag})

    async def run_events(self, request: Request) -> Response:
        return self._stream(self._reading.page(_name(request)), request)

    async def groups(self, request: Request) -> Response:
        text = request.query_params.get("text", "")
        found = self._reading.groups(_name(request), _number(request, "from"), text)
        return _json(await _while_read(request, found))

    def _stream(self, follower: Follower, request: Request) -> Response:
        return self._streaming(request, _messages(follower, _last_seen(request)))

    def _streaming(self, request: Request, messages: AsyncIterator[bytes]) -> Response:
        kind, headers = "text/event-stream", {"x-accel-buffering": "no"}
        if request.method == "HEAD":  # wants none of what would be made for ever
            return Response(media_type=kind, headers=headers)
        return StreamingResponse(_until(self._closing, messages), media_type=kind, headers=headers)

    async def events(self, request: Request) -> Response:
        """Everything that happens in a run, for programs."""
        run_id, written = _name(request), request.query_params.get("format", "")
        if written not in FORMATS:
            raise HTTPException(400, f"format={written}: there are 'ag-ui' and, by default, our own")
        if await self._reading.store.find_run(run_id) is None:
            raise NoSuchRun(f"there is no run {run_id!r}")
        return self._streaming(request, FORMATS[written](self._reading.store, run_id, _last_seen(request)))

    async def call_text(self, request: Request) -> Response:
        """Text of a call as it streams."""
        run_id, key, after = _name(request), _key(request), _last_seen(request)
        return self._streaming(request, text_messages(self._reading.store, run_id, key, after))

    async def questions(self, _: Request) -> Response:
        return _json({"questions": await self._reading.questions()})

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def calls(self, request: Request) -> Response:
        window = self._calls.window(_name(request), _wanted(request), _after(request))
        return _json(await _while_read(request, window))

    async def calls_csv(self, request: Request) -> Response:
        lines = self._calls.csv(_name(request), _wanted(request))
        # What refuses the request does so here, while there is no response yet.
        first = await _while_read(request, _next_of(lines))
        text = _preceded_by(first, lines)
        return StreamingResponse(text, media_type="text/csv; charset=utf-8", headers=_attachment("calls.csv"))

    async def call(self, request: Request) -> Response:
        found = await _while_read(request, self._calls.call(_name(request), _key(request)))
        if found is None:
            raise HTTPException(404, "the run has no such call")
        return _json(found)

    async def children(self, request: Request) -> Response:
        children = self._calls.children(_name(request), _key(request), _after(request))
        return _json(await _while_read(request, children))

    async def value(self, request: Request) -> Response:
        key = _key(request)
        text = await _while_read(request, self._calls.value(_name(request), key))
        if text is None:
            raise HTTPException(404, "the call has no recorded value")
        if request.query_params.get("as") == "file":
            return Response(text, media_type="application/octet-stream", headers=_attachment(f"{key[:12]}.json"))
        most = _number(request, "most", 65536)
        return _json({"text": text[:most], "size": len(text), "is_cut": len(text) > most})

    # -- plans ---------------------------------------------------------------------------------------------------------

    async def plan(self, request: Request) -> Response:
        return _json(await _while_read(request, planned(self._reading.store, _name(request))))

    async def compare(self, request: Request) -> Response:
        left, right = _given(request, "left"), _given(request, "right")
        return _json(await _while_read(request, compared(self._reading.store, left, right)))

    async def validation(self, request: Request) -> Response:
        return _json(await _while_read(request, validated(self._reading.store, _name(request))))

    async def export(self, request: Request) -> Response:
        text = await _while_read(request, export_run(self._reading, _name(request)))
        return Response(text, media_type="application/octet-stream", headers=_attachment("run.html"))

    # -- actions -------------------------------------------------------------------------------------------------------

    async def answer(self, request: Request) -> Response:
        return _json(await self._acting.answer(await _body(request)))

    async def act(self, request: Request) -> Response:
        return _json(await self._acting.act(await _body(request)))


def _joined(sections: Any, version: str) -> bytes:
    """The sections as one object; each is JSON already."""
    parts = [
        json.dumps(name).encode() + b":" + text for name, text in {"version": json_text(version), **sections}.items()
    ]
    return b"{" + b",".join(parts) + b"}"


async def _messages(follower: Follower, after: str | None) -> AsyncIterator[bytes]:
    """Server-sent events: `sections` with what has changed, comments as signs of life, and `gone` with a reason."""
    yield b"retry: 1000\n\n"
    try:
        async for update in follower.updates(after):
            if update is None:
                yield b": alive\n\n"
            else:
                data = _joined(update.sections, update.id)
                yield b"id: %s\nevent: sections\ndata: %s\n\n" % (update.id.encode(), data)
    except RhAgentsError as error:
        yield b"event: gone\ndata: %s\n\n" % json_text({"error": str(error)})


async def _until(closing: asyncio.Event, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The messages until the server closes."""
    closed = asyncio.ensure_future(closing.wait())
    following: asyncio.Future[bytes] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(messages))
            await asyncio.wait((following, closed), return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                return
            yield following.result()
    except StopAsyncIteration:
        return
    finally:
        closed.cancel()
        if following is not None:
            following.cancel()


async def _next_of(lines: AsyncIterator[T]) -> T:
    return await anext(lines)


async def _preceded_by(first: T, rest: AsyncIterator[T]) -> AsyncIterator[T]:
    yield first
    async for each in rest:
        yield each


async def _while_read(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the reader has gone."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(499, "the reader has gone")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> dict[str, Any]:
    try:
        found = await request.json()
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"this is not JSON: {error}") from error
    except ClientDisconnect as error:
        raise HTTPException(499, "the reader has gone") from error
    if not isinstance(found, dict):
        raise HTTPException(400, "a JSON object is wanted")
    try:
        to_json(found)
    except ValueError as error:
        raise HTTPException(
            400, "this cannot be stored: it has half of a surrogate pair, or is nested too deep"
        ) from error
    return found


def _given(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise HTTPException(400, f"{name}= is missing")
    return value


def _last_seen(request: Request) -> str:
    """The id of what a reader of a stream has got last; "" if it begins. Streams repeat it: it must fit on a line."""
    given = request.headers.get("last-event-id") or request.query_params.get("after", "")
    if not _EVENT_ID.fullmatch(given):
        raise HTTPException(400, f"after={given[:100]!r} is no id of an event: use that of the last one")
    return given


def _key(request: Request) -> str:
    key = _given(request, "key")
    if not _CALL_KEY.fullmatch(key):
        raise HTTPException(400, f"{key[:100]!r} is not the key of a call: it has 64 hexadecimal digits")
    return key


def _name(request: Request) -> str:
    return _given(request, "run")


def _number(request: Request, name: str, usual: int = 0) -> int:
    text = request.query_params.get(name, str(usual))
    if not text.isdecimal() or len(text) > 12:
        raise HTTPException(400, f"{name}={text}: a number from 0 on is wanted")
    return int(text)


def _after(request: Request) -> str:
    return request.query_params.get("after", "")


def _wanted(request: Request) -> Wanted:
    """The filter and the order of a table."""
    given = request.query_params
    status, order = given.get("status", ""), given.get("order") or "journal"
    if status and status != RUNNING and status not in ExecutionStatus.__members__.values():
        raise HTTPException(400, f"status={status}: no call has this one")
    if order not in ORDERS:
        raise HTTPException(400, f"order={order}: one of {', '.join(ORDERS)} is wanted")
    actor, group, text = (given.get(name, "") for name in ("actor", "group", "text"))
    return Wanted(status, actor, group, text, order, given.get("descending") == "1", _within(request))


def _within(request: Request) -> tuple[Within, ...]:
    """Ranges: `from` and `until` for when calls were under way, and for instance `cost_from` and `cost_to`."""
    ends = {name: ("from", "until") if name == "time" else (f"{name}_from", f"{name}_to") for name in RANGES}
    found = [Within(name, _bound(request, least), _bound(request, most)) for name, (least, most) in ends.items()]
    return tuple(each for each in found if each[1:] != (None, None))


def _bound(request: Request, name: str) -> float | None:
    text = request.query_params.get(name, "")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise HTTPException(400, f"{name}={text[:100]}: a number is wanted")
    return number


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
