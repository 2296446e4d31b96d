"""Two processes train one model: the metrics of one process, one record, and a clear end when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dissect.errors import DissectError
from dissect.experiment.run import Run
from dissect.experiment.spec import Spec
from dissect.training.distributed import World

OPTIONS = ("run", "srgnn", "--dataset", "toy", "--dim", "8", "--batch-size", "32", "--lr", "0.01", "--device", "cpu")


def start(processes: int, *options: str) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launcher, "-m", "dissect", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def result_of(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    lines = [line for line in out.splitlines() if line.startswith("{")]
    assert len(lines) == 1, "one process prints the result"
    return json.loads(lines[0]), out


def test_shares_of_a_batch_average_to_its_mean() -> None:
    values, index = torch.randn(7), torch.arange(7)
    for count in (7, 2, 1):
        parts = [World(rank, 3).share(index[:count]) for rank in range(3)]
        means = [weight * values[part].mean() for part, weight in parts]
        torch.testing.assert_close(sum(means) / 3, values[:count].mean())  # type: ignore[operator]
    assert World().share(index) == (index, 1.0)


def test_every_gradient_is_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones in one message, a large one, as an item table's, in its own; what has none is left out."""
    messages = []

    def all_reduce(mine: torch.Tensor, async_op: bool) -> SimpleNamespace:
        messages.append(mine.numel())
        mine.add_(1.0)  # what the other process sent, divided by two already
        return SimpleNamespace(wait=lambda: None)

    monkeypatch.setattr("dissect.training.distributed.dist.all_reduce", all_reduce)
    large, small = torch.full(((1 << 20) + 1,), 4.0), torch.full((2, 3), 6.0)
    means = World(0, 2).average([small, None, large], torch.tensor([8.0]))
    assert sorted(messages) == [6 + 1, (1 << 20) + 1]
    assert torch.equal(large, torch.full_like(large, 3.0))
    assert torch.equal(small, torch.full_like(small, 4.0))
    assert means.tolist() == [5.0]


def test_slices_cover_every_example_once() -> None:
    for count in (0, 1, 10, 11):
        slices = [World(rank, 3).slice(count) for rank in range(3)]
        assert [i for a, b in slices for i in range(a, b)] == list(range(count))


@pytest.mark.parametrize("sparsify", ["none", "gnn"])
def test_two_processes_give_the_metrics_of_one(toy_data: Path, tmp_path: Path, sparsify: str) -> None:
    options = (*OPTIONS, "--data-dir", str(toy_data), "--epochs", "2", "--sparsify", sparsify, "--json")
    one, _ = result_of(start(1, *options, "--out", str(tmp_path / "one")))
    two, out = result_of(start(2, *options, "--out", str(tmp_path / "two")))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert out.count("record:") == 1
    assert one["run_id"] == two["run_id"]
    # Without noise the sums' order is all that differs; with it, the second process draws its own.
    tolerance = 0.6 if sparsify == "none" else 12
    for split in ("valid", "test"):
        for name, value in one[split].items():
            assert two[split][name] == pytest.approx(value, abs=tolerance), (split, name)
    folders = [next((tmp_path / name).iterdir()) for name in ("one", "two")]
    kls = [
        [json.loads(row)["kl"] for row in (f / "metrics.jsonl").read_text().splitlines() if '"step",' in row]
        for f in folders
    ]
    assert len(kls[0]) == len(kls[1]), "one process keeps the record"
    if sparsify == "gnn":  # counted twice, the KL would fall visibly faster
        assert kls[1][-1] == pytest.approx(kls[0][-1], rel=0.05)
    assert two["dataset"] == one["dataset"]
    if sparsify == "none":  # what is finished is printed again, by one process, and nobody waits for the other
        again, _ = result_of(start(2, *options, "--out", str(tmp_path / "two")))
        assert again == two


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def test_a_dead_process_ends_the_others_and_the_state_can_be_resumed(toy_data: Path, tmp_path: Path) -> None:
    options = (*OPTIONS, "--data-dir", str(toy_data), "--sparsify", "none", "--epochs", "2000", "--patience", "5000")
    process = start(2, *options, "--out", str(tmp_path))
    deadline = time.monotonic() + 120
    while not any(f.stat().st_size for f in tmp_path.glob("*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)  # until both have met: who waits for one that never came is ended by torchrun, after 30 s
    time.sleep(1)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    begun = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert process.returncode != 0
    assert "another process has ended" in err or "stopped at step" in err
    folder = next(tmp_path.iterdir())
    state = torch.load(folder / "state" / "state.pt", weights_only=True)
    assert state["step"] >= 0
    assert all(torch.isfinite(v).all() for v in state["model"].values())


@pytest.mark.parametrize("model", ["lessr", "dhcn", "dsan", "attenmixer-pr"])
def test_models_whose_rows_meet_refuse_several_processes(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setattr(World, "join", lambda *_: SimpleNamespace(size=2))
    with pytest.raises(DissectError, match=f"{model} can't be trained by several processes"):
        Run(Spec.create(model))
