"""What a data set looks like in numbers."""

from __future__ import annotations

import numpy as np

from dissect.data.sessions import Dataset, Examples, Sessions, expand


def stats(dataset: Dataset) -> dict[str, int | float]:
    """Count what a data set holds.

    Returns
    -------
    dict
        ``sessions``, ``clicks`` and lengths are of the training part; shares lie between 0 and 1.
        ``unseen_targets`` are test examples whose target training never shows, ``repeated_examples``
        those whose prefix and target together stand in training too. Both are counted, none is dropped.
    """
    train, test = dataset.train, dataset.test
    counts = np.bincount(train.clicks, minlength=dataset.items)
    return {
        "sessions": len(train),
        "clicks": len(train.clicks),
        "items": dataset.items,
        "items_in_training": int((counts > 0).sum()),
        "train_prefixes": int((train.lengths - 1).sum()),
        "test_prefixes": len(test),
        "test_sessions": len(np.unique(test.session)),
        "mean_length": float(train.lengths.mean()),
        "max_length": int(train.lengths.max()),
        "share_with_repeats": _with_repeats(train, dataset.items),
        "unseen_targets": int((counts[test.targets] == 0).sum()),
        "repeated_examples": int(np.isin(fingerprints(test), fingerprints(expand(train, dataset.last_only))).sum()),
        "most_popular_share": float(counts.max() / max(len(train.clicks), 1)),
    }


def _with_repeats(sessions: Sessions, items: int) -> float:
    """Share of the sessions that show an item more than once."""
    number = np.repeat(np.arange(len(sessions)), sessions.lengths)
    pairs = np.sort(number * items + sessions.clicks)
    repeated = pairs[1:][pairs[1:] == pairs[:-1]] // items
    return len(np.unique(repeated)) / len(sessions)


def fingerprints(examples: Examples) -> np.ndarray:
    """64 bits for the clicks of each prefix and its target, equal where these are equal.

    A sum of mixed ids times powers of an odd number, modulo 2^64: every window's sum is the
    difference of two running sums, so no prefix is ever copied. The chance that any two of a million
    different ones agree is below one in 10^7.
    """
    width = int(examples.lengths.max(initial=0)) + 1
    starts = np.unique(examples.start)
    # Position of every click in its own run: runs are disjoint, so the last start at or before it is its own.
    run = np.maximum(np.searchsorted(starts, np.arange(len(examples.clicks)), side="right") - 1, 0)
    position = np.clip(np.arange(len(examples.clicks)) - starts[run], 0, width - 1)
    powers = np.ones(width, dtype=np.uint64)
    powers[1:] = np.cumprod(np.full(width - 1, 0x9E3779B97F4A7C15, dtype=np.uint64))
    total = np.zeros(len(examples.clicks) + 1, dtype=np.uint64)
    np.cumsum(_mix(examples.clicks) * powers[position], out=total[1:])
    return total[examples.end + 1] - total[examples.start]


def _mix(ids: np.ndarray) -> np.ndarray:
    """Spread ids over 64 bits (the finaliser of splitmix64)."""
    x = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
