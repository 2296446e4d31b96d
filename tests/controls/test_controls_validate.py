"""The worlds' verdicts: rules by hand, a run that goes on where it was stopped, wrong answers that fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dissect.cli import main
from dissect.controls import validate as command
from dissect.controls.validate import validate_worlds
from dissect.controls.worlds import PARTS, Setting, densities, judge, run_task, tasks
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.sparsity import wrap

SMALL: dict[str, Any] = {"sessions": 300, "steps": 6, "sparse_steps": 8, "dim": 4, "shadows": 2}


def hits(share: float, count: int = 2500) -> dict[str, Any]:
    """A result with the first examples right."""
    right = np.arange(count) < share * count
    return {"hr@1": 100 * share, "hits": np.packbits(right).tobytes().hex(), "setting": {"sessions": 5 * count}}


def results(world: str, deleted: float, low: float) -> list[dict[str, Any]]:
    density = {"kept": 5, "total": 10, "shadow_kept": 0, "shadow_total": 10, "null": 0.0, "excess": 0.5, "low": low,
               "high": 0.7, "settled": True}  # fmt: skip
    rows: list[dict[str, Any]] = [
        {"world": world, "what": "sparse", "density": dict.fromkeys(PARTS, density), **hits(0.9)},
        {"world": world, "what": "dense", "zeroed": dict.fromkeys(PARTS, 1.0), **hits(0.9)},
    ]
    return rows + [{"world": world, "what": part, **hits(deleted)} for part in PARTS]


@pytest.mark.parametrize(
    ("deleted", "low", "verdict", "keeps", "right"),
    [
        (0.30, 0.2, "needed", "more", True),
        (0.30, 0.05, "needed", "slightly more", False),  # at the margin, not above it
        (0.30, 0.0, "needed", "no more", False),
        (0.60, 0.2, "helps", "more", False),
        (0.89, 0.2, "idle", "more", False),
        (0.95, 0.2, "idle", "more", False),
    ],
)
def test_verdicts_follow_the_rules(deleted: float, low: float, verdict: str, keeps: str, right: bool):
    row = next(r for r in judge(results("successor-recall", deleted, low)) if r["part"] == "propagation")
    assert (row["verdict"], row["keeps"], row["right"]) == (verdict, keeps, right)
    assert row["loss"] == pytest.approx(100 * (0.9 - deleted), abs=0.05)
    assert row["low"] <= row["loss"] <= row["high"]


def test_nothing_is_said_of_what_was_not_learnt():
    little = [{**r, **(hits(0.5) if r["what"] == "sparse" else {})} for r in results("last-item", 0.9, -0.1)]
    rows = judge(little)
    assert {row["verdict"] for row in rows} == {"not learnt"}
    assert not any(row["right"] for row in rows)


def test_in_the_shuffled_world_half_of_nothing_is_nothing():
    rows = judge([{**r, **({} if r["what"] == "sparse" else hits(0.016 if r["what"] == "dense" else 0.004))}
                  for r in results("shuffled", 0.0, -0.1)])  # fmt: skip
    assert {row["verdict"] for row in rows} == {"idle"}
    assert {row["keeps"] for row in rows} == {"no more"}
    assert all(row["right"] for row in rows)


def test_densities_and_their_interval_by_hand():
    torch.manual_seed(0)
    wide, narrow = nn.Linear(40, 50), nn.Linear(10, 1)
    probe = wrap(nn.ModuleList([wide, narrow]), {"p": ["0", "1"]}, examples=1, steps=1, shadows=20)
    with torch.no_grad():
        for linear, dropped, kept in ((wide, 20, 5), (narrow, 0, 1)):
            for name, first in (("", dropped), ("shadow_", len(linear.weight) - kept)):
                linear.get_parameter(f"{name}weight").fill_(1.0)
                linear.get_parameter(f"{name}log_sigma2").fill_(-9.0)
                linear.get_parameter(f"{name}log_sigma2")[:first] = 9.0
    found = densities(probe)["p"]
    assert (found["kept"], found["total"]) == (30 * 40 + 10, 2010)
    assert (found["shadow_kept"], found["shadow_total"]) == (5 * 20 + 10, 1010)
    null = (2000 * 0.1 + 10 * 1.0) / 2010  # each matrix counts as its weights do
    assert found["null"] == pytest.approx(null)
    assert found["excess"] == pytest.approx(1210 / 2010 - null)
    # A unit's excess is 1 (25 units), 0 (20 + 5 of both): the spread of its mean over 50; columns are all alike.
    spread = np.std([1.0] * 25 + [0.0] * 25) / 50**0.5
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_columns_are_drawn_too():
    linear = nn.Linear(20, 400)
    probe = wrap(nn.ModuleList([linear]), {"p": ["0"]}, examples=1, steps=1, shadows=4)
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.get_parameter("log_sigma2").fill_(-9.0)
        linear.get_parameter("shadow_weight").fill_(1.0)
        linear.get_parameter("shadow_log_sigma2").fill_(9.0)
        linear.get_parameter("shadow_log_sigma2")[:, 0] = -9.0  # one whole column of four
    found = densities(probe)["p"]
    assert found["excess"] == pytest.approx(0.75)
    assert found["high"] - found["low"] > 0.5  # four columns are few, whatever the number of units


def test_a_task_measures_what_it_says():
    setting = Setting(**SMALL)
    sparse = run_task("last-item", "sparse", setting)
    assert set(sparse["density"]) == set(PARTS)
    assert sparse["density"]["propagation"]["total"] == 2 * 16
    assert sparse["density"]["propagation"]["settled"] is False
    assert sparse["density"]["propagation"]["shadow_total"] == 2 * 4 * 2
    dense = run_task("last-item", "dense", setting)
    assert set(dense["zeroed"]) == set(PARTS)
    assert run_task("last-item", "dense", setting) == dense
    assert len(tasks(("intent",))) == 6


def test_it_goes_on_where_it_was_stopped_and_fails_where_an_answer_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Inline:
        """A pool in this process, which is interrupted after some tasks."""

        left = 4

        def __init__(self, *_: Any) -> None:
            pass

        def submit(self, function: Any, *args: Any) -> Any:
            from concurrent.futures import Future

            future: Future[Any] = Future()
            try:
                if Inline.left == 0:
                    raise KeyboardInterrupt
                Inline.left -= 1
                future.set_result(function(*args))
            except KeyboardInterrupt as error:
                future.set_exception(error)
            return future

        def shutdown(self, **_: Any) -> None:
            pass

    monkeypatch.setattr(command, "ProcessPoolExecutor", Inline)
    with pytest.raises(DissectError, match="the same command goes on") as stopped:
        validate_worlds(["successor-recall"], out=tmp_path, quiet=True, **SMALL)
    assert stopped.value.status == 130
    folder = next(tmp_path.glob("validate-weight-*"))
    done = len((folder / record.TASKS).read_text().splitlines())
    with (folder / record.TASKS).open("a") as file:
        file.write('{"world": "succ')  # a crash in the middle of a line
    Inline.left = 100
    calls: list[str] = []
    real = command.run_task
    monkeypatch.setattr(command, "run_task", lambda *args: calls.append(args[1]) or real(*args))
    result = validate_worlds(["successor-recall"], out=tmp_path, quiet=True, as_json=True, **SMALL)
    assert len(calls) == 6 - done
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == json.loads((folder / "result.json").read_text())
    assert "not learnt" in out
    assert not result["right"]  # nothing is learnt in six steps
    assert "WRONG" not in out  # what was not learnt tells nothing
    monkeypatch.setattr("dissect.controls.validate.validate_worlds", lambda **_: result)
    with pytest.raises(SystemExit) as failed:
        main(["validate"])
    assert failed.value.code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate", "moon"], "unknown control 'moon'; choose from worlds, lenet"),
        (["validate", "lenet", "--noise", "row"], "validate lenet has no use for --noise"),
        (["validate", "--recipe", "fast"], "validate worlds has no use for --recipe"),
        (["validate", "--world", "moon"], "unknown world 'moon'; choose from successor-recall"),
        (["validate", "--noise", "white"], "unknown noise 'white'; choose from local, row, weight"),
        (["validate", "--seed", "1", "--seed", "2"], "takes one --seed"),
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
    assert message in capsys.readouterr().err
