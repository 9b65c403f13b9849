"""Code that has changed since its results were recorded is noticed, and they are reused with a word about it."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rh_agents import Agent, MemoryStore, Store, run, tool
from rh_agents.core._base import sources
from rh_agents.core._replay.codes import changed_codes, changed_sentence, recorded_codes, with_codes
from rh_agents.core.actors.code import codes_of
from rh_agents.core.errors import CodeChangedError, CodeChangedWarning
from rh_agents.testing import ScriptedLLM

Load = Callable[[str], ModuleType]
_numbers = itertools.count()

PROGRAM = '''
from rh_agents import RetryPolicy, tool
policy = RetryPolicy(max_attempts=2)
SEEN = []
LIMIT = 3
PROMPT = "Be short."
def helper(text):
    """Helps."""
    return text.upper()[:LIMIT]
@tool
async def fetch(url: str, depth: int = 1) -> str:
    """Reads a page."""
    SEEN.append(url if policy else None)
    return helper(url) * depth + PROMPT
@tool
async def other(url: str) -> str:
    return url
async def flow() -> list[str]:
    return [await fetch("a"), await fetch("b"), await other("c")]
'''


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Makes a module of a text, as if the file had been edited and the program started again."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(text: str) -> ModuleType:
        name = f"edited_program_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return load


def codes(module: ModuleType) -> dict[str, str | None]:
    found = codes_of([module.fetch.actor, module.other.actor])
    return {name.removesuffix("@1"): code for name, code in found.items()}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("helper(url) * depth + PROMPT", "helper( url )*depth+PROMPT  # now with a comment"),
        ('"""Reads a page."""', '"""Reads a page, and says so at length."""'),
        ('    """Helps."""\n', ""),
        ("@tool\nasync def fetch", "@tool(retry=3, timeout=5)\nasync def fetch"),
        ('"Be short."', "'Be short.'"),
        ("return url\n", "return (\n        url\n    )\n"),
        ("policy = RetryPolicy(max_attempts=2)", "policy = RetryPolicy(max_attempts=3)"),
        ("SEEN = []", "SEEN = []  # and nothing of what is in it"),
    ],
)
def test_comments_layout_docstrings_and_policies_are_no_change(load: Load, before: str, after: str) -> None:
    assert before in PROGRAM
    assert codes(load(PROGRAM)) == codes(load(PROGRAM.replace(before, after)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("* depth", "+ str(depth)"),
        ("depth: int = 1", "depth: int = 2"),
        ("LIMIT = 3", "LIMIT = 4"),
        ('PROMPT = "Be short."', 'PROMPT = "Be long."'),
        ("text.upper()", "text.lower()"),
        ("return text.upper()[:LIMIT]", "return deeper(text)\ndef deeper(text): return text"),
    ],
)
def test_what_the_code_does_is_a_change_also_in_what_it_names(load: Load, before: str, after: str) -> None:
    old, new = codes(load(PROGRAM)), codes(load(PROGRAM.replace(before, after)))
    assert old["fetch"] != new["fetch"]
    assert old["other"] == new["other"]
    assert None not in (*old.values(), *new.values())


def test_functions_are_followed_to_depth_three_and_in_circles(load: Load) -> None:
    text = """
        from rh_agents import tool
        def four(): return 4
        def three(): return four()
        def two(): return three(), one()
        def one(): return two()
        @tool
        def fetch(): return one()
        @tool
        def other(): return fetch
    """
    old = codes(load(text))
    assert old["fetch"] != codes(load(text.replace("def three(): return", "def three(): return 0,")))["fetch"]
    assert old["fetch"] == codes(load(text.replace("return 4", "return 5")))["fetch"], "that is too deep"


def test_what_a_program_has_become_while_it_ran_is_no_change(load: Load) -> None:
    module = load(PROGRAM)
    before = codes(module)
    module.SEEN.append("a")
    vars(module)["LIMIT"] = 7
    assert codes(module) == before


def test_a_module_that_is_loaded_anew_is_read_anew(load: Load) -> None:
    module = load(PROGRAM)
    before = codes(module)
    path = Path(str(module.__file__))
    path.write_text(path.read_text().replace("LIMIT = 3", "LIMIT = 44"))
    assert codes(module) == before, "what runs is what was read"
    importlib.reload(module)
    assert codes(module)["fetch"] != before["fetch"]


def test_what_has_no_source_is_unknown_and_never_unchanged() -> None:
    made: dict[str, Any] = {}
    exec("async def fetch(url): return url", made)
    unseen = codes_of([tool(made["fetch"]).actor])
    assert unseen == {"fetch@1": None}
    facts = with_codes({}, {}, unseen, accepted=False)
    assert recorded_codes(facts) == {"fetch@1": [None]}
    assert changed_codes(facts, {"fetch@1": "aaaa"}) == []
    assert changed_codes(with_codes(facts, facts, {"fetch@1": "aaaa"}, accepted=False), unseen) == []


CALLABLES = """
import functools
class Reader:
    def __init__(self, root): self.root = root
    async def read(self, url: str) -> str: return url
    async def __call__(self, url: str) -> str: return url
