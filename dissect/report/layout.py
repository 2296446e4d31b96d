"""How a comparison is read: a table of accuracy, a table of size and speed, and the same as plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dissect.errors import DissectError
from dissect.report.compare import LEVEL, Comparison, Line, compare
from dissect.report.cost import cost_table, counts, latency
from dissect.report.formats import NONE, Table, choose_format, number, p_value, plain, render, signed, span
from dissect.report.notes import about, power_notes, precision_note
from dissect.report.reach import reach_of, reach_tables
from dissect.report.statistics import bound_violations
from dissect.report.strata import Lookup, compare_by
from dissect.report.strata_layout import strata_json, strata_tables

#: What a training budget is made of: its name, and where a run holds it.
_BUDGET: tuple[tuple[str, Callable[[dict[str, Any], dict[str, Any]], Any]], ...] = (
    ("steps", lambda spec, result: result["steps"]),
    ("epoch that counts", lambda spec, result: result["epoch"]),
    ("batch size", lambda spec, result: spec.get("batch_size")),
    ("learning rate", lambda spec, result: spec.get("lr")),
)


def tables(found: Comparison) -> list[Table]:
    """The accuracy of each line against the baseline's; what each costs; what each recommends, where a record says."""
    return [_accuracy(found), cost_table(found), *reach_tables(found)]


def compare_command(
    runs: Sequence[Path],
    baseline: Path | None,
    metrics: str,
    how: str,
    resamples: int,
    out: Path | None,
    with_json: bool,
    by: str | None = None,
    lookup: Lookup | None = None,
) -> Iterator[str]:
    """What `dissect compare` prints, piece by piece: the tables, or the path they were written to; then JSON.

    With `by`, a key of `dissect.report.strata.STRATA`, they are those of `compare_by`.

    Raises
    ------
    DissectError
        As `compare` and `render` do, and if `out` can't be written.
    """
    choose_format(how)  # before the work, not after it
    names = [metric.strip() for metric in metrics.split(",")]
    if by is None:
        found = compare(runs, baseline, names, resamples)
        shown, data = tables(found), as_json(found)
    else:
        apart = compare_by(runs, by, baseline, names, resamples, lookup=lookup)
        shown, data = strata_tables(apart), strata_json(apart)
    text = "\n\n".join(render(table, how) for table in shown)
    if out is None:
        yield text
    else:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text + "\n")
        except OSError as error:
            raise DissectError(f"can't write {out}: {error.strerror}") from None
        yield str(out)
    if with_json:
        yield json.dumps(data)


def _accuracy(found: Comparison) -> Table:
    rows: list[list[str]] = []
    breaks = []  # a line between models
    digits = _digits(found)
    for line in found.lines:
        breaks.append(len(rows))
        for m, metric in enumerate(found.metrics):
            cells = ["" if m else "baseline", "", ""]
            if line.difference is not None:
                estimate, low, high = (float(part[m]) for part in line.difference[:3])
                cells = [
                    f"{signed(estimate, digits)} [{signed(low, digits)}, {signed(high, digits)}]",
                    signed(line.improvement[m], unit="%"),
                    p_value(line.p_holm[m]),
                ]
            shown = [_valid(line, metric), f"{line.mean[m]:.2f}", number(line.sd[m]), str(len(line.values))]
            rows.append([line.label if m == 0 else "", metric.upper(), *shown, *cells])
    columns = (
        "model", "metric", "valid", "mean", "sd", "seeds", f"difference [{LEVEL:.0%} interval]", "improvement",
        "p (Holm)",
    )  # fmt: skip
    notes = [*_caption(found), *_controls(found), *_budgets(found), *_warnings(found)]
    return Table(
        f"Accuracy on {about(found.lines[0].group.results[0], found.examples, found.sessions)}",
        columns,
        rows,
        notes,
        left=2,
        breaks=breaks[1:],
    )


def _valid(line: Line, metric: str) -> str:
    """Mean over seeds on the validation set: what a choice between rows may rest on."""
    results = [r["pruned"] if line.pruned else r for r in line.group.results]
    found = [r["valid"][metric] for r in results if (r.get("valid") or {}).get(metric) is not None]
    return f"{sum(found) / len(found):.2f}" if len(found) == len(results) else "–"


def _digits(found: Comparison) -> int:
    """Decimals of the differences: three where an interval is so narrow that two would hide its side of 0."""
    widths = [line.difference.high - line.difference.low for line in found.lines if line.difference is not None]
    return 3 if any(0 < width < 0.1 for some in widths for width in some) else 2


