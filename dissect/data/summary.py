"""What a data set looks like in numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dissect.data.formats import read_bytes
from dissect.data.sessions import Dataset, Examples, Sessions, expand
from dissect.errors import DissectError

#: The account that ``dissect data prepare`` leaves beside its files, and what it calls the two rules on the test part.
ACCOUNT = "preparation.json"
UNSEEN, SHORT = "test clicks on items that training shows", "of these, sessions of 2 clicks or more"


def stats(dataset: Dataset) -> dict[str, int | float]:
    """Count what a data set holds.

    Returns
    -------
    dict
        ``all_clicks``, ``all_prefixes``, ``items`` and ``average_length`` are those of the paper's Table 1, over
        training and test: what it calls sessions are prefixes, and its average length is clicks over sessions.
        ``sessions``, ``clicks``, lengths, repeats and popularity are of the training part; shares lie between 0 and 1.
        ``repeat_rate`` is over the clicks that are not a session's first: the share on an item that the session has
        shown. ``unseen_targets`` are test examples whose target training never shows, ``repeated_examples`` those
        whose prefix and target together stand in training too, ``test_sessions_in_training`` those that training
        shows click by click. All are counted, none is dropped.
    """
    train, test = dataset.train, dataset.test
    counts = np.bincount(train.clicks, minlength=dataset.items)
    test_sessions = len(np.unique(test.session))
    every = len(train.clicks) + len(test.clicks)
    later = len(train.clicks) - len(train)
    popular = popularity(dataset)
    test_items = np.unique(test.clicks)
    return {
        "all_clicks": every,
        "all_prefixes": int((train.lengths - 1).sum()) + len(test),
        "average_length": every / (len(train) + test_sessions),
        "sessions": len(train),
        "clicks": len(train.clicks),
        "items": dataset.items,
        "items_in_training": int((counts > 0).sum()),
        "train_prefixes": int((train.lengths - 1).sum()),
        "test_prefixes": len(test),
        "test_sessions": test_sessions,
        "mean_length": float(train.lengths.mean()),
        "median_length": float(np.median(train.lengths)),
        "max_length": int(train.lengths.max()),
        "share_with_repeats": _with_repeats(train, dataset.items),
        "share_distinct": 1 - _with_repeats(train, dataset.items),
        "repeat_rate": _repeats(train, dataset.items) / max(later, 1),
        "repeated_targets": int(_target_in_prefix(test).sum()),
        "most_popular_share": float(counts.max() / max(len(train.clicks), 1)),
        "top_1_percent_share": share_of_top(popular, 0.01),
        "top_10_percent_share": share_of_top(popular, 0.1),
        "gini": gini(popular),
        "test_items": len(test_items),
        "test_items_unseen": int((counts[test_items] == 0).sum()),
        "unseen_targets": int((counts[test.targets] == 0).sum()),
        "repeated_examples": int(np.isin(fingerprints(test), fingerprints(expand(train, dataset.last_only))).sum()),
        "test_sessions_in_training": sessions_in(test, train),
        "repeated_sessions": _again(train),
    }


def dropped(folder: Path) -> dict[str, int]:
    """What a preparation dropped from the test part, by its own account.

    Parameters
    ----------
    folder : Path
        Where the data set lies.

    Returns
    -------
    dict
        ``unseen_clicks_dropped`` and ``unseen_items_dropped``: test clicks on items that training never shows, and
        these items; ``test_sessions_dropped``: test sessions of which fewer than two clicks were left. Empty where
        there is no account: then nothing is known to be dropped.

    Raises
    ------
    DissectError
        If the account can't be read.
    """
    path = folder / ACCOUNT
    if not path.is_file():
        return {}
    try:
        steps = {step["step"]: step for step in json.loads(read_bytes(path))["steps"]}
        before, after, left = steps[UNSEEN]["before"], steps[UNSEEN]["after"], steps[SHORT]["after"]
        return {
            "unseen_clicks_dropped": int(before["clicks"] - after["clicks"]),
            "unseen_items_dropped": int(before["items"] - after["items"]),
            "test_sessions_dropped": int(before["sessions"] - left["sessions"]),
        }
    except (ValueError, KeyError, TypeError):
        raise DissectError(f"{path}: not the account of a preparation; make it again, or take the file away") from None


def popularity(dataset: Dataset) -> np.ndarray:
    """Clicks of each item in training, most popular first, int64, shape (items,)."""
    return np.sort(np.bincount(dataset.train.clicks, minlength=dataset.items))[::-1]


def share_of_top(popular: np.ndarray, share: float) -> float:
    """Share of the clicks that fall on the given share of the items (at least one item), the most popular ones."""
    return float(popular[: max(round(share * len(popular)), 1)].sum() / max(popular.sum(), 1))


def gini(popular: np.ndarray) -> float:
    """Gini coefficient of sorted counts: 0 where all items are as popular, near 1 where one has all clicks."""
    ranks = np.arange(len(popular), 0, -1)
    return float(2 * (ranks * popular).sum() / (len(popular) * popular.sum()) - (len(popular) + 1) / len(popular))


def curves(dataset: Dataset) -> dict[str, list[float]]:
    """What a figure of the data set draws.

    Returns
    -------
    dict
        ``train_lengths`` and ``test_lengths``: share of the sessions with 1, 2, ... clicks (in test with 2 or more).
        ``items`` and ``clicks``: share of all clicks in training on that share of the items, the most popular first,
        at up to 200 places.
    """
    popular = popularity(dataset)
    running = np.append(0, np.cumsum(popular)) / max(popular.sum(), 1)
    # Close together where the curve bends, and nowhere far apart.
    spread = np.concatenate([np.geomspace(1, len(running), 100), np.linspace(1, len(running), 100)])
    places = np.unique(spread.astype(int)) - 1
    found: dict[str, list[float]] = {"items": (places / len(popular)).tolist(), "clicks": running[places].tolist()}
    for part, lengths in (("train", dataset.train.lengths), ("test", heads(dataset.test).lengths + 1)):
        found[f"{part}_lengths"] = (np.bincount(lengths)[1:] / len(lengths)).tolist()
    return found


def heads(examples: Examples) -> Examples:
    """The longest example of each session, sessions in order of their numbers."""
    order = np.lexsort((-examples.end, examples.session))
    first = order[np.flatnonzero(np.diff(examples.session[order], prepend=-1))]
    return Examples(examples.clicks, examples.start[first], examples.end[first], examples.session[first])


def session_fingerprints(sessions: Sessions) -> np.ndarray:
    """A fingerprint of the clicks of each session of two clicks or more."""
    return fingerprints(expand(sessions, last_only=True))


def sessions_in(test: Examples, train: Sessions) -> int:
    """How many sessions behind the examples are, click by click, among the given ones."""
    return int(np.isin(fingerprints(heads(test)), session_fingerprints(train)).sum())


def _again(sessions: Sessions) -> int:
    """How many sessions of two clicks or more repeat an earlier one."""
    found = session_fingerprints(sessions)
    return len(found) - len(np.unique(found))


def _repeats(sessions: Sessions, items: int) -> int:
    """Number of clicks on an item that the session has shown before."""
    number = np.repeat(np.arange(len(sessions)), sessions.lengths)
    return len(number) - len(np.unique(number * items + sessions.clicks))


def _target_in_prefix(examples: Examples) -> np.ndarray:
    """Whether each example's target stands in its prefix, bool, shape (E,)."""
    # The last place before each click at which its session showed the same item; session starts cut it off.
    order = np.lexsort((np.arange(len(examples.clicks)), examples.clicks))
    same = examples.clicks[order][1:] == examples.clicks[order][:-1]
    before = np.full(len(order), -1)
    before[order[1:][same]] = order[:-1][same]
    return before[examples.end] >= examples.start


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
