"""What a record keeps for figures: attention maps and their flatness, accuracy against kept weights, latency."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from dissect.batch import PackedExamples
from dissect.experiment.attention import attention_sample
from dissect.experiment.main import start_run
from dissect.experiment.pruning import SHARES, pruning_curve
from dissect.models import build, recipe_of
from dissect.sparsity import wrap
from dissect.training.evaluate import latency_ms, metrics, rank_examples

LENGTHS = [2, 5, 1, 2, 9, 5, 5]


@pytest.fixture
def examples() -> PackedExamples:
    lengths = torch.tensor(LENGTHS)
    clicks = torch.randint(20, (int(lengths.sum()) + len(LENGTHS),), generator=torch.Generator().manual_seed(0))
    start = (lengths + 1).cumsum(0) - lengths - 1
    return PackedExamples(clicks, start, start + lengths)


def test_flat_maps_have_entropy_one_and_a_bias_moves_them(examples: PackedExamples) -> None:
    model = build(recipe_of("attenmixer", options={"heads": 2, "levels": 2, "positions": 3}), items=20, dim=4)
    with torch.no_grad():
        model.get_parameter("readout.mixer.attention.w_q.weight").zero_()
        model.get_parameter("readout.mixer.attention.position.weight").zero_()
    flat = attention_sample(model, examples, first_id=100)
    assert flat is not None
    assert [(row["length"], row["examples"]) for row in flat["statistics"]] == [(2, 2), (5, 3), (9, 1)]
    for row in flat["statistics"]:
        assert row["entropy"] == pytest.approx(1, abs=1e-5)
        assert row["deficit"] == pytest.approx(0, abs=1e-9)
        assert row["ratio"] == pytest.approx(1, abs=1e-5)
        assert row["last"] == pytest.approx(1 / row["length"], abs=1e-5)
    first = flat["sessions"][0]
    assert len(first["items"]) == len(first["weights"]) == 2
    assert first["items"] == [int(i) + 100 for i in examples.clicks[:2]]
    assert first["target"] == int(examples.clicks[2]) + 100
    with torch.no_grad():
        model.get_parameter("readout.mixer.attention.position.weight")[0] = 1e-3
    nearly = attention_sample(model, examples, first_id=100)
    assert nearly is not None
    assert all(row["entropy"] == 1 for row in nearly["statistics"])  # in the digits that are kept of it
    # Of n shares one is d larger than the others: (n - 1) / (2 n^2) d^2 nats of entropy are lost.
    for row in nearly["statistics"]:
        n = row["length"]
        assert row["deficit"] == pytest.approx((n - 1) / (2 * n * n) * 1e-6 / math.log(n), rel=0.05)
    with torch.no_grad():
        model.get_parameter("readout.mixer.attention.position.weight")[0] = 40
    sharp = attention_sample(model, examples, first_id=100)
    assert sharp is not None
    assert all(row["last"] > 0.999 and row["entropy"] < 0.001 for row in sharp["statistics"])
    assert attention_sample(build("meanpool", items=20, dim=4), examples, 0) is None


def test_sessions_of_one_item_alone_have_no_statistics() -> None:
    examples = PackedExamples(torch.tensor([1, 2, 3]), torch.tensor([0]), torch.tensor([1]))
    model = build(recipe_of("attenmixer", options={"heads": 2}), items=20, dim=4)
    assert attention_sample(model, examples, 0) == {"sessions": [], "statistics": []}


def test_the_pruning_curve_runs_from_all_weights_to_none(examples: PackedExamples) -> None:
    model = build("srgnn", items=20, dim=4)
    instrument = wrap(model, model.parts(), examples=7, steps=1)
    with torch.no_grad():  # under the signed rule more than half of them would be dropped at 0
        for _, _, theta, _ in instrument.tensors():
            theta[0] -= 1
    rules = ("log-alpha", "magnitude", "signed")
    curve = pruning_curve(model, instrument, examples, rules)
    assert list(dict.fromkeys(p["rule"] for p in curve["points"])) == list(rules)
    assert curve["examples"] == len(LENGTHS)
    dense = metrics(rank_examples(model, examples))
    for rule in rules:
        points = [p for p in curve["points"] if p["rule"] == rule]
        total = points[0]["total"]
        assert [p["kept"] for p in points] == [round(share * total) for share in SHARES]
        assert all(sum(p["parts"].values()) == p["kept"] for p in points)
        assert points[0]["hr@20"] == dense["hr@20"]
        assert points[0]["mrr@20"] == dense["mrr@20"]
        assert points[-1]["kept"] == 0
    with torch.no_grad():
        for _, _, theta, _ in instrument.tensors():
            theta.zero_()
    bare = metrics(rank_examples(model, examples))
    assert curve["points"][-1]["mrr@20"] == bare["mrr@20"]


def test_latency_is_of_single_sessions_and_leaves_no_trace(examples: PackedExamples) -> None:
    model = build("srgnn", items=20, dim=4).train()
    assert 0 < latency_ms(model, examples, rounds=5) < 1000
    assert model.training


def test_a_record_holds_them(toy_data: Path, tmp_path: Path) -> None:
    options = {"dataset": "toy", "data_dir": str(toy_data), "dim": 4, "steps": 5, "options": {"heads": 2}}
    result = start_run("attenmixer", options, out=tmp_path, init=None, force=False, quiet=True)
    folder = tmp_path / result["run_id"]
    assert result["latency_ms"] > 0
    assert result["dataset"]["longest"] == 5
    assert json.loads((folder / "attention.json").read_text())["statistics"]
    points = json.loads((folder / "pruning.json").read_text())["points"]
    assert points[0]["total"] == result["pruned"]["total"]


def test_the_curves_are_by_the_run_s_own_rule_too(toy_data: Path, tmp_path: Path) -> None:
    options = {"dataset": "toy", "data_dir": str(toy_data), "dim": 4, "steps": 3, "sparsify": "all"}
    for rule, names in (("signed", ["log-alpha", "magnitude", "signed"]), ("magnitude", ["log-alpha", "magnitude"])):
        result = start_run("srgnn", {**options, "rule": rule}, out=tmp_path, init=None, force=False, quiet=True)
        folder = tmp_path / result["run_id"]
        curves = json.loads((folder / "thresholds.json").read_text())
        assert list(curves) == names
        points = json.loads((folder / "pruning.json").read_text())["points"]
        assert list(dict.fromkeys(p["rule"] for p in points)) == names
        kept = {row["part"]: dict(zip(row["thresholds"], row["kept"], strict=True)) for row in curves[rule]}
        parts = {part: row["kept"] for part, row in result["density"].items()}
        assert {part: counts[0.1] for part, counts in kept.items()} == parts


def test_a_subset_of_the_validation_sessions_validates(toy_data: Path, tmp_path: Path) -> None:
    options = {"dataset": "toy", "data_dir": str(toy_data), "dim": 4, "steps": 3, "sparsify": "none"}
    whole = start_run("meanpool", options, out=tmp_path, init=None, force=False, quiet=True)
    part = start_run("meanpool", {**options, "max_valid": 10}, out=tmp_path, init=None, force=False, quiet=True)
    assert part["run_id"] != whole["run_id"]
    assert 10 <= part["dataset"]["valid_examples"] < whole["dataset"]["valid_examples"]
    assert part["dataset"]["train_examples"] == whole["dataset"]["train_examples"]