def _caption(found: Comparison) -> list[str]:
    base = found.lines[found.baseline].label
    every = [result for group in found.groups for result in group.results]
    trained = span(result["dataset"]["train_examples"] for result in every)
    unseen = [result["dataset"]["unseen_targets"]["test"] for result in every if "unseen_targets" in result["dataset"]]
    missed = f"; targets never seen in training are misses: {span(unseen)}" if unseen else ""
    lines = [
        f"mean, sd: percent of the {found.examples:,} test examples, over seeds (sd with n - 1). valid: mean on the "
        f"validation set, on which a choice between rows may rest. Trained on {trained} examples{missed}."
    ]
    if len(found.lines) == 1:
        return lines
    lines.append(
        f"difference: to {base}, in points of percent, each example's gain averaged over the seeds first. Interval: "
        f"paired bootstrap, the {found.sessions:,} test sessions drawn whole {found.resamples:,} times; it covers "
        "which sessions were tested, not seeds. improvement: the difference in percent of the baseline's mean."
    )
    lines += precision_note(found)
    lines += power_notes(found)
    none = f"{NONE}: fewer than 2 seeds on a side, or nothing varies."
    if not found.tests:
        return [*lines, f"p: no t-test across seeds was made ({none[:-1]})."]
    kinds = {line.paired for line in found.lines if not all(map(math.isnan, line.p))}
    both = "paired where the seeds are the same, else Welch's"
    kind = both if len(kinds) > 1 else "paired (the same seeds)" if True in kinds else "Welch's (the seeds differ)"
    return [
        *lines,
        f"p: t-test across seeds, {kind}, corrected by Holm for the {found.tests} tests of this table; it covers "
        "seeds, not which sessions were tested." + (f" {none}" if _untested(found) else ""),
    ]


def _untested(found: Comparison) -> bool:
    return any(math.isnan(p) for line in found.lines if line.difference is not None for p in line.p)


def _controls(found: Comparison) -> list[str]:
    """Baselines without training, that every table must carry, as each run has counted them."""
    every = [result.get("baselines") or {} for group in found.groups for result in group.results]
    texts = []
    for name in dict.fromkeys(name for one in every for name in one):
        tests = [one[name]["test"] for one in every if one.get(name, {}).get("test")]
        means = {m: [t[m] for t in tests if m in t] for m in found.metrics}
        shown = ", ".join(f"{m.upper()} {sum(v) / len(v):.2f}" for m, v in means.items() if v)
        texts += [f"{name} {shown}"] if shown else []
    return [f"Controls without training, mean over the runs: {'; '.join(texts)}."] if texts else []


def _budgets(found: Comparison) -> list[str]:
    """What the training budgets of the groups that were trained differ in, each value with who has it."""
    texts = []
    trained = [group for group in found.groups if any(result["steps"] for result in group.results)]
    for name, of in _BUDGET:
        who: dict[str, list[str]] = {}
        for group in trained:
            values = [of(run.spec, result) for run, result in zip(group.runs, group.results, strict=True)]
            who.setdefault(span(values), []).append(group.label)
        if len(who) > 1:
            texts.append(f"{name} " + ", ".join(f"{value} ({'; '.join(labels)})" for value, labels in who.items()))
    return [f"Budgets differ: {'. '.join(texts)}."] if texts else []


def _warnings(found: Comparison) -> list[str]:
    half = found.lines[0].group.results[0]["protocol"]["ties"] == "half"
    shown = [
        f"{line.label}: can't be of one list of ranks: {text}"
        for line in found.lines
        for text in bound_violations(dict(zip(found.metrics, map(float, line.mean), strict=True)), half_ranks=half)
    ]
    return [f"Warning: {text}" for text in (*_uneven(found), *shown, *found.warnings)]


def _uneven(found: Comparison) -> list[str]:
    """Lines whose difference to the baseline is one of seeds too: its interval knows nothing of them."""
    base = found.lines[found.baseline].group
    return [
        f"{line.label} has seeds {_listed(line.group.seeds)}, the baseline {_listed(base.seeds)}: what other seeds "
        "change is in the difference, but not in its interval"
        for line in found.lines
        if set(line.group.seeds) != set(base.seeds)
    ]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def as_json(found: Comparison) -> dict[str, Any]:
    """The comparison as plain data, NaN as None; arrays over metrics become mappings."""
    result = found.lines[0].group.results[0]
    lines = []
    for line in found.lines:
        weights, results = counts(line), line.group.results
        cells = {
            metric: {
                "values": [round(float(value), 6) for value in line.values[:, m]],
                "mean": plain(line.mean[m]),
                "sd": plain(line.sd[m]),
                "difference": None if line.difference is None else plain(line.difference.estimate[m]),
                "interval": None if line.difference is None else [plain(end[m]) for end in line.difference[1:3]],
                "improvement": plain(line.improvement[m]),
                "p": plain(line.p[m]),
                "p_holm": plain(line.p_holm[m]),
                "least_visible": {"sessions": plain(line.least_sessions[m]), "seeds": plain(line.least_seeds[m])},
            }
            for m, metric in enumerate(found.metrics)
        }
        lines.append({
            "label": line.label, "pruned": line.pruned, "seeds": list(line.group.seeds),
            "runs": [str(run.path) for run in line.group.runs], "metrics": cells,
            "kept": weights[0] if weights else None, "total": weights[1] if weights else None,
            "reach": reach_of(line), "parameters": results[0]["parameters"], "latency_ms": latency(line),
            "seconds_per_epoch": float(np.mean([one["seconds_per_epoch"] for one in results])),
            "device": results[0]["device"],
        })  # fmt: skip
    data = {name: result["dataset"].get(name) for name in ("name", "sha256", "items", "max_train")}
    return {
        "dataset": {**data, "test_examples": found.examples, "test_sessions": found.sessions},
        "protocol": result["protocol"], "baseline": found.lines[found.baseline].label, "level": LEVEL,
        "resamples": found.resamples, "tests": found.tests, "lines": lines,
        "notes": [*_controls(found), *_budgets(found)], "warnings": _warnings(found),
    }  # fmt: skip
