"""Runs of models that count: the record of a trained run, on the same examples, and no training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dissect.data import load, split_validation
from dissect.errors import DissectError
from dissect.experiment.run import Run
from dissect.experiment.spec import Spec
from dissect.experiment.suite import find_records, load_suite
from dissect.experiment.suite_run import run_suite
from dissect.experiment.use import recommend_items
from dissect.models.counting import counting_model
from dissect.report.compare import compare
from dissect.report.formats import render
from dissect.report.layout import tables


def made(model: str, data: Path, out: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    run = Run(Spec.create(model, dataset="toy", data_dir=str(data), **options), out=out, quiet=True)
    return run.folder.path, run.execute()


@pytest.fixture(scope="module")
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    small: dict[str, Any] = {"dim": 4, "epochs": 1, "sparsify": "none", "device": "cpu"}
    return made("srgnn", toy_data, tmp_path_factory.mktemp("runs"), **small)


@pytest.mark.parametrize("model", ["spop", "sr", "vsknn"])
def test_the_record_is_that_of_a_trained_run(
    model: str, toy_data: Path, tmp_path: Path, trained: tuple[Path, dict[str, Any]]
) -> None:
    folder, result = made(model, toy_data, tmp_path)
    assert set(result) == set(trained[1])
    for name in ("dataset", "protocol", "baselines", "sparsify", "density", "pruned"):
        assert result[name] == trained[1][name], name
    assert set(result["by_length"]) == set(trained[1]["by_length"])
    assert (result["parameters"], result["steps"], result["epoch"], result["recipe"]) == (0, 0, 0, None)
    assert json.loads((folder / "result.json").read_text()) == result
    ranks, others = np.load(folder / "ranks.npz"), np.load(trained[0] / "ranks.npz")
    for name in ("session", "length"):
        np.testing.assert_array_equal(ranks[name], others[name])
    assert 100 * (ranks["rank"] <= 5).mean() == pytest.approx(result["test"]["hr@5"], abs=1e-3)
    (row,) = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert row.items() >= result["valid"].items()
    (folder / "result.json").unlink()
    again = Run.resume(folder, quiet=True).execute()
    assert (again["test"], again["run_id"]) == (result["test"], result["run_id"])
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1


def test_it_counts_on_the_training_part_and_refit_on_all(toy_data: Path, tmp_path: Path) -> None:
    data = load("toy", data_dir=toy_data)
    for refit, sessions in ((False, split_validation(data.train)[0]), (True, data.train)):
        folder, result = made("sr", toy_data, tmp_path, refit=refit)
        assert result["dataset"]["train_examples"] == int((sessions.lengths - 1).sum())
        model = counting_model("sr")
        model.fit(sessions.clicks, sessions.offsets, data.items)
        for i in (0, 17, 40):
            scores = model.scores(data.test.clicks, data.test.start[i : i + 1], data.test.end[i : i + 1]).toarray()[0]
            own = scores[data.test.targets[i]]
            rank = 1 + (scores > own).sum() + 0.5 * ((scores == own).sum() - 1)
            assert np.load(folder / "ranks.npz")["rank"][i] == rank
        assert result["valid"]["hr@20"] > 0
    whole = made("sr", toy_data, tmp_path, protocol="paper-code")[1]
    assert whole["test"] == result["test"]
    assert whole["valid"] is None
    assert whole["protocol"]["optimistic"]


def test_it_is_compared_with_a_trained_run(
    toy_data: Path, tmp_path: Path, trained: tuple[Path, dict[str, Any]]
) -> None:
    folders = [made(model, toy_data, tmp_path)[0] for model in ("sr", "vsknn")]
    folders.append(made("vsknn", toy_data, tmp_path, k=5)[0])
    found = compare([trained[0], *folders], resamples=100)
    assert [line.label for line in found.lines] == ["srgnn", "sr", "vsknn, k 100", "vsknn, k 5"]
    for line in found.lines[1:]:
        assert line.difference is not None
        assert (line.difference.low < line.difference.high).all()
    text = "\n".join(render(table, "text") for table in tables(found))
    assert "Budgets differ" not in text  # of those that were trained, there is one
    assert "to count, in all" in text


def test_what_does_not_concern_it_is_no_part_of_its_spec(toy_data: Path) -> None:
    spec = Spec.create("vsknn", data_dir=str(toy_data))
    assert json.loads(spec.to_json()).keys().isdisjoint({"lr", "dim", "epochs", "prior", "encoder", "precision"})
    assert Spec.from_json(spec.to_json(), "spec") == spec
    assert spec.replace(precision="bf16", lr=1.0) == spec
    others: list[dict[str, Any]] = [{"k": 5}, {"idf": 1.0}, {"seed": 1}, {"ties": "optimistic"}, {"refit": True}]
    assert len({Spec.create("vsknn", **options).run_id("0") for options in ({}, *others)}) == 6
    assert Spec.create("vsknn").run_id("0" * 64) == "vsknn-demo-85d278e5"
    with pytest.raises(DissectError, match="no parts, no weights and no training step"):
        _ = spec.recipe


def test_recommendations_are_counted_again(toy_data: Path, tmp_path: Path) -> None:
    data = load("toy", data_dir=toy_data)
    folder, _ = made("sr", toy_data, tmp_path, refit=True)
    found = recommend_items(folder, [3, 7], top=2)
    follows = np.zeros(30)
    for a, b in zip(data.train.offsets[:-1], data.train.offsets[1:], strict=True):
        session = data.train.clicks[a:b].tolist()
        for i, first in enumerate(session):
            for j in range(i + 1, len(session)):
                follows[session[j]] += (first == 7) / (j - i)
    best = np.argsort(-follows, kind="stable")[:2]
    assert [row["item"] for row in found["items"]] == best.tolist()
    np.testing.assert_allclose([row["score"] for row in found["items"]], follows[best], rtol=1e-5)
    with pytest.raises(DissectError, match="no pruned weights"):
        recommend_items(folder, [3], pruned=True)


def test_a_suite_holds_it_beside_trained_models(toy_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "controls.toml"
    text = """
        [defaults]
        dataset = "toy"
        sparsify = "gnn"
        setting = "paper"
        dim = 4
        steps = 2
        [[runs]]
        model = "srgnn"
        [[runs]]
        label = "k = {k}"
        model = "vsknn"
        k = [3, 9]
    """
    file.write_text(text)
    suite = load_suite(file).with_precision("bf16")
    assert suite.labels == ["srgnn", "k = 3", "k = 9"]
    assert [entry.spec.sparsify for entry in suite.entries] == ["gnn", "none", "none"]
    controls = replace(suite, entries=suite.entries[1:])
    found, failed = run_suite(controls, out=tmp_path / "runs", device="cuda", data_dir=str(toy_data), quiet=True)
    assert failed == []
    assert find_records(suite, [tmp_path / "runs"], any_precision=True) == {1: found[0], 2: found[1]}
    file.write_text(text + "dim = 4\n")
    with pytest.raises(DissectError, match=r"run 2: vsknn counts.*no use for --dim"):
        load_suite(file)
