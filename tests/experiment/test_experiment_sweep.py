"""Sweeps: what is written down, two workers on one study, and workers that are killed or stopped."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from dissect.cli import main
from dissect.errors import DissectError
from dissect.experiment import sweep
from dissect.experiment.outcome import Outcome
from dissect.experiment.spec import Spec
from dissect.experiment.sweep_result import Sweep, command_of
from dissect.experiment.sweep_space import space_of
from dissect.experiment.sweep_storage import open_storage
from dissect.experiment.sweep_study import FINISHED, Worker
from dissect.report.importance import importance_figure, write_importance_figure

ROOT = Path(__file__).resolve().parent.parent.parent


def options(toy_data: Path, out: Path, *more: Any) -> list[str]:
    given = ("--dataset", "toy", "--data-dir", toy_data, "--dim", 4, "--device", "cpu", "--out", out, "--quiet", *more)
    return ["sweep", *(str(word) for word in given)]


def fails(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code in (1, 2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_wrong_use_gets_one_line(capsys: pytest.CaptureFixture[str], toy_data: Path, tmp_path: Path) -> None:
    words = [*options(toy_data, tmp_path), "attenmixer"]
    for more, says in (
        (["--metric", "recall"], "unknown metric 'recall'; choose from: hr@5"),
        (["--fix", "lr"], "'lr' is not NAME=VALUE"),
        (["--fix", "levels=2", "--levels", 3], "--fix levels is given by an option of its own too"),
        (["--space", "dim=4,8"], "dim is both fixed and searched"),
        (["--noise", "row"], "leave out --noise"),
        (["--sparsify", "gnn"], "have no weights"),
        (["--trials", 0], "0 is not in the range"),
        (["--storage", "nowhere"], "'nowhere' is no SQLAlchemy address"),
        (["--storage", "postgres://me:secret@host/x"], "'postgres://me:***@host/x' is no SQLAlchemy address"),
        (["--storage", "postgres://me:se/c:r@et@host/x"], "'postgres://me:***@host/x' is no SQLAlchemy address"),
        (["--storage", "sqlite://"], "in memory"),
        (["--storage", "sqlite:////no/such/folder/x.db"], "can't open --storage sqlite:////no/such/folder/x.db"),
        (["--storage", "oracle://me:secret@host/x"], "--storage oracle://me:***@host/x: install its driver"),
    ):
        assert says in fails(capsys, *words, *more)
    (tmp_path / "file").write_text("")
    assert "can't write to" in fails(capsys, *options(toy_data, tmp_path / "file"), "attenmixer")
    assert "choose from: auto, cpu" in fails(capsys, *options(toy_data, tmp_path, "--device", "tpu"), "attenmixer")


def test_several_models_have_a_study_and_the_same_budget_each(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options(toy_data, tmp_path, "--epochs", 1, "--trials", 2, "--json"), "meanpool", "srgnn"]
    assert "unknown model 'srgn'" in fails(capsys, *words[:-1], "srgn")
    assert "meanpool is given twice" in fails(capsys, *words, "meanpool")
    long = [*options(toy_data, tmp_path, "--trials", 2), "meanpool", "attenmixer-pr", "--dataset", "demo"]
    assert "sessions of at most 10; the longest of 'demo'" in fails(capsys, *long)
    assert not (tmp_path / "sweeps").exists(), "nothing is begun before all are known to be right"
    main(words)
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    assert [one["trials"]["complete"] + one["trials"]["pruned"] for one in found] == [2, 2]
    assert len(list((tmp_path / "sweeps").iterdir())) == 2
    assert re.search(r"best mrr@20 on validation\nmeanpool +\d+\.\d\d of 2 trials\nsrgnn ", printed)


def worker_of(path: Path, budget: int, startup: int = 10) -> Worker:
    storage = open_storage(f"sqlite:///{path / 'study.db'}", heartbeat=1)
    return Worker(storage, "s", budget, seed=0, startup=startup, said=lambda line: None)


def test_a_trial_below_the_median_is_pruned_but_not_in_its_first_epoch_nor_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_trial = [[10.0, 20.0, 30.0], [10.0, 5.0, 90.0], [1.0, 25.0, 2.0]]

    class Told:
        """A run whose epochs give what is written above."""

        def __init__(self, spec: Spec, quiet: bool) -> None:
            self.values = by_trial[len(worker.trials()) - 1]

        def select(self, report: Any) -> dict[str, float]:
            for epoch, value in enumerate(self.values, 1):
                report(epoch, {"mrr@20": value}, epoch == 3)
            return {"mrr@20": max(self.values)}

    monkeypatch.setattr(sweep, "Run", Told)
    worker = worker_of(tmp_path, 3, startup=1)
    base = Spec.create("srgnn")
    worker.work(lambda trial: sweep.train_trial(trial, base, space_of(base), "mrr@20", True), lambda trial: None)
    found = [(trial.state.name, trial.value, len(trial.intermediate_values)) for trial in worker.trials()]
    assert found == [("COMPLETE", 30, 3), ("PRUNED", 5, 2), ("COMPLETE", 25, 3)]


def test_a_sweep_ranks_no_test_example_and_its_winner_can_be_run(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[str] = []
    rank = Outcome.rank

    def watched(self: Outcome, split: str, *rest: Any, **more: Any) -> Any:
        ranked.append(split)
        return rank(self, split, *rest, **more)

    monkeypatch.setattr(Outcome, "rank", watched)
    monkeypatch.chdir(tmp_path)
    words = options(toy_data, tmp_path / "out", "--epochs", 3, "--trials", 3, "--json")
    words += ["attenmixer", "--space", "lr=1e-3,0.02", "--fix", "weight-decay=0", "--levels", "2"]
    main(words)
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    assert set(ranked) == {"valid"}
    assert not (tmp_path / "runs").exists()
    (folder,) = (tmp_path / "out" / "sweeps").iterdir()
    assert json.loads((folder / "best.json").read_text()) == found
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    pruned = sum(row["state"] == "pruned" for row in rows)
    assert found["trials"] == {"complete": 3 - pruned, "pruned": pruned, "failed": 0, "queued_again": 0}
    best = found["best"]
    assert best["value"] == max(row["value"] for row in rows if row["state"] == "complete")
    assert set(best["values"]) == {"lr", "item_dropout", "heads", "dropout"}
    assert "no importances" in printed

    before = (folder / "trials.jsonl").read_bytes()
    ranked.clear()
    main(words)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    assert (folder / "trials.jsonl").read_bytes() == before
    assert not ranked, "a finished study trains nothing"

    main([*shlex.split(best["command"])[1:], "--quiet", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["run_id"], result["valid"]["mrr@20"]) == (best["run_id"], best["value"])


def test_the_command_of_a_spec_names_every_choice() -> None:
    spec = Spec.create(
        "srgnn", readout="attenmixer", scorer="cosine", setting="paper", dim=64, sigma=9.5, levels=3, heads=2, p=2.0,
        dropout=0.1, lr=0.00123, epochs=4, max_train=99, sparsify="gnn", noise="weight", kl_scale=3.0, seed=2,
    )  # fmt: skip
    assert command_of(spec, ["weight_decay"]) == (
        "dissect run srgnn --dataset demo --setting paper --readout attenmixer --scorer cosine --sparsify gnn "
        "--lr 0.00123 --weight-decay 1e-05 --sigma 9.5 --dim 64 --kl-scale 3.0 --epochs 4 --noise weight --seed 2 "
        "--max-train 99 --levels 3 --heads 2 --p 2.0 --option dropout=0.1"
    )


def test_importances_find_what_matters_and_are_drawn(tmp_path: Path) -> None:
    base = Spec.create("srgnn")
    search = Sweep(base, space_of(base), "mrr@20", "0" * 64, tmp_path, worker_of(tmp_path, 20))

    def train(trial: optuna.Trial) -> float:
        values = {name: range_.draw(trial, name) for name, range_ in search.space.items()}
        return 100 * values["lr"]

    search.worker.work(train, lambda trial: None)
    found = search.importances()
    assert found is not None
    assert sum(found["importances"].values()) == pytest.approx(1)
    assert max(found["importances"], key=found["importances"].__getitem__) == "lr"
    assert (found["complete"], found["top"]) == (20, 5)
    axes = importance_figure(found).axes[0]
    assert axes.get_yticklabels()[-1].get_text() == "lr  (0.0005 to 0.02, log)"
    assert axes.texts[-1].get_text() == f"{found['importances']['lr']:.2f}"
    (tmp_path / "importance.json").write_text(json.dumps(found))
    assert [path.name for path in write_importance_figure(tmp_path / "importance.json")] == [
        "importance.svg", "importance.png",
    ]  # fmt: skip
    (tmp_path / "importance.json").write_text("{")
    with pytest.raises(DissectError, match=r"can't read .*importance\.json"):
        write_importance_figure(tmp_path / "importance.json")


def start(words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dissect", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def study_in(out: Path) -> optuna.Study | None:
    """The study of the sweep in `out`, once it is there."""
    for path in out.glob("sweeps/*/study.db"):
        try:
            return optuna.load_study(study_name=None, storage=f"sqlite:///{path}")
        except Exception:  # its tables are being made
            return None
    return None


def test_two_workers_finish_one_study_together(toy_data: Path, tmp_path: Path) -> None:
    words = options(toy_data, tmp_path, "--epochs", 2, "--trials", 6, "--json", "meanpool")
    workers = [start(words) for _ in range(2)]
    ends = [worker.communicate(timeout=200) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], ends
    assert len({out.splitlines()[-1] for out, _ in ends}) == 1, "both end with the same best"
    study = study_in(tmp_path)
    assert study is not None
    trials = study.trials
    ended = [trial for trial in trials if trial.state in FINISHED]
    assert len(ended) == 6
    assert all(trial.user_attrs.get("surplus") for trial in trials if trial.state not in FINISHED)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert len({str(trial.params) for trial in ended}) == 6, "no point was trained twice"
    assert all(trial.user_attrs["worker"] for trial in ended)


def wait_for_a_running_trial(out: Path, worker: subprocess.Popen[str]) -> optuna.trial.FrozenTrial:
    """The trial that `worker` is training, once it has an epoch behind it."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        study = study_in(out)
        for trial in [] if study is None else study.get_trials(states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("worker", "").endswith(f":{worker.pid}") and trial.intermediate_values:
                return trial
        time.sleep(0.1)
    raise AssertionError(worker.communicate())


def test_a_worker_killed_in_a_trial_loses_it_alone_and_another_finishes_the_study(
    toy_data: Path, tmp_path: Path
) -> None:
    words = options(toy_data, tmp_path, "--epochs", 75, "--trials", 3, "--heartbeat", 1, "--fix", "patience=99")
    killed, other = start([*words, "meanpool"]), start([*words, "meanpool"])
    lost = wait_for_a_running_trial(tmp_path, killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    _, err = other.communicate(timeout=250)
    assert other.returncode == 0, err
    study = study_in(tmp_path)
    assert study is not None
    trials = study.trials
    assert sum(trial.state in FINISHED for trial in trials) == 3
    assert trials[lost.number].state == TrialState.FAIL
    failed = [t.number for t in trials if t.state == TrialState.FAIL and not t.user_attrs.get("surplus")]
    assert failed == [lost.number], "nothing else was lost"
    (again,) = [trial for trial in trials if trial.user_attrs.get("again_for") == [lost.number]]
    assert again.state in FINISHED
    assert again.params == lost.params


def test_sigterm_queues_the_trial_again_and_the_same_command_goes_on(toy_data: Path, tmp_path: Path) -> None:
    words = options(toy_data, tmp_path, "--epochs", 200, "--trials", 1, "--fix", "patience=99")
    worker = start([*words, "meanpool"])
    stopped = wait_for_a_running_trial(tmp_path, worker)
    worker.terminate()
    _, err = worker.communicate(timeout=100)
    assert (worker.returncode, err) == (143, "dissect: stopped; the same command goes on\n")
    again = start([*words, "meanpool"])
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert "1 complete, 0 pruned, 0 failed, 1 queued again" in " ".join(out.split())
    study = study_in(tmp_path)
    assert study is not None
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert study.trials[1].params == stopped.params
