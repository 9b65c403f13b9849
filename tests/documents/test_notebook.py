"""The notebook in examples/ runs in a real kernel, and shows what is kept in it."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from tests.documents.kit import ROOT, matches

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


def texts_of(cell: Any) -> list[str]:
    """What a cell prints and gives, without the bar, which is taken away at the end."""
    texts = [output.get("text") or output["data"]["text/plain"] for output in cell.outputs if is_kept(output)]
    return [line for text in texts for line in re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()]


def is_kept(output: Any) -> bool:
    """Whether an output is a text or a value."""
    return output.output_type in {"stream", "execute_result"}


@pytest.mark.skipif(
    importlib.util.find_spec("nbclient") is None or importlib.util.find_spec("ipykernel") is None,
    reason="nbclient and ipykernel are not installed",
)
@pytest.mark.filterwarnings("ignore")  # those of Jupyter
def test_the_notebook_shows_what_is_kept_in_it(tmp_path: Path) -> None:
    nbclient, nbformat = map(importlib.import_module, ("nbclient", "nbformat"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kept = [texts_of(cell) for cell in notebook.cells if cell.cell_type == "code"]
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [texts_of(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(map(len, kept)) >= 6
    for printed, expected in zip(shown, kept, strict=True):
        assert matches("\n".join(printed), expected, varies=any("✓" in line for line in expected)), printed
