"""The modules of the page, and what becomes of them in one file."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("starlette")

from rh_agents.web.export import one_script
from rh_agents.web.static_files import static_files

MODULES = {name: data.decode() for name, data in static_files().items() if name.endswith(".js")}
AT_THE_TOP = re.compile(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)


def test_no_two_modules_have_one_name_at_their_top() -> None:
    names = [name for text in MODULES.values() for name in AT_THE_TOP.findall(text)]
    assert sorted(names) == sorted(set(names))


def test_one_script_of_all_modules_imports_and_exports_nothing() -> None:
    script = one_script(MODULES)
    assert re.findall(r"^(?:import|export)\b.*", script, re.MULTILINE) == []
    assert script.index("export function el"[7:]) < script.index("export async function showRun("[7:])


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_makes_no_markup_of_text_and_asks_no_one_else(name: str) -> None:
    text = MODULES[name]
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "DOMParser"):
        assert word not in text
    assert set(re.findall(r"https?://[^\"`]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_every_import_of_a_module_is_used_in_it_and_exported_where_it_comes_from() -> None:
    for name, text in MODULES.items():
        for names, source in re.findall(r'^import \{ ([^}]*) \} from "\./(\w+\.js)";$', text, re.MULTILINE):
            body = text.partition(f'from "./{source}"')[2]
            for each in names.split(", "):
                assert re.search(rf"\b{each}\b", body), f"{name} does not use {each}"
                assert re.search(
                    rf"^export (?:async )?(?:function|const|class) {each}\b", MODULES[source], re.MULTILINE
                )
