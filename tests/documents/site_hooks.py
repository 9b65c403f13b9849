"""What the site gets besides its pages: `llms.txt`, a list of the pages, and `llms-full.txt`, the text of all of them.

Both are made of the Markdown as it is written, which is what their readers read best; names of the reference are
replaced by their signatures and docstrings. See https://llmstxt.org for the form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_NAME = re.compile(r"^::: ([\w.]+)\n(?: +options:.*\n)?", re.MULTILINE)
_INCLUDED = re.compile(r'^--8<-- "([^":]+)(?::\w+)?"$', re.MULTILINE)


def on_post_build(config: Any) -> None:
    """Called by MkDocs when the site is built."""
    docs = Path(config["docs_dir"])
    pages = list(_pages(config["nav"], docs))
    site = Path(config["site_dir"])
    head = f"# {config['site_name']}\n\n> {config['site_description']}\n"
    (site / "llms.txt").write_text(f"{head}\n{''.join(_entry(*page) for page in pages)}", encoding="utf-8")
    code = _code(docs.parent)
    whole = "\n\n".join(_NAME.sub(lambda found: _described(code, found[1]), text) for _, text in pages)
    (site / "llms-full.txt").write_text(f"{head}\n{whole}", encoding="utf-8")


def _pages(nav: Any, folder: Path) -> Iterator[tuple[str, str]]:
    """The pages in the order of the navigation: name and text."""
    if isinstance(nav, str):
        text = (folder / nav).read_text(encoding="utf-8")
        yield nav, _INCLUDED.sub(lambda found: (folder.parent / found[1]).read_text(encoding="utf-8"), text)
        return
    for each in nav.values() if isinstance(nav, dict) else nav:
        yield from _pages(each, folder)


def _entry(name: str, text: str) -> str:
    title = _TITLE.search(text)
    return f"- [{title[1] if title else name}]({name.removesuffix('.md')}.html): {first_sentence(text)}\n"


def first_sentence(text: str) -> str:
    """The first sentence of a page that is no title, no code and no table."""
    for paragraph in re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE).split("\n\n"):
        if paragraph.strip() and not paragraph.lstrip("\n").startswith(("#", "    ", "|", "!", "-", ":")):
            return re.split(r"(?<=[.?!]) ", " ".join(paragraph.split()), maxsplit=1)[0]
    return ""


# -- the reference -----------------------------------------------------------------------------------------------------


def _code(folder: Path) -> Any:
    """The modules as Griffe reads them, which mkdocstrings brings with it: nothing is imported."""
    griffe: Any = import_module("griffe")
    loader = griffe.GriffeLoader(search_paths=[folder])
    for package in ("rh_agents", "pytest_rh_agents"):
        loader.load(package)
    loader.resolve_aliases()
    return loader.modules_collection


def _described(code: Any, path: str) -> str:
    """A name of the reference, and what is public in it."""
    found = code[path]
    while found.is_alias:
        found = found.final_target
    return "".join(_lines_of(found, path, 0))


def _lines_of(found: Any, path: str, level: int) -> Iterator[str]:
    if found.kind.value == "module":
        for name in found.exports or ():
            yield _described(found.modules_collection, f"{found.path}.{getattr(name, 'name', name)}")
        return
    if found.docstring is None:
        return
    signature = found.signature() if found.kind.value == "function" else path.rpartition(".")[2]
    text = found.docstring.value.replace("\n", "\n    ")
    yield f"{'#' * (3 + level)} {path}\n\n    {signature}\n    {text}\n\n"
    if found.kind.value == "class":
        for name, member in found.members.items():
            if not name.startswith("_") and not member.is_alias:
                yield from _lines_of(member, f"{path}.{name}", 1)
