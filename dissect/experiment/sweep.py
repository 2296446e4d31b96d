"""`dissect sweep`: search a recipe's choices on validation; many processes may share the search."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.exceptions import TrialPruned
from optuna.trial import FrozenTrial, Trial, TrialState

from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.callbacks import Metrics
from dissect.experiment.concerns import check_trained
from dissect.experiment.run import Run
from dissect.experiment.spec import Spec
from dissect.experiment.sweep_result import IMPORTANCE, LEAST, Sweep, shown
from dissect.experiment.sweep_space import FIELDS, Space, fixed_values, space_of, spec_of, trained
from dissect.experiment.sweep_storage import open_storage
from dissect.experiment.sweep_study import Worker
from dissect.models.recipes import choose
from dissect.report.formats import NONE, render
from dissect.report.importance import write_importance_figure
from dissect.training.evaluate import CUTOFFS

METRICS = tuple(f"{name}@{k}" for name in ("hr", "mrr", "ndcg") for k in CUTOFFS)


def train_trial(
    trial: Trial, base: Spec, space: Space, metric: str, quiet: bool, heed: Callable[[], None] = lambda: None
) -> float:
    """Train what a trial draws.

    Returns
    -------
    float
        The metric on validation at the epoch that the run would select: the first of the best by MRR@20, under
        ``--sparsify`` the last. The test set is not ranked.

    Raises
    ------
    TrialPruned
        After an epoch at which the best value so far is below the median of the complete trials' at that epoch.
    """
    spec = spec_of(base, trained(space, {name: range_.draw(trial, name) for name, range_ in space.items()}))

    def report(epoch: int, found: Metrics, last: bool) -> None:
        heed()
        trial.report(found[metric], epoch)
        if not last and trial.should_prune():
            raise TrialPruned

    try:
        return Run(spec, quiet=quiet).select(report)[metric]
    finally:
        gc.collect()  # a model and its loop refer to each other


def sweep_command(
    models: Sequence[str],
    *,
    trials: int,
    metric: str,
    space: Sequence[str],
    fix: Mapping[str, str],
    storage: str | None,
    startup: int | None,
    heartbeat: int,
    out: Path,
    quiet: bool,
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    """Search until each model's study has `trials` finished ones, print the best, write the folders.

    Parameters
    ----------
    models : sequence of str
        One after the other, each in a study of its own, under the same budget.
    options
        As for `Spec.create`; what it gives of the fields that can be searched is fixed.
    trials, metric, startup, heartbeat
        Budget of a study; what to maximise; trials drawn at random; seconds between signs of life.
    space, fix
        ``FIELD=LOW:HIGH[:log]`` or ``FIELD=A,B,...``; field -> value.
    storage : str, optional
        A SQLAlchemy address; by default a SQLite file in the folder of each study.

    Returns
    -------
    list of dict
        The content of each best.json.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise DissectError("a sweep is shared by starting the same command several times, not by torchrun")
    choose("metric", metric, METRICS)
    if twice := [model for model in dict.fromkeys(models) if models.count(model) > 1]:
        raise DissectError(f"{twice[0]} is given twice")

    def said(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    plans = [_searched(model, options, fix, space) for model in models]
    # Refuses what can't be trained, before any study is begun.
    hashes = [Run(base, quiet=quiet).data.sha256 for base, _ in plans]
    found = []
    for (base, ranges), sha256 in zip(plans, hashes, strict=True):
        name = study_name(base, ranges, metric, sha256)
        folder = out / "sweeps" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DissectError(f"can't write to {folder}: {error.strerror}; choose another --out DIR") from None
        worker = Worker(
            open_storage(storage or f"sqlite:///{(folder / 'study.db').resolve()}", heartbeat), name, trials,
            seed=base.seed, startup=min(10, max(1, trials // 3)) if startup is None else startup, said=said,
        )  # fmt: skip
        found.append(_work(Sweep(base, ranges, metric, sha256, folder, worker), quiet, said))
        if len(found) < len(models):
            worker.leave_if_asked()  # asked in a study's last moments, it leaves before the next
    if len(found) > 1:
        print(f"\nbest {metric} on validation")
        for model, one in zip(models, found, strict=True):
            value = f"{one['best']['value']:.2f}" if one["best"] else NONE
            print(f"{model:<20} {value:>6} of {one['trials']['complete'] + one['trials']['pruned']} trials")
    return found


def _searched(
    model: str, options: Mapping[str, Any], fix: Mapping[str, str], space: Sequence[str]
) -> tuple[Spec, Space]:
    """What is not searched of a model, and what is."""
    check_trained(model)
    plain = Spec.create(model, **options)
    own = {name for name in (*FIELDS, *plain.options) if options.get(name) is not None}
    own |= set(options.get("options", {}))
    if twice := sorted(own & set(fix)):
        raise DissectError(f"--fix {twice[0]} is given by an option of its own too; leave one out")
    fixed = fixed_values(plain, fix)
    base = Spec.create(model, **{**options, **fixed})
    return base, space_of(base, own | set(fixed), space)


def _work(sweep: Sweep, quiet: bool, said: Callable[[str], None]) -> dict[str, Any]:
    """Train until the study's budget is spent; print what was found, and return the content of best.json."""
    worker = sweep.worker
    said(f"{sweep.folder.name}: {worker.finished} of {worker.budget} trials are finished; {_listed(sweep.ranges)}")

    def train(trial: Trial) -> float:
        return train_trial(trial, sweep.base, sweep.space, sweep.metric, quiet, worker.give_up_if_asked)

    def after(trial: FrozenTrial) -> None:
        said(_progress(sweep, trial))
        sweep.write()

    worker.work(train, after)
    return _show(sweep)


def study_name(base: Spec, space: Space, metric: str, sha256: str) -> str:
    """``MODEL-DATASET-xxxxxxxx``, by what is searched on which data.

    The same command in another process, or on another machine, is thus the same study, wherever its data lie.
    """
    text = json.dumps([sha256, base.science, {n: str(range_) for n, range_ in space.items()}, metric], sort_keys=True)
    return f"{base.model}-{base.dataset}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _show(sweep: Sweep) -> dict[str, Any]:
    """Write and print what was found; returns the content of best.json."""
    found = sweep.write()
    importances = sweep.importances()
    print(render(sweep.table()))
    if importances is None:
        print(f"\nno importances: they take {LEAST} complete trials and two fields")
    else:
        path = sweep.folder / IMPORTANCE
        record.write_atomically(path, json.dumps(importances, indent=1) + "\n")
        print(f"\nfigure: {write_importance_figure(path)[-1]}")
    print(f"study: {sweep.folder}")
    if found["best"] is not None:
        print(f"\n{found['best']['command']}")
    return found


def _listed(ranges: Mapping[str, str]) -> str:
    return ", ".join(f"{name.replace('_', '-')} {text}" for name, text in ranges.items())


def _progress(sweep: Sweep, trial: FrozenTrial) -> str:
    """``trial 3/20 (number 4) pruned, lr 0.00123: mrr@20 12.31; best 17.80; 0:05:20 left``."""
    worker, best = sweep.worker, sweep.best
    what = "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
    value = trial.user_attrs.get("error", "no value")
    if trial.value is not None:
        value = f"{sweep.metric} {trial.value:.2f}"
    line = (
        f"trial {worker.finished}/{worker.budget} (number {trial.number}) {what}, "
        f"{_listed({name: shown(v) for name, v in sweep.values(trial).items()})}: {value}; "
        f"best {NONE if best is None or best.value is None else format(best.value, '.2f')}"
    )
    if (left := worker.seconds_left) is None:
        return line
    minutes, seconds = divmod(round(left), 60)
    return f"{line}; {minutes // 60}:{minutes % 60:02}:{seconds:02} left"
