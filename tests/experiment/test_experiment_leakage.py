from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from dissect.batch import Batch
from dissect.data import Dataset, Examples, Sessions, expand, load
from dissect.data.convert import convert
from dissect.errors import DissectError
from dissect.experiment import leakage
from dissect.experiment.leakage import checks, guard
from dissect.experiment.main import start_run
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits

SPEC = Spec.create("srgnn", dataset="toy", batch_size=8)
CPU = torch.device("cpu")


def sessions(*rows):
    return Sessions(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))


def data(train=None, test=None, items=9):
    rng = np.random.default_rng(0)
    train = train or sessions(*(rng.integers(0, 8, 4) for _ in range(40)))
    test = test or sessions(*(rng.integers(0, 8, 3) for _ in range(12)))
    return Dataset("toy", train, expand(test), items, 0, "0", "generated")


def found(data, splits=None, spec=SPEC):
    return {check.name: check for check in checks(data, splits or make_splits(data, spec, CPU), spec)}


def test_all_checks_hold_on_an_honest_split_with_counts_by_hand():
    train = sessions([0, 1, 2], [0, 1, 2], [3], [0, 1], [4, 5], [6, 6], [0, 1])  # the last one validates
    test = sessions([0, 1, 2], [7, 0], [3, 4])
    got = found(data(train, test), spec=dataclasses.replace(SPEC, valid_fraction=0.15))
    assert all(check.ok for check in got.values())
    assert got["test"].counts == {
        "test_sessions": 3,
        "test_sessions_equal_to_training": 1,
        "train_sessions_equal_to_another": 4,
    }
    assert got["validation"].counts == {"train_sessions": 5, "valid_sessions": 1}
    assert got["prefixes"].counts == {"train_examples": 7}
    # [0,1,2] is there twice; the test examples [0,1] -> 2 and [0] -> 1 are in training.
    assert got["duplicates"].counts == {"repeated_train_sessions": 1, "test_examples_in_training": 2}
    assert got["ids"].counts == {"items": 9, "items_in_test_alone": 1, "items_unused": 1}
    assert got["graph"].counts["edges_across_sessions"] == 0
    # Of 7 examples, the distinct consecutive pairs: 0-1 in both [0, 1]; the other prefixes have one click.
    assert got["graph"].counts["edges"] == 2


def test_test_sessions_inside_training_are_found():
    honest = data()
    test = Sessions(honest.test.clicks, np.append(np.unique(honest.test.start), len(honest.test.clicks)))
    rows = [np.split(part.clicks, part.offsets[1:-1]) for part in (honest.train, test)]
    leaked = sessions(*rows[0][:5], *rows[1], *rows[0][5:])
    got = found(dataclasses.replace(honest, train=leaked))["test"]
    assert not got.ok
    assert "all 12 test sessions stand in training too" in got.text
    for shuffled in (sessions(*rows[0], *rows[1][::-1]), sessions(*rows[0][::-1], *rows[1][::2], *rows[1][1::2])):
        got = found(dataclasses.replace(honest, train=shuffled))["test"]
        assert not got.ok
        assert "12 of 12 test sessions of 3 clicks or more stand in training too" in got.text
        assert got.counts["test_sessions_equal_to_training"] == 12


def test_equal_sessions_are_kept_where_training_repeats_its_own_as_often():
    """Sessions of two items: all there are stand in training, several times."""
    rng = np.random.default_rng(0)
    train, test = (sessions(*(rng.integers(0, 2, 3) for _ in range(n))) for n in (200, 60))
    got = found(data(train, test))["test"]
    assert got.ok
    assert got.counts["test_sessions_equal_to_training"] == 60
    assert got.text.startswith("60 of 60 test sessions equal a training session (100.0%; of training's own 100.0%")


def test_equal_sessions_of_two_clicks_are_kept():
    train = sessions(*([i, j] for i in range(8) for j in range(8)))
    test = sessions(*([i, 7 - i] for i in range(8)), *([i, i] for i in range(8)))
    assert found(data(train, test))["test"].counts["test_sessions_equal_to_training"] == 16
    assert found(data(train, test))["test"].ok


