"""The table says what the result says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dissect.report.tables import print_result

METRICS = dict.fromkeys(("hr@5", "hr@10", "hr@20", "mrr@5", "mrr@10", "mrr@20", "ndcg@20"), 1.0)


def result_of(sparsify: dict[str, Any] | None, optimistic: bool) -> dict[str, Any]:
    return {
        "model": "srgnn", "seed": 0, "sparsify": sparsify, "epoch": 2, "steps": 20, "valid": None, "test": METRICS,
        "baselines": {}, "density": {}, "lr_budget": 0.2, "pruned": None, "parameters": 9, "seconds_per_epoch": 1.0,
        "device": "cpu",
        "protocol": {"name": "paper-code", "refit": False, "ties": "half", "optimistic": optimistic},
        "dataset": {
            "name": "toy", "items": 30, "train_examples": 9, "valid_examples": 0, "test_examples": 9,
            "max_train": 0, "unseen_targets": {"valid": 0, "test": 0},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sparsify", "optimistic", "stamp"),
    [
        (None, True, "optimistic: epochs selected on the test set"),
        ({"rule": "log-alpha"}, True, "optimistic: evaluated on the test set after each epoch, the last counts"),
        (None, False, ""),
        ({"rule": "log-alpha"}, False, ""),
    ],
)
def test_the_stamp_says_how_the_test_set_was_used(
    capsys: pytest.CaptureFixture[str], sparsify: dict[str, Any] | None, optimistic: bool, stamp: str
) -> None:
    print_result(result_of(sparsify, optimistic), Path("runs/x"))
    text = " ".join(capsys.readouterr().out.split())
    assert stamp in text
    assert text.count("optimistic") == int(optimistic)
    assert ("selected" in text) == (sparsify is None and optimistic)