async def fetch(url: str, depth: int) -> str: return url
read, call, shallow = Reader("a").read, Reader("a"), functools.partial(fetch, depth=1)
"""


@pytest.mark.parametrize("name", ["read", "call", "shallow"])
def test_methods_objects_and_partial_functions_have_the_code_behind_them_wherever_they_are_in_memory(
    load: Load, name: str
) -> None:
    def code(text: str) -> str | None:
        return sources.code_digest(getattr(load(text), name))

    kept = [load(CALLABLES) for _ in range(3)]
    assert {sources.code_digest(getattr(each, name)) for each in kept} == {code(CALLABLES)} != {None}
    assert code(CALLABLES.replace("return url", "return url + '/'")) != code(CALLABLES)
    assert (code(CALLABLES.replace("depth=1", "depth=2")) != code(CALLABLES)) == (name == "shallow")


def test_what_cannot_be_looked_at_is_unknown_and_stops_no_run(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise ImportError(name)

    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __call__(self) -> None: ...

    module = load("PROMPT = 'a'\ndef fetch(): return PROMPT")
    assert module.__spec__ is not None
    monkeypatch.setitem(sys.modules, module.__name__, Lazy("lazy"))
    assert sources.code_digest(module.fetch) is None
    assert sources.code_digest(Odd()) is None
    assert sources.code_digest(abs) is None


def test_a_text_that_is_put_together_of_very_many_parts_hides_no_code(load: Load) -> None:
    text = f"PROMPT = {' + '.join(['chr(97)'] * 800)}\ndef fetch(): return PROMPT"
    before = sources.code_digest(load(text).fetch)
    assert before == sources.code_digest(load(text).fetch) is not None
    assert before != sources.code_digest(load(text.replace("97", "98")).fetch)
    module = load(text)
    vars(module)["PROMPT"] = "what it has become"
    assert before == sources.code_digest(module.fetch)


def test_prompts_and_settings_of_agents_and_models_are_their_code() -> None:
    def code(instructions: str = "Be kind.", **settings: Any) -> str | None:
        model = ScriptedLLM([], **settings)
        return codes_of([Agent(name="a", llm=model, instructions=instructions)])["a@1"]

    assert code() == code() is not None
    assert len({code(), code("Be strict."), code(temperature=0.5), code(max_tokens=9)}) == 4


PYTHONS = [*Path(sys.base_prefix).parent.glob("*/bin/python3.1[2-9]")]
"""Others that are installed beside this one."""


@pytest.mark.skipif(not PYTHONS, reason="there is no other Python here")
def test_digests_are_equal_on_all_versions_of_python(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "A = {'b': (1, 2.5, None), 'c': {3, 4}}\n"
        "class Page:\n    'A page.'\n    title: str = f'{A!r:>{10}}'\n"
        "def fetch(url, *rest, depth: int = 1, **more):\n"
        "    'Reads.'\n"
        "    match url:\n        case [x, *_]: return x\n"
        "        case {'k': v} if v: return f'{v=} {depth:.2f} {\"q\"}' 'b' f'{{}}'\n"
        "    with open(url) as f, open(url) as g:\n"
        "        return [Page, A, *(y for y in rest if (z := y)), lambda q=1: q, f, g]\n"
    )
    say = (
        f"import importlib.util as u, sys\n"
        f"def load(n, p):\n s = u.spec_from_file_location(n, p); m = u.module_from_spec(s); sys.modules[n] = m\n"
        f" s.loader.exec_module(m); return m\n"
        f"print(load('sources', {sources.__file__!r}).code_digest(load('program', {str(program)!r}).fetch))"
    )
    found = {
        subprocess.run([python, "-c", say], check=True, capture_output=True, text=True).stdout
        for python in (sys.executable, *map(str, PYTHONS))
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 16


# -- runs -------------------------------------------------------------------------------------------------------------


def execute(module: ModuleType, store: Store, **options: Any) -> list[str]:
    """Execute the flow of a program, and return what was said about its code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(run(module.flow, store=store, run_id="monday", **options))
    return [str(each.message) for each in caught if issubclass(each.category, CodeChangedWarning)]


