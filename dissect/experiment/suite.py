"""A list of runs in one file: which there are, which are recorded, and the rest run within a budget."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.main import resume_run, start_run
from dissect.experiment.record import RunFolder, copy_record
from dissect.experiment.spec import Spec
from dissect.models.recipes import READOUTS, choose, options_of

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

VARIANTS = ("small", "full")
#: Keys of a suite file and of one of its runs, beside the fields of a spec and the options of readouts.
_TOP = ("title", "about", "baseline", "metrics", "defaults", *VARIANTS, "runs")
_OWN = ("label", "priority", "model", "setting")
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
    """

    label: str
    axes: dict[str, Any]
    spec: Spec
    priority: int
    options: dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """What a suite file holds, in one variant; `entries` in the order in which they run."""

    name: str
    title: str
    about: str
    variant: str
    baseline: str
    metrics: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def labels(self) -> list[str]:
        """Labels, in the file's order."""
        return list(dict.fromkeys(entry.label for entry in sorted(self.entries, key=lambda e: e.axes["order"])))


def load_suite(path: Path | str, variant: str = "small") -> Suite:
    """Read a suite file.

    Parameters
    ----------
    path : path
        TOML: ``title``; ``[defaults]``, ``[small]`` and ``[full]`` with fields of a spec; ``[[runs]]`` with the same,
        ``model``, and where wanted ``label`` and ``priority``. What a run sets outranks the variant, which outranks the
        defaults. A list stands for one run each: ``seed = [0, 1, 2]``. A label may name fields: ``"L = {levels}"``.
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
    entries: list[Entry] = []
    for number, given in enumerate(data["runs"], 1):
        merged = {**data.get("defaults", {}), **data.get(variant, {}), **given}
        try:
            entries += _entries(merged, number)
        except DissectError as error:
            raise DissectError(f"{path}, run {number}: {error}") from None
    # Seed by seed: a budget that ends early leaves a whole table of one seed, not three seeds of one row.
    entries.sort(key=lambda e: (e.priority, e.spec.seed, e.axes["order"]))
    baseline = data.get("baseline", "")
    if baseline:
        choose(f"baseline of {path}", baseline, {entry.label for entry in entries})
    return Suite(
        path.stem, data.get("title", path.stem), data.get("about", ""), variant, baseline,
        tuple(data.get("metrics", ("hr@20", "mrr@20"))), tuple(entries),
    )  # fmt: skip


def _entries(merged: Mapping[str, Any], number: int) -> Iterator[Entry]:
    if "model" not in merged:
        raise DissectError("it has no model")
    known = {f.name for f in fields(Spec)} - {"options", "device", "data_dir"}
    known |= {name for readout in READOUTS for name in options_of(readout)}
    for key in merged:
        choose("key", key, sorted(known | set(_OWN)))
    lists = {k: v for k, v in merged.items() if isinstance(v, list) and k not in _PAIRS}
    fixed = {k: v for k, v in merged.items() if k not in lists}
    for values in itertools.product(*lists.values()):
        axes = dict(zip(lists, values, strict=True))
        options = {**fixed, **axes}
        label, priority = str(options.pop("label", "")), int(options.pop("priority", 1))
        if isinstance(options.get("warmup"), list):
            options["warmup"] = tuple(options["warmup"])
        spec = Spec.create(**options)
        shown = {**vars(spec), **spec.options}
        if not label:
            others = [f"{k} {v}" for k, v in axes.items() if k not in ("seed", "model")]
            label = ", ".join([spec.model, *others])
        try:
            label = label.format_map(shown)
        except (KeyError, ValueError, IndexError):
            raise DissectError(f"label {label!r} names what is no field of a run") from None
        yield Entry(label, {**axes, "order": (number, *map(str, values))}, spec, priority, options)


def find_records(suite: Suite, places: Iterable[Path | str]) -> dict[int, Path]:
    """Finished runs of a suite's entries, by the entry's number, whatever their folders are called.

    A run is an entry's if every scientific field of its spec is; the first place that has it counts.
    """
    there: dict[str, Path] = {}
    for place in places:
        for result in sorted(Path(place).glob(f"**/{record.RESULT}")):
            folder = RunFolder(result.parent)
            try:
                spec = Spec.from_json((folder / record.SPEC).read_text(), str(folder / record.SPEC))
            except (OSError, DissectError):
                continue  # another version's, or none
            there.setdefault(spec.science, folder.path)
    found = {i: there.get(entry.spec.science) for i, entry in enumerate(suite.entries)}
    return {i: path for i, path in found.items() if path is not None}


def seconds(text: str) -> float:
    """``90``, ``90s``, ``8m`` or ``2h`` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None:
        raise DissectError(f"{text!r} is no time; write 90s, 8m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@contextmanager
def _alarm(left: float | None) -> Iterator[None]:
    """Ask the run to stop after `left` seconds, as SIGTERM would: it saves its state."""
    if left is None:
        yield
        return
    timer = threading.Timer(left, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _unfinished(entry: Entry, out: Path) -> Path | None:
    for spec_file in out.glob(f"{entry.spec.model}-{entry.spec.dataset}-*/{record.SPEC}"):
        folder = spec_file.parent
        if (folder / record.STATE).exists() and not (folder / record.RESULT).exists():
            try:
                spec = Spec.from_json(spec_file.read_text(), str(spec_file))
            except DissectError:
                continue
            if spec.science == entry.spec.science:
                return folder
    return None


def run_suite(
    suite: Suite,
    *,
    out: Path,
    records: Path | None = None,
    budget: float | None = None,
    keep: bool = False,
    device: str | None = None,
    data_dir: str | None = None,
    quiet: bool = False,
) -> tuple[dict[int, Path], list[str]]:
    """Run what is not recorded yet, most important first.

    Parameters
    ----------
    suite : Suite
    out : path
        Where run folders go.
    records : path, optional
        Where finished records lie too.
    budget : float, optional
        Seconds for all; the run that it cuts short has saved its state, and the next call goes on with it.
    keep : bool
        Whether to copy each finished run, without its weights, into `records`.
    device, data_dir, quiet
        As for `dissect run`.

    Returns
    -------
    found : dict of int to path
        Finished runs by the entry's number.
    failed : list of str
        A line for each run that failed; the others went on.
    """
    places = [place for place in (records, out) if place is not None]
    found, failed = find_records(suite, places), []
    end = None if budget is None else time.monotonic() + budget
    todo = [i for i in range(len(suite.entries)) if i not in found]
    _say(f"{suite.title} ({suite.variant}): {len(found)} of {len(suite.entries)} runs are recorded")
    for done, i in enumerate(todo):
        entry = suite.entries[i]
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            break
        _say(f"[{len(found) + 1}/{len(suite.entries)}] {entry.label}, seed {entry.spec.seed}")
        begun = _unfinished(entry, out)
        with _alarm(left):
            try:
                if begun is not None:
                    resume_run(begun, data_dir, quiet)
                else:
                    options = {k: v for k, v in entry.options.items() if k != "model"}
                    options |= {"device": device, "data_dir": data_dir}
                    given = {k: v for k, v in options.items() if v is not None}
                    start_run(entry.spec.model, given, out=out, init=None, force=False, quiet=quiet)
            except DissectError as error:
                if end is not None and error.status == 128 + signal.SIGTERM and time.monotonic() >= end - 1:
                    _say(f"the budget is spent: {len(todo) - done} runs are left; the same command goes on")
                    break
                if error.status > 128:
                    raise
                failed.append(f"{entry.label}, seed {entry.spec.seed}: {error}")
                _say(f"failed: {failed[-1]}")
                continue
        path = find_records(Suite(*(*_head(suite), (entry,))), [out])[0]
        if keep and records is not None:
            path = copy_record(path, records / path.name)
        found[i] = path
    return found, failed


def _head(suite: Suite) -> tuple[Any, ...]:
    return tuple(getattr(suite, f.name) for f in fields(suite))[:-1]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def rows(suite: Suite, found: Mapping[int, Path]) -> dict[str, list[Path]]:
    """Label -> its finished runs, one a seed, in the file's order; empty where none has been run."""
    out: dict[str, list[Path]] = {label: [] for label in suite.labels}
    for i, entry in sorted(enumerate(suite.entries), key=lambda pair: pair[1].spec.seed):
        if i in found:
            out[entry.label].append(found[i])
    return out


def plan(suite: Suite, found: Mapping[int, Path]) -> str:
    """What would be run, as lines."""
    lines = []
    for i, entry in enumerate(suite.entries):
        state = str(found[i]) if i in found else "not run"
        lines.append(f"{entry.priority}  {entry.label}, seed {entry.spec.seed}: {state}")
    return "\n".join(lines)


def as_json(suite: Suite, found: Mapping[int, Path]) -> str:
    """Each entry with its axes and its record's result, for figures."""
    out = []
    for i, entry in enumerate(suite.entries):
        axes = {k: v for k, v in entry.axes.items() if k != "order"}
        result = json.loads((found[i] / record.RESULT).read_text()) if i in found else None
        out.append({"label": entry.label, "axes": axes, "seed": entry.spec.seed, "result": result})
    return json.dumps({"suite": suite.name, "variant": suite.variant, "runs": out}, indent=1)
