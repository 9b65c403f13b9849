"""The tables of providers in docs/how-to/models.md: where they are, and what they do differently, which is made of what
was sent and counted when each dialect was played.

After a change of a dialect or of a provider's row: python -m tests.services.dialects.table
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from rh_agents import llms
from rh_agents.core.chat import ToolSpec
from rh_agents.core.errors import InvalidRequest
from rh_agents.llms import OpenAIChat
from rh_agents.llms._providers import CHAT
from tests.services.dialects.all_of_them import DIALECTS
from tests.services.dialects.kit import Dialect, play
from tests.services.dialects.turn import Larger, Turn, model_of, run, turn
from tests.services.model_server import model_server

__all__ = ["ADDRESSES", "PAGE", "PROVIDERS", "addresses", "marked", "table"]

PAGE = Path(__file__).parents[3] / "docs/how-to/models.md"
PROVIDERS, ADDRESSES = "providers", "addresses"
HEADS = (
    "Provider",
    "known by",
    "`max_tokens` is",
    "`seed` is",
    "`tool_choice`",
    "`parallel_tool_calls`",
    "object",
    "object and tools",
    "thoughts",
    "given back",
    "usage of streams",
    "cost",
    "prices",
    "seen",
)
NOTHING = "–"
_OWN = ("OpenAI", "Azure", "Anthropic")
"""Those that have a class of their own."""


def table() -> str:
    """The whole table."""
    prices = json.loads((files("rh_agents.llms") / "prices.json").read_text(encoding="utf-8"))["providers"]
    rows = [_row(dialect, len(prices.get(dialect.name, {}).get("models", {}))) for dialect in DIALECTS.values()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (HEADS, ["---"] * len(HEADS), *rows))


def addresses() -> str:
    """The table of where providers are, and which variables have keys for them."""
    rows = [["Provider", "class", "address", "key"], ["---"] * 4]
    for dialect in DIALECTS.values():
        kind = f"{dialect.name}Chat" if dialect.name in ("Azure", "Anthropic") else "OpenAIChat"
        known = CHAT.at(dialect.base_url)
        key = getattr(llms, kind).key_variable if dialect.name in _OWN else known.key_variable
        is_local = dialect.base_url.startswith("http://")
        where = _code(dialect.base_url) + (" or elsewhere" if is_local else "")
        rows.append([dialect.name, _code(kind), where, 'any: `api_key="none"`' if is_local else _code(key)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def marked(page: str, name: str) -> tuple[str, str, str]:
    """A page: what stands before the table of this name, the table, and what stands behind it."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = page.partition(begin)
    inside, _, after = rest.partition(end)
    return before + begin, inside, end + after


def _row(dialect: Dialect, prices: int) -> list[str]:
    seed: dict[str, Any] = {} if _refuses(dialect, "seed", 7) else {"seed": 7}
    plain = turn(dialect, is_streamed=True, tool_choice=dialect.tool_choice, max_tokens=100, **seed)
    first = plain.bodies[0]
    alone, beside_tools = _objects(dialect)
    return [
        dialect.name,
        _known_by(dialect),
        _code(next(name for name in ("max_tokens", "max_completion_tokens") if name in first)),
        _sent(dialect, first, "seed", "random_seed") if seed else "refused",
        _sent(dialect, first, "tool_choice"),
        _parallel(dialect),
        _mode(alone),
        _mode(beside_tools),
        _code(*_thoughts(dialect)),
        _code(*_given_back(dialect, plain)),
        "reported" if plain.spent.estimates == 0 else "estimated",
        "reported" if dialect.says("").usage.cost else NOTHING,
        str(prices or NOTHING),
        "a server" if dialect.is_observed else "its documents",
    ]


def _known_by(dialect: Dialect) -> str:
    if dialect.name in ("Azure", "Anthropic"):
        return f"`{dialect.name}Chat`"
    by_host = OpenAIChat("m", base_url=dialect.base_url, api_key="key").provider.name == dialect.name
    return "its host" if by_host else f"`dialect={json.dumps(dialect.name)}`"


def _sent(dialect: Dialect, body: dict[str, Any], *names: str) -> str:
    """Under which name a setting is sent, and whether the provider takes it without effect."""
    name = next((name for name in names if name in body), None)
    if name is None:
        return "not sent"
    if name in dialect.ignored:
        return "ignored"
    return _code(name) if name != names[0] else "taken"


def _refuses(dialect: Dialect, setting: str, value: Any) -> bool:
    """Whether a setting has no form in the protocol, so that it is refused before anything is sent."""

    async def main() -> bool:
        async with model_server(play(dialect)) as server, model_of(dialect, server, **{setting: value}) as model:
            try:
                await model("Hello?")
            except InvalidRequest:
                return not server.exchanges
            return False

    refuses = run(main())
    assert refuses is (setting in dialect.refused_settings)
    return refuses


def _parallel(dialect: Dialect) -> str:
    """Under which name a model is told to call one tool after the other."""
    if "parallel_tool_calls" in dialect.ignored:
        return "ignored"

    async def main() -> dict[str, Any]:
        async with model_server(play(dialect)) as server, model_of(dialect, server) as model:
            await model("Which is larger?", tools=[ToolSpec(name="population")], parallel_tool_calls=False)
            return server.exchanges[0].body

    body = run(main())
    if body.get("parallel_tool_calls") is False:
        return "taken"
    assert body["tool_choice"]["disable_parallel_tool_use"] is True
    return _code("disable_parallel_tool_use")


def _objects(dialect: Dialect) -> tuple[dict[str, Any], dict[str, Any]]:
    """The requests for an object, without tools and with one."""
    tool = ToolSpec(name="population")

    async def main() -> tuple[dict[str, Any], dict[str, Any]]:
        async with model_server(play(dialect)) as server, model_of(dialect, server) as model:
            await model("Which is larger?", output=Larger)
            await model("Which is larger?", tools=[tool], output=Larger)
            alone, beside_tools = server.exchanges
            return dialect.asks(alone.body), dialect.asks(beside_tools.body)

    return run(main())


def _mode(body: dict[str, Any]) -> str:
    """How a request asks for an object."""
    if body.get("response_format"):
        return "native"
    names = [each["function"]["name"] for each in body.get("tools", ())]
    return "tool" if any(name != "population" for name in names) else "prompt"


def _thoughts(dialect: Dialect) -> list[str]:
    """The fields in which thoughts stand."""
    message = dialect.tells(dialect.says("text").whole)
    if isinstance(message.get("content"), list):
        return ["content"]
    return [name for name in ("reasoning_content", "reasoning", "thinking") if message.get(name)][:1]


def _given_back(dialect: Dialect, made: Turn) -> list[str]:
    said = dialect.asks(made.bodies[1])["messages"][1]
    names = set(said) - {"role", "content", "tool_calls"}
    names |= {name for call in said["tool_calls"] for name in set(call) - {"id", "type", "function"}}
    return sorted(names)


def _code(*names: str) -> str:
    return ", ".join(f"`{name}`" for name in names) or NOTHING


if __name__ == "__main__":
    for name, written in ((ADDRESSES, addresses()), (PROVIDERS, table())):
        before, _, after = marked(PAGE.read_text(encoding="utf-8"), name)
        PAGE.write_text(before + written + after, encoding="utf-8")
