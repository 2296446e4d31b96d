from __future__ import annotations

import gzip
import json
import os
import signal
import struct
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dissect.controls import lenet as control
from dissect.controls.lenet import BAND, PARTS, RECIPES, Recipe, in_band, lenet, run_lenet, sizes
from dissect.controls.lenet_table import validate_lenet
from dissect.data.mnist import PUBLISHED_SHA256, SOURCE
from dissect.errors import DissectError
from dissect.sparsity import wrap

#: 5 steps an epoch, the last of 64 images, 15 in all; s may travel 0.5 a step, so weights are dropped within them.
#: So few images are little evidence: at full weight the KL would leave nothing of the network, so it rises to 0.01.
TINY = Recipe("tiny", 3, 2e-3, 0.5, sigma_decays=False, warmup=(0.0, 100.0), batch_size=64)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with 320 + 80 images, in which digit c lights up the rows 2c and 2c + 1."""
    root, random = tmp_path_factory.mktemp("digits"), np.random.default_rng(0)
    (root / "mnist").mkdir()
    contents = []
    for count in (320, 80):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = random.integers(0, 80, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 2] = 255
        contents += [struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes()]
        contents += [struct.pack(">II", 2049, count) + labels.tobytes()]
    for remote, content in zip(SOURCE.files, contents, strict=True):
        (root / "mnist" / remote.name).write_bytes(gzip.compress(content, compresslevel=1))
    return root


def run(digits: Path, out: Path, seed: int = 0, recipe: Recipe = TINY, **more) -> dict:
    return run_lenet(seed, recipe, out=out, data_dir=digits, quiet=True, **more)


def rows(out: Path, name: str) -> list[dict]:
    (path,) = out.glob(f"lenet-*/{name}")
    return [json.loads(line) for line in path.read_text().splitlines()]


def timeless(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "seconds"}


@pytest.fixture(scope="module")
def finished(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("finished")
    return run(digits, out), out


def test_result_and_record(finished):
    result, out = finished
    (folder,) = out.iterdir()
    assert folder.name.startswith("lenet-tiny-")
    assert json.loads((folder / "result.json").read_text()) == result
    assert result["seed"] == 0
    assert result["epochs"] == 3
    assert result["steps"] == 15
    assert result["recipe"] == {**asdict(TINY), "warmup": [0.0, 100.0]}
    assert result["total"] == 784 * 300 + 300 * 100 + 100 * 10
    assert 0 < result["kept"] < result["total"]
    assert result["compression"] == pytest.approx(result["total"] / result["kept"], abs=1e-3)
    dropped = result["total"] - result["kept"]
    per_layer = [result["sparsity"][layer] / 100 * n for layer, n in zip(PARTS, (235_200, 30_000, 1_000), strict=True)]
    assert sum(per_layer) == pytest.approx(dropped, abs=3)
    assert result["error"] < 50  # of ten digits guessed, 90 percent are wrong
    assert result["lr_budget"] == pytest.approx(15 * 0.5)
    assert result["versions"]["torch"] == torch.__version__
    assert result["in_band"] is False  # whatever the figures: these are not the published digits


def test_an_epoch_is_a_row(finished):
    result, out = finished
    metrics = rows(out, "metrics.jsonl")
    assert [row["epoch"] for row in metrics] == [1, 2, 3]
    assert [row["step"] for row in metrics] == [5, 10, 15]
    assert metrics[-1]["nll"] < metrics[0]["nll"]
    assert [row["kl_weight"] for row in metrics] == pytest.approx([5 / 1500, 10 / 1500, 15 / 1500], abs=1e-6)
    # Full for the first half of three epochs, then linear: 1, (3 - 1) / 1.5 capped, (3 - 2) / 1.5.
    assert [row["lr"] for row in metrics] == pytest.approx([2e-3, 2e-3, 2e-3 / 1.5])
    assert [row["lr_sigma"] for row in metrics] == [0.5] * 3
    assert metrics[-1]["test_error_pruned"] == result["error"]
    assert metrics[-1]["test_error"] == result["error_unpruned"]
    assert sum(metrics[-1]["kept"].values()) == result["kept"]
    density = [row for row in rows(out, "density.jsonl") if row["epoch"] == 3 and row["tensor"] is None]
    assert {row["part"]: row["kept"] for row in density} == metrics[-1]["kept"]


class Crash(Exception):
    pass


@pytest.mark.parametrize(
    ("how", "step"),
    [(signal.SIGINT, 7), (signal.SIGTERM, 10), (signal.SIGINT, 15), ("crash", 8), ("crash", 15)],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_stopped(digits, finished, tmp_path, monkeypatch, how, step):
    add_up = control._Recorder.on_step

    def stop_there(self, loop):
        add_up(self, loop)
        if loop.step == step:
            if how == "crash":
                raise Crash
            os.kill(os.getpid(), how)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patched:
        patched.setattr(control._Recorder, "on_step", stop_there)
        if how == "crash":
            with pytest.raises(Crash):
                run(digits, tmp_path)
        else:
            with pytest.raises(DissectError, match=f"stopped at step {step}, .*the same command") as caught:
                run(digits, tmp_path)
            assert caught.value.status == 128 + how
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not list(tmp_path.glob("lenet-*/result.json"))
    result = run(digits, tmp_path)
    expected, out = finished
    assert timeless(result) == timeless(expected)
    assert [timeless(row) for row in rows(tmp_path, "metrics.jsonl")] == [
        timeless(row) for row in rows(out, "metrics.jsonl")
    ]
    assert rows(tmp_path, "density.jsonl") == rows(out, "density.jsonl")


def test_the_seed_decides(digits, finished, tmp_path):
    expected, _ = finished
    state = torch.random.get_rng_state()
    again = run(digits, tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's random numbers are its own
    assert timeless(again) == timeless(expected)
    other = run(digits, tmp_path / "other", seed=1)
    assert other["kept"] != expected["kept"]


def test_a_finished_run_is_not_repeated(digits, tmp_path, monkeypatch, capsys):
    first = run(digits, tmp_path, epochs=1)
    monkeypatch.setattr(control._LenetLoop, "run", lambda self: pytest.fail("trained again"))
    assert run_lenet(0, TINY, 1, out=tmp_path, data_dir=digits) == first
    (folder,) = tmp_path.iterdir()
    assert capsys.readouterr().err == f"{folder} holds this run, finished\n"
    for another in ({"epochs": 2}, {"seed": 1}, {"recipe": replace(TINY, lr_sigma=0.4)}, {"resume": False}):
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            run(digits, tmp_path, **{"epochs": 1, **another})


def test_compression_by_hand():
    assert sizes({"fc1": (2_352, 235_200), "fc2": (900, 30_000), "fc3": (400, 1_000)}) == {
        "kept": 3_652,
        "total": 266_200,
        "compression": 72.892,  # 266200 / 3652
        "sparsity": {"fc1": 99.0, "fc2": 97.0, "fc3": 60.0},
    }
    assert sizes({"a": (0, 10), "b": (0, 5)})["compression"] is None


def test_the_pruned_network_uses_the_kept_weights_alone():
    model = lenet()
    probe = wrap(model, PARTS, examples=1, steps=1, log_sigma2=-2.0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2 and not (parameter == -2).all():
                parameter.fill_(0.05)  # log alpha = -2 - log 0.0025 = 3.99: dropped
        fc1, fc3 = model.get_submodule("fc1"), model.get_submodule("fc3")
        assert isinstance(fc1, nn.Linear)
        assert isinstance(fc3, nn.Linear)
        fc1.weight[:, :5] = 0.1  # log alpha = 2.61: kept
        fc3.weight[:2] = 0.1
    counts = {row["part"]: row["kept"] for row in probe.density() if row["tensor"] is None}
    assert counts == {"fc1": 5 * 300, "fc2": 0, "fc3": 200}
    assert probe.prune_counts() == (1_700, 266_200)
    pruned = probe.export().get_submodule("fc3")
    assert isinstance(pruned, nn.Linear)
    assert pruned.weight.count_nonzero() == 200


def result_with(**values):
    return {"error": 2.0, "compression": 68.0, "sha256": PUBLISHED_SHA256, **values}


def test_band():
    assert in_band(result_with())
    assert in_band(result_with(error=2.2, compression=50.0))
    assert in_band(result_with(compression=90.0))
    assert not in_band(result_with(error=2.21))
    assert not in_band(result_with(compression=49.9))
    assert not in_band(result_with(compression=90.1))
    assert not in_band(result_with(compression=None))
    assert not in_band(result_with(sha256="0" * 64))


def test_the_published_recipe():
    recipe = RECIPES["published"]
    assert [recipe.lr_factor(epoch) for epoch in (0, 99, 100, 150, 199)] == pytest.approx([1, 1, 1, 0.5, 0.01])
    assert recipe.lr == recipe.lr_sigma == 1e-3
    probe = wrap(lenet(), PARTS, examples=1, steps=200, warmup=recipe.warmup)
    weights = [probe.kl_weight(epoch) for epoch in (0, 5, 11, 20, 199)]
    assert weights == pytest.approx([0, 0, 0.4, 1, 1])


def test_the_fast_recipe():
    recipe = RECIPES["fast"]
    assert [recipe.lr_factor(epoch) for epoch in (0, 20, 40, 59)] == pytest.approx([1, 1, 0.5, 1 / 40])


def test_one_rate_for_all_where_the_recipe_says_so(digits, tmp_path):
    run(digits, tmp_path, recipe=replace(TINY, epochs=4, lr_sigma=2e-3, sigma_decays=True))
    metrics = rows(tmp_path, "metrics.jsonl")
    assert [row["lr"] for row in metrics] == pytest.approx([2e-3, 2e-3, 2e-3, 1e-3])
    assert [row["lr"] for row in metrics] == [row["lr_sigma"] for row in metrics]


def test_faults_are_one_line(digits, tmp_path):
    with pytest.raises(DissectError, match=r"^unknown recipe 'slow'; choose from published, fast$"):
        run_lenet(recipe="slow", out=tmp_path, data_dir=digits)
    with pytest.raises(DissectError, match="epochs must be at least 1, got 0"):
        run(digits, tmp_path, epochs=0)
    with pytest.raises(DissectError, match="does not exist"):
        run(tmp_path / "nowhere", tmp_path)
    with pytest.raises(DissectError, match="stopped, the last good state is kept"):
        run(digits, tmp_path, recipe=replace(TINY, lr_sigma=1e4))  # exp(s) overflows
    (state,) = tmp_path.glob("lenet-*/state/state.pt")
    state.write_bytes(b"no state")
    with pytest.raises(DissectError, match=r"state\.pt is damaged"):
        run(digits, tmp_path, recipe=replace(TINY, lr_sigma=1e4))


def test_the_table_shows_the_published_figures_the_band_and_each_seed(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(control.RECIPES, "fast", TINY)
    results = validate_lenet([0, 1], "fast", out=tmp_path, data_dir=digits, quiet=True, as_json=True)
    shown = capsys.readouterr()
    *table, last = shown.out.splitlines()
    assert json.loads(last) == results
    assert [result["seed"] for result in results] == [0, 1]
    text = "\n".join(table)
    for figure in ("1.92", "68", "98.9", "97.2", "62.0", f"up to {BAND['error'][1]}", "50 to 90"):
        assert figure in text
    for result in results:
        (line,) = (line for line in table if f"seed {result['seed']}" in line)
        assert f"{result['error']:.2f}" in line
        assert f"{result['compression']:.1f}" in line
        assert f"{result['kept']:,} / 266,200" in line
        assert "other digits" in line
    assert shown.err == ""
