"""Suites: what a file stands for, what is recorded, and a budget that ends early and is taken up again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dissect.errors import DissectError, InUse
from dissect.experiment import record, suite_run
from dissect.experiment.run import Run
from dissect.experiment.spec import Spec
from dissect.experiment.suite import find_records, load_suite, rows
from dissect.experiment.suite_run import run_suite, seconds, suite_tables
from dissect.report.formats import render

ROOT = Path(__file__).resolve().parent.parent.parent
TOML = """
title = "a toy"
baseline = "mean"
[defaults]
dataset = "toy"
sparsify = "none"
dim = 4
[small]
steps = 3
seed = [0, 1]
[full]
epochs = 7
[[runs]]
label = "L = {levels}"
model = "attenmixer"
heads = 2
levels = [2, 10, 1]
priority = 2
[[runs]]
label = "mean"
model = "meanpool"
steps = 4
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(TOML)
    return path


def test_lists_are_runs_and_a_run_outranks_the_variant_and_that_the_defaults(file: Path) -> None:
    suite = load_suite(file)
    assert suite.labels == ["L = 2", "L = 10", "L = 1", "mean"], "in the file's order"
    found = [(e.label, e.spec.seed, e.spec.steps, e.spec.dim) for e in suite.entries]
    assert found[:2] == [("mean", 0, 4, 4), ("mean", 1, 4, 4)], "the lower priority number goes first"
    assert found[2:6] == [("L = 2", 0, 3, 4), ("L = 10", 0, 3, 4), ("L = 1", 0, 3, 4), ("L = 2", 1, 3, 4)]
    assert suite.entries[2].axes == {"seed": 0, "levels": 2}
    assert suite.entries[2].spec.options["levels"] == 2
    full = load_suite(file, "full")
    assert {(e.spec.epochs, e.spec.steps, e.spec.seed) for e in full.entries} == {(7, 0, 0), (7, 4, 0)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("runs = 3 =", "is no suite"),
        ("title = 'x'", r"has no \[\[runs\]\]"),
        ("titel = 'x'\n[[runs]]\nmodel = 'srgnn'", "unknown key of .* 'titel' .did you mean 'title'"),
        ("[[runs]]\ndim = 3", "run 1: it has no model"),
        ("[[runs]]\nmodel = 'srgnn'\n[[runs]]\nmodel = 'srgn'", "run 2: unknown model 'srgn'"),
        ("[[runs]]\nmodel = 'srgnn'\nepoch = 3", "run 1: unknown key 'epoch' .did you mean 'epochs'"),
        ("[[runs]]\nmodel = 'srgnn'\nlevels = 3", "run 1: unknown option 'levels' of the readout 'soft-attention'"),
        ("[[runs]]\nmodel = 'srgnn'\nlabel = '{depth}'", "names what is no field"),
        ("runs = 3", "runs is 3; it takes a list"),
        ("metrics = 'hr@20'\n[[runs]]\nmodel = 'srgnn'", "metrics is 'hr@20'; it takes a list"),
        ("metrics = [3]\n[[runs]]\nmodel = 'srgnn'", "no metric '3'"),
        ("baseline = 3\n[[runs]]\nmodel = 'srgnn'", "baseline is 3; it takes text"),
        ("runs = [1]", "run 1 is 1; it takes a table"),
        ("[[runs]]\nmodel = 3", "run 1: model is 3; it takes a name"),
        ("[[runs]]\nmodel = 'srgnn'\npriority = 'x'", "run 1: priority is 'x'; it takes a whole number"),
        ("[[runs]]\nmodel = 'srgnn'\nencoder = ''", "--encoder is empty"),
        ("metrics = ['recall']\n[[runs]]\nmodel = 'srgnn'", "recall"),
        ("defaults = 3\n[[runs]]\nmodel = 'srgnn'", "defaults is 3; it takes a table"),
        ("[[runs]]\nmodel = 'srgnn'\nseed = []", "run 1: seed is an empty list"),
        ("[[runs]]\nmodel = 'srgnn'\npriority = 'high'", "run 1: .*high"),
        ("[[runs]]\nmodel = 'srgnn'\ndim = 'big'", "run 1: "),
        ("[[runs]]\nmodel = 'srgnn'\ninit = 'x'", "run 1: unknown key 'init'"),
        ("[[runs]]\nmodel = 'srgnn'\ndataset = ['demo', 'toy']", "runs differ in dataset .demo, toy."),
        ("baseline = 'b'\n[[runs]]\nmodel = 'srgnn'", "unknown baseline of .* 'b'"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(DissectError, match=says):
        load_suite(path)


def test_a_missing_file_and_variant(tmp_path: Path, file: Path) -> None:
    with pytest.raises(DissectError, match="can't read"):
        load_suite(tmp_path / "none.toml")
    with pytest.raises(DissectError, match="unknown variant 'large'; choose from: small, full"):
        load_suite(file, "large")


def test_a_label_names_an_option_with_a_dot(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[[runs]]\nmodel = 'lessr'\nlabel = '{encoder}, {encoder.layers}'\n'encoder.layers' = [1, 2]")
    assert load_suite(path).labels == ["edge-order, 1", "edge-order, 2"]


def test_a_list_that_a_model_has_no_use_for_is_one_run(tmp_path: Path) -> None:
    path = tmp_path / "rates.toml"
    path.write_text(
        'title = "t"\n[defaults]\ndataset = "toy"\nsparsify = "none"\nlr = [1e-3, 2e-3]\n[small]\nseed = [0, 1]\n'
        '[[runs]]\nmodel = "spop"\n[[runs]]\nmodel = ["meanpool", "sr"]\nlabel = "{model} {lr}"\n'
    )
    found = [(e.spec.model, e.spec.seed, e.spec.lr) for e in load_suite(path).entries if e.spec.model == "meanpool"]
    assert sorted(found) == [("meanpool", s, lr) for s in (0, 1) for lr in (1e-3, 2e-3)]
    counted = [(e.spec.model, e.spec.seed) for e in load_suite(path).entries if e.spec.model != "meanpool"]
    assert sorted(counted) == [("spop", 0), ("spop", 1), ("sr", 0), ("sr", 1)]
    path.write_text('title = "t"\n[[runs]]\nmodel = "spop"\n[[runs]]\nmodel = "spop"\nlabel = "again"\n')
    with pytest.raises(DissectError, match=r"'spop' and 'again' are the same run .seed 0."):
        load_suite(path)


def test_a_missing_variant_and_a_label_of_two_rows_are_refused_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('title = "t"\n[small]\nsteps = 3\n[[runs]]\nmodel = "srgnn"\n')
    with pytest.raises(DissectError, match=r"has no \[full\]; choose --variant small, or add one"):
        load_suite(path, "full")
    path.write_text('title = "t"\n[[runs]]\nlabel = "a"\nmodel = "spop"\n[[runs]]\nlabel = "a"\nmodel = "sr"\n')
    with pytest.raises(DissectError, match="runs that differ in more than their seed are called 'a'"):
        load_suite(path)


def test_what_another_process_is_training_is_left_to_it(file: Path, toy_data: Path, tmp_path: Path) -> None:
    suite = load_suite(file)
    out = tmp_path / "runs"
    first = suite.entries[0]
    begun = Run(first.spec.replace(data_dir=str(toy_data)), out=out, quiet=True)
    with begun.folder.taken():
        begun.folder.write_json(record.ENVIRONMENT, {"data_sha256": begun.data.sha256})
        record.write_atomically(begun.folder / record.SPEC, first.spec.to_json())
        (begun.folder / record.STATE).touch()
        found, failed = run_suite(suite, out=out, data_dir=str(toy_data), quiet=True)
        assert sorted(found) == list(range(1, len(suite.entries)))
        assert failed == []
        with pytest.raises(InUse, match=r"another process is at work on .*; let it end"):
            Run(begun.spec, out=out, quiet=True).execute()


def test_what_another_process_begins_meanwhile_is_left_to_it(
    file: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, out = load_suite(file), tmp_path / "runs"
    begun = Run(suite.entries[0].spec.replace(data_dir=str(toy_data)), out=out, quiet=True)
    look = suite_run._begun

    def looked_too_early(entry: Any, where: Path) -> Path | None:
        found = look(entry, where)
        if entry is suite.entries[0]:  # now the other process takes it, and saves its first state
            assert found is None
            record.write_atomically(begun.folder / record.SPEC, begun.spec.to_json())
            (begun.folder / record.STATE).touch()
        return found

    monkeypatch.setattr(suite_run, "_begun", looked_too_early)
    with begun.folder.taken():
        found, failed = run_suite(suite, out=out, data_dir=str(toy_data), quiet=True)
    assert failed == []
    assert sorted(found) == list(range(1, len(suite.entries)))


def test_records_of_other_data_of_that_name_are_refused(file: Path, toy_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    suite = load_suite(file)
    run_suite(suite, out=out, data_dir=str(toy_data), seeds=[0], quiet=True)
    other = tmp_path / "other" / "toy"
    shutil.copytree(toy_data / "toy", other)
    with open(other / "train.txt", "a") as lines:
        lines.write("1,2\n")
    with pytest.raises(DissectError, match="was run on other data of the name 'toy'"):
        run_suite(suite, out=out, data_dir=str(other.parent), quiet=True)


def test_times() -> None:
    assert [seconds(t) for t in ("90", "90s", "1.5m", "2h")] == [90, 90, 90, 7200]
    with pytest.raises(DissectError, match="write 90s, 8m or 2h"):
        seconds("8 minutes")


def _run(file: Path, toy_data: Path, out: Path, **options: Any) -> tuple[Any, Any, list[str]]:
    suite = load_suite(file)
    found, failed = run_suite(suite, out=out, data_dir=str(toy_data), quiet=True, **options)
    return suite, found, failed


def test_a_suite_runs_skips_what_is_recorded_and_makes_one_table(
    file: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, found, failed = _run(file, toy_data, tmp_path / "out", records=tmp_path / "records", keep=True)
    assert not failed
    assert len(found) == len(suite.entries) == 8
    kept = list((tmp_path / "records").iterdir())
    assert len(kept) == 8
    assert not [p for folder in kept for p in folder.rglob("*") if p.suffix in (".safetensors", ".pt")]
    said = capsys.readouterr()
    assert said.out == "", "the runs' own tables would bury the suite's"
    assert "[8/8] L = 1, seed 1" in said.err
    # What is finished in the run folders alone is kept too.
    shutil.rmtree(kept[0])
    _run(file, toy_data, tmp_path / "out", records=tmp_path / "records", keep=True)
    assert kept[0].is_dir()
    # The records alone are enough, under whatever names, and nothing is run again.
    shutil.rmtree(tmp_path / "out")
    kept[0].rename(tmp_path / "records" / "another-name")
    suite, again, _ = _run(file, toy_data, tmp_path / "out", records=tmp_path / "records")
    assert len(again) == 8
    assert not (tmp_path / "out").exists()
    assert [len(runs) for runs in rows(suite, again).values()] == [2, 2, 2, 2]
    first, second, third = suite_tables(suite, again)
    text = render(first, "text")
    assert text.startswith("a toy (small)")
    assert "not run" not in text
    assert "kept" in render(second, "text")
    assert "coverage@20" in render(third, "text")
    # One label short: its row is named.
    lost = {i: path for i, path in again.items() if suite.entries[i].label != "L = 10"}
    assert "not run: L = 10" in render(suite_tables(suite, lost)[0], "text")
    assert suite_tables(suite, {}) == []


def test_one_seed_alone(file: Path, toy_data: Path, tmp_path: Path) -> None:
    where = ("--data-dir", str(toy_data), "--out", str(tmp_path / "out"), "--quiet")
    listed = _command(file, *where, "--dry-run", "--seed", "1")
    assert listed.stdout.count("seed 1: not run") == 4
    assert "seed 0" not in listed.stdout
    wrong = _command(file, *where, "--seed", "5")
    assert wrong.returncode == 2
    assert "--seed 5" in wrong.stderr
    assert "has the seeds 0, 1" in wrong.stderr


def test_a_budget_that_ends_before_training_is_no_crash(file: Path, toy_data: Path, tmp_path: Path) -> None:
    where = ("--data-dir", str(toy_data), "--out", str(tmp_path / "out"), "--quiet")
    done = _command(file, *where, "--budget", "0.02s")
    assert done.returncode == 1, done.stderr
    assert "the budget is spent: 8 runs are left" in done.stderr
    assert "8 of 8 runs are left" in done.stderr


def test_what_is_no_error_of_ours_does_not_stop_the_others_either(
    file: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = suite_run.start_run

    def broken(model: str, *args: Any, **options: Any) -> Any:
        if model == "attenmixer":
            raise RuntimeError("out of memory")
        return start(model, *args, **options)

    monkeypatch.setattr(suite_run, "start_run", broken)
    suite, found, failed = _run(file, toy_data, tmp_path / "out")
    assert {suite.entries[i].label for i in found} == {"mean"}
    assert failed[0].endswith("RuntimeError: out of memory")


def test_a_signal_between_two_runs_trainings_stops_the_suite(
    file: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def reading_data(model: str, *args: Any, **options: Any) -> Any:
        tried.append(model)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # where Python hands the signal over
            time.sleep(0.001)

    monkeypatch.setattr(suite_run, "start_run", reading_data)
    with pytest.raises(DissectError) as caught:
        _run(file, toy_data, tmp_path / "out")
    assert tried == ["meanpool"], "the others are not begun"
    assert caught.value.status == 128 + signal.SIGTERM


def test_records_of_results_alone(file: Path, toy_data: Path, tmp_path: Path) -> None:
    file.write_text(
        TOML.replace('baseline = "mean"', 'record = "results"').replace("[2, 10, 1]", '[2]\nsparsify = "all"')
    )
    suite, _, failed = _run(file, toy_data, tmp_path / "out", records=tmp_path / "records", keep=True)
    assert not failed
    kept = list((tmp_path / "records").iterdir())
    assert len(kept) == 4
    small = {"spec.json", "environment.json", "result.json"}
    wrapped = {*small, "pruning.json", "thresholds.json"}
    for folder in kept:
        names = {p.name for p in folder.iterdir()}
        assert names == (wrapped if folder.name.startswith("attenmixer") else small)
    shutil.rmtree(tmp_path / "out")
    found = find_records(suite, [tmp_path / "records"])
    assert len(found) == 4
    table = suite_tables(suite, {i: path for i, path in found.items() if suite.entries[i].label != "mean"})[0]
    assert table.columns[:4] == ("run", "seeds", "HR@20", "MRR@20")
    results = [json.loads((found[i] / "result.json").read_text()) for i in found if suite.entries[i].label == "L = 2"]
    row = table.rows[0]
    assert row[:2] == ["L = 2", "2"]
    assert row[2] == f"{sum(r['test']['hr@20'] for r in results) / 2:.2f}"
    part = results[0]["density"]["attention"]
    assert row[table.columns.index("attention")].endswith(f" of {part['total']:,}")
    assert any("not run: mean" in note for note in table.notes)


def test_results_alone_are_made_whole_by_a_suite_that_wants_all(file: Path, toy_data: Path, tmp_path: Path) -> None:
    whole = file.read_text()
    file.write_text(whole.replace('baseline = "mean"', 'record = "results"'))
    places = {"records": tmp_path / "records", "keep": True}
    _run(file, toy_data, tmp_path / "out", **places)
    file.write_text(whole)
    suite = load_suite(file)
    assert not find_records(suite, [tmp_path / "records"])
    assert len(find_records(suite, [tmp_path / "records", tmp_path / "out"])) == 8
    _, found, failed = _run(file, toy_data, tmp_path / "out", **places)
    assert not failed
    assert all((path / "ranks.npz").exists() for path in found.values())
    assert len(find_records(suite, [tmp_path / "records"])) == 8
    assert "kept" in render(suite_tables(suite, find_records(suite, [tmp_path / "records"]))[1], "text")


def test_results_alone_have_no_baseline(file: Path) -> None:
    file.write_text(TOML.replace('baseline = "mean"', 'baseline = "mean"\nrecord = "results"'))
    with pytest.raises(DissectError, match="differences to a baseline need more"):
        load_suite(file)


def test_a_failing_run_does_not_stop_the_others(file: Path, toy_data: Path, tmp_path: Path) -> None:
    file.write_text(TOML.replace("heads = 2", "heads = 3"))
    suite, found, failed = _run(file, toy_data, tmp_path / "out")
    assert len(failed) == 6
    assert "heads is 3; it must divide the width 4" in failed[0]
    assert {suite.entries[i].label for i in found} == {"mean"}


def test_records_of_other_science_do_not_count(file: Path, toy_data: Path, tmp_path: Path) -> None:
    suite, found, _ = _run(file, toy_data, tmp_path / "out")
    folder = found[0]
    spec = Spec.from_json((folder / "spec.json").read_text(), "spec.json")
    (folder / "spec.json").write_text(spec.replace(lr=0.5).to_json())
    assert len(find_records(suite, [tmp_path / "out"])) == 7
    (folder / "spec.json").write_text(spec.replace(device="cpu", data_dir="elsewhere").to_json())
    assert len(find_records(suite, [tmp_path / "out"])) == 8


def test_a_row_may_be_of_another_precision_but_of_one(file: Path, toy_data: Path, tmp_path: Path) -> None:
    shared = 'dataset = "toy"\nsparsify = "none"\ndim = 4\nsteps = 2\nseed = [0, 1]'
    file.write_text(f'[defaults]\n{shared}\n[[runs]]\nmodel = "meanpool"\n')
    suite = load_suite(file)
    rounded = suite.with_precision("bf16")
    out = tmp_path / "out"
    ours: dict[str, Any] = {"out": out, "data_dir": str(toy_data), "quiet": True}
    found, failed = run_suite(rounded, **ours)
    assert (len(found), failed) == (2, [])
    assert find_records(suite, [out]) == {}
    assert find_records(suite, [out], any_precision=True) == found
    run_suite(suite, seeds=[1], **ours)
    assert list(find_records(suite, [out], any_precision=True)) == [1], "one row is of one precision"
    with pytest.raises(DissectError, match="unknown precision 'fp16'"):
        suite.with_precision("fp16")


def _command(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dissect", "suite", str(file), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)


def test_a_budget_cuts_a_run_short_and_the_next_call_goes_on(file: Path, toy_data: Path, tmp_path: Path) -> None:
    long = '[[runs]]\nmodel = "meanpool"\nlabel = "long"\nseed = 0\nsteps = 3000000\npriority = 3\npatience = 4000000\n'
    file.write_text(TOML + long)
    where = ("--data-dir", str(toy_data), "--out", str(tmp_path / "out"), "--quiet")
    left = "the budget is spent: 1 runs are left; the same command goes on"
    first = _command(file, *where, "--budget", "15s")
    for _ in range(4):  # on a busy machine the eight short runs may take more than one budget
        first = first if left in first.stderr else _command(file, *where, "--budget", "15s")
    assert first.returncode == 1, first.stderr
    assert left in first.stderr
    assert "not run: long" in " ".join(first.stdout.split())
    states = [p for p in (tmp_path / "out").glob("*/state/state.pt") if not (p.parent.parent / "result.json").exists()]
    assert len(states) == 1
    before = states[0].stat().st_mtime_ns
    again = _command(file, *where, "--budget", "15s", "--format", "markdown")
    assert "8 of 9 runs are recorded" in again.stderr
    assert again.stderr.count("HR@20") == 0, "what is finished is not run again"
    assert states[0].stat().st_mtime_ns > before, "the run that was cut short went on"
    assert "| L = 10 |" in again.stdout
    assert (tmp_path / "out" / "suites" / "toy-small.md").read_text().strip() in again.stdout
    listed = _command(file, *where, "--dry-run")
    assert listed.returncode == 0
    assert "3  long, seed 0: not run" in listed.stdout


@pytest.mark.parametrize(
    ("field", "says"), [("sparsify = 'propogation'", "unknown part 'propogation'"), ("dataset = 'dimo'", "dimo")]
)
def test_a_dry_run_says_what_a_run_would_refuse(tmp_path: Path, field: str, says: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(f"[[runs]]\nmodel = 'srgnn'\n{field}\n")
    told = _command(file, "--dry-run", "--out", str(tmp_path / "out"))
    assert told.returncode == 2
    assert says in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1


def test_every_suite_of_the_analyses_is_sound() -> None:
    files = sorted((ROOT / "analyses" / "suites").glob("*.toml"))
    assert files
    for file in files:
        for variant in ("small", "full"):
            suite = load_suite(file, variant)
            sciences = [entry.spec.science for entry in suite.entries]
            assert len(set(sciences)) == len(sciences), f"{file.name}, {variant}: the same run twice"
