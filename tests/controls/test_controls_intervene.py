"""Interventions on a trained run, and masks that are held while another is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dissect.batch import Batch, PackedExamples, shuffled_graph
from dissect.cli import main
from dissect.controls.alone import alone_run
from dissect.controls.intervene import ShuffledEdges, intervene_run
from dissect.controls.trained_masks import prune_by_training
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.held import all_dropped, digest, holding, matrices, read_masks, write_masks
from dissect.experiment.main import start_run
from dissect.experiment.prune import prune_run
from dissect.experiment.run import Run
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits
from dissect.experiment.use import data_of, finished, load_model
from dissect.models import build
from dissect.training.evaluate import metrics, rank_examples

SMALL: dict[str, Any] = {"dataset": "toy", "dim": 8, "batch_size": 64, "epochs": 2, "lr": 1e-2, "device": "cpu"}


def ran(data: Path, out: Path, **options: Any) -> Path:
    found = start_run("srgnn", {**SMALL, "data_dir": str(data), **options}, out=out, init=None, force=False, quiet=True)
    return out / found["run_id"]


@pytest.fixture(scope="module")
def sparse(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # So that weights are dropped within a few steps.
    return ran(toy_data, tmp_path_factory.mktemp("runs"), lr_sigma=0.3, kl_scale=3.0, warmup=(0.0, 0.1))


def test_the_table_of_a_run(sparse: Path, capsys: pytest.CaptureFixture[str]):
    found = intervene_run(sparse, quiet=True, as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == found == json.loads((sparse / record.INTERVENTIONS).read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert {name.split(":")[0] for name in rows} >= {"intact", "pruned", "propagation", "attention", "shuffled edges"}
    result = json.loads((sparse / record.RESULT).read_text())
    assert rows["intact"]["hr@20"] == pytest.approx(result["test"]["hr@20"], abs=1e-3)
    assert rows["pruned"]["mrr@20"] == pytest.approx(result["pruned"]["test"]["mrr@20"], abs=1e-3)
    assert rows["pruned"]["kept"] == result["pruned"]["kept"]
    assert rows["propagation: zero"]["total"] == 2 * 64
    lost = rows["transformation: zero"]["difference"]["hr@20"]
    assert lost[1] <= lost[0] <= lost[2]
    assert rows["transformation: zero"]["hr@20"] == pytest.approx(rows["intact"]["hr@20"] + lost[0], abs=1e-9)
    assert "combination: identity" not in rows  # no square matrix
    assert "propagation: identity" in rows


def test_a_part_is_pruned_by_itself(sparse: Path, capsys: pytest.CaptureFixture[str]):
    before = json.loads((sparse / record.PRUNING).read_text())
    main(["intervene", str(sparse), "--alone", "magnitude", "--quiet", "--json"], standalone_mode=False)
    curve = json.loads((sparse / record.PRUNING).read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == curve
    points = [p for p in curve["points"] if p["rule"] == "magnitude"]
    bare = [{k: v for k, v in p.items() if k != "alone"} for p in curve["points"]]
    assert bare == before["points"]
    assert not any("alone" in p for p in curve["points"] if p["rule"] != "magnitude")
    whole, nothing = points[0], points[-1]
    for part, found in whole["alone"].items():
        assert found["kept"] == found["total"] == whole["parts"][part]
        assert found["hr@20"] == whole["hr@20"]
        assert found["difference"]["hr@20"] == [0, 0, 0]
    # Nothing is left of the transformation, and so nothing of the model; of the propagation its biases are.
    model = load_model(sparse)
    spec = finished(sparse)[1]
    splits = make_splits(data_of(sparse), spec, torch.device("cpu"))
    for part in model.parts():
        held = {name: torch.zeros_like(model.get_parameter(name), dtype=torch.bool) for name in matrices(model, part)}
        with holding(model, held, restore=True):
            zeroed = metrics(rank_examples(model, splits.test, ties=spec.ties, seen=splits.seen))
        assert nothing["alone"][part]["kept"] == 0
        assert nothing["alone"][part]["mrr@20"] == zeroed["mrr@20"]
        low_to_high = nothing["alone"][part]["difference"]["mrr@20"]
        assert low_to_high[0] == pytest.approx(zeroed["mrr@20"] - whole["mrr@20"], abs=2e-4)
        assert low_to_high[1] <= low_to_high[0] <= low_to_high[2]
    halfway = points[len(points) // 2]
    part = next(part for part, found in halfway["alone"].items() if 0 < found["kept"] < found["total"])
    assert halfway["alone"][part]["kept"] == halfway["parts"][part]
    with pytest.raises(DissectError, match="no curve by 'snr'; choose from log-alpha, magnitude"):
        alone_run(sparse, "snr", quiet=True)
    with pytest.raises(SystemExit):
        main(["intervene", str(sparse), "--alone", "magnitude", "--retrain", "all"])
    assert "--alone goes with neither" in capsys.readouterr().err


def test_trainings_are_run_folders_and_done_once(
    sparse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    found = intervene_run(sparse, "all", out=tmp_path, quiet=True)
    rows = {row["name"]: row for row in found["rows"]}
    folders = [path.parent for path in tmp_path.glob("*/result.json")]
    names = [name for name in rows if name.startswith("retrained")]
    assert len(folders) == len(names) == 1 + 4 + 2 + 1 + 1
    held = {folder: json.loads((folder / record.RESULT).read_text())["held"] for folder in folders}
    for folder, what in held.items():
        model = load_model(folder)
        if what and what["delete"]:
            modules = [model.get_submodule(name) for name in model.parts()[what["delete"]]]
            assert not any(parameter.any() for module in modules for parameter in module.parameters())
            assert what["kept"] == 0
        elif what:
            masks = read_masks(folder / record.MASKS)
            assert digest(masks) == what["mask"]
            for name, mask in masks.items():
                assert not model.get_parameter(name)[~mask].any()
            assert sum(int(m.sum()) for m in masks.values()) == what["kept"]
    assert sum(what is None for what in held.values()) == 1
    monkeypatch.setattr("dissect.training.train.Loop.run", lambda self: pytest.fail("trained again"))
    assert intervene_run(sparse, "all", out=tmp_path, quiet=True) == found
    # A later call that asks for none, or some, keeps the rows of all.
    assert {row["name"] for row in intervene_run(sparse, out=tmp_path, quiet=True)["rows"]} == set(rows)
    again = intervene_run(sparse, "delete", out=tmp_path, quiet=True)["rows"]
    assert sorted(row["name"] for row in again) == sorted(rows)
    assert {row["name"]: row for row in again} == rows
    capsys.readouterr()


def test_a_masked_run_is_resumed_with_its_masks(toy_data: Path, tmp_path: Path):
    model = build("srgnn", 30, 8)
    masks = all_dropped(model, "attention")
    spec = Spec.create("srgnn", **SMALL, data_dir=str(toy_data), sparsify="none", mask=digest(masks))
    run = Run(spec, out=tmp_path, quiet=True, masks=masks)
    result = run.execute()
    assert Run.resume(run.folder.path, quiet=True).execute() == result
    write_masks(all_dropped(model, "propagation"), run.folder / record.MASKS)
    with pytest.raises(DissectError, match="is not what the run was started with"):
        Run.resume(run.folder.path, quiet=True)


def test_a_deleted_part_is_part_of_the_id_and_an_unused_field_is_not():
    plain = Spec.create("srgnn")
    assert plain.run_id("0" * 64) == "srgnn-demo-46de418a"
    others = [plain.replace(sparsify="none", delete="gnn"), plain.replace(shadows=2), plain.replace(sparsify="none")]
    assert len({spec.run_id("0" * 64) for spec in (plain, *others)}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "srgnn", "--delete", "edges", "--sparsify", "none"], "unknown part 'edges'; parts: propagation"),
        (["run", "srgnn", "--delete", "gnn"], "--delete gnn: combination, propagation would be wrapped too"),
        (["run", "meanpool", "--delete", "gnn", "--sparsify", "none"], "no parameters to delete"),
        (["run", "srgnn", "--mask", "no.safetensors", "--sparsify", "none"], "no masks at no.safetensors"),
        (["intervene", "nowhere"], "no run folder at nowhere"),
    ],
)
def test_wrong_use_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_masks_of_another_model_are_refused_before_anything_is_written(toy_data: Path, tmp_path: Path):
    masks = all_dropped(build("srgnn", 30, 4), "attention")
    options = {**SMALL, "data_dir": str(toy_data), "sparsify": "none"}
    with pytest.raises(DissectError, match=r"the mask of 'readout.w1.weight' is .* \(4, 4\); .* \(8, 8\) is needed"):
        start_run("srgnn", options, out=tmp_path, init=None, force=False, quiet=True, mask=masks)
    with pytest.raises(DissectError, match="which noise would undo; use it with --sparsify none"):
        start_run("srgnn", {**options, "sparsify": "all"}, out=tmp_path, init=None, force=False, quiet=True, mask=masks)
    assert not list(tmp_path.iterdir())


def test_a_training_that_was_stopped_is_gone_on_with(
    sparse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from dissect.training.train import Loop

    real = Loop.run

    def stop(self: Loop) -> None:
        for callback in self.callbacks:
            callback.on_start(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "run", stop)
    with pytest.raises(DissectError, match="go on with"):
        intervene_run(sparse, "delete", out=tmp_path, quiet=True)
    monkeypatch.setattr(Loop, "run", real)
    assert any(
        row["name"] == "retrained: intact" for row in intervene_run(sparse, "delete", out=tmp_path, quiet=True)["rows"]
    )
    capsys.readouterr()


def test_masks_and_deletion_hold_together(toy_data: Path, tmp_path: Path):
    model = build("srgnn", 30, 8)
    masks = {
        name: torch.ones_like(model.get_parameter(name), dtype=torch.bool) for name in matrices(model, "propagation")
    }
    masks["encoder.edge_in.weight"][0] = False
    spec = Spec.create(
        "srgnn", **SMALL, data_dir=str(toy_data), sparsify="none", mask=digest(masks), delete="propagation"
    )
    run = Run(spec, out=tmp_path, quiet=True, masks=masks)
    assert run.execute()["held"]["kept"] == 0
    assert not load_model(run.folder.path).get_parameter("encoder.edge_out.weight").any()


def test_new_first_weights_leave_data_and_order_as_they_are(toy_data: Path, tmp_path: Path):
    results, losses = {}, {}
    for seed in (None, 5):
        spec = Spec.create("srgnn", **SMALL, data_dir=str(toy_data), sparsify="none", max_train=100, init_seed=seed)
        run = Run(spec, out=tmp_path, quiet=True)
        results[seed] = run.execute()
        losses[seed] = json.loads((run.folder / record.METRICS).read_text().splitlines()[0])["nll"]
    assert results[None]["dataset"] == results[5]["dataset"]
    assert losses[None] != losses[5]


@pytest.mark.parametrize("recipe", ["attenmixer", "attenmixer-official", "srgnn+attenmixer", "meanlast"])
@pytest.mark.parametrize("noise", ["local", "row"])
def test_every_readout_tells_its_rows_sessions(recipe: str, noise: str, toy_data: Path, tmp_path: Path):
    options = {**SMALL, "data_dir": str(toy_data), "noise": noise, "shadows": 2, "steps": 2}
    found = start_run(recipe, options, out=tmp_path, init=None, force=False, quiet=True)
    assert all(row["shadow_total"] for row in found["density"].values() if row["total"])


def test_unknown_trainings_and_runs_without_masks(sparse: Path, toy_data: Path, tmp_path: Path):
    with pytest.raises(DissectError, match="unknown training 'prune'; choose from all, delete, mask, random, swap"):
        intervene_run(sparse, "prune")
    dense = ran(toy_data, tmp_path, sparsify="none", epochs=1)
    with pytest.raises(DissectError, match="--retrain swap needs a run with wrapped parts"):
        intervene_run(dense, "delete,swap")


def test_shuffled_graphs_have_the_same_nodes_and_other_edges():
    batch = Batch.from_lists([[5, 2, 5, 9, 1], [3], [4, 4, 6]])
    graph, own = shuffled_graph(batch, torch.Generator().manual_seed(0)), batch.session_graph
    assert graph.session is not None
    assert own.session is not None
    assert torch.equal(graph.nodes, own.nodes)
    assert torch.equal(graph.nodes[graph.alias], batch.items)
    assert torch.equal(graph.session, own.session)
    assert torch.equal(own.session[graph.source], own.session[graph.target])
    orders = set()
    for seed in range(40):
        graph = shuffled_graph(batch, torch.Generator().manual_seed(seed))
        inside = own.session[graph.source] == 0
        orders.add(tuple(sorted(zip(graph.source[inside].tolist(), graph.target[inside].tolist(), strict=True))))
    assert len(orders) > 10
    assert np.mean([len(order) for order in orders]) <= 4


@pytest.mark.parametrize("longest", [10, 11])
def test_shuffled_graphs_reach_a_model_that_reads_the_last_clicks(longest: int):
    torch.manual_seed(0)
    model = build("niser", items=30, dim=4).eval()
    assert model.window == 10
    clicks = torch.randint(30, (200,))
    examples = PackedExamples(clicks, torch.arange(0, 180, 20), torch.arange(0, 180, 20) + longest)
    every = torch.arange(9)
    with torch.no_grad():
        own = model.scores(examples.batch(every))
        other = model.scores(ShuffledEdges(examples, 0, model.seen).batch(every))
    assert ((own - other).abs().amax(1) > 1e-4).all()


@pytest.mark.parametrize("method", ["magnitude", "magnitude-global", "random", "snr", "log-alpha"])
def test_comparators_keep_as_many_and_can_be_held(
    sparse: Path, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    own = prune_run(sparse, out=tmp_path / "own.safetensors")
    found = prune_run(sparse, method=method, out=tmp_path / "w.safetensors", masks=tmp_path / "m.safetensors")
    assert found["kept"] == own["kept"] < own["total"]
    if method != "magnitude-global":
        assert [row["kept"] for row in found["density"]] == [row["kept"] for row in own["density"]]
    masks = read_masks(tmp_path / "m.safetensors")
    assert sum(int(m.sum()) for m in masks.values()) == own["kept"]
    if method == "log-alpha":
        assert found["test"] == own["test"]
    capsys.readouterr()


@pytest.mark.parametrize("method", ["imp", "l0"])
def test_trained_comparators_keep_as_many(
    sparse: Path, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    masks = tmp_path / "m.safetensors"
    found = prune_by_training(sparse, method, rounds=2, out=tmp_path / "w.safetensors", masks=masks, quiet=True)
    assert (tmp_path / "w.safetensors").is_file()
    result = json.loads((sparse / record.RESULT).read_text())
    assert found["kept"] == result["pruned"]["kept"]
    held = read_masks(masks)
    kept = {part: sum(int(held[n].sum()) for n in matrices(load_model(sparse), part)) for part in result["density"]}
    assert kept == {part: row["kept"] for part, row in result["density"].items()}
    assert found["parts"] == {part: [row["kept"], row["total"]] for part, row in result["density"].items()}
    assert f"propagation {kept['propagation']:,} / " in capsys.readouterr().out
    if method == "imp":  # the early run, two rounds, and the ticket
        folders = [path.parent for path in sparse.parent.glob("*/result.json")]
        results = [json.loads((folder / record.RESULT).read_text()) for folder in folders]
        assert found["rewound_to_step"] in [r["steps"] for r in results]
        assert found["trainings"] == 4
        assert found["test"] in [r["test"] for r in results]
    capsys.readouterr()


def test_first_weights_of_another_width_are_refused_with_both_shapes(toy_data: Path, tmp_path: Path):
    options: Any = {"dataset": "toy", "data_dir": str(toy_data), "sparsify": "none", "steps": 2}
    small, large = (Run(Spec.create("srgnn", dim=dim, **options), out=tmp_path, quiet=True) for dim in (4, 8))
    small.execute()
    with pytest.raises(DissectError, match=r"does not fit this model: \S+ 30x4, here 30x8; .* and \d+ more"):
        large.execute(small.folder / record.WEIGHTS)


def test_shrinking_is_measured_and_said(sparse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = prune_run(sparse, "magnitude", 1e9, tmp_path / "none.safetensors", shrunk=True)
    assert found["shrink"]["matrices"] == 8
    assert found["shrink"]["parameters"][0] > found["shrink"]["parameters"][1]
    found = prune_run(sparse, "magnitude", -1.0, tmp_path / "all.safetensors", shrunk=True)
    assert found["shrink"]["sentence"].startswith("no gain: 0 of 8 matrices have an empty row or column")
    assert "no gain" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    main(["run", "srgnn", "--dataset", "intent", "--dim", "8", "--dry-run", "--sparsify", "gnn"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "encoder.edge_in" in out
    assert "24x16 = 384" in out
    assert "readout.w1" not in out
    assert not list(tmp_path.iterdir())
