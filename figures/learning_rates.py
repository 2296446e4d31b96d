"""The learning rate of each model of Table 2: what validation says of each that was tried, and which it chooses.

Claim under test: none; Table 2 would be worth little if one rate served all. A model's rate in suite models is the one
with the best MRR@20 on validation here; the test set has no say.

Command: ``make figures`` (or ``python figures/learning_rates.py``), from the records of::

    dissect suite analyses/suites/models_lr.toml --keep

Expected: a best rate inside the range that was tried, for every model; where it is the largest, a larger was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from published import write
from style import run, suite_runs, values

from dissect.report.axis import describe
from dissect.report.formats import Table
from dissect.report.runs import Run

METRIC = "mrr@20"


def tried() -> dict[str, dict[float, Run]]:
    """Model, as suite models calls it -> rate -> its run; nothing for rates that have not been run."""
    suite, found = suite_runs("models_lr")
    out: dict[str, dict[float, Run]] = {}
    for entry in suite.entries:
        model = entry.label.rpartition(", lr ")[0]
        out.setdefault(model, {}).update((entry.spec.lr, run) for run in found[entry.label])
    return out


def validation(run: Run) -> float:
    """MRR@20 on validation, percent."""
    assert run.result is not None
    return run.result["valid"][METRIC]


def chosen(rates: Mapping[float, Run]) -> float | None:
    """The rate that is best on validation; None where none has been run."""
    return max(rates, key=lambda rate: validation(rates[rate]), default=None)


def main() -> list[Path]:
    """Write the table."""
    found = tried()
    rates = sorted({rate for runs in found.values() for rate in runs})
    rows = []
    for model, runs in found.items():
        cells = [f"{validation(runs[rate]):.2f}" if rate in runs else "" for rate in rates]
        best = chosen(runs)
        test = [runs[best]] if best is not None else []
        after = [f"{values(test, metric)[0]:.2f}" for metric in ("hr@20", METRIC) if test]
        rows.append([model, *cells, f"{best:g}" if best is not None else "not run", " / ".join(after)])
    columns = ["model", *(f"{rate:g}" for rate in rates), "chosen", "test HR@20 / MRR@20"]
    everything = [run for runs in found.values() for run in runs.values()]
    notes = [describe(everything)] if everything else ["not run: dissect suite analyses/suites/models_lr.toml --keep"]
    return write(Table("Learning rates: MRR@20 on validation, percent", columns, rows, notes), "learning_rates")


if __name__ == "__main__":
    run(main)
