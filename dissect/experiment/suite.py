"""A list of runs in one file: which there are, and which are recorded."""

from __future__ import annotations

import itertools
import string
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.concerns import concerning
from dissect.experiment.record import RunFolder
from dissect.experiment.spec import Spec
from dissect.models.counting import COUNTING, counting_options
from dissect.models.recipes import ENCODERS, READOUTS, choose, encoder_options_of, options_of
from dissect.report.runs import Run, read_run
from dissect.report.statistics import parse_metric
from dissect.training.precision import PRECISIONS

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

VARIANTS = ("small", "full")
#: Keys of a suite file and of one of its runs, beside the fields of a spec and the options of readouts.
_TOP = ("title", "about", "baseline", "metrics", "record", "defaults", *VARIANTS, "runs")
_OWN = ("label", "priority", "model", "setting")
#: What of a run is kept: all but its weights, or results alone (see `dissect.experiment.record.SMALL`).
RECORDS = ("all", "results")
#: A field whose value is a list of numbers, not a list of choices.
_PAIRS = ("warmup",)


@dataclass(frozen=True)
class Entry:
    """One run of a suite.

    Attributes
    ----------
    label : str
        What the run's row is called; runs that differ in their seed alone share it.
    axes : dict
        The values that were chosen from lists, such as ``{"levels": 3}``.
    spec : Spec
    priority : int
        Lower first.
    options : dict
        What to start it with.
    order : int
        Its place in the file.
    """

    label: str
    axes: dict[str, Any]
    spec: Spec
    priority: int
    options: dict[str, Any]
    order: int = 0


@dataclass(frozen=True)
class Suite:
    """What a suite file holds, in one variant; `entries` in the order in which they run, `record` one of `RECORDS`."""

    name: str
    title: str
    about: str
    variant: str
    baseline: str
    metrics: tuple[str, ...]
    entries: tuple[Entry, ...]
    record: str = "all"

    @property
    def labels(self) -> list[str]:
        """Labels, in the file's order."""
        return list(dict.fromkeys(entry.label for entry in sorted(self.entries, key=lambda e: e.order)))

    def with_precision(self, precision: str) -> Suite:
        """The same runs with matrix products of this precision."""
        changed = {"precision": precision}
        return replace(
            self,
            entries=tuple(
                replace(
                    entry,
                    spec=entry.spec.replace(**changed),
                    options={**entry.options, **concerning(entry.spec.model, changed)},
                )
                for entry in self.entries
            ),
        )


