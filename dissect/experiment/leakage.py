"""What is checked before a run trains: that nothing of the test or validation part is in what it learns from.

Each check looks at the arrays that are trained on, made as the run makes them, and not at the code that makes them. A
check that fails stops the run; what public data sets contain by nature (equal sessions in training and test) is counted
and shown.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dissect.batch import Batch
from dissect.data import Dataset, Examples, expand
from dissect.data.layouts import end_times, split_rule
from dissect.data.summary import fingerprints, heads, session_fingerprints
from dissect.errors import DissectError
from dissect.experiment.spec import Spec
from dissect.experiment.splits import Splits, make_splits

#: A run of test sessions this long that stands in training in the same order is no chance.
BLOCK = 10
#: Sessions of this many clicks or more are seldom equal by chance.
LONG = 3
#: That share of them in training, beyond the share of training's own that equal another, is no chance: in Diginetica
#: 0.7% (own 0.7%), in Yoochoose 1/64 7.2% (8.0%), in Gowalla's tail 1.8% (1.9%).
EXCESS = 0.1


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it holds, a line for the user, and what was counted."""

    name: str
    ok: bool
    text: str
    counts: dict[str, int] = field(default_factory=dict)


def guard(data: Dataset, spec: Spec, quiet: bool = False) -> dict[str, Any]:
    """Check a run's splits, print a line for each check to stderr, and return all as the record has them.

    Returns
    -------
    dict
        Name of the check -> ``ok``, ``text`` and its counts.

    Raises
    ------
    DissectError
        For the first check that fails.
    """
    cpu = torch.device("cpu")
    done = checks(data, make_splits(data, spec, cpu), spec)
    if spec.refit:
        done.append(refit_on_all(data, make_splits(data, spec, cpu, refit=True)))
    for check in done:
        if not check.ok:
            raise DissectError(f"{spec.dataset}: {check.name}: {check.text}; nothing was trained", status=1)
        if not quiet:
            print(f"checked {check.name}: {check.text}", file=sys.stderr)
    return {check.name: {"ok": check.ok, "text": check.text, **check.counts} for check in done}


def checks(data: Dataset, splits: Splits, spec: Spec) -> list[Check]:
    """Every check of a data set and its splits; none raises."""
    rule = split_rule(data.source)
    found = [
        *([] if rule is None else [Check("split", True, f"the test part is {rule}")]),
        test_apart(data),
        *test_later(data),
        validation_by_session(data, splits),
        prefixes_after_split(splits, data.last_only),
        duplicates(data, splits),
        ids_contiguous(data),
    ]
    return found if spec.counts else [*found, graph_apart(splits, spec.batch_size)]


def test_apart(data: Dataset) -> Check:
    """No test session is one of training's; equal ones are counted, and held against how many training repeats."""
    ends, train = heads(data.test), session_fingerprints(data.train)
    test = fingerprints(ends)
    equal = np.isin(test, train)
    place, count = np.unique(train, return_inverse=True, return_counts=True)[1:]
    twin = count[place] > 1
    counts = {
        "test_sessions": len(test),
        "test_sessions_equal_to_training": int(equal.sum()),
        "train_sessions_equal_to_another": int(twin.sum()),
    }
    if np.may_share_memory(data.train.clicks, data.test.clicks):  # exact for two flat runs of one array
        return Check("test", False, "test examples are windows of the training clicks", counts)
    if len(test) >= BLOCK:
        for start in np.flatnonzero(train[: len(train) - len(test) + 1] == test[0]):
            if np.array_equal(train[start : start + len(test)], test):
                text = f"all {len(test):,} test sessions stand in training too, in the same order"
                return Check("test", False, text, counts)
    # Short sessions are often equal by chance; in real logs test sessions about as often as training's own.
    lengths = data.train.lengths
    long, own = ends.lengths + 1 >= LONG, twin[lengths[lengths >= 2] >= LONG]
    copied, chance = int(equal[long].sum()), float(own.mean()) if len(own) else 0.0
    if copied - chance * long.sum() >= max(BLOCK, EXCESS * long.sum()):
        text = (
            f"{copied:,} of {int(long.sum()):,} test sessions of {LONG} clicks or more stand in training too, where "
            f"{100 * chance:.1f}% of training's own equal another; take test's sessions out of training"
        )
        return Check("test", False, text, counts)
    text = (
        f"{int(equal.sum()):,} of {len(test):,} test sessions equal a training session "
        f"({100 * equal.mean():.1f}%; of training's own {100 * twin.mean():.1f}% equal another; all kept)"
    )
    return Check("test", True, text, counts)


def test_later(data: Dataset) -> list[Check]:
    """Training is earlier than the test part, on the whole; nothing where there are no times to say so by.

    What is left over counts as well: a preparation that splits by the day lets sessions of one day overlap.
    """
    try:
        ends = end_times(data.source)
    except DissectError as error:  # times are no part of what is trained on
        return [Check("time", True, f"not checked: {error}")]
    if ends is None:
        return []
    train, test = ends
    late = int((train > test.min()).sum())
    counts = {"train_sessions_after_first_test_session": late}
    if np.median(train) > np.median(test):
        text = f"most training sessions end after most of test's ({data.source} holds the times)"
        return [Check("time", False, text, counts)]
    return [
        Check("time", True, f"{late:,} of {len(train):,} training sessions end after the first test session", counts)
    ]


