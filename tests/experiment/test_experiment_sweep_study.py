"""One study among several processes: its budget, signals, failures, and processes that die."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from dissect.errors import DissectError, NotFinite
from dissect.experiment import sweep_storage, sweep_study
from dissect.experiment.checkpoint import Interrupted
from dissect.experiment.sweep_storage import open_storage
from dissect.experiment.sweep_study import Worker


def worker_of(path: Path, budget: int, startup: int = 10) -> Worker:
    storage = open_storage(f"sqlite:///{path / 'study.db'}", heartbeat=1)
    return Worker(storage, "s", budget, seed=0, startup=startup, said=lambda line: None)


def draw(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def ignore(trial: object) -> None:
    pass


def test_points_follow_from_the_trials_number_so_that_none_is_drawn_twice(tmp_path: Path) -> None:
    for budget in (2, 4):  # taken up again in between
        worker_of(tmp_path, budget).work(draw, ignore)
    (tmp_path / "whole").mkdir()
    whole = worker_of(tmp_path / "whole", 4)
    whole.work(draw, ignore)
    values = [trial.value for trial in worker_of(tmp_path, 4).trials()]
    assert values == [trial.value for trial in whole.trials()]
    assert len(set(values)) == 4


def test_a_waiting_trial_is_taken_once(tmp_path: Path) -> None:
    first = worker_of(tmp_path, 40)
    first.study.add_trials([optuna.create_trial(state=TrialState.WAITING)] * 40)

    def take(worker: Worker) -> list[int]:
        found = []
        while (trial := worker.study._pop_waiting_trial_id()) is not None:
            found.append(trial)
        return found

    with ThreadPoolExecutor(3) as pool:
        taken = [trial for found in pool.map(take, [worker_of(tmp_path, 40) for _ in range(3)]) for trial in found]
    assert len(taken) == len(set(taken)) == 40


def test_a_trial_beyond_the_budget_is_given_up(tmp_path: Path) -> None:
    mine, other = worker_of(tmp_path, 2), worker_of(tmp_path, 2)

    def train(trial: optuna.Trial) -> float:
        # While this one runs its first trial, the other sees room for one and takes two: the second is too many.
        if trial.number == 0:
            for _ in range(2):
                other._one(draw, ignore)
        return draw(trial)

    mine.work(train, ignore)
    found = mine.trials()
    assert [trial.state.name for trial in found] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert found[2].user_attrs["surplus"]
    assert not found[2].params, "nothing was drawn for it"


def test_a_stopped_trial_is_queued_again_and_a_failed_one_is_not(tmp_path: Path) -> None:
    calls: list[int] = []

    def train(trial: optuna.Trial) -> float:
        value = draw(trial)
        calls.append(trial.number)
        if len(calls) == 1:
            raise RuntimeError("out of memory\nand more")
        if len(calls) == 2:
            raise NotFinite("loss is nan at step 7", 1)
        if len(calls) == 3:
            raise Interrupted(3, signal.SIGTERM)
        return value

    with pytest.raises(DissectError, match="stopped; the same command goes on") as stopped:
        worker_of(tmp_path, 3).work(train, ignore)
    assert stopped.value.status == 128 + signal.SIGTERM
    worker = worker_of(tmp_path, 3)
    worker.work(train, ignore)
    found = worker.trials()
    assert [trial.state.name for trial in found] == ["FAIL", "PRUNED", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.user_attrs.get("error") for trial in found[:3]] == [
        "RuntimeError: out of memory", "loss is nan at step 7", None,
    ]  # fmt: skip
    assert found[3].user_attrs["again_for"] == [2]
    assert found[3].params == found[2].params


def test_a_signal_between_trials_stops_before_the_next(tmp_path: Path) -> None:
    worker, before = worker_of(tmp_path, 3), signal.getsignal(signal.SIGINT)
    with pytest.raises(DissectError, match="stopped"):
        worker.work(draw, lambda trial: os.kill(os.getpid(), signal.SIGINT))
    assert [trial.state.name for trial in worker.trials()] == ["COMPLETE"]
    assert signal.getsignal(signal.SIGINT) is before


def test_three_failures_in_a_row_stop_a_worker(tmp_path: Path) -> None:
    def train(trial: optuna.Trial) -> float:
        raise ValueError("no such thing")

    worker = worker_of(tmp_path, 9)
    with pytest.raises(DissectError, match=r"3 trials failed .*, the last by: ValueError: no such") as e:
        worker.work(train, ignore)
    assert e.value.status == 1
    assert len(worker.trials(TrialState.FAIL)) == 3


def test_a_worker_that_was_taken_for_dead_drops_its_trial_and_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    worker, other = worker_of(tmp_path, 2), worker_of(tmp_path, 2)
    worker.said = said.append

    def train(trial: optuna.Trial) -> float:
        value = draw(trial)
        if trial.number == 0:
            other.study.tell(0, state=TrialState.FAIL)
        return value

    worker.work(train, ignore)
    assert [trial.state.name for trial in worker.trials()] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert said == ["trial 0 has been given to another worker: this one was silent for too long"]


def test_trials_of_the_dead_are_found_and_given_up_after_three_deaths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_study, "POLL", 0.05)
    monkeypatch.setattr(sweep_storage, "BEATS", 1)
    worker = worker_of(tmp_path, 2)
    # One died before its first heartbeat, another with one, for the third time.
    worker.study.add_trial(optuna.create_trial(state=TrialState.RUNNING))
    killer = {"user_attrs": {"deaths": 2, "again_for": [8, 9], "worker": "x"}, "state": TrialState.RUNNING}
    worker.study.add_trial(optuna.create_trial(**killer))
    worker.storage.record_heartbeat(worker.trials()[1]._trial_id)
    worker.work(draw, ignore)
    assert [trial.state.name for trial in worker.trials()] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert not any("again_for" in trial.user_attrs for trial in worker.trials()[2:])
