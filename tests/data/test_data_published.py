"""The published counts, checked on the data itself where ``DISSECT_DATA`` names a directory with it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from dissect.data import expand, load
from dissect.data.sources import available, stats

DATA = Path(os.environ.get("DISSECT_DATA") or "missing")


@pytest.fixture
def get(monkeypatch, tmp_path):
    monkeypatch.setenv("DISSECT_CACHE", str(tmp_path))

    def get(name: str):
        if not (DATA / name).is_dir():
            pytest.skip(f"DISSECT_DATA does not name a directory with {name}")
        return load(name, data_dir=DATA, download=False)

    return get


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "diginetica",
            {
                "sessions": 186_670,
                "train_prefixes": 719_470,
                "test_prefixes": 60_858,
                "items": 43_097,
                "max_length": 70,
            },
        ),
        (
            "yoochoose1_64",
            {"sessions": 109_388, "test_sessions": 15_226, "items": 17_189, "test_prefixes": 55_379},
        ),
        ("lessr-sample", {"sessions": 9_381, "test_sessions": 1_465}),
        ("diginetica-sample", {"sessions": 469, "train_prefixes": 1_205, "test_prefixes": 99, "items": 309}),
    ],
)
def test_published_counts(get, name, facts):
    dataset = get(name)
    found = stats(dataset)
    assert {key: found[key] for key in facts} == facts
    assert found["train_prefixes"] == len(expand(dataset.train))


def test_gowalla_tail(get):
    dataset = get("gowalla-tail")
    assert len(dataset.train) + dataset.test.session.max() + 1 == 57_492
    assert len(dataset.train.clicks) + len(dataset.test.clicks) == 212_824


def test_diginetica_again_from_the_cache(get):
    first, again = get("diginetica"), get("diginetica")
    np.testing.assert_array_equal(first.train.clicks, again.train.clicks)
    np.testing.assert_array_equal(first.test.end, again.test.end)
    assert first.sha256 == again.sha256
    assert first.first_id == again.first_id == 1


def test_expanding_training_sessions_equals_srgnn_own_prefixes(get):
    dataset = get("diginetica-sample")
    sequences, targets = pickle.loads((DATA / "diginetica-sample/golden/train.txt").read_bytes())
    examples = expand(dataset.train)
    windows = zip(examples.start, examples.end, strict=True)
    assert [(examples.clicks[a:b] + 1).tolist() for a, b in windows] == sequences
    assert (examples.targets + 1).tolist() == targets


def test_the_list_says_where_each_lies(get):
    get("diginetica")
    rows = {row.name: row for row in available(DATA)}
    assert rows["diginetica"].where == str(DATA / "diginetica")
    assert rows["demo"].where == "generated"