def refit_on_all(data: Dataset, splits: Splits) -> Check:
    """The last training, after selection, has no validation part, and examples within sessions of training alone."""
    check = prefixes_after_split(splits, data.last_only)
    if splits.valid_examples is not None:
        return Check("refit", False, "training on all sessions kept a validation part", check.counts)
    if not np.isin(session_fingerprints(splits.train_sessions), session_fingerprints(data.train)).all():
        return Check("refit", False, "it has sessions that are not training's", check.counts)
    text = f"after selection, {len(splits.train_examples):,} examples of {len(splits.train_sessions):,} sessions"
    return Check("refit", check.ok, text if check.ok else check.text, check.counts)


def validation_by_session(data: Dataset, splits: Splits) -> Check:
    """Validation holds whole sessions, and none that is trained on."""
    if splits.valid_examples is None:
        return Check("validation", True, "no validation part")
    train, valid = session_fingerprints(splits.train_sessions), fingerprints(heads(splits.valid_examples))
    values, there = np.unique(session_fingerprints(data.train), return_counts=True)
    used = np.concatenate([train, valid])
    place = np.minimum(np.searchsorted(values, used), len(values) - 1)
    known = values[place] == used
    counts = {"train_sessions": len(train), "valid_sessions": len(valid)}
    if not known.all():
        text = f"{int((~known).sum()):,} sessions are no whole sessions of the source"
        return Check("validation", False, text, counts)
    twice = int((np.bincount(place, minlength=len(values)) > there).sum())
    if twice:
        return Check("validation", False, f"{twice:,} validation sessions are in training too", counts)
    text = f"{len(valid):,} whole sessions for validation, none among the {len(train):,} for training"
    return Check("validation", True, text, counts)


def prefixes_after_split(splits: Splits, last_only: bool = False) -> Check:
    """Every example lies within one session of its own split."""
    sessions, train = splits.train_sessions, splits.train_examples
    expected = expand(sessions, last_only)
    counts = {"train_examples": len(train)}
    same = (
        np.array_equal(train.start, expected.start)
        and np.array_equal(train.end, expected.end)
        and np.array_equal(train.clicks, sessions.clicks)
    )
    if not same:
        return Check("prefixes", False, "training examples are not the prefixes of the training sessions", counts)
    for name, examples in (("validation", splits.valid_examples), ("test", splits.test_examples)):
        if examples is not None and not _within(examples):
            return Check("prefixes", False, f"a {name} example reaches into another session", counts)
    return Check("prefixes", True, f"{len(train):,} training examples, expanded after the split", counts)


def _within(examples: Examples) -> bool:
    """Whether the examples of each session begin where it begins and end before the next one."""
    longest = heads(examples)
    place = np.searchsorted(longest.session, examples.session)
    return bool((examples.start == longest.start[place]).all() and (longest.end[:-1] < longest.start[1:]).all())


def duplicates(data: Dataset, splits: Splits) -> Check:
    """Count sessions that training shows again, and test examples that training shows too."""
    train = session_fingerprints(splits.train_sessions)
    again = len(train) - len(np.unique(train))
    both = int(np.isin(fingerprints(splits.test_examples), fingerprints(splits.train_examples)).sum())
    text = (
        f"{again:,} of {len(train):,} training sessions repeat another; {both:,} of {len(splits.test_examples):,} test "
        "examples are training examples too (all kept)"
    )
    return Check("duplicates", True, text, {"repeated_train_sessions": again, "test_examples_in_training": both})


def ids_contiguous(data: Dataset) -> Check:
    """Ids run from 0 to the number of items less one."""
    both = (data.train.clicks, data.test.clicks)
    low, high = min(int(part.min()) for part in both), max(int(part.max()) for part in both)
    if low < 0 or high >= data.items:
        return Check("ids", False, f"ids run from {low:,} to {high:,}, there are {data.items:,} items")
    seen = np.zeros(data.items, bool)
    seen[data.train.clicks] = True
    trained = int(seen.sum())
    seen[data.test.clicks] = True
    unused = data.items - int(seen.sum())
    new = int(seen.sum()) - trained
    text = f"0 to {data.items - 1:,}; {new:,} items are in the test part alone, {unused:,} in neither part"
    return Check("ids", True, text, {"items": data.items, "items_in_test_alone": new, "items_unused": unused})


def graph_apart(splits: Splits, batch_size: int) -> Check:
    """No edge of a batch's graph joins two sessions, in either form of the batch."""
    count = min(batch_size, len(splits.train))
    index = torch.linspace(0, len(splits.train) - 1, count).long()  # no draw: the run's own are left as they were
    size = int(splits.train.host_lengths[index].sum()) + 1
    edges = crossing = 0
    for batch in (splits.train.batch(index), splits.train.static_batch(index, size)):
        every, across = _edges(batch)
        edges, crossing = max(edges, every), crossing + across
    counts = {"edges": edges, "edges_across_sessions": crossing}
    if crossing:
        return Check("graph", False, f"{crossing:,} edges of a batch's graph join two sessions", counts)
    return Check("graph", True, f"none of {edges:,} edges of a batch of {count:,} joins two sessions", counts)


def _edges(batch: Batch) -> tuple[int, int]:
    """Edges of a batch's graph that carry weight, and how many of these join nodes of two sessions."""
    graph = batch.session_graph
    session = torch.full_like(graph.nodes, -1).scatter_(0, graph.alias, batch.rows)
    real = graph.in_weight > 0
    across = session[graph.source] != session[graph.target]
    shared = session[graph.alias] != batch.rows  # a node that two sessions click on joins them as well
    return int(real.sum()), int((across & real).sum()) + int(shared.sum())
