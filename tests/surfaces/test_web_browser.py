"""The page in a browser: it renders, is live, is used with the keyboard, and runs nothing that a run has written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Page

from rh_agents import ExecutionState, open_store, parallel, tell_progress, tool
from rh_agents.core.chat import ChatDelta
from rh_agents.core.errors import RunAwaiting
from rh_agents.core.ports import Store
from rh_agents.web.export import export_run
from rh_agents.web.reading import Reading
from tests.services.chromium import Seen, chromium_path, open_page
from tests.surfaces.web_kit import memory, recorded, served

__all__ = ["chromium_path"]

Look = Callable[[Page, Seen, str], Awaitable[None]]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes are made in a folder of the test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def looking(
    path: str, prepare: Callable[[Store], Awaitable[None]], look: Look, store: Store | None = None, **options: Any
) -> None:
    """Open the page over a store in a browser; `look` gets it, what it should not have done, and its address."""

    async def main() -> None:
        opened = memory() if store is None else store
        await prepare(opened)
        async with served(opened) as address, open_page(path, address, **options) as (page, seen):
            await look(page, seen, address.partition("?")[0])
            assert seen == Seen()

    asyncio.run(asyncio.wait_for(main(), 180))


async def show(page: Page, base: str, view: str) -> None:
    """Go to a view and wait until it is there."""
    await page.goto(f"{base}#{view}")
    await page.wait_for_selector("main [aria-busy]", state="detached")


async def _monday(store: Store) -> None:
    await recorded(store)


async def first_key(page: Page, base: str, run: str, status: str = "") -> str:
    await show(page, base, f"/run/{quote(run, safe='')}/calls?status={status}")
    row = await page.wait_for_selector("a.grid-row")
    assert row is not None
    return str(await row.get_attribute("data-key"))


@pytest.mark.parametrize(("width", "theme"), [(360, "dark"), (1024, "light"), (2000, "dark")])
def test_every_view_renders_without_a_complaint_and_fits_its_window(chromium_path: str, width: int, theme: str) -> None:
    async def prepare(store: Store) -> None:
        await recorded(store)
        await recorded(store, "a run/with a slash", ("a", "c"))
        with pytest.raises(RunAwaiting):
            async with ExecutionState(store=store, run_id="asking") as state:
                await state.ask("Publish?", bool)

    async def look(page: Page, seen: Seen, base: str) -> None:
        key = await first_key(page, base, "monday", "failed")
        run = "/run/monday"
        views = ["/", run, f"{run}/calls", f"{run}/plan", f"{run}/compare?with=a%20run%2Fwith%20a%20slash"]
        views += [f"{run}/call/{key}", f"{run}/questions", "/questions", "/run/a%20run%2Fwith%20a%20slash"]
        for view in views:
            await show(page, base, view)
            assert await page.inner_text("h1"), view
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view

    looking(chromium_path, prepare, look, width=width, theme=theme)


def test_an_address_that_no_link_has_shows_something(chromium_path: str) -> None:
    async def look(page: Page, seen: Seen, base: str) -> None:
        for view in ("/run/monday/constructor", "/run/monday/__proto__", "/run/monday/50%", "//%E0"):
            await show(page, base, view)
            assert await page.inner_text("h1"), view

    looking(chromium_path, recorded, look)


PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "javascript:alert(1)",
    '"><script>alert(1)</script>',
    "'-alert(1)-'",
    "</script><script>alert(1)</script>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'>",
    "<a href='javascript:alert(1)'>x</a>",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<math><mtext><script>alert(1)</script>",
    "{{constructor.constructor('alert(1)')()}}",
    "${alert(1)}",
    "<style>@import 'http://evil.example/x.css'</style>",
    "<link rel=stylesheet href=//evil.example>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<base href=//evil.example>",
    "<form action=javascript:alert(1)><input type=submit autofocus>",
    "data:text/html,<script>alert(1)</script>",
]
WAYS = ("{}", "x{}x", "\n{}", "&lt;{}", "\u202e{}", "{}\x00", "{} --> <!-- ", "]]>{}", "\\u003c{}", "__proto__{}")
ATTACKS = [way.format(payload) for payload in PAYLOADS for way in WAYS]


def test_nothing_that_a_run_has_written_becomes_code(chromium_path: str) -> None:
    attack(chromium_path, memory())


@pytest.mark.slow
def test_nothing_that_a_database_server_gives_becomes_code(chromium_path: str, postgresql_url: str) -> None:
    attack(chromium_path, open_store(postgresql_url))


def attack(chromium_path: str, store: Store) -> None:
    """Write all attacks wherever a run can write something, and look at it."""
    assert len(set(ATTACKS)) == 200

    @tool
    async def echo(text: str, fails: bool) -> dict[str, str]:
        if fails:
            raise ValueError(text)
        return {text: text}

    async def prepare(store: Store) -> None:
        async with (
            ExecutionState(store=store, run_id="attacks", tags=[ATTACKS[0], ATTACKS[10]]),
            parallel(name=ATTACKS[1]) as group,
        ):
            for number, text in enumerate(ATTACKS):
                group.add(echo(text, number % 2 == 0), name=text)
            await group.gather()
        for text in ATTACKS[::10]:
            run_id = text.replace("\x00", "")
            with pytest.raises(RunAwaiting):
                async with ExecutionState(store=store, run_id=run_id) as state:
                    await state.ask(text)

    async def look(page: Page, seen: Seen, base: str) -> None:
        for view in (
            "/",
            "/questions",
            "/run/attacks",
            "/run/attacks/plan",
            f"/run/attacks/compare?with={quote(ATTACKS[0], safe='')}",
        ):
            await show(page, base, view)
        assert len(await page.query_selector_all("script")) == 1
        await show(page, base, "/run/attacks/calls")
        keys = set[str]()
        for turn in range(200):
            for row in await page.query_selector_all("a.grid-row"):
                keys.add(str(await row.get_attribute("data-key")))
            if len(keys) >= len(ATTACKS):
                break
            await page.evaluate(f"document.querySelector('.grid-body').scrollTop = {turn * 300 % 6000}")
            await page.wait_for_timeout(20)
        assert len(keys) >= 200
        for key in sorted(keys)[::20]:
            await show(page, base, f"/run/attacks/call/{key}")
            await page.wait_for_selector(".value, .quiet")
        for text in ATTACKS[::40]:
            await show(page, base, f"/run/{quote(text, safe='')}")
            assert await page.inner_text("h1")

    looking(chromium_path, prepare, look, store)


def test_what_is_recorded_is_on_the_page_within_half_a_second(chromium_path: str, tmp_path: Path) -> None:
    @tool
    async def step(number: int) -> int:
        return number

    store = open_store(tmp_path / "runs.db")

    async def nothing(_: Store) -> None: ...

    async def look(page: Page, seen: Seen, base: str) -> None:
        clock = asyncio.get_running_loop().time
        delays = []
        async with ExecutionState(store=store, run_id="live"):
            await step(0)
            await show(page, base, "/run/live")
            await page.wait_for_selector(".live[data-state=live]")
            for number in range(1, 9):
                await step(number)
                began = clock()
                await page.wait_for_selector(f"#part-numbers b:text-is('{number + 1}')", timeout=30000)
                delays.append(clock() - began)
                await asyncio.sleep(0.3)
        await page.wait_for_selector("[data-status=completed]", timeout=30000)
        assert sorted(delays)[len(delays) // 2] <= 0.5, delays  # half of them: the machine may have other work

    looking(chromium_path, nothing, look, store)


def test_the_page_can_be_used_with_the_keyboard(chromium_path: str) -> None:
    async def prepare(store: Store) -> None:
        await recorded(store, "monday")
        await recorded(store, "tuesday")

    async def look(page: Page, seen: Seen, base: str) -> None:
        async def press(*keys: str) -> None:
            for key in keys:
                await page.keyboard.press(key)

        async def address_ends(text: str) -> None:
            await page.wait_for_url(f"**{text}", timeout=30000)

        await show(page, base, "/")
        await press("j", "j", "k", "Enter")
        await address_ends("#/run/tuesday")
        await press("r")
        await address_ends("#/")
        await page.wait_for_selector("input[type=search]")
        await press("/", *"mond", "Escape")
        await page.wait_for_function("() => document.querySelectorAll('tr.go').length === 1")
        await press("j", "Enter")
        await address_ends("#/run/monday")
        await page.wait_for_selector("tr.go")
        await press("j", "Enter")
        await page.wait_for_selector("h1")
        await press("?")
        await page.wait_for_selector("dialog[open]")
        await press("Escape")
        await page.wait_for_selector("dialog", state="detached")
        for theme in ("light", "dark"):
            await press("t")
            await page.wait_for_selector(f"html[data-theme={theme}]")

    looking(chromium_path, prepare, look)


def test_a_question_is_answered_in_a_form_made_of_its_schema(chromium_path: str) -> None:
    opened = memory()

    async def prepare(store: Store) -> None:
        with pytest.raises(RunAwaiting):
            async with ExecutionState(store=store, run_id="asking") as state:
                await state.ask("Publish?", bool)

    async def look(page: Page, seen: Seen, base: str) -> None:
        await show(page, base, "/run/asking")
        await page.click("label:text-is('No')")
        await page.click("button:text-is('Answer')")
        await page.wait_for_selector("text=Answered: Publish?")
        assert [question.answer for question in await opened.questions(is_open=False)] == [b"false"]

    looking(chromium_path, prepare, look, opened)


def test_the_page_of_questions_counts_down_as_they_are_answered(chromium_path: str) -> None:
    async def prepare(store: Store) -> None:
        with pytest.raises(RunAwaiting):
            async with ExecutionState(store=store, run_id="asking") as state:
                await state.ask("Publish?", bool)

    async def look(page: Page, seen: Seen, base: str) -> None:
        await show(page, base, "/questions")
        assert await page.inner_text("section h2") == "One question is open"
        assert await page.is_visible("#bar a[href='#/questions']")
        await page.click("label:text-is('No')")
        await page.click("button:text-is('Answer')")
        await page.wait_for_selector("h2:text-is('All are answered')")
        assert (await page.text_content("#bar a[href='#/questions']") or "").split()[-1] == "0"

    looking(chromium_path, prepare, look)


def test_what_a_dialog_asks_for_fits_a_telephone(chromium_path: str) -> None:
    async def prepare(store: Store) -> None:
        with pytest.raises(RunAwaiting):
            async with ExecutionState(store=store, run_id="asking-with-a-name-that-is-as-long-as-names-are") as state:
                await state.ask("Publish?", bool)

    async def look(page: Page, seen: Seen, base: str) -> None:
        for action in ("Pause", "Set", "Stop", "Fork"):
            await show(page, base, "/run/asking-with-a-name-that-is-as-long-as-names-are")
            await page.click(f"button:text-is('{action}…')")
            await page.wait_for_selector("dialog .command code, dialog .bad:not(:empty)")
            for each in await page.query_selector_all("dialog form > *"):
                box = await each.bounding_box()
                assert box is None or box["x"] + box["width"] <= 360, action
            await page.click("dialog >> button:text-is('Back')")

    looking(chromium_path, prepare, look, width=360)


def test_names_of_runs_are_readable_on_a_telephone(chromium_path: str) -> None:
    async def look(page: Page, seen: Seen, base: str) -> None:
        await show(page, base, "/")
        name = await page.wait_for_selector("td.mono >> text=monday")
        assert name is not None
        assert await name.evaluate("(link) => link.parentElement.scrollWidth <= link.parentElement.clientWidth")

    looking(chromium_path, _monday, look, width=360)


def test_addresses_are_readable_on_a_telephone(chromium_path: str) -> None:
    async def look(page: Page, seen: Seen, base: str) -> None:
        await show(page, base, "/run/monday")
        cells = await page.query_selector_all("#part-slowest td.cut")
        assert cells
        for cell in cells:
            assert await cell.evaluate("(each) => each.scrollWidth <= each.clientWidth"), await cell.inner_text()
        await page.wait_for_selector("button:text-is('Requeue…')")
        await page.click("button:text-is('Requeue…')")
        await page.wait_for_selector("dialog >> button:text-is('Requeue for the next start')")

    looking(chromium_path, _monday, look, width=360)


def test_two_runs_are_compared_piece_by_piece_and_not_as_json(chromium_path: str) -> None:
    async def prepare(store: Store) -> None:
        for run_id, title in (("left", "the brown fox"), ("right", "the red fox")):
            told = {"title": title, "n": 1}

            @tool
            async def tell() -> dict[str, object]:
                return told  # noqa: B023 - called before it changes

            async with ExecutionState(store=store, run_id=run_id):
                await tell()

    async def look(page: Page, seen: Seen, base: str) -> None:
        await show(page, base, "/run/left/compare?with=right")
        await page.wait_for_selector(".differences")
        assert await page.eval_on_selector_all("mark", "(all) => all.map((each) => each.textContent)") == [
            "brown",
            "red",
        ]
        assert "{" not in await page.inner_text(".differences")

    looking(chromium_path, prepare, look)


def test_a_run_in_one_file_shows_its_page_its_calls_and_its_plan_without_a_server(
    chromium_path: str, tmp_path: Path
) -> None:
    async def main() -> None:
        store = memory()
        await recorded(store, "a & b", ("</script><script>alert(1)</script>", "broken"))
        path = tmp_path / "run.html"
        path.write_text(await export_run(Reading(store), "a & b"), encoding="utf-8")
        async with open_page(chromium_path, path.as_uri()) as (page, seen):
            requests = list[str]()
            page.on("request", lambda request: requests.append(request.url))
            assert await page.inner_text("h1") == "a & b"
            await page.click("nav.tabs >> text=Calls")
            await page.click("text=Failed")
            await page.click("a.grid-row")
            await page.wait_for_selector(".note.bad >> text=is not there")
            await page.goto(f"{path.as_uri()}#/run/a%20%26%20b/plan")
            await page.wait_for_selector(".numbers")
            assert seen == Seen()
            assert requests == []

    asyncio.run(asyncio.wait_for(main(), 180))


def test_text_of_a_call_is_shown_as_it_streams_and_then_its_outcome(chromium_path: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    unsafe = "<img src=x onerror=alert(1)> "

    @tool
    async def write() -> str:
        begun.set()
        while not ended.is_set():  # somebody looks sooner or later
            for word in ("Once ", "upon ", unsafe, "a time. "):
                await tell_progress(ChatDelta(text=word))
            await tell_progress(ChatDelta(tool_index=0, tool_name="look_up", arguments="{} "))
            await asyncio.sleep(0.1)
        return "the whole story"

    async def look(page: Page, seen: Seen, base: str) -> None:
        async def execute() -> None:
            async with ExecutionState(store=store, run_id="monday"):
                await write()

        executing = asyncio.ensure_future(execute())
        await begun.wait()
        key = await first_key(page, base, "monday")
        await show(page, base, f"/run/monday/call/{key}")
        await page.wait_for_selector(".stream code:has-text('look_up')")
        assert unsafe.strip() in await page.inner_text(".stream")
        ended.set()
        await executing
        await page.wait_for_selector("text=the whole story")
        assert await page.query_selector(".stream") is None
        assert await page.query_selector("img[onerror]") is None

    async def nothing(_: Store) -> None:
        return None

    store = memory()
    looking(chromium_path, nothing, look, store)
