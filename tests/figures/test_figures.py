"""Every script of figures/ draws from the committed records alone, and says what has not been run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FIGURES = Path(__file__).resolve().parent.parent.parent / "figures"
SHARED = ("style", "published")
SCRIPTS = sorted(path.stem for path in FIGURES.glob("*.py") if path.stem not in SHARED)


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The scripts importable, and what they write sent to `tmp_path`."""
    monkeypatch.syspath_prepend(str(FIGURES))
    loaded = {name: importlib.import_module(name) for name in SHARED}
    for module in loaded.values():
        monkeypatch.setattr(module, "HERE", tmp_path)
    yield tmp_path
    for name in [*SHARED, *SCRIPTS]:
        sys.modules.pop(name, None)


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_claims_and_draws_from_records(name: str, where: Path) -> None:
    module = load(name)
    assert module.__doc__ is not None
    for word in ("Claim under test", "Command:", "Expected"):
        assert word in module.__doc__, word
    paths = module.main()
    assert paths
    for path in paths:
        assert path.parent == where
        assert path.stat().st_size > 0


@pytest.mark.parametrize("name", ["levels", "heads", "session_length", "kept_weights", "attention_maps"])
def test_without_records_a_figure_says_so(
    name: str, where: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load("style"), "RECORDS", tmp_path / "none")
    paths = load(name).main()
    text = next(path for path in paths if path.suffix == ".svg").read_text()
    assert "not run" in text
    assert "dissect suite analyses/suites/" in text


def test_tables_without_records_say_so_in_every_cell(
    where: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load("style"), "RECORDS", tmp_path / "none")
    for name in ("table2_models", "table3_enhanced", "table4_ablations"):
        paths = load(name).main()
        assert paths[0].read_text().count("not run") > 5
    assert "SGNN-HN without, gowalla" in capsys.readouterr().out, "the paper's impossible rows are named"