@pytest.mark.parametrize("form", ["text", "srgnn", "parquet", "inter"])
@pytest.mark.parametrize(("first_test", "late"), [(30, 0), (18, 12), (-60, None)])
def test_training_after_the_test_part_is_found(tmp_path, form, first_test, late):
    """Training sessions end at 1, 2, ..., 30; test's 10 one after the other, from some time on."""
    plain = tmp_path / "plain"
    plain.mkdir()
    rows = {"train": [(i, i + 0.5) for i in range(30)], "test": [(first_test + i, first_test + i) for i in range(10)]}
    for part, times in rows.items():
        (plain / f"{part}.txt").write_text("".join(f"{i % 5},{i % 3}\n" for i in range(len(times))))
        (plain / f"{part}_timestamps.txt").write_text("".join(f"{100 + a},{100.5 + b}\n" for a, b in times))
    if form != "text":
        convert(str(plain), form, tmp_path / "other")
    got = found(load("plain" if form == "text" else "other", data_dir=tmp_path, cache=False))["time"]
    assert got.ok == (late is not None)
    if late is not None:
        assert got.text == f"{late} of 30 training sessions end after the first test session"


def test_times_that_are_none_are_no_reason_to_refuse(tmp_path):
    (tmp_path / "x").mkdir()
    for part in ("train", "test"):
        (tmp_path / "x" / f"{part}.txt").write_text("1,2\n" * 5)
        (tmp_path / "x" / f"{part}_timestamps.txt").write_text("1,x\n" * 5)
    assert "time" not in found(load("x", data_dir=tmp_path, cache=False))


def test_a_refit_that_keeps_a_validation_part_or_reads_the_test_set_is_found():
    whole = data()
    refit = make_splits(whole, SPEC, CPU, refit=True)
    assert leakage.refit_on_all(whole, refit).ok
    assert not leakage.refit_on_all(whole, make_splits(whole, SPEC, CPU)).ok
    test = Sessions(whole.test.clicks, np.append(np.unique(whole.test.start), len(whole.test.clicks)))
    wrong = dataclasses.replace(refit, train_sessions=test, train_examples=expand(test))
    assert leakage.refit_on_all(whole, wrong).text == "it has sessions that are not training's"
    train = refit.train_examples
    across = Examples(train.clicks, train.start, np.minimum(train.end + 1, len(train.clicks) - 1), train.session)
    assert not leakage.refit_on_all(whole, dataclasses.replace(refit, train_examples=across)).ok


def test_test_examples_that_are_views_of_training_are_found():
    honest = data()
    assert not found(dataclasses.replace(honest, test=expand(honest.train.slice(3, 9))))["test"].ok
    assert found(dataclasses.replace(honest, train=honest.train.slice(0, 30), test=expand(honest.train.slice(30, 40))))[
        "test"
    ].ok


def test_a_split_of_prefixes_is_found():
    whole = data()
    examples = expand(whole.train)
    splits = make_splits(whole, SPEC, CPU)
    chosen = np.random.default_rng(1).permutation(len(examples))[:20]  # siblings stay in training
    leaking = Examples(examples.clicks, examples.start[chosen], examples.end[chosen], examples.session[chosen])
    got = found(whole, dataclasses.replace(splits, valid_examples=leaking, train_sessions=whole.train))["validation"]
    assert not got.ok
    assert "no whole sessions" in got.text


def test_a_validation_session_that_is_trained_on_is_found():
    whole = data()
    splits = make_splits(whole, SPEC, CPU)
    cut = dataclasses.replace(splits, train_sessions=whole.train, train_examples=expand(whole.train))
    got = found(whole, cut)["validation"]
    assert not got.ok
    assert got.text == "8 validation sessions are in training too"


@pytest.mark.parametrize("subset", [{"max_train": 7}, {"max_valid": 3}, {"protocol": "paper-code"}, {"refit": True}])
def test_subsets_and_protocols_pass(subset):
    spec = dataclasses.replace(SPEC, **subset)
    assert all(check.ok for check in found(data(), spec=spec).values())


