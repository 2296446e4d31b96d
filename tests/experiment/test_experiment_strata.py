"""What is known of each test example: by hand, in a run's record, and from the data set for records without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dissect.data import Dataset, Examples, Sessions, load
from dissect.data.convert import convert
from dissect.errors import DissectError
from dissect.experiment.run import Run
from dissect.experiment.spec import Spec
from dissect.experiment.strata import days, look_up, popularity, repeats, strata_arrays
from dissect.report.runs import read_ranks, read_run
from dissect.report.strata import compare_by


def folder(root: Path, **files: str) -> Path:
    """A data set of five sessions, of which the last one is for testing."""
    where = root / "small"
    where.mkdir(parents=True)
    (where / "sessions.txt").write_text("0,1,2\n1,2\n3,1\n2,4\n1,0,1,5\n")
    for name, text in files.items():
        (where / f"{name}.txt").write_text(text)
    return root


DAYS = "1,2,3\n4,5\n6,7\n8,9\n86399,86400,172800,259200.5\n"


def test_popularity_and_repeats_by_hand(tmp_path: Path) -> None:
    data = load("small", data_dir=folder(tmp_path), cache=False)
    assert popularity(data).tolist() == [1, 3, 3, 1, 1, 0]
    assert data.test.targets.tolist() == [5, 1, 0]
    found = strata_arrays(data)
    assert {name: array.tolist() for name, array in found.items()} == {
        "popularity": [0, 3, 1], "repeat": [False, True, False],
    }  # fmt: skip


def test_a_repeat_is_one_within_the_prefix() -> None:
    clicks = np.array([7, 7, 3, 7, 3])
    # The click before the window, and the target's own session alone, don't count.
    start, end = np.array([0, 1, 1, 2, 3]), np.array([1, 2, 3, 4, 4])
    found = repeats(Examples(clicks, start, end, np.arange(5)))
    assert found.tolist() == [True, False, True, True, False]


def test_days_are_those_of_the_targets(tmp_path: Path) -> None:
    data = load("small", data_dir=folder(tmp_path / "a", timestamps=DAYS), cache=False)
    assert days(data).tolist() == [3, 2, 1]
    assert strata_arrays(data)["day"].tolist() == [3, 2, 1]


def two_files(root: Path, form: str) -> Path:
    """The sessions of `folder` with their times, in the given form; those for training are not in order of time."""
    train, test = [[0, 1, 2], [1, 2], [3, 1], [2, 4]], [[1, 0, 1, 5]]
    stamps = [[[30, 31, 32], [20, 21], [10, 11], [40, 41]], [[86399, 86400, 172800, 259200.5]]]
    source = root / "text/small"
    source.mkdir(parents=True)
    for part, sessions, times in zip(("train", "test"), (train, test), stamps, strict=True):
        for name, rows in ((part, sessions), (f"{part}_timestamps", times)):
            (source / f"{name}.txt").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    if form != "text":
        convert(str(source), form, root / form / "small")
    return root / form


@pytest.mark.parametrize("form", ["text", "srgnn", "inter", "inter-sequence", "parquet"])
def test_days_of_every_form_that_has_times(form: str, tmp_path: Path) -> None:
    root = two_files(tmp_path, form)
    assert days(load("small", data_dir=root, cache=False)).tolist() == [3, 2, 1]
    if form in ("text", "srgnn"):  # the test part's times are enough
        (root / "small/train_timestamps.txt").unlink()
        assert days(load("small", data_dir=root, cache=False)).tolist() == [3, 2, 1]


@pytest.mark.parametrize("form", ["inter", "parquet"])
def test_days_of_one_file_with_a_column_of_times(form: str, tmp_path: Path) -> None:
    root = two_files(tmp_path, form)
    where = root / "small"
    if form == "inter":
        head, *train = (where / "small.train.inter").read_text().splitlines(keepends=True)
        test = (where / "small.test.inter").read_text().splitlines(keepends=True)[1:]
        content = (head + "".join(test + train)).encode()  # the newest session first
    else:
        tables = [pq.read_table(where / f"{part}.parquet") for part in ("test", "train")]
        times = [pc.cast(table["timestamp"], pa.float64()) for table in tables]
        tables = [t.set_column(2, "timestamp", column) for t, column in zip(tables, times, strict=True)]
        pq.write_table(pa.concat_tables(tables), tmp_path / "all.parquet")
        content = (tmp_path / "all.parquet").read_bytes()
    for path in where.iterdir():
        path.unlink()
    (where / {"inter": "all.inter", "parquet": "sessions.parquet"}[form]).write_bytes(content)
    data = load("small", data_dir=root, cache=False)
    assert days(data).tolist() == [3, 2, 1]
    assert strata_arrays(data)["day"].tolist() == [3, 2, 1]


def test_days_of_a_data_set_that_has_changed_are_refused(tmp_path: Path) -> None:
    root = two_files(tmp_path, "text")
    data = load("small", data_dir=root, cache=False)
    (root / "small/test.txt").write_text("1,0,2,5\n")
    with pytest.raises(DissectError, match="'small' has changed since it was loaded"):
        days(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("86399,172800,259200.5\n", "line 1: 3 times for a session of 4 clicks"),
        ("1,2,3,4\n1,2\n", "2 lines of times for 1 sessions"),
        ("", "the file is empty"),
        ("86399,noon,172800,259200.5\n", "line 1: 'noon' is not a time"),
        ("1,2,3,1e14\n", "not UNIX times in seconds"),
        ("1,2,3,nan\n", "line 1: 'nan' is not a time"),
    ],
)
def test_times_that_are_not_the_sessions_are_refused(text: str, message: str, tmp_path: Path) -> None:
    root = two_files(tmp_path, "text")
    (root / "small/test_timestamps.txt").write_text(text)
    data = load("small", data_dir=root, cache=False)
    with pytest.raises(DissectError, match=message) as caught:
        days(data)
    assert str(root / "small") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "day" not in strata_arrays(data)  # a run goes on without


def test_one_file_whose_times_are_not_its_sessions_is_not_split(tmp_path: Path) -> None:
    root = folder(tmp_path, timestamps=DAYS.replace("86399,", ""))
    with pytest.raises(DissectError, match=r"timestamps\.txt, line 5: 3 times for a session of 4 clicks"):
        load("small", data_dir=root, cache=False)


def test_a_data_set_made_on_the_spot_has_no_times() -> None:
    train = Sessions(np.array([0, 1]), np.array([0, 2]))
    data = Dataset(
        "made", train, Examples(np.array([0, 1]), np.array([0]), np.array([1]), np.array([0])), 2, 0, "", "generated"
    )
    with pytest.raises(DissectError, match=r"data set 'made' has no times: generated holds no column of them"):
        days(data)


def run(model: str, data_dir: Path, out: Path, **options: Any) -> Path:
    spec = Spec.create(model, dataset="toy", data_dir=str(data_dir), **options)
    made = Run(spec, out=out, quiet=True)
    made.execute()
    return made.folder.path


def test_a_run_keeps_them_and_an_old_record_gets_them_from_its_data(toy_data: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"dim": 4, "epochs": 1, "sparsify": "readout", "device": "cpu"}
    runs = [run("srgnn", toy_data, tmp_path, **small), run("spop", toy_data, tmp_path)]
    expected = strata_arrays(load("toy", data_dir=toy_data))
    for path in runs:
        found = read_ranks(read_run(path))
        for name in ("popularity", "repeat"):
            np.testing.assert_array_equal(found[name], expected[name])
        result = read_run(path).result
        assert result is not None
        reach = result["reach"]
        assert reach["recommended"] <= reach["items"] == result["dataset"]["items"]
        assert reach["coverage@20"] == pytest.approx(100 * reach["recommended"] / reach["items"], abs=1e-3)
        assert reach["target_popularity"] == pytest.approx(expected["popularity"].mean(), abs=1e-3)
        assert (result["pruned"] or {"reach": reach})["reach"]["target_popularity"] == reach["target_popularity"]
    new = compare_by(runs, "popularity", resamples=100)
    for path in runs:  # as if they were older
        arrays = {k: v for k, v in np.load(path / "ranks.npz").items() if k not in expected}
        np.savez(path / "ranks.npz", **arrays)
    old = compare_by(runs, "popularity", resamples=100, lookup=lambda run, name: look_up(run, name, toy_data))
    assert [(s.label, s.examples) for s in old.strata] == [(s.label, s.examples) for s in new.strata]
    with pytest.raises(DissectError, match="holds no day of its test examples, and data set 'toy' has no times"):
        look_up(read_run(runs[0]), "day", toy_data)
    other = folder(tmp_path / "other").rename(tmp_path / "else")
    (other / "small").rename(other / "toy")
    with pytest.raises(DissectError, match="'toy' has changed since the run was made"):
        look_up(read_run(runs[0]), "repeat", other)