def test_a_change_is_said_once_for_each_start_until_it_is_accepted(load: Load) -> None:
    store, edited = MemoryStore(), PROGRAM.replace("LIMIT = 3", "LIMIT = 4")
    assert execute(load(PROGRAM), store) == []
    assert execute(load(PROGRAM), store) == []
    for _ in range(2):
        (said,) = execute(load(edited), store)
        assert said == (
            "run 'monday': the code of 'fetch' has changed since: its 2 results are reused; a new version='...' in "
            "its definition makes the calls again, accept_changes=True silences this"
        )
    assert execute(load(edited), store, accept_changes=True) == []
    assert execute(load(edited), store) == []
    (said,) = execute(load(PROGRAM), store)
    assert "'fetch'" in said


def test_in_a_strict_run_a_change_is_an_error_before_anything_is_called(load: Load) -> None:
    store = MemoryStore()
    execute(load(PROGRAM), store, strict=True)
    edited = load(PROGRAM.replace("LIMIT = 3", "LIMIT = 4"))
    with pytest.raises(CodeChangedError, match="the code of 'fetch' has changed since: its 2 results"):
        execute(edited, store, strict=True)
    assert execute(edited, store, strict=True, accept_changes=True) == []


def test_another_version_makes_the_calls_again_and_is_no_change_of_what_is_reused(load: Load) -> None:
    store = MemoryStore()
    execute(load(PROGRAM), store)
    edited = PROGRAM.replace("@tool\nasync def other", '@tool(version="2")\nasync def other')
    assert execute(load(edited.replace("return url\n", "return url * 2\n")), store) == []


def test_a_journal_that_does_not_say_what_code_there_was_is_reused_without_a_word(load: Load) -> None:
    store = MemoryStore()

    async def unsaid() -> None:
        from rh_agents import ExecutionState  # noqa: PLC0415 - as a program that finds no actors

        async with ExecutionState(store=store, run_id="monday", workflow="flow", input={}):
            await load(PROGRAM).flow()

    asyncio.run(unsaid())
    assert execute(load(PROGRAM.replace("LIMIT = 3", "LIMIT = 4")), store) == []


def test_what_a_run_says_of_its_code_is_small_and_read_whatever_a_later_version_writes() -> None:
    facts = with_codes({"command": "x"}, {}, {"fetch@1": "a" * 16}, accepted=False)
    assert facts == {"command": "x", "code": json.dumps({"fetch@1": ["a" * 16]}, separators=(",", ":"))}
    for other in ("", "[]", "{", '{"fetch@1": 3}', '{"fetch@1": [3]}'):
        assert changed_codes({"code": other}, {"fetch@1": "b"}) == []
    assert changed_sentence(["a", "b"], {"a": 1, "b": 1200}) == (
        "the code of 'a' has changed since: its result is reused; the code of 'b' has changed since: its 1,200 results "
        "are reused; a new version='...' in its definition makes the calls again"
    )
