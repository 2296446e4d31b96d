"""Which runs can stand in one table, which are one row of it, and what that row is called."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dissect.errors import DissectError
from dissect.report.runs import Row, Run, read_run

#: Fields of a spec that say where the data lie, and where and how a run was made; `dissect.experiment.spec.HOW`.
_HOW = ("data_dir", "device", "deterministic", "loss")
#: Fields that older records lack, and the values that say as before; `dissect.experiment.spec.SINCE`.
_SINCE = {"optimizer": "adam", "start": "uniform"}
#: What two runs must share to be compared: what it is called, and where a result holds it.
_SHARED: tuple[tuple[str, Callable[[Row], Any]], ...] = (
    ("data set", lambda r: r["dataset"]["name"]),
    ("data (SHA-256)", lambda r: r["dataset"]["sha256"][:12]),
    ("test examples", lambda r: r["dataset"]["test_examples"]),
    ("training subset (max_train, 0: none)", lambda r: r["dataset"].get("max_train", 0)),
    ("validation subset (max_valid, 0: none)", lambda r: r["dataset"].get("max_valid", 0)),
    ("protocol", lambda r: r["protocol"]["name"]),
    ("refit", lambda r: r["protocol"]["refit"]),
    ("ties", lambda r: r["protocol"]["ties"]),
    ("selection on the test set (optimistic)", lambda r: r["protocol"]["optimistic"]),
)


@dataclass(frozen=True)
class Group:
    """Finished runs that differ in their seed alone, in the order of their seeds, and what they are called."""

    label: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The runs' seeds, ascending."""
        return tuple(int(run.spec["seed"]) for run in self.runs)

    @property
    def results(self) -> list[Row]:
        """The runs' results."""
        return [finished(run) for run in self.runs]


def on_validation(run: Run) -> float:
    """HR@20 x MRR@20 on validation: what a learning rate is chosen by, as claims have to hold in both.

    Raises
    ------
    DissectError
        If the run is not finished.
    """
    valid = finished(run)["valid"]
    return valid["hr@20"] * valid["mrr@20"]


def finished(run: Run) -> Row:
    """The result of `run`.

    Raises
    ------
    DissectError
        If there is none yet.
    """
    if run.result is None:
        raise DissectError(f"{run.path} is not finished (no result.json): 'dissect run --resume {run.path}' goes on")
    return run.result


def group_runs(paths: Sequence[Path | str] | Mapping[str, Sequence[Path | str]]) -> list[Group]:
    """Read runs and gather those that differ in nothing but their seed (and device, form of the loss, data directory).

    Parameters
    ----------
    paths : paths of run folders, or mapping of label to paths
        With a mapping each label is one group, empty ones left out; else a group is called by its model, and by the
        fields in which groups of the same model differ.

    Returns
    -------
    list of Group
        In the order in which their first runs were given. Where one seed occurs twice, in runs that differ in device
        or form of the loss, those are groups of their own: the same seed again is no second seed.

    Raises
    ------
    DissectError
        If a run can't be read, is not finished, is given twice, or was made on other data or by another protocol than
        the first; and if runs under one label differ in more than their seed.
    """
    by_label = isinstance(paths, Mapping)
    named: Mapping[str, Sequence[Path | str]] = cast(Any, paths) if by_label else {"": paths}
    runs = {label: [read_run(path) for path in given] for label, given in named.items() if given}
    everyone = [run for some in runs.values() for run in some]
    if not everyone:
        raise DissectError("no runs to compare")
    _agree(everyone)
    _once(everyone)
    if not by_label:
        return _by_science(runs[""])
    for label, some in runs.items():
        for run in some:
            _one_row(label, some[0], run)
    return [Group(label, _in_order(label, some)) for label, some in runs.items()]


def _agree(runs: Sequence[Run]) -> None:
    first = runs[0]
    expected = [_value(first, of) for _, of in _SHARED]
    for run in runs:
        for (what, of), a in zip(_SHARED, expected, strict=True):
            if (b := _value(run, of)) != a:
                raise DissectError(f"can't compare {first.path} with {run.path}: {what} {a} against {b}")


def _value(run: Run, of: Callable[[Row], Any]) -> Any:
    try:
        return of(finished(run))
    except (KeyError, TypeError):
        raise DissectError(f"{run.path}/result.json is damaged, or no result of 'dissect run'") from None


