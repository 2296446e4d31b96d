"""A comparison within groups of test examples: by session length, by the target's popularity, repeat or new, by day."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect.errors import DissectError
from dissect.report.compare import LEVEL
from dissect.report.rows import Row, find_baseline, read_rows
from dissect.report.runs import Run
from dissect.report.statistics import Interval, bootstrap_of_sums, cluster_sums

Array = NDArray[Any]
#: A stratum's name and which examples are in it, (N,) bool.
Mask = tuple[str, Array]
#: What a run says of its test examples beyond their ranks, or raises a DissectError that says why it can't.
Lookup = Callable[[Run, str], Array]

#: Prefix lengths taken together; `dissect.training.evaluate.LENGTH_GROUPS`.
LENGTHS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 9), (10, 19), (20, None))
#: With fewer sessions resampling says little: of five that agree it would make an interval of no width.
FEWEST_SESSIONS = 30
#: Groups of targets by popularity, as even in examples as ties allow, beside those that training never saw.
POPULARITY_GROUPS = 5


@dataclass(frozen=True)
class Stratum:
    """One group of test examples.

    Attributes
    ----------
    label : str
    examples, sessions : int
    values : tuple of Interval
        Each row's metrics in percent, (M,), mean over seeds; interval over test sessions, NaN with fewer than
        `FEWEST_SESSIONS`.
    differences : tuple of (Interval or None)
        Each row's minus the baseline's; None for the baseline itself.
    """

    label: str
    examples: int
    sessions: int
    values: tuple[Interval, ...]
    differences: tuple[Interval | None, ...]


@dataclass(frozen=True)
class Strata:
    """A comparison by `by`, on all test examples; every example is in one stratum."""

    by: str
    rows: tuple[Row, ...]
    baseline: int
    metrics: tuple[str, ...]
    strata: tuple[Stratum, ...]
    examples: int
    sessions: int
    resamples: int
    warnings: tuple[str, ...]


def by_length(lengths: Array) -> list[Mask]:
    """Groups of `LENGTHS`."""
    return [
        (f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}",
         (lengths >= low) & (lengths <= (np.inf if high is None else high)))
        for low, high in LENGTHS
    ]  # fmt: skip


def by_popularity(counts: Array) -> list[Mask]:
    """Targets that training never shows, then the others in `POPULARITY_GROUPS` groups of rising training count."""
    shown = counts[counts > 0]
    if not len(shown):
        return [("0", counts == 0)]
    inner = np.linspace(0, 1, POPULARITY_GROUPS + 1)[1:-1]
    tops = np.unique([*np.quantile(shown, inner, method="inverted_cdf"), shown.max()]).astype(np.int64)
    masks, low = [("0", counts == 0)], 1
    for top in tops.tolist():
        masks.append((f"{low}-{top}" if low < top else str(top), (counts >= low) & (counts <= top)))
        low = top + 1
    return masks


def by_repeat(repeat: Array) -> list[Mask]:
    """Whether the target stands in the session already."""
    return [("new", repeat == 0), ("repeat", repeat != 0)]


def by_day(days: Array) -> list[Mask]:
    """Days since 1970-01-01 (UTC), each by itself."""
    return [(str(np.datetime64(int(day), "D")), days == day) for day in np.unique(days)]


#: What a comparison can be taken apart by: the array of each test example that it needs, its groups, its name in words.
STRATA: dict[str, tuple[str, Callable[[Array], list[Mask]], str]] = {
    "length": ("length", by_length, "clicks in the session so far"),
    "popularity": ("popularity", by_popularity, "clicks on the target in the data set's training part"),
    "repeat": ("repeat", by_repeat, "whether the target stands in the session already"),
    "day": ("day", by_day, "day of the target's click (UTC)"),
}


def compare_by(
    runs: Sequence[Path | str] | Mapping[str, Sequence[Path | str]],
    by: str,
    baseline: Path | str | None = None,
    metrics: Sequence[str] = ("hr@20", "mrr@20"),
    resamples: int = 2000,
    seed: int = 0,
    lookup: Lookup | None = None,
) -> Strata:
    """Compare finished runs within groups of test examples; see `dissect.report.compare.compare`.

    Parameters
    ----------
    runs, baseline, metrics, resamples, seed
        As there.
    by : str
        A key of `STRATA`.
    lookup : callable, optional
        Where a record lacks what `by` needs, since it is older: ``lookup(run, name)`` gives the array (N,).

    Raises
    ------
    DissectError
        As `compare`; for an unknown `by`, and where what it needs is neither in the record nor to be looked up.
    """
    if by not in STRATA:
        raise DissectError(f"no strata {by!r}; valid: {', '.join(STRATA)}")
    found = read_rows(runs, metrics)
    base = find_baseline(baseline, found.rows)
    name, groups_of, _ = STRATA[by]
    values = found.examples.get(name)
    if values is None:
        first = found.rows[0].group.runs[0]
        if lookup is None:
            raise DissectError(f"{first.path}/ranks.npz holds no {name} of its test examples; it is an older record")
        values = lookup(first, name)
        if values.shape != found.clusters.shape:
            raise DissectError(f"{first.path} has {len(found.clusters)} test examples, its data set {len(values)}")
    strata = [
        _stratum(label, mask, found.rows, found.clusters, base, resamples, seed)
        for label, mask in groups_of(values)
        if mask.any()
    ]
    return Strata(
        by, found.rows, base, tuple(metrics), tuple(strata), len(found.clusters), len(np.unique(found.clusters)),
        resamples, found.warnings,
    )  # fmt: skip


def _stratum(
    label: str, mask: Array, rows: Sequence[Row], clusters: Array, base: int, resamples: int, seed: int
) -> Stratum:
    """One bootstrap, of the sessions that have an example in the stratum, for all its values and differences."""
    gains = [row.gains[mask] for row in rows]
    columns = np.concatenate([*gains, *(gain - gains[base] for gain in gains)], axis=1)
    sums, sizes = cluster_sums(columns, clusters[mask])
    drawn = bootstrap_of_sums(sums, sizes, resamples, LEVEL, seed)
    if len(sizes) < FEWEST_SESSIONS:
        drawn = Interval(drawn.estimate, *np.full((3, len(drawn.estimate)), np.nan))
    count = gains[0].shape[1]
    parts = [Interval(*(part[i : i + count] for part in drawn)) for i in range(0, columns.shape[1], count)]
    values, differences = parts[: len(rows)], parts[len(rows) :]
    return Stratum(
        label, int(mask.sum()), len(sizes), tuple(values),
        tuple(None if number == base else each for number, each in enumerate(differences)),
    )  # fmt: skip