def test_windows_across_sessions_are_found():
    whole = data()
    splits = make_splits(whole, SPEC, CPU)
    train = splits.train_examples
    across = Examples(train.clicks, train.start, np.minimum(train.end + 1, len(train.clicks) - 1), train.session)
    assert not found(whole, dataclasses.replace(splits, train_examples=across))["prefixes"].ok
    test = whole.test
    across = Examples(test.clicks, test.start, np.minimum(test.end + 2, len(test.clicks) - 1), test.session)
    got = found(whole, dataclasses.replace(splits, test_examples=across))["prefixes"]
    assert not got.ok
    assert "a test example reaches into another session" in got.text


@pytest.mark.parametrize("wrong", [-1, 9])
def test_ids_out_of_range_are_found(wrong):
    whole = data(test=sessions([0, wrong, 1]))
    got = leakage.ids_contiguous(whole)
    assert not got.ok
    assert "there are 9 items" in got.text


@pytest.mark.parametrize("form", ["batch", "static_batch"])
def test_an_edge_between_sessions_is_found(monkeypatch, form):
    splits = make_splits(data(), SPEC, CPU)
    plain = getattr(type(splits.train), form)

    def joined(self, *arguments):
        batch = plain(self, *arguments)
        graph = batch.session_graph
        target = graph.target.clone()
        target[0] = graph.alias[-1]  # a node of the last session
        # The batch is frozen; its cached graph is not.
        batch.__dict__["session_graph"] = dataclasses.replace(graph, target=target)
        return batch

    monkeypatch.setattr(type(splits.train), form, joined)
    got = found(data(), splits)["graph"]
    assert not got.ok
    assert got.counts["edges_across_sessions"] == 1


def test_a_node_that_two_sessions_share_is_found(monkeypatch):
    splits = make_splits(data(), SPEC, CPU)

    def shared(self, index):
        batch = Batch.from_lists([[1, 2], [2, 3]])
        graph = batch.session_graph
        batch.__dict__["session_graph"] = dataclasses.replace(graph, alias=torch.tensor([0, 1, 1, 3]))
        return batch

    monkeypatch.setattr(type(splits.train), "batch", shared)
    assert not found(data(), splits)["graph"].ok


def test_one_line_stops_the_run(monkeypatch, capsys):
    whole = data()
    leaking = dataclasses.replace(whole, test=expand(whole.train.slice(3, 9)))
    with pytest.raises(
        DissectError, match=r"^toy: test: test examples are windows of .*; nothing was trained$"
    ) as error:
        guard(leaking, SPEC)
    assert error.value.status == 1
    assert capsys.readouterr().err == ""


def test_nothing_is_drawn():
    before = torch.random.get_rng_state()
    guard(data(), SPEC, quiet=True)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("model", "refit"), [("srgnn", False), ("spop", False), ("spop", True)])
def test_a_run_prints_and_records_its_checks(model, refit, toy_data, tmp_path, capsys):
    options = {"dataset": "toy", "data_dir": str(toy_data), "refit": refit}
    if model == "srgnn":
        options |= {"steps": 2, "dim": 8, "sparsify": "none"}
    result = start_run(model, dict(options), out=tmp_path, init=None, force=False, quiet=False)
    names = ["test", "validation", "prefixes", "duplicates", "ids", *(["graph"] if model == "srgnn" else [])]
    names += ["refit"] if refit else []
    printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("checked ")]
    assert [line.split()[1].rstrip(":") for line in printed] == names
    stored = json.loads((tmp_path / result["run_id"] / "result.json").read_text())["checks"]
    assert list(stored) == names
    assert all(check["ok"] for check in stored.values())
    start_run(model, dict(options), out=tmp_path, init=None, force=True, quiet=True)
    assert "checked" not in capsys.readouterr().err


def test_how_one_file_was_split_is_said(tmp_path):
    (tmp_path / "sessions.txt").write_text("0,1\n1,2\n")
    line = "the test part is the last 20% of the sessions in sessions.txt, "
    check = found(dataclasses.replace(data(), source=str(tmp_path)))["split"]
    assert (check.ok, check.text) == (True, line + "in the file's order (there are no times)")
    (tmp_path / "timestamps.txt").write_text("0,1\n1,2\n")
    assert found(dataclasses.replace(data(), source=str(tmp_path)))["split"].text == (
        line + "by the time of their last click"
    )
    assert "split" not in found(data())
