"""`rh-agents web`."""

from __future__ import annotations

import asyncio
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from rh_agents.cli.commands.common import AsJson, NoContent, StoreOfRuns, person, with_store
from rh_agents.cli.errors import CommandError
from rh_agents.cli.json_text import json_line
from rh_agents.cli.output.wording import size
from rh_agents.cli.resuming import Resuming
from rh_agents.cli.stores import DEFAULT_STORE, existing_run, kept_store, shown_url, store_option
from rh_agents.core.ports import Store

__all__ = ["web_command"]

_LARGEST_PORT = 65535


def web_command(
    port: Annotated[
        int, typer.Option(min=0, max=_LARGEST_PORT, metavar="PORT", help="Where to listen; 0 takes any that is free.")
    ] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Only look: nothing can be changed.")] = False,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Listen at another address than loopback; others can reach it then.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME:PORT",
            help="Another name under which browsers reach this server, through a tunnel for instance. May be repeated.",
        ),
    ] = None,
    allow_resume: Annotated[
        bool,
        typer.Option("--allow-resume", help="Let the page start recorded commands again, once shown."),
    ] = False,
    export: Annotated[
        str | None, typer.Option("--export", metavar="RUN", help="Write the page of this run to a file, and end.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE.html", help="For --export: the file.")
    ] = None,
    no_content: NoContent = False,
    new_code: Annotated[
        bool, typer.Option("--new-code", help="Print another address for the page that is running already.")
    ] = False,
    as_json: AsJson = False,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Show the runs on a page of this machine, live.

    The address that is printed lets one browser in, once and for ten minutes; `--new-code` prints another one.
    """
    try:
        from rh_agents.web.codes import NotPrivate  # noqa: PLC0415 - Starlette and Uvicorn are optional packages
        from rh_agents.web.server import Settings, new_address, serve  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise CommandError("the page needs Starlette and Uvicorn: pip install 'rh_agents[web]'") from error
    if (export is None) != (output is None):
        raise CommandError("--export RUN and -o FILE.html belong together")
    if no_content and export is None:
        raise CommandError("--no-content is for a file: add --export RUN and -o FILE.html")
    try:
        if new_code:
            print(_address_line(new_address(_running(port)), as_json=as_json))
            return
        if export is not None and output is not None:
            _export(store, export, Path(output), with_content=not no_content, as_json=as_json)
            return
        settings = Settings(
            port=port,
            host=host,
            allow_hosts=tuple(allow_host or ()),
            read_only=read_only,
            author=person(),
            store_option=store_option(store),
            about={"store": shown_url(store)},
            resuming=Resuming(store) if allow_resume and not read_only else None,
        )
        if not settings.is_local:
            print(
                f"rh-agents: WARNING: {host} can be reached by others, and what they send and get is not encrypted; "
                "a tunnel to loopback (ssh -L) and --allow-host are safer",
                file=sys.stderr,
            )

        def ready(address: str) -> None:
            print(_address_line(address, as_json=as_json), flush=True)
            if open_browser:
                webbrowser.open(address)

        async def work() -> None:
            async with kept_store(store, read_only=read_only) as opened:
                await serve(opened, settings, ready)

        asyncio.run(work())
    except NotPrivate as error:
        raise CommandError(str(error)) from error


def _export(store: str, run: str, path: Path, *, with_content: bool, as_json: bool) -> None:
    from rh_agents.web.export import export_run  # noqa: PLC0415
    from rh_agents.web.reading import Reading  # noqa: PLC0415

    async def text_of(opened: Store) -> str:
        await existing_run(opened, run)
        return await export_run(Reading(opened), run, with_content=with_content)

    text = with_store(store, text_of)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error
    if as_json:
        written = {"run_id": run, "file": str(path), "bytes": path.stat().st_size, "has_content": with_content}
        print(json_line("web-export", written), end="")
        return
    print(f"{path}: {size(len(text))}")


def _address_line(address: str, *, as_json: bool) -> str:
    """Where the page is; the address lets one browser in."""
    return json_line("web", {"address": address}).rstrip() if as_json else address


def _running(port: int) -> int:
    from rh_agents.web.codes import servers  # noqa: PLC0415

    found = servers()
    if port:
        if port not in found:
            raise CommandError(f"no page of this user listens at port {port}")
        return port
    if not found:
        raise CommandError("no page of this user is running: `rh-agents web` starts one")
    if len(found) > 1:
        raise CommandError(f"several pages are running: add --port, one of {', '.join(map(str, found))}")
    return found[0]
