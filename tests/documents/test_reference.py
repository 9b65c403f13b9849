"""The reference has every name that users import. Whether what it names is there, `make docs` finds out."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.documents.kit import ROOT
from tests.documents.site_hooks import first_sentence

FOLDER = ROOT / "docs" / "reference"
LISTED = re.findall(
    r"^::: ([\w.]+)$", "\n".join(page.read_text(encoding="utf-8") for page in FOLDER.glob("*.md")), re.MULTILINE
)

FOR_USERS = (
    "rh_agents", "rh_agents.bus_handlers", "rh_agents.core.chat", "rh_agents.core.errors", "rh_agents.core.policies",
    "rh_agents.executors", "rh_agents.integrations", "rh_agents.llms", "rh_agents.logs", "rh_agents.stores",
    "rh_agents.telemetry.otel", "rh_agents.testing", "rh_agents.tools", "rh_agents.workers",
)  # fmt: skip
"""Modules whose names are all in the reference. Of others it has what a user needs."""


@pytest.mark.parametrize("name", FOR_USERS)
def test_every_name_that_users_import_is_in_the_reference(name: str) -> None:
    module = importlib.import_module(name)
    names = [each for each in module.__all__ if each != "__version__" and name not in LISTED]
    assert [each for each in names if not _is_listed(each, getattr(module, each))] == []


def _is_listed(name: str, value: object) -> bool:
    """Whether an object is there under some path of this name, or in a module that is listed as a whole."""
    paths = [path for path in LISTED if path.endswith(f".{name}")]
    paths += [f"{path}.{name}" for path in LISTED if path in FOR_USERS]
    return any(getattr(importlib.import_module(path.rpartition(".")[0]), name, None) is value for path in paths)


def test_every_page_of_the_site_is_in_its_navigation() -> None:
    navigation = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in Path(ROOT / "docs").rglob("*.md")]
    assert sorted(navigation) == sorted(pages)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_every_page_begins_with_a_title_and_has_a_sentence_for_the_list_of_pages(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if not text.startswith("--8<--"):  # the changelog, which is another file
        assert text.startswith("# ")
        assert len(first_sentence(text)) > 20


def test_the_sentence_of_a_page_is_no_title_no_code_and_no_table() -> None:
    page = "# Title\n\n```python\nx = 1\n```\n\n| a | b |\n|---|---|\n\nIt is\nthis. And that.\n"
    assert first_sentence(page) == "It is this."
