"""A run as one file that can be sent to somebody: the page itself, with what it would ask its server for in it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Any, Final
from urllib.parse import quote

from rh_agents.core.errors import RhAgentsError
from rh_agents.web.calls import Calls, Wanted
from rh_agents.web.json_text import json_text, shown
from rh_agents.web.planning import planned, validated
from rh_agents.web.reading import Reading
from rh_agents.web.static_files import static_files

__all__ = ["MOST_CALLS", "export_run", "one_script", "page_with"]

MOST_CALLS: Final = 200
"""Calls that are in the file with all that is recorded of them: those that failed first."""
_LONGEST_VALUE: Final = 65536
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function |const |class )", re.MULTILINE)
_VIEWS: Final = (Wanted(), Wanted(status="failed"), Wanted(order="seconds", descending=True))


async def export_run(reading: Reading, run_id: str, *, with_content: bool = True) -> str:
    """The HTML text of a run.

    Args:
        reading: the store.
        run_id: the run.
        with_content: whether what calls were given and what they came to is in it, errors and questions in words too.
            Without it there are names, addresses, times, numbers, and how everything ended.

    Raises:
        NoSuchRun: there is no such run.
    """
    kept = await _kept(reading, run_id)
    return page_with(kept if with_content else _without_content(kept), f"#/run/{quote(shown(run_id), safe='')}")


async def _kept(reading: Reading, run_id: str) -> dict[str, Any]:
    """What the page would ask for, by the address with which it asks."""
    run = f"run={_query(shown(run_id))}"  # the page asks with the name that it is given
    update = await reading.page(run_id).now()
    while json.loads(update.sections.get("counting", b"null")) is not None:  # a file is given when all is counted
        update = await reading.page(run_id).now()
    page = {name: json.loads(text) for name, text in update.sections.items()}
    kept: dict[str, Any] = {"about": {"read_only": True}, f"run?{run}": {"version": "", **page}}
    calls, found = Calls(reading.store), dict[str, Mapping[str, Any]]()
    for view in _VIEWS:
        window = await calls.window(run_id, view)
        kept[_address(run, view)] = {**window, "next": None, "is_cut": window["next"] is not None}
        found.update((call["key"], call) for call in window["calls"])
    for key in sorted(found, key=lambda key: found[key]["status"] != "failed")[:MOST_CALLS]:
        kept.update(await _call(calls, run_id, run, key))
    if page["run"]["validates"]:
        with contextlib.suppress(RhAgentsError):
            kept[f"validation?{run}"] = await validated(reading.store, run_id)
    with contextlib.suppress(RhAgentsError):  # a journal that is damaged has no plan; its page says so
        kept[f"plan?{run}"] = await planned(reading.store, run_id)
    return kept


async def _call(calls: Calls, run_id: str, run: str, key: str) -> dict[str, Any]:
    record = await calls.call(run_id, key)
    text = await calls.value(run_id, key)
    kept: dict[str, Any] = {f"call?{run}&key={key}": record}
    kept[f"call/children?{run}&key={key}"] = await calls.children(run_id, key)
    if text is not None:
        value = {"text": text[:_LONGEST_VALUE], "size": len(text), "is_cut": len(text) > _LONGEST_VALUE}
        kept[f"call/value?{run}&key={key}&what=value"] = value
    return kept


_LEFT_OUT: Final[Mapping[str, Any]] = {
    "arguments": {},
    "command": None,
    "input": None,
    "message": None,
    "metadata": "",
    "reason": None,
    "schema": None,
    "tag": "",
    "text": "left out",
}
"""What stands in the place of content, by the names of fields, wherever in the answers of the server they are."""


def _without_content(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The same without what calls were given and what they came to."""
    found = {name: _blank(answer) for name, answer in kept.items() if not name.startswith("call/value?")}
    for name, answer in found.items():
        if name.startswith("call?"):
            answer["has_value"] = False
        elif name.startswith("validation?"):
            answer["rows"] = []  # each is two results beside each other
        elif name.startswith("run?"):
            answer["questions"] = [{**each, "problem": None} for each in answer["questions"]]
            for number, kind in enumerate(answer.get("kinds", ()), 1):
                kind["text"] = f"kind {number} of failure"
    return {**found, "about": {**found["about"], "no_content": True}}


def _blank(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _LEFT_OUT[name] if name in _LEFT_OUT else _blank(each) for name, each in value.items()}
    return [_blank(each) for each in value] if isinstance(value, list) else value


def _address(run: str, view: Wanted) -> str:
    """As `calls.js` asks."""
    given = {"status": view.status, "order": "" if view.order == "journal" else view.order}
    parts = [run, *(f"{name}={value}" for name, value in given.items() if value)]
    return "calls?" + "&".join([*parts, *(["descending=1"] if view.descending else [])])


def _query(text: str) -> str:
    """As `encodeURIComponent` has it."""
    return quote(text, safe="!'()*-._~")


# -- one file ----------------------------------------------------------------------------------------------------------


def page_with(kept: Mapping[str, Any], start: str) -> str:
    """The page with what it would ask for, which it shows at an address of its own."""
    files = {name: data.decode() for name, data in static_files().items()}
    script, style = one_script(files), files["app.css"]
    # Addresses are as the page makes them: `key=` in one is no credential.
    pairs = [f"{json.dumps(name)}:{json_text(value).decode()}" for name, value in kept.items()]
    data = f"{{{','.join(pairs)}}}".replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    where = json_text(start).decode().replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="content-security-policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>rh_agents</title>\n'
        f'<style>{style}</style>\n</head>\n<body>\n<header id="bar"></header>\n<main id="main" tabindex="-1"></main>\n'
        f'<div id="notices" role="status"></div>\n<script type="application/json" id="start">{where}</script>\n'
        f'<script type="application/json" id="kept">{data}</script>\n<script type="module">{script}</script>\n'
        "</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def one_script(files: Mapping[str, str]) -> str:
    """All modules of the page as one: each after those that it imports, without the lines that import and export.

    So no two of them may have one name at their top, which a test holds.
    """
    modules = {name: text for name, text in files.items() if name.endswith(".js")}
    imports = {name: set(_IMPORT.findall(text)) for name, text in modules.items()}
    order = TopologicalSorter(imports).static_order()
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", modules[name])) for name in order)
