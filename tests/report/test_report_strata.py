"""A comparison by strata: every example in one, numbers as by hand, one line where a record can't be taken apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dissect.cli import main
from dissect.errors import DissectError
from dissect.report.compare import compare
from dissect.report.formats import WIDTH, render
from dissect.report.power import least_visible
from dissect.report.statistics import gains, paired_bootstrap
from dissect.report.strata import FEWEST_SESSIONS, LENGTHS, STRATA, Mask, by_popularity, compare_by
from dissect.report.strata_layout import strata_json, strata_tables
from dissect.training.evaluate import LENGTH_GROUPS, metrics

N = 400
SESSION = np.repeat(np.arange(N // 4), 4)
EXTRA: dict[str, Any] = {
    "length": np.tile([4, 3, 2, 1], N // 4),
    "popularity": 17 * np.arange(N) % 50,
    "repeat": np.arange(N) % 3 == 0,
    "day": 14_890 + SESSION // 60,
}


def make(path: Path, ranks: Any, extra: dict[str, Any] | None = None, result: Any = None, **spec: Any) -> Path:
    """A run folder with these test ranks."""
    path.mkdir(parents=True)
    base = {"model": "srgnn", "readout": "soft-attention", "options": {}, "dataset": "toy", "seed": 0, "lr": 0.1} | spec
    found = {
        "run_id": path.name, "model": "srgnn", "seed": base["seed"], "steps": 7, "epoch": 1, "device": "cpu",
        "dataset": {"name": "toy", "sha256": "a" * 64, "items": 50, "train_examples": 9, "test_examples": len(ranks)},
        "protocol": {"name": "honest", "refit": False, "ties": "half", "optimistic": False},
        "pruned": None, "sparsify": None, "test": metrics(ranks), "parameters": 3, "seconds_per_epoch": 1.0,
    } | (result or {})  # fmt: skip
    (path / "spec.json").write_text(json.dumps(base))
    (path / "result.json").write_text(json.dumps(found))
    arrays = {"rank": ranks, "session": SESSION, **(EXTRA if extra is None else extra)}
    np.savez_compressed(path / "ranks.npz", **arrays)
    return path


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    return [make(tmp_path / f"r{n}", rng.integers(1, 60, N).astype(np.float32), lr=n / 10) for n in range(3)]


def test_lengths_are_those_of_the_evaluator() -> None:
    assert LENGTHS == LENGTH_GROUPS


def sizes(masks: list[Mask]) -> dict[str, int]:
    return {label: int(mask.sum()) for label, mask in masks}


def test_popularity_is_cut_where_examples_are_even() -> None:
    counts = np.array([0, 0, *range(1, 11), 10, 10])
    assert sizes(by_popularity(counts)) == {"0": 2, "1-3": 3, "4-5": 2, "6-8": 3, "9-10": 4}
    assert sizes(by_popularity(np.array([7, 7, 7]))) == {"0": 0, "1-7": 3}
    assert sizes(by_popularity(np.zeros(3, int))) == {"0": 3}
    assert sizes(by_popularity(np.array([1, 1, 1, 1, 2]))) == {"0": 0, "1": 4, "2": 1}


@pytest.mark.parametrize("by", STRATA)
def test_every_example_is_in_one_stratum(by: str, runs: list[Path]) -> None:
    found = compare_by(runs, by, resamples=100)
    assert sum(each.examples for each in found.strata) == found.examples == N
    for number, line in enumerate(compare(runs, resamples=100).lines):
        parts = [each.examples * each.values[number].estimate for each in found.strata]
        np.testing.assert_allclose(np.sum(parts, axis=0) / N, line.mean)
        if line.difference is not None:
            parts = [each.examples * np.asarray(each.differences[number])[0] for each in found.strata]
            np.testing.assert_allclose(np.sum(parts, axis=0) / N, line.difference.estimate)


def test_a_stratum_is_the_comparison_of_its_examples(runs: list[Path]) -> None:
    found = compare_by(runs[:2], "repeat", baseline=runs[1], metrics=["mrr@20"], resamples=200)
    assert [(each.label, each.examples) for each in found.strata] == [("new", 266), ("repeat", 134)]
    a, b = (gains(np.load(run / "ranks.npz")["rank"], "mrr@20") for run in runs[:2])
    mask = EXTRA["repeat"]
    both = np.column_stack([a, b, a - b])[mask]
    expected = paired_bootstrap(both, SESSION[mask], resamples=200)
    (first, second), (difference, nothing) = found.strata[1].values, found.strata[1].differences
    assert nothing is None
    assert difference is not None
    assert found.strata[1].sessions == len(np.unique(SESSION[mask]))
    for column, interval in enumerate((first, second, difference)):
        np.testing.assert_allclose([part[0] for part in interval], [part[column] for part in expected])


def test_days_are_dates_and_few_sessions_have_no_interval(tmp_path: Path) -> None:
    few = {**EXTRA, "day": np.where(SESSION < FEWEST_SESSIONS - 1, 14_889, 14_890)}
    runs = [make(tmp_path / f"r{n}", np.roll(np.arange(N) % 40 + 1.0, n), few, lr=n / 10) for n in (1, 2)]
    found = compare_by(runs, "day", metrics=["hr@20"])
    assert [each.label for each in found.strata] == ["2010-10-07", "2010-10-08"]
    assert [each.sessions for each in found.strata] == [FEWEST_SESSIONS - 1, N // 4 - FEWEST_SESSIONS + 1]
    assert np.isnan(found.strata[0].values[0].low).all()
    assert not np.isnan(found.strata[1].values[0].low).any()
    (table,) = strata_tables(found)
    assert "[" not in table.rows[1][4] + table.rows[1][5]
    assert "[" in table.rows[3][4]
    assert "[" in table.rows[3][5]


def test_tables_and_json_say_what_was_found(runs: list[Path]) -> None:
    found = compare_by(runs, "popularity", resamples=200)
    shown = strata_tables(found)
    assert [table.title.split(" on ")[0] for table in shown] == ["HR@20 by popularity", "MRR@20 by popularity"]
    text = render(shown[0])
    assert max(map(len, text.split("\n"))) <= WIDTH
    words = " ".join(text.split())
    assert "400 test examples of 100 sessions" in words
    count = 2 * len(found.strata)
    assert f"Each of the {count} intervals is at 95% by itself" in words
    data = json.loads(json.dumps(strata_json(found), allow_nan=False))
    assert [each["examples"] for each in data["strata"]] == [each.examples for each in found.strata]
    cell = data["strata"][1]["lines"][2]["metrics"]["mrr@20"]
    difference = found.strata[1].differences[2]
    assert difference is not None
    assert cell["difference"] == pytest.approx(difference.estimate[1], abs=1e-6)
    assert cell["difference_interval"] == pytest.approx([difference.low[1], difference.high[1]], abs=1e-6)
    assert cell["least_visible"] == pytest.approx(least_visible(difference.error)[1], abs=1e-6)
    assert "difference" not in data["strata"][1]["lines"][0]["metrics"]["mrr@20"]


def test_what_a_record_lacks_is_looked_up_or_refused(tmp_path: Path) -> None:
    old = [make(tmp_path / f"r{n}", np.arange(N) % 40 + 1.0 + n, {}, lr=n / 10) for n in (0, 1)]
    asked: list[tuple[Path, str]] = []

    def lookup(run: Any, name: str) -> Any:
        asked.append((run.path, name))
        return EXTRA[name]

    found = compare_by(old, "repeat", resamples=100, lookup=lookup)
    assert asked == [(old[0], "repeat")]
    assert [each.examples for each in found.strata] == [266, 134]
    with pytest.raises(DissectError, match=r"r0/ranks\.npz holds no repeat of its test examples"):
        compare_by(old, "repeat")
    with pytest.raises(DissectError, match="r0 has 400 test examples, its data set 7"):
        compare_by(old, "repeat", lookup=lambda run, name: np.zeros(7))
    with pytest.raises(DissectError, match="no strata 'moon'; valid: length, popularity, repeat, day"):
        compare_by(old, "moon")


def test_the_command_takes_a_comparison_apart(
    runs: list[Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def call(*arguments: Any) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(a) for a in ("compare", *arguments)])
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    code, out, err = call(*runs, "--by", "day", "--metrics", "ndcg@10", "--json")
    assert (code, err) == (0, "")
    assert "NDCG@10 by day on toy" in out
    assert [each["label"] for each in json.loads(out.splitlines()[-1])["strata"]] == ["2010-10-08", "2010-10-09"]
    code, _, err = call(make(tmp_path / "old", np.ones(N), {}), "--by", "day")
    assert code == 2
    assert err.count("\n") == 1
    assert "holds no day of its test examples, and unknown data set 'toy'" in err
    code, _, err = call(*runs, "--data-dir", tmp_path)
    assert (code, err) == (2, "dissect: --data-dir is for --by; leave it out\n")
