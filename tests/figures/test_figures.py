"""Every script of figures/ draws from the committed records alone, and says what has not been run."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dissect.experiment.suite import load_suite

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


@pytest.mark.parametrize("name", ["levels", "heads", "session_length", "strata", "kept_weights", "attention_maps"])
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


#: Sessions of the made-up test set, and examples of each.
SESSIONS, EACH = 40, 3


def make_records(root: Path, name: str) -> dict[str, float]:
    """Made-up finished runs of every entry of a suite; label -> HR@20, the same for every seed."""
    suite = load_suite(FIGURES.parent / "analyses" / "suites" / f"{name}.toml")
    n, hits = SESSIONS * EACH, {}
    session, length = np.repeat(np.arange(SESSIONS), EACH), np.tile(np.arange(1, EACH + 1), SESSIONS)
    for i, entry in enumerate(suite.entries):
        hit = 20 + 3 * suite.labels.index(entry.label)
        ranks = np.where(np.arange(n) < hit, 2.0, 50.0).astype(np.float32)
        hits[entry.label] = 100 * hit / n
        test = {
            f"{m}@{k}": 100 * hit / n / (2 if m == "mrr" else 1) for m in ("hr", "mrr", "ndcg") for k in (5, 10, 20)
        }
        folder = root / f"{name}-{i}"
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(entry.spec.to_json())
        groups = {str(k): {"n": SESSIONS, **test} for k in (1, 2, 3)}
        result = {
            "model": entry.spec.model, "seed": entry.spec.seed, "test": test, "valid": test, "by_length": groups,
            "epoch": 1, "steps": 9, "parameters": 7, "seconds_per_epoch": 1.5, "device": "cpu", "latency_ms": 0.5,
            "baselines": {}, "density": {}, "pruned": None, "sparsify": None,
            "dataset": {
                "name": "diginetica", "sha256": "0" * 64, "items": 50, "train_examples": 900 + entry.spec.seed,
                "valid_examples": 9, "test_examples": n, "max_train": 18647, "max_valid": 4700,
                "unseen_targets": {"valid": 0, "test": 0},
            },
            "protocol": {"name": "honest", "refit": False, "ties": "half", "optimistic": False},
        }  # fmt: skip
        arrays = {"rank": ranks, "session": session, "length": length}
        if entry.spec.sparse:
            result["pruned"] = {"test": test, "valid": test, "kept": 30, "total": 100}
            arrays["rank_pruned"] = ranks
            points = [
                {"rule": rule, "threshold": 1.0, "kept": kept, "total": 100, "parts": {}, "hr@20": 10.0, "mrr@20": 5.0}
                for rule in ("log-alpha", "magnitude")
                for kept in (100, 30, 0)
            ]
            (folder / "pruning.json").write_text(json.dumps({"examples": n, "points": points}))
        weights = [[1.0, 3.0]] * 9
        attention = {
            "sessions": [{"items": list(range(9)), "target": 4, "weights": weights}],
            "statistics": [{"length": 2, "examples": 30, "entropy": 0.5, "last": 0.75, "first": 0.25, "ratio": 3.0}],
        }
        (folder / "attention.json").write_text(json.dumps(attention))
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "metrics.jsonl").write_text("")
        np.savez_compressed(folder / "ranks.npz", **arrays)  # type: ignore[arg-type]
    return hits


@pytest.fixture
def made(where: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(load("style"), "RECORDS", tmp_path / "records")
    return tmp_path / "records"


def test_levels_are_differences_to_the_control(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hits = make_records(made, "fig5_levels")
    drawn: list[object] = []
    style = load("style")
    real = style.axis_figure
    monkeypatch.setattr(style, "axis_figure", lambda *a, **k: drawn.append((a, k)) or real(*a, **k))
    load("levels").main()
    ((panels, places), options) = drawn[0]  # type: ignore[misc]
    assert places == [1, 2, 3, 5, 7, 10]
    (series,) = panels["HR@20: points over meanlast"][0]
    for level, found in series.points.items():
        assert found == pytest.approx([hits[f"L = {level}"] - hits["meanlast"]] * 3)
        low, high = series.bars[level]
        assert low <= found[0] <= high
    assert "seeds 0, 1, 2" in options["caption"]
    assert f"hr@20: meanlast has {hits['meanlast']:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "suite"),
    [("heads", "fig6_heads"), ("session_length", "fig7_length"), ("kept_weights", "pruned"),
     ("attention_maps", "table2_models")],
)  # fmt: skip
def test_figures_are_drawn_from_records(made: Path, script: str, suite: str) -> None:
    make_records(made, suite)
    text = next(path for path in load(script).main() if path.suffix == ".svg").read_text()
    assert "Not run" not in text.replace("Not run: GC-SAN", "")
    assert "not run:" not in text
    assert "N = 120 test examples" in text


def test_strata_are_drawn_where_records_or_data_allow_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_records(made, "fig7_length")  # with lengths; of another data set than the one that may be at hand
    strata = load("strata")
    text = next(path for path in strata.main() if path.suffix == ".svg").read_text()
    assert "no stratum of 400 examples" in text
    monkeypatch.setattr(strata, "FEWEST", 40)
    text = next(path for path in strata.main() if path.suffix == ".svg").read_text()
    assert "1  n=40" in text
    assert "Not run: by popularity: " in text
    assert "by day: dissect suite analyses/suites/gowalla-tail.toml --keep." in " ".join(text.split())


@pytest.mark.parametrize("name", ["table2_models", "table4_ablations"])
def test_tables_hold_what_the_records_hold(made: Path, name: str) -> None:
    hits = make_records(made, name)
    text = load(name).main()[0].read_text()
    for label, hit in hits.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
        assert f"{hit:.2f} ± 0.00 / {hit / 2:.2f} ± 0.00" in row


def test_improvements_are_over_srgnn(made: Path) -> None:
    hits = make_records(made, "table3_enhanced")
    text = load("table3_enhanced").main()[0].read_text()
    gain = 100 * (hits["SR-GNN + Atten-Mixer"] / hits["SR-GNN"] - 1)
    assert f"{gain:+.2f}%" in text


def test_committed_tables_are_those_of_the_committed_records(where: Path) -> None:
    for name in ("table2_models", "table3_enhanced", "table4_ablations"):
        for path in load(name).main():
            assert path.read_text() == (FIGURES / path.name).read_text(), f"{path.name} is stale: make figures"
