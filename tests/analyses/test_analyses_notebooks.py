"""The notebooks show what they speak of; nbmake, on the notebooks themselves, tests that each runs top to bottom."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ANALYSES = Path(__file__).resolve().parent.parent.parent / "analyses"
NOTEBOOKS = sorted(ANALYSES.glob("0*.ipynb"))


def test_there_are_six() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem[:2])
def test_a_notebook_says_the_claim_and_what_to_see(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    assert "**The claim**" in text
    assert "**What to see below:**" in text


def test_the_density_notebook_shows_three_pictures_and_a_verdict() -> None:
    book = nbformat.read(NOTEBOOKS[0], 4)
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(ANALYSES)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    data = [output.get("data", {}) for output in outputs]
    assert sum("image/png" in each for each in data) == 3
    assert any("propagation keeps" in each.get("text/markdown", "") for each in data)
