"""The learning rate of each model of Table 2: what validation says of each that was tried, and which it chooses.

Claim under test: none; Table 2 would be worth little if one rate served all. A model's rate in suite models is the one
with the largest product of HR@20 and MRR@20 on validation here, on a seed that the table does not use: what is said of
it has to hold in both. The test set has no say.

Command: ``make figures`` (or ``python figures/learning_rates.py``), from the records of::

    dissect suite analyses/suites/models_lr.toml --keep

Expected: a best rate between two others, for every model; one at the end of what was tried is marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from published import write
from style import run, suite_runs

from dissect.report.axis import describe
from dissect.report.formats import Table
from dissect.report.groups import on_validation
from dissect.report.runs import Run

METRICS = ("hr@20", "mrr@20")


def tried() -> dict[str, dict[float, Run]]:
    """Model, as suite models calls it -> rate -> its run; nothing for rates that have not been run."""
    suite, found = suite_runs("models_lr")
    out: dict[str, dict[float, Run]] = {}
    for entry in suite.entries:
        model = entry.label.rpartition(", lr ")[0]
        out.setdefault(model, {}).update((entry.spec.lr, run) for run in found[entry.label])
    return out


def validation(run: Run) -> tuple[float, float]:
    """HR@20 and MRR@20 on validation, percent."""
    assert run.result is not None
    hr, mrr = (run.result["valid"][metric] for metric in METRICS)
    return hr, mrr


def chosen(rates: Mapping[float, Run]) -> float | None:
    """The rate that is best on validation; None where none has been run."""
    return max(rates, key=lambda rate: on_validation(rates[rate]), default=None)


def at_an_end(rates: Mapping[float, Run]) -> bool:
    """Whether the best is the least or the largest that was tried, so that one beyond might be better."""
    return chosen(rates) in (min(rates, default=0), max(rates, default=0))


def main() -> list[Path]:
    """Write the table."""
    found = tried()
    rates = sorted({rate for runs in found.values() for rate in runs})
    rows = []
    for model, runs in found.items():
        best = chosen(runs)
        cells = [" / ".join(f"{value:.2f}" for value in validation(runs[r])) if r in runs else "" for r in rates]
        said = "not run" if best is None else f"{best:g}{' (the last tried)' * at_an_end(runs)}"
        rows.append([model, *cells, said])
    everything = [run for runs in found.values() for run in runs.values()]
    if everything:
        result = everything[0].result
        assert result is not None
        notes = [
            f"On the {result['dataset']['valid_examples']:,} examples of {result['dataset']['max_valid']:,} validation "
            "sessions; chosen: the largest product of the two.",
            describe(everything),
        ]
    else:
        notes = ["not run: dissect suite analyses/suites/models_lr.toml --keep"]
    title = "Learning rates: HR@20 / MRR@20 on validation, percent"
    return write(Table(title, ["model", *(f"{rate:g}" for rate in rates), "chosen"], rows, notes), "learning_rates")


if __name__ == "__main__":
    run(main)
