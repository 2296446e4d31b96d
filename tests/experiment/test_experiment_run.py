"""A run from spec to record: contract of the folder, protocols, resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dissect.data import load
from dissect.errors import DissectError
from dissect.experiment import checkpoint, instrument, record
from dissect.experiment import run as run_module
from dissect.experiment.callbacks import Selection
from dissect.experiment.checkpoint import Interrupted
from dissect.experiment.main import resume_run
from dissect.experiment.prune import prune_run, pruned_name
from dissect.experiment.record import RunFolder
from dissect.experiment.run import Run
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits
from dissect.experiment.use import load_model, recommend_items, wrapped_model
from dissect.models import build
from dissect.models.recipes import RECIPES
from dissect.report.runs import read_run
from dissect.training.evaluate import metrics, rank_examples
from dissect.training.plan import Plan
from dissect.training.train import Loop

SMALL: dict[str, Any] = {"dataset": "toy", "dim": 8, "batch_size": 32, "epochs": 3, "lr": 0.01, "device": "cpu"}


def spec_of(data: Path, **options: Any) -> Spec:
    return Spec.create("srgnn", **{**SMALL, "data_dir": str(data), **options})


def rows_of(run: Run, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    run = Run(spec_of(toy_data), out=tmp_path_factory.mktemp("runs"), quiet=True)
    return run, run.execute()


def test_the_record_holds_what_the_contract_names(finished: tuple[Run, dict[str, Any]]) -> None:
    run, result = finished
    names = {p.name for p in run.folder.path.iterdir()}
    assert names >= {
        "spec.json", "environment.json", "metrics.jsonl", "density.jsonl", "ranks.npz", "model.safetensors",
        "pruned.safetensors", "state", "result.json", "thresholds.json",
    }  # fmt: skip
    assert json.loads((run.folder / "result.json").read_text()) == result
    assert set(result) >= {
        "schema", "run_id", "model", "recipe", "seed", "dataset", "protocol", "sparsify", "epoch", "steps", "valid",
        "test", "by_length", "reach", "density", "lr_budget", "pruned", "parameters", "seconds_per_epoch",
        "examples_per_second", "device",
    }  # fmt: skip
    assert result["recipe"] == {"encoder": "gated-graph", "readout": "soft-attention", "scorer": "dot"}
    assert set(result["density"]) == {"propagation", "combination", "attention", "transformation"}
    d = SMALL["dim"]
    totals = {
        "propagation": 2 * d * d,
        "combination": 9 * d * d,
        "attention": 2 * d * d + d,
        "transformation": 2 * d * d,
    }
    assert {p: v["total"] for p, v in result["density"].items()} == totals
    assert result["pruned"]["total"] == sum(totals.values())
    assert result["epoch"] == 3
    assert result["steps"] == 3 * -(-result["dataset"]["train_examples"] // 32)
    assert result["lr_budget"] == pytest.approx(0.01 * result["steps"])


def test_logs_cover_the_run(finished: tuple[Run, dict[str, Any]]) -> None:
    run, result = finished
    metrics = rows_of(run, record.METRICS)
    steps = [r for r in metrics if r["kind"] == "step"]
    assert [r["step"] for r in steps] == list(range(1, result["steps"] + 1))
    assert steps[-1]["nll"] < steps[0]["nll"]
    assert steps[0]["kl_weight"] == 0
    assert steps[-1]["kl_weight"] == 1
    evaluations = [r for r in metrics if r["kind"] == "evaluation"]
    assert [(r["epoch"], r["pruned"]) for r in evaluations] == [(e, p) for e in (1, 2, 3) for p in (False, True)]
    density = [r for r in rows_of(run, record.DENSITY) if r["rule"] == "log-alpha"]
    last = {r["part"]: r["kept"] for r in density if r["tensor"] is None and r["step"] == result["steps"]}
    assert last == {p: v["kept"] for p, v in result["density"].items()}
    for part, kept in last.items():
        tensors = [r for r in density if r["part"] == part and r["tensor"] and r["step"] == result["steps"]]
        assert sum(r["kept"] for r in tensors) == kept


def test_ranks_give_the_metrics_back(finished: tuple[Run, dict[str, Any]]) -> None:
    run, result = finished
    ranks = np.load(run.folder / record.RANKS)
    assert len(ranks["rank"]) == result["dataset"]["test_examples"] == len(ranks["session"])
    assert 100 * (ranks["rank"] <= 20).mean() == pytest.approx(result["test"]["hr@20"], abs=1e-3)
    assert 100 * (ranks["rank_pruned"] <= 5).mean() == pytest.approx(result["pruned"]["test"]["hr@5"], abs=1e-3)
    assert sum(v["n"] for v in result["by_length"].values()) == len(ranks["rank"])


def test_it_learns_more_than_popularity(finished: tuple[Run, dict[str, Any]]) -> None:
    _, result = finished
    assert result["valid"]["mrr@20"] > 2 * result["baselines"]["popularity"]["valid"]["mrr@20"]


def test_a_finished_run_is_not_run_again(finished: tuple[Run, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    run, result = finished
    monkeypatch.setattr(Loop, "run", lambda self: pytest.fail("trained again"))
    assert Run(run.spec, out=run.folder.path.parent, quiet=True).execute() == result


def test_recommend_and_prune_use_the_record(
    finished: tuple[Run, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    run, result = finished
    path = run.folder.path
    found = recommend_items(path, [3, 4, 5], top=3)
    assert [set(i) for i in found["items"]] == [{"item", "score"}] * 3
    assert 6 in [i["item"] for i in found["items"]]
    with pytest.raises(DissectError, match=r"item 30 is out of range: 'toy' has the ids 0 to 29"):
        recommend_items(path, [30])
    again = prune_run(path, None, None, path / "again.safetensors", False)
    assert again["kept"] == result["pruned"]["kept"]
    assert again["test"] == result["pruned"]["test"]
    assert prune_run(path, "magnitude", 1e9, path / "none.safetensors", False)["kept"] == 0
    pruned = load_model(path, pruned=True)
    zeros = sum(int((pruned.get_parameter(f"{n}.weight") == 0).sum()) for part in pruned.parts().values() for n in part)
    assert zeros == result["pruned"]["total"] - result["pruned"]["kept"]
    capsys.readouterr()


@pytest.mark.parametrize("model", sorted(RECIPES))
def test_what_is_recorded_is_of_the_weights_that_are_saved(model: str, toy_data: Path, tmp_path: Path) -> None:
    """Of the last epoch, with parts wrapped: what an earlier evaluation left behind must not be in it."""
    spec = Spec.create(model, **{**SMALL, "data_dir": str(toy_data), "epochs": 2, "heads": None})
    parts = build(spec.recipe, items=1, dim=spec.dim).parts()
    run = Run(spec if any(parts.values()) else spec.replace(sparsify="none"), out=tmp_path, quiet=True)
    result = run.execute()
    splits = make_splits(run.data, run.spec, torch.device("cpu"))
    loaded = load_model(run.folder.path)
    for name, examples in (("valid", splits.valid), ("test", splits.test)):
        assert examples is not None
        again = metrics(rank_examples(loaded, examples))
        assert result[name]["hr@20"] == pytest.approx(again["hr@20"], abs=0.02), name
        assert result[name]["mrr@20"] == pytest.approx(again["mrr@20"], abs=0.02), name


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ({"sparsify": "none"}, lambda r: r["density"] == {} and r["pruned"] is None and r["sparsify"] is None),
        ({"sparsify": "gnn"}, lambda r: set(r["density"]) == {"propagation", "combination"}),
        ({"sparsify": "readout", "noise": "weight"}, lambda r: set(r["density"]) == {"attention", "transformation"}),
        ({"sparsify": "none", "protocol": "paper-code"}, lambda r: r["protocol"]["optimistic"] and r["valid"] is None),
        ({"sparsify": "none", "refit": True}, lambda r: r["dataset"]["valid_examples"] == 0 and r["valid"]),
        ({"sparsify": "none", "steps": 7}, lambda r: r["steps"] == 7),
        ({"sparsify": "none", "max_train": 50}, lambda r: r["dataset"]["train_examples"] < 300),
    ],
)  # fmt: skip
def test_options_reach_the_run(toy_data: Path, tmp_path: Path, options: dict[str, Any], check: Any) -> None:
    result = Run(spec_of(toy_data, **{"epochs": 2, **options}), out=tmp_path, quiet=True).execute()
    assert check(result), result


def test_a_refit_is_told_from_the_selection(toy_data: Path, tmp_path: Path) -> None:
    run = Run(spec_of(toy_data, epochs=2, refit=True), out=tmp_path, quiet=True)
    result = run.execute()
    found = read_run(run.folder.path)
    assert found.density[0]["step"] == 0
    assert [r["step"] for r in found.steps] == sorted({r["step"] for r in found.steps})
    assert found.steps[-1]["step"] == result["steps"] == 2 * -(-result["dataset"]["train_examples"] // 32)


def test_paper_code_takes_each_metric_at_its_best_epoch(toy_data: Path, tmp_path: Path) -> None:
    run = Run(spec_of(toy_data, sparsify="none", protocol="paper-code"), out=tmp_path, quiet=True)
    result = run.execute()
    evaluations = [r for r in rows_of(run, record.METRICS) if r["kind"] == "evaluation"]
    for name, value in result["test"].items():
        assert value == max(r[name] for r in evaluations)


def test_dense_selection_keeps_the_best_epoch(toy_data: Path, tmp_path: Path) -> None:
    run = Run(spec_of(toy_data, sparsify="none", lr=0.3, epochs=6, lr_step=100, patience=2), out=tmp_path, quiet=True)
    result = run.execute()
    evaluations = [r for r in rows_of(run, record.METRICS) if r["kind"] == "evaluation"]
    best = max(evaluations, key=lambda r: r["mrr@20"])
    assert result["epoch"] == best["epoch"]
    assert result["valid"]["hr@5"] == best["hr@5"]
    assert len(evaluations) <= best["epoch"] + 2


class _Dies(Exception):
    pass


@pytest.mark.parametrize("options", [{}, {"sparsify": "none", "noise": "weight"}, {"noise": "weight"}])
@pytest.mark.parametrize("at", [2, 13, 24])
def test_resume_gives_the_uninterrupted_metrics(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], at: int
) -> None:
    spec = spec_of(toy_data, epochs=2, **options)
    whole = Run(spec, out=tmp_path / "whole", quiet=True)
    expected = whole.execute()
    take, calls = Loop.train_step, 0

    def dying(self: Loop, batch: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > at:
            raise _Dies
        take(self, batch)

    # A state every five steps, then death between two of them, as `kill -9` would have it: what was logged since the
    # last state is to be cut and logged again.
    step = checkpoint.Checkpoint.on_step

    def every_five(self: checkpoint.Checkpoint, loop: Loop) -> None:
        self.seconds = -1.0 if loop.step % 5 == 0 else 1e9
        step(self, loop)

    monkeypatch.setattr(checkpoint.Checkpoint, "on_step", every_five)
    monkeypatch.setattr(Loop, "train_step", dying)
    broken = Run(spec, out=tmp_path / "broken", quiet=True)
    with pytest.raises(_Dies):
        broken.execute()
    monkeypatch.setattr(Loop, "train_step", take)
    torch.manual_seed(99)  # whatever the resuming process drew before
    before = broken.folder.read_json(record.ENVIRONMENT)
    if at == 13:  # one is resumed by other code
        monkeypatch.setattr(run_module, "environment", lambda *_: {**before, "git_commit": "another"})
    found = Run.resume(broken.folder.path, quiet=True).execute()
    resumed = [{"phase": "select", "step": 10, "git_commit": "another"}] if at == 13 else None
    assert broken.folder.read_json(record.ENVIRONMENT).get("resumed") == resumed
    for key in ("test", "valid", "density", "pruned", "steps", "epoch", "by_length"):
        assert found[key] == expected[key], key
    drop = {"examples_per_second"}
    for name in (record.METRICS, record.DENSITY):
        a, b = ([{k: v for k, v in r.items() if k not in drop} for r in rows_of(run, name)] for run in (whole, broken))
        assert a == b


def test_resume_keeps_the_weights_it_began_from_for_the_refit(
    finished: tuple[Run, dict[str, Any]], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = finished[0].folder / record.WEIGHTS
    spec = spec_of(toy_data, epochs=1, lr=1e-5, sparsify="none", refit=True, init="that")
    expected = Run(spec, out=tmp_path / "whole", quiet=True).execute(init)
    take, calls = Loop.train_step, 0

    def dying(self: Loop, index: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise _Dies
        take(self, index)

    monkeypatch.setattr(Loop, "train_step", dying)
    broken = Run(spec, out=tmp_path / "broken", quiet=True)
    with pytest.raises(_Dies):
        broken.execute(init)
    monkeypatch.setattr(Loop, "train_step", take)
    moved = init.with_name("moved")
    init.rename(moved)
    try:
        with pytest.raises(DissectError, match=r"no weights at .*, which the refit begins with; put them back"):
            Run.resume(broken.folder.path, quiet=True).execute()
    finally:
        moved.rename(init)
    assert Run.resume(broken.folder.path, quiet=True).execute()["test"] == expected["test"]


def test_a_saved_state_needs_no_weights_that_it_began_from(
    finished: tuple[Run, dict[str, Any]], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = shutil.copy(finished[0].folder / record.WEIGHTS, tmp_path / "init.safetensors")
    spec = spec_of(toy_data, epochs=1, sparsify="none", init="that")
    expected = Run(spec, out=tmp_path / "whole", quiet=True).execute(Path(init))
    save = checkpoint.Checkpoint.save

    def dying(self: checkpoint.Checkpoint, loop: Loop) -> None:
        save(self, loop)
        raise _Dies

    monkeypatch.setattr(checkpoint.Checkpoint, "save", dying)
    broken = Run(spec, out=tmp_path / "broken", quiet=True)
    with pytest.raises(_Dies):
        broken.execute(Path(init))
    monkeypatch.setattr(checkpoint.Checkpoint, "save", save)
    Path(init).unlink()
    assert Run.resume(broken.folder.path, quiet=True).execute()["test"] == expected["test"]


def test_what_the_spec_says_reaches_every_step(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    wrap, optimizer = instrument.wrap, run_module.make_optimizer
    monkeypatch.setattr(instrument, "wrap", lambda *a, **k: wrap(*a, **made.setdefault("wrap", k)))
    monkeypatch.setattr(run_module, "make_optimizer", lambda *a: optimizer(*made.setdefault("optimizer", a)))
    spec = spec_of(
        toy_data, epochs=4, lr_step=1, lr_gamma=0.5, lr_sigma=0.02, kl_scale=2.0, warmup=(0.25, 0.5),
        weight_decay=0.125, log_sigma2=-6.0, threshold=2.5, noise="weight",
    )  # fmt: skip
    run = Run(spec, out=tmp_path, quiet=True)
    result = run.execute()
    examples, steps = result["dataset"]["train_examples"], result["steps"]
    per_epoch = -(-examples // spec.batch_size)
    assert steps == 4 * per_epoch
    assert made["wrap"] == {
        "examples": examples, "steps": steps, "noise": "weight", "prior": spec.prior, "log_sigma2": -6.0,
        "kl_scale": 2.0, "warmup": (0.25, 0.5), "rule": spec.rule, "threshold": 2.5, "shadows": 0,
    }  # fmt: skip
    groups = {group["name"]: group for group in made["optimizer"][1]}
    assert groups["sigma"].get("weight_decay", 0.0) == 0.0
    assert any(group.get("weight_decay") == 0.125 for group in groups.values())
    rows = [row for row in rows_of(run, record.METRICS) if row["kind"] == "step"]
    assert len(rows) > 30
    for row in rows:
        epoch = (row["step"] - 1) // per_epoch
        assert row["lr"] == pytest.approx(spec.lr * 0.5**epoch)
        assert row["lr_budget"] == pytest.approx(0.02 * row["step"], abs=1e-6)
        ramp = min(1.0, max(0.0, ((row["step"] - 1) / steps - 0.25) / 0.25))
        assert row["kl_weight"] == pytest.approx(2.0 * ramp, abs=2.5 * 4 / steps)
    assert rows[-1]["kl_weight"] == 2.0


def test_the_best_weights_and_the_patience_are_part_of_the_state(tmp_path: Path) -> None:
    def loop(epoch: int) -> Any:
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(model.weight, float(epoch))
        plan = SimpleNamespace(steps_per_epoch=1, steps=9)
        return SimpleNamespace(model=model, step=epoch, plan=plan)

    def selection(mrr: list[float]) -> Selection:
        values = iter(mrr)
        folder = RunFolder(tmp_path)
        return Selection(folder, lambda _: {"mrr@20": next(values), "hr@20": 1.0}, "valid", sparse=False, patience=2)

    first = selection([3.0, 2.0])
    for epoch in (1, 2):
        first.on_epoch(loop(epoch))
    assert not first.exhausted
    torch.save(first.state_dict(), tmp_path / "state.pt")
    again = selection([2.5])
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    last = loop(3)
    again.on_epoch(last)
    assert again.exhausted, "two epochs without a better one, the first of them before the resume"
    assert again.best_epoch["mrr@20"] == 1
    assert again.metrics["mrr@20"] == 3.0
    again.restore(last.model)
    assert last.model.weight.item() == 1.0


def test_pruning_writes_over_nothing_of_the_run(finished: tuple[Run, dict[str, Any]], tmp_path: Path) -> None:
    folder = finished[0].folder.path
    for name in (record.WEIGHTS, record.SPEC, record.RANKS):
        before = (folder / name).read_bytes()
        with pytest.raises(DissectError, match=rf"{name} is part of the run's record; choose another file"):
            prune_run(folder, out=folder / name)
        with pytest.raises(DissectError, match=rf"{name} is part of the run's record; choose another file"):
            prune_run(folder, masks=folder / name)
        assert (folder / name).read_bytes() == before
    with pytest.raises(DissectError, match="can't write"):
        prune_run(folder, out=tmp_path / "w.safetensors", masks=tmp_path)
    spec = finished[0].spec
    names = {
        pruned_name(spec, rule, at, how)
        for how in ("", "random")
        for rule, at in ((spec.rule, spec.threshold or 3.0), ("magnitude", 0.1))
    }
    assert names == {
        "pruned.safetensors", "pruned-magnitude-0.1.safetensors", "pruned-random.safetensors",
        "pruned-random-magnitude-0.1.safetensors",
    }  # fmt: skip


def test_a_finished_run_that_is_resumed_stays_as_it_is(
    finished: tuple[Run, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    resume_run(finished[0].folder.path, None, True)  # the first time draws the figure
    folder = finished[0].folder.path
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.*g")}
    assert before
    capsys.readouterr()
    resume_run(folder, None, True)
    assert "density.png" in capsys.readouterr().out
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.*g")} == before


def test_what_validation_alone_holds_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    sessions = [f"{i},{i + 1}" for i in range(20)]  # of these the last four validate
    (tmp_path / "few" / "train.txt").write_text("\n".join(sessions) + "\n")
    (tmp_path / "few" / "test.txt").write_text("0,1\n")
    (tmp_path / "few" / "num_items.txt").write_text("30\n")
    data = load("few", data_dir=str(tmp_path))
    spec = Spec.create("srgnn", dataset="few", data_dir=str(tmp_path))
    assert make_splits(data, spec, torch.device("cpu")).seen.nonzero()[:, 0].tolist() == list(range(17))
    refit = make_splits(data, spec, torch.device("cpu"), refit=True)
    assert refit.seen.nonzero()[:, 0].tolist() == list(range(21))


def test_epochs_have_orders_and_rates_of_their_own() -> None:
    plan = Plan(50, 10, 100, seed=3)
    orders = [plan.order(epoch).tolist() for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[1]) == list(range(50))
    assert [plan.lr_factor(epoch) for epoch in range(7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01])


def test_maps_that_a_run_left_out_stay_out(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = Spec.create("attenmixer-pr", **{**SMALL, "data_dir": str(toy_data), "steps": 3, "options": {"heads": 2}})
    run = Run(spec, out=tmp_path, quiet=True)
    result = run.execute()
    assert "left out, never called" in capsys.readouterr().err  # sessions have at most five clicks, maps are for ten
    probe = wrapped_model(run.folder.path)
    counts = {row["part"]: row["total"] for row in probe.density() if row["tensor"] is None}
    assert counts == {part: row["total"] for part, row in result["density"].items()}
    assert prune_run(run.folder.path)["test"] == result["pruned"]["test"]


def test_validation_without_an_example_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "data" / "short").mkdir(parents=True)
    for name, text in (("train", "0,1\n1,2\n2,0\n1,0\n2\n"), ("test", "0,1\n")):
        (tmp_path / "data" / "short" / f"{name}.txt").write_text(text)
    spec = spec_of(tmp_path / "data", dataset="short")
    with pytest.raises(DissectError, match="none of the last 1 sessions, which are to validate, has two clicks"):
        Run(spec, out=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()


def test_weights_that_are_not_finite_are_never_saved(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(spec_of(toy_data, sparsify="none"), out=tmp_path, quiet=True)
    take = Loop.train_step

    def poisoned(self: Loop, index: Any) -> None:
        take(self, index)
        if self.step == 7:  # a gradient can overflow where the loss did not
            with torch.no_grad():
                self.model.embedding.weight[-1] = float("inf")  # type: ignore[union-attr]

    monkeypatch.setattr(Loop, "train_step", poisoned)
    with pytest.raises(DissectError, match=r"(loss is|scores are)"):
        run.execute()
    state = torch.load(run.folder / record.STATE, weights_only=True)
    assert all(torch.isfinite(v).all() for v in state["model"].values())


def test_density_is_logged_under_both_rules(finished: tuple[Run, dict[str, Any]]) -> None:
    run, result = finished
    rows = rows_of(run, record.DENSITY)
    last = [r for r in rows if r["step"] == result["steps"] and r["tensor"]]
    assert {r["rule"]: r["threshold"] for r in last} == {"log-alpha": 3.0, "magnitude": 0.1}
    theta = torch.cat([w.abs().flatten() for w in _weights_of(run, "encoder.edge_in", "encoder.edge_out")])
    kept = sum(r["kept"] for r in last if r["rule"] == "magnitude" and r["part"] == "propagation")
    assert kept == int((theta > 0.1).sum())


def _weights_of(run: Run, *names: str) -> list[torch.Tensor]:
    weights = load_file(run.folder / record.WEIGHTS)
    return [weights[f"{name}.weight"] for name in names]


@pytest.mark.parametrize("at", [1, 3])
def test_resume_in_the_refit_phase(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    spec = spec_of(toy_data, epochs=2, sparsify="none", refit=True)
    expected = Run(spec, out=tmp_path / "whole", quiet=True).execute()
    broken = Run(spec, out=tmp_path / "broken", quiet=True)
    save, saves = checkpoint.Checkpoint.save, 0

    def dying(self: checkpoint.Checkpoint, loop: Loop) -> None:
        nonlocal saves
        save(self, loop)
        saves += self.phase == "refit"
        if saves == at:
            raise _Dies

    step = checkpoint.Checkpoint.on_step

    def every_five(self: checkpoint.Checkpoint, loop: Loop) -> None:
        self.seconds = -1.0 if loop.step % 5 == 0 else 1e9
        step(self, loop)

    monkeypatch.setattr(checkpoint.Checkpoint, "on_step", every_five)
    monkeypatch.setattr(checkpoint.Checkpoint, "save", dying)
    with pytest.raises(_Dies):
        broken.execute()
    monkeypatch.setattr(checkpoint.Checkpoint, "save", save)
    found = Run.resume(broken.folder.path, quiet=True).execute()
    assert {k: found[k] for k in ("test", "epoch", "steps")} == {k: expected[k] for k in ("test", "epoch", "steps")}


def test_resume_refuses_changed_data(toy_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    run = Run(spec_of(data, epochs=1), out=tmp_path, quiet=True)
    run.execute()
    (run.folder / record.RESULT).unlink()
    with open(data / "toy" / "train.txt", "a") as file:
        file.write("1,2,3\n")
    with pytest.raises(DissectError, match="data set 'toy' has changed since"):
        Run.resume(run.folder.path)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(spec_of(toy_data), out=tmp_path, quiet=True)
    take = Loop.train_step

    def poisoned(self: Loop, batch: Any) -> None:
        if self.step == 25:
            with torch.no_grad():
                self.model.embedding.weight.fill_(float("nan"))  # type: ignore[union-attr]
        take(self, batch)

    monkeypatch.setattr(Loop, "train_step", poisoned)
    with pytest.raises(DissectError, match=r"loss is nan at step 26 \(epoch 2\)") as caught:
        run.execute()
    assert caught.value.status == 1
    state = torch.load(run.folder / record.STATE, weights_only=True)
    assert all(torch.isfinite(v).all() for v in state["model"].values())


def test_a_signal_saves_and_leaves(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(spec_of(toy_data), out=tmp_path, quiet=True)
    take = Loop.train_step

    def interrupted(self: Loop, batch: Any) -> None:
        take(self, batch)
        if self.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Loop, "train_step", interrupted)
    with pytest.raises(Interrupted):
        run.execute()
    assert signal.getsignal(signal.SIGTERM) == before
    assert torch.load(run.folder / record.STATE, weights_only=True)["step"] in (5, 6)


def _saved_steps(out: Path) -> int:
    """Steps of the state saved under `out`, 0 while there is none."""
    states = list(out.glob("*/state/state.pt"))
    return torch.load(states[0], weights_only=True)["step"] if states else 0


def test_kill_9_and_resume_from_the_command_line(toy_data: Path, tmp_path: Path) -> None:
    base = [sys.executable, "-m", "dissect", "run"]
    options = ["srgnn", "--dataset", "toy", "--data-dir", str(toy_data), "--dim", "8", "--batch-size", "8",
               "--epochs", "8", "--device", "cpu", "--json"]  # fmt: skip
    killed = subprocess.Popen(
        [*base, *options, "--out", str(tmp_path / "a")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not _saved_steps(tmp_path / "a") and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    folder = next((tmp_path / "a").iterdir())
    assert not (folder / "result.json").exists(), "finished before it was killed"
    again = subprocess.run([*base, "--resume", str(folder), "--json"], capture_output=True, text=True, check=True)
    resumed = json.loads(again.stdout.splitlines()[-1])
    spec = Spec.from_json((folder / "spec.json").read_text(), "spec.json")
    whole = Run(spec, out=tmp_path / "b", quiet=True).execute()
    assert resumed["test"] == whole["test"]
    assert resumed["density"] == whole["density"]


def test_run_ids_cover_the_science_and_nothing_else(toy_data: Path) -> None:
    spec = spec_of(toy_data)
    assert spec.run_id("x") == spec.replace(data_dir="elsewhere", device="cuda").run_id("x")
    changes = {"seed": 1, "lr": 0.02, "noise": "weight", "kl_scale": 2.0, "valid_fraction": 0.1, "ties": "optimistic"}
    ids = {spec.replace(**{k: v}).run_id("x") for k, v in changes.items()} | {spec.run_id("x"), spec.run_id("y")}
    assert len(ids) == len(changes) + 2


def test_the_golden_run_id() -> None:
    # Changing it invalidates every recorded run: it takes a line in CHANGELOG.md.
    assert Spec.create("srgnn").run_id("0" * 64) == "srgnn-demo-46de418a"