def load_suite(path: Path | str, variant: str = "small") -> Suite:
    """Read a suite file.

    Parameters
    ----------
    path : path
        TOML: ``title``; ``[defaults]``, ``[small]`` and ``[full]`` with fields of a spec; ``[[runs]]`` with the same,
        ``model``, and where wanted ``label`` and ``priority``. What a run sets outranks the variant, which outranks the
        defaults; what these two say of training does not concern a model that counts. A list stands for one run each:
        ``seed = [0, 1, 2]``. A label may name fields: ``"L = {levels}"``. ``record = "results"`` keeps results alone.
    variant : {"small", "full"}

    Raises
    ------
    DissectError
        For a file that can't be read, an unknown key, and what a spec refuses; the message names the run.
    """
    path = Path(path)
    choose("variant", variant, VARIANTS)
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise DissectError(f"can't read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DissectError(f"{path} is no suite: {error}") from None
    for key in data:
        choose(f"key of {path}", key, _TOP)
    if not data.get("runs"):
        raise DissectError(f"{path} has no [[runs]]")
    for key, kind in (("runs", list), ("metrics", list), *((name, dict) for name in ("defaults", *VARIANTS))):
        if not isinstance(data.get(key, kind()), kind):
            raise DissectError(f"{path}: {key} is {data[key]!r}; it takes a {'list' if kind is list else 'table'}")
    there = [name for name in VARIANTS if name in data]
    if there and variant not in data:
        raise DissectError(f"{path} has no [{variant}]; choose --variant {there[0]}, or add one")
    entries: list[Entry] = []
    for name in ("title", "about", "baseline", "record"):
        if not isinstance(data.get(name, ""), str):
            raise DissectError(f"{path}: {name} is {data[name]!r}; it takes text")
    for number, given in enumerate(data["runs"], 1):
        if not isinstance(given, dict):
            raise DissectError(f"{path}, run {number} is {given!r}; it takes a table, [[runs]]")
        shared = {**data.get("defaults", {}), **data.get(variant, {})}
        try:
            entries += _entries(shared, given, len(entries))
        except (DissectError, TypeError, ValueError) as error:
            raise DissectError(f"{path}, run {number}: {error}") from None
    _one_table(path, entries)
    seen: dict[str, Entry] = {}
    of_label: dict[str, str] = {}
    for entry in entries:
        if of_label.setdefault(entry.label, science := entry.spec.replace(seed=0).science) != science:
            raise DissectError(f"{path}: runs that differ in more than their seed are called {entry.label!r}")
        if (first := seen.setdefault(entry.spec.science, entry)) is not entry:
            raise DissectError(
                f"{path}: {first.label!r} and {entry.label!r} are the same run (seed {entry.spec.seed}); leave one out"
            )
    # Seed by seed: a budget that ends early leaves a whole table of one seed, not three seeds of one row.
    entries.sort(key=lambda e: (e.priority, e.spec.seed, e.order))
    for metric in data.get("metrics", []):
        parse_metric(str(metric))
    baseline = data.get("baseline", "")
    if baseline:
        choose(f"baseline of {path}", baseline, {entry.label for entry in entries})
    kept = data.get("record", "all")
    choose(f"record of {path}", kept, RECORDS)
    if baseline and kept == "results":
        raise DissectError(f'{path}: differences to a baseline need more than record = "results" keeps')
    return Suite(
        path.stem, data.get("title", path.stem), data.get("about", ""), variant, baseline,
        tuple(data.get("metrics", ["hr@20", "mrr@20"])), tuple(entries), kept,
    )  # fmt: skip


def _one_table(path: Path, entries: Iterable[Entry]) -> None:
    """Refuse what no table could hold, before hours are spent on it."""
    for name in ("dataset", "protocol", "refit", "ties", "max_train", "max_valid"):
        values = {str(getattr(entry.spec, name)) for entry in entries}
        if len(values) > 1:
            raise DissectError(
                f"{path}: runs differ in {name} ({', '.join(sorted(values))}); one table can't hold them"
            )


def _entries(shared: Mapping[str, Any], given: Mapping[str, Any], first: int) -> Iterator[Entry]:
    merged = {**shared, **given}
    if "model" not in merged:
        raise DissectError("it has no model")
    # A run's weights can't be named before it is run: no init and no mask.
    known = {f.name for f in fields(Spec)} - {"options", "device", "data_dir", "init", "mask"}
    known |= {name for readout in READOUTS for name in options_of(readout)}
    known |= {name for encoder in ENCODERS for name in encoder_options_of(encoder)}
    known |= {name for model in COUNTING for name in counting_options(model)}
    for key in merged:
        choose("key", key, sorted(known | set(_OWN)))
    lists = {k: v for k, v in merged.items() if isinstance(v, list) and k not in _PAIRS}
    fixed = {k: v for k, v in merged.items() if k not in lists}
    for key, value in lists.items():
        if not value:
            raise DissectError(f"{key} is an empty list")
    once: set[str] = set()
    for order, values in enumerate(itertools.product(*lists.values()), first):
        axes = dict(zip(lists, values, strict=True))
        options = {**fixed, **axes}
        if not isinstance(options["model"], str):
            raise DissectError(f"model is {options['model']!r}; it takes a name")
        idle = set(shared) - set(given) - {"label", "priority", *concerning(options["model"], options)}
        axes, options = ({k: v for k, v in some.items() if k not in idle} for some in (axes, options))
        label, priority = str(options.pop("label", "")), options.pop("priority", 1)
        if type(priority) is not int:
            raise DissectError(f"priority is {priority!r}; it takes a whole number")
        if isinstance(options.get("warmup"), list):
            options["warmup"] = tuple(options["warmup"])
        spec = Spec.create(**options)
        shown = {**vars(spec), **spec.options}
        if not label:
            others = [f"{k} {v}" for k, v in axes.items() if k not in ("seed", "model")]
            label = ", ".join([spec.model, *others])
        try:
            label = _Label().vformat(label, (), shown)
        except (KeyError, ValueError, IndexError):
            raise DissectError(f"label {label!r} names what is no field of a run") from None
        if idle & set(lists):  # a list that this model has no use for: one run, not one for each value
            if spec.science in once:
                continue
            once.add(spec.science)
        yield Entry(label, axes, spec, priority, options, order)


class _Label(string.Formatter):
    """Names in braces are fields of a run as they are given, those with a dot too."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        return kwargs[field_name], field_name


def find_records(suite: Suite, places: Iterable[Path | str], *, any_precision: bool = False) -> dict[int, Path]:
    """Finished runs of a suite's entries, by the entry's number, whatever their folders are called.

    A run is an entry's if every scientific field of its spec is; the first place that has it counts. Records of results
    alone are not enough for a suite that wants all.

    Parameters
    ----------
    suite : Suite
    places : paths
        Searched with all folders in them.
    any_precision : bool
        Whether a label of which no run is there takes those of another precision of the matrix products.
    """
    there: dict[str, Path] = {}
    for place in places:
        for result in sorted(Path(place).glob(f"**/{record.RESULT}")):
            if result.parent.suffix == ".tmp":
                continue  # another process is copying it
            folder = RunFolder(result.parent)
            try:
                spec = Spec.from_json((folder / record.SPEC).read_text(), str(folder / record.SPEC))
            except (OSError, DissectError):
                continue  # another version's, or none
            if suite.record == "all" and not (folder / record.RANKS).exists():
                continue  # another suite's, which keeps results alone
            there.setdefault(spec.science, folder.path)
    found = {i: there[entry.spec.science] for i, entry in enumerate(suite.entries) if entry.spec.science in there}
    if not any_precision:
        return found
    for label in suite.labels:
        numbers = [i for i, entry in enumerate(suite.entries) if entry.label == label]
        for precision in PRECISIONS:
            if not any(i in found for i in numbers):  # one row is of one precision
                sciences = {i: suite.entries[i].spec.replace(precision=precision).science for i in numbers}
                found |= {i: there[science] for i, science in sciences.items() if science in there}
    return found


def rows(suite: Suite, found: Mapping[int, Path]) -> dict[str, list[Path]]:
    """Label -> its finished runs, one a seed, in the file's order; empty where none has been run."""
    out: dict[str, list[Path]] = {label: [] for label in suite.labels}
    for i, entry in sorted(enumerate(suite.entries), key=lambda pair: pair[1].spec.seed):
        if i in found:
            out[entry.label].append(found[i])
    return out


def read_rows(file: Path | str, variant: str, places: Iterable[Path | str]) -> tuple[Suite, dict[str, list[Run]]]:
    """A suite file and its finished runs in `places`, read: label -> runs, none where it has not been run.

    Of a label that was not run in its precision, the runs in the other one are taken.
    """
    suite = load_suite(file, variant)
    found = rows(suite, find_records(suite, places, any_precision=True))
    return suite, {label: [read_run(path) for path in paths] for label, paths in found.items()}
