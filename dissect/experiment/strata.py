"""What a data set says of its test examples: how popular the target is, whether it is a repeat, on which day it was."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect.data import Dataset, Examples, load
from dissect.data.layouts import TEXT_TIMES, layout_of, read_test_times
from dissect.errors import DissectError
from dissect.report.runs import Run

Array = NDArray[Any]
_DAY = 86400


def popularity(data: Dataset) -> Array:
    """Clicks on each item in the data set's training part, validation included, (items,) int64.

    Of the data set, not of the sessions that a run drew from it: it is the same for every run.
    """
    return np.bincount(data.train.clicks, minlength=data.items)


def repeats(examples: Examples) -> Array:
    """Whether each target stands among the clicks before it, (N,) bool."""
    order = np.argsort(examples.clicks, kind="stable")  # clicks on one item together, in their order
    items = examples.clicks[order]
    before = np.full(len(order), -1)
    again = np.flatnonzero(items[1:] == items[:-1]) + 1
    before[order[again]] = order[again - 1]
    return before[examples.end] >= examples.start


def days(data: Dataset) -> Array:
    """Day of each test example's target, (N,) int32, in days since 1970-01-01 (UTC).

    Raises
    ------
    DissectError
        If the data set has no times or has changed since it was loaded, or its times are no UNIX times in seconds.
    """
    layout = layout_of(data.source)
    times = None if layout is None else read_test_times(layout)
    if layout is None or times is None:
        raise DissectError(
            f"data set {data.name!r} has no times: {data.source} holds no column of them (timestamp, time) and no file "
            f"of them ({', '.join(dict.fromkeys(TEXT_TIMES.values()))})"
        )
    if layout.sha256() != data.sha256:
        raise DissectError(f"data set {data.name!r} has changed since it was loaded from {data.source}")
    if not ((times > 0) & (times < 1e11)).all():
        raise DissectError(f"the times of {data.name!r} in {data.source} are not UNIX times in seconds")
    return (times[data.test.end] // _DAY).astype(np.int32)


def strata_arrays(data: Dataset) -> dict[str, Array]:
    """What is kept beside each test example's rank: ``popularity``, ``repeat`` and, where it is known, ``day``."""
    found: dict[str, Array] = {
        "popularity": popularity(data)[data.test.targets].astype(np.int32),
        "repeat": repeats(data.test),
    }
    with contextlib.suppress(DissectError):  # no reason to refuse a run; who asks for days is told
        found["day"] = days(data)
    return found


def look_up(run: Run, name: str, data_dir: Path | str | None = None) -> Array:
    """An array of `strata_arrays` for a run whose record lacks it, from its data set.

    Raises
    ------
    DissectError
        If the data set is not at hand, has changed since, or does not have what is asked for.
    """
    spec, recorded = run.spec, (run.result or {}).get("dataset", {})
    try:
        data = load(spec["dataset"], data_dir=data_dir or spec.get("data_dir") or None, download=False)
        if data.sha256 != recorded.get("sha256"):
            raise DissectError(f"data set {data.name!r} has changed since the run was made")
        return days(data) if name == "day" else strata_arrays(data)[name]
    except DissectError as error:
        raise DissectError(f"{run.path}/ranks.npz holds no {name} of its test examples, and {error}") from None
