"""What a sweep has found: its best trial and that one's command line, all trials, and which fields matter."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from dissect.experiment import record
from dissect.experiment.spec import Spec
from dissect.experiment.sweep_space import FIELDS, Space, spec_of, trained
from dissect.experiment.sweep_study import FINISHED, Worker
from dissect.report.formats import NONE, Table, number

BEST, TRIALS, IMPORTANCE = "best.json", "trials.jsonl", "importance.json"
#: Rows of the table at the end.
SHOWN = 10
#: Complete trials below which nothing is said of importances, and how many of the best PED-ANOVA compares with all.
LEAST, TOP = 10, 5
#: Options of a run that have a flag of their own; the others are given by --option.
_FLAGS = ("levels", "heads", "p")


def command_of(spec: Spec, searched: Collection[str] = ()) -> str:
    """The command line that runs `spec`; what `searched` names is written out though it be the default."""
    halves = {
        name: value
        for name in ("encoder", "readout", "scorer")
        if (value := getattr(spec, name)) != getattr(Spec.create(spec.model), name)
    }
    plain = Spec.create(spec.model, setting=spec.setting, dim=spec.dim, **halves)
    standard = Spec.create(spec.model, setting=spec.setting, **halves)
    words = ["dissect", "run", spec.model, "--dataset", spec.dataset]
    if spec.data_dir:
        words += ["--data-dir", spec.data_dir]
    if spec.setting != "published":
        words += ["--setting", spec.setting]
    for name, value in halves.items():
        words += [f"--{name}", value]
    words += ["--sparsify", spec.sparsify]
    others = ("epochs", "noise", "seed", "max_train", "max_valid", "device", "precision")
    for name in (*FIELDS, *others):
        value = getattr(spec, name)
        if name in searched or value != getattr(standard, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    for name, value in spec.options.items():
        if name in searched or value != plain.options.get(name):
            words += [f"--{name}", str(value)] if name in _FLAGS else ["--option", f"{name}={value}"]
    return shlex.join(words)


class Sweep:
    """A search as it stands, and the folder that says so.

    Parameters
    ----------
    base : Spec
        What is not searched.
    space : mapping of str to range
    metric : str
        A key of a run's validation metrics.
    sha256 : str
        Of the data.
    folder : path
    worker : Worker
    """

    def __init__(self, base: Spec, space: Space, metric: str, sha256: str, folder: Path, worker: Worker) -> None:
        self.base, self.space, self.metric, self.sha256 = base, space, metric, sha256
        self.folder, self.worker = folder, worker
        self.ranges = {name: str(range_) for name, range_ in space.items()}

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials that count: none that was one too many."""
        return [trial for trial in self.worker.trials() if not trial.user_attrs.get("surplus")]

    @property
    def best(self) -> FrozenTrial | None:
        """The complete trial with the highest value, the first of several; None before one is complete."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """What a trial trained."""
        return trained(self.space, trial.params)

    def counts(self) -> dict[str, int]:
        """How many trials are complete, pruned, failed, and were queued again."""
        trials = self.trials
        again = {number for trial in trials for number in trial.user_attrs.get("again_for", [])}
        states = {state: [t.number for t in trials if t.state == state] for state in TrialState}
        return {
            "complete": len(states[TrialState.COMPLETE]),
            "pruned": len(states[TrialState.PRUNED]),
            "failed": len(set(states[TrialState.FAIL]) - again),
            "queued_again": len(again),
        }

    def write(self) -> dict[str, Any]:
        """Write how the search stands; returns the content of best.json."""
        rows = []
        for trial in self.trials:
            seconds = None if trial.duration is None else round(trial.duration.total_seconds(), 2)
            rows.append(
                {
                    "number": trial.number, "state": trial.state.name.lower(), "value": trial.value,
                    "values": self.values(trial), "epochs": trial.intermediate_values, "seconds": seconds,
                    **trial.user_attrs,
                }
            )  # fmt: skip
        best = self.best
        found: dict[str, Any] = {
            "schema": 1,
            "study": self.worker.study.study_name,
            "model": self.base.model,
            "dataset": {"name": self.base.dataset, "sha256": self.sha256},
            "metric": self.metric,
            "split": "valid",
            "budget": self.worker.budget,
            "trials": self.counts(),
            "space": self.ranges,
            "best": None,
        }
        if best is not None:
            spec = spec_of(self.base, self.values(best))
            found["best"] = {
                "number": best.number,
                "value": best.value,
                "values": self.values(best),
                "run_id": spec.run_id(self.sha256),
                "command": command_of(spec, self.space),
            }
        record.write_atomically(self.folder / TRIALS, "".join(json.dumps(row) + "\n" for row in rows))
        record.write_atomically(self.folder / BEST, json.dumps(found, indent=1) + "\n")
        return found

    def importances(self) -> dict[str, Any] | None:
        """Importance of each field by PED-ANOVA (arXiv 2304.10255), summing to 1; None where trials are too few.

        It compares where the best trials lie with where all complete ones do.
        """
        complete = self.counts()["complete"]
        if complete < LEAST or len(self.space) < 2:
            return None
        top = max(0.1, (TOP - 0.5) / complete)  # rounded up to whole trials
        found = get_param_importances(
            self.worker.study, evaluator=PedAnovaImportanceEvaluator(target_quantile=top), params=list(self.space)
        )
        return {
            "model": self.base.model, "dataset": self.base.dataset, "metric": self.metric, "complete": complete,
            "top": math.ceil(top * complete), "space": self.ranges, "importances": found,
        }  # fmt: skip

    def table(self) -> Table:
        """The best trials."""
        ended = [trial for trial in self.trials if trial.state in FINISHED and trial.value is not None]
        ended.sort(key=lambda t: (t.state != TrialState.COMPLETE, -(t.value or 0.0), t.number))
        rows = []
        for trial in ended[:SHOWN]:
            values = self.values(trial)
            cells = [shown(values[name]) if name in values else NONE for name in self.space]
            state = f"{trial.state.name.lower()}, {len(trial.intermediate_values)} epochs"
            rows.append([str(trial.number), state, *cells, number(trial.value or 0.0)])
        counts = self.counts()
        again = f", {counts['queued_again']} queued again" if counts["queued_again"] else ""
        return Table(
            f"{self.base.model} on {self.base.dataset}: the best of {counts['complete'] + counts['pruned']} trials by "
            f"{self.metric.upper()} on validation",
            ["trial", "state", *(name.replace("_", "-") for name in self.space), self.metric.upper()],
            rows,
            [
                f"{counts['complete']} complete, {counts['pruned']} pruned, {counts['failed']} failed{again}; percent, "
                "of a pruned trial at its last epoch; the test set was not ranked"
            ],
            left=2,
        )


def shown(value: Any) -> str:
    """A value as a table has it."""
    return f"{value:g}" if isinstance(value, float) else str(value)
