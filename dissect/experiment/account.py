"""What a result says of its data: the denominators, and the baselines counted on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dissect.data import Dataset, Examples
from dissect.experiment.spec import Spec
from dissect.experiment.splits import Splits
from dissect.experiment.strata import popularity
from dissect.training.baselines import baseline_ranks
from dissect.training.distributed import World
from dissect.training.evaluate import metrics
from dissect.training.recommended import Tally, reach

Result = dict[str, Any]


def dataset_account(data: Dataset, splits: Splits, spec: Spec) -> Result:
    """The data set, and how many examples of it were trained on, validated and tested on."""
    return {
        "name": data.name,
        "sha256": data.sha256,
        "items": data.items,
        "first_id": data.first_id,
        "longest": data.longest,
        "train_examples": len(splits.train),
        "valid_examples": 0 if splits.valid is None else len(splits.valid),
        "test_examples": len(splits.test),
        "max_train": spec.max_train,
        "max_valid": spec.max_valid,
        "unseen_targets": {
            "valid": _unseen(splits.valid_examples, splits),
            "test": _unseen(splits.test_examples, splits),
        },
    }


def reach_account(data: Dataset, tally: Tally, world: World) -> Result:
    """Coverage and popularity of what was recommended to the test examples, those of all processes together."""
    counts = np.sum(world.gather(tally.counts), axis=0)
    return reach(counts, popularity(data), data.test.targets, tally.top)


def _unseen(examples: Examples | None, splits: Splits) -> int:
    return 0 if examples is None else int((~splits.seen.cpu().numpy()[examples.targets]).sum())


def baseline_account(data: Dataset, splits: Splits, spec: Spec) -> Result:
    """Popularity and last-item transitions, counted on the same training examples."""
    out: Result = {}
    for split, examples in (("valid", splits.valid_examples), ("test", splits.test_examples)):
        if examples is None:
            continue
        found = baseline_ranks(
            splits.train_examples, examples, data.items, ties=spec.ties, seen=splits.seen.cpu().numpy()
        )
        for baseline, ranks in found.items():
            out.setdefault(baseline, {})[split] = metrics(ranks)
    return out