def _once(runs: Sequence[Run]) -> None:
    """Refuse a folder that is given twice, and a copy of one."""
    seen: dict[Any, Run] = {}
    for run in runs:
        for key in (run.path.resolve(), (_science(run.spec), run.spec["seed"], _how(run))):
            if key in seen:
                raise DissectError(
                    f"{seen[key].path} and {run.path} are the same run, {finished(run).get('run_id', run.name)}, seed "
                    f"{run.spec['seed']}; leave one of them out"
                )
        seen |= {run.path.resolve(): run, (_science(run.spec), run.spec["seed"], _how(run)): run}


def _science(spec: Row, without: Sequence[str] = ()) -> str:
    """A spec without its seed and how it was run, as text.

    A field that is empty, 0 or as before is as good as absent: a record may be older than the field.
    """
    left = {k: _said(spec, k) for k in spec if k not in (*_HOW, "seed", *without)}
    left["options"] = {k: v for k, v in (spec.get("options") or {}).items() if v}
    return json.dumps({k: v for k, v in left.items() if v}, sort_keys=True)


def _said(spec: Row, key: str) -> Any:
    """A field's value; None where it says nothing."""
    value = spec.get(key)
    return None if value == _SINCE.get(key) else value or None


def _how(run: Run) -> str:
    """How it was run; of the device, what it was: ``auto`` says little."""
    result = finished(run)
    fields = {k: run.spec[k] for k in ("deterministic", "loss") if run.spec.get(k)}
    fields |= {"device": result["device"], "processes": result.get("processes", 1)}
    return json.dumps(fields, sort_keys=True)


def _in_order(label: str, runs: Sequence[Run]) -> tuple[Run, ...]:
    out = tuple(sorted(runs, key=lambda run: run.spec["seed"]))
    for a, b in itertools.pairwise(out):
        if a.spec["seed"] == b.spec["seed"]:
            raise DissectError(f"row {label!r}: {a.path} and {b.path} have the same seed, {a.spec['seed']}")
    return out


def _one_row(label: str, first: Run, run: Run) -> None:
    """Refuse runs of one label that differ in more than their seed; each seed may start from weights of its own."""
    if _science(first.spec, ["init"]) != _science(run.spec, ["init"]):
        differ = [k for k in {**first.spec, **run.spec} if k not in (*_HOW, "seed", "init")]
        name = next(k for k in differ if _said(first.spec, k) != _said(run.spec, k))
        raise DissectError(
            f"row {label!r}: {first.path} and {run.path} differ in more than their seed: "
            f"{name} {first.spec.get(name)} against {run.spec.get(name)}"
        )


def _by_science(runs: Sequence[Run]) -> list[Group]:
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((_science(run.spec), ""), []).append(run)
    for key in list(found):
        seeds = [run.spec["seed"] for run in found[key]]
        if len(set(seeds)) < len(seeds):
            for run in found.pop(key):
                found.setdefault((key[0], _how(run)), []).append(run)
    groups = sorted(found.values(), key=lambda some: runs.index(some[0]))
    names = _labels([some[0] for some in groups])
    return [Group(name, _in_order(name, some)) for name, some in zip(names, groups, strict=True)]


def _labels(firsts: Sequence[Run]) -> list[str]:
    """Each group's model, and the fields in which the groups of that model differ; else the folder's name."""
    out = []
    for run in firsts:
        same = [other for other in firsts if other.spec["model"] == run.spec["model"]]
        specs = [other.spec for other in same]
        words = [run.spec["model"]]
        keys = dict.fromkeys(k for spec in specs for k in spec if k not in ("options", "seed", "schema", *_HOW))
        words += [_words(k, run.spec.get(k)) for k in keys if _differs(k, specs)]
        # A readout's options are compared among groups that have that readout.
        options = [spec.get("options") or {} for spec in specs if spec.get("readout") == run.spec.get("readout")]
        mine = run.spec.get("options") or {}
        words += [_words(k, v) for k, v in mine.items() if _differs(k, options)]
        alike = [other for other in same if _science(other.spec) == _science(run.spec)]
        if len(alike) > 1:  # runs that were parted because a seed occurs twice
            hows = [json.loads(_how(other)) for other in alike]
            words += [_words(k, v) for k, v in json.loads(_how(run)).items() if _differs(k, hows)]
        out.append(", ".join(word for word in words if word))
    return [run.name if out.count(name) > 1 else name for run, name in zip(firsts, out, strict=True)]


def _differs(key: str, specs: Sequence[Row]) -> bool:
    return len({repr(_said(spec, key)) for spec in specs}) > 1


def _words(key: str, value: Any) -> str:
    """A field and its value as words; nothing for what is empty or absent."""
    name = key.replace("_", " ")
    if value is None or value == "" or value == {}:
        return ""
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if isinstance(value, float):
        return f"{name} {value:g}"
    return f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
