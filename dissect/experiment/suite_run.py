"""Running a suite: within a budget, most important first, what is recorded skipped; then one table."""

from __future__ import annotations

import gc
import io
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from dissect.data import load
from dissect.data.sources import GENERATED, SOURCES, find
from dissect.errors import DissectError, InUse
from dissect.experiment import record
from dissect.experiment.checkpoint import Interrupted
from dissect.experiment.concerns import concerning
from dissect.experiment.main import resume_run, start_run
from dissect.experiment.record import RunFolder, copy_record
from dissect.experiment.spec import Spec
from dissect.experiment.suite import Entry, Suite, find_records, load_suite, rows
from dissect.models import build
from dissect.report.compare import compare
from dissect.report.formats import Table, choose_format, render
from dissect.report.layout import tables
from dissect.report.outcomes import outcomes
from dissect.sparsity.parts import choose_parts


def seconds(text: str) -> float:
    """``90``, ``90s``, ``8m`` or ``2h`` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None:
        raise DissectError(f"{text!r} is no time; write 90s, 8m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@contextmanager
def _alarm(budget: float | None) -> Iterator[None]:
    """Ask whatever runs to stop after `budget` seconds, as SIGTERM would: a run in training saves its state.

    Between the runs' own handlers, while data are read or a figure is drawn, SIGTERM raises `Interrupted`.
    """

    def stop(number: int, frame: Any) -> None:
        raise Interrupted(-1, number)

    before = signal.signal(signal.SIGTERM, stop)
    timer = None if budget is None else threading.Timer(budget, os.kill, (os.getpid(), signal.SIGTERM))
    try:
        if timer is not None:
            timer.daemon = True
            timer.start()
        yield
    finally:
        if timer is not None:
            timer.cancel()
        signal.signal(signal.SIGTERM, before)


def _begun(entry: Entry, out: Path) -> Path | None:
    """The folder of an entry's run, finished or not."""
    for spec_file in out.glob(f"{entry.spec.model}-{entry.spec.dataset}-*/{record.SPEC}"):
        folder = spec_file.parent
        if (folder / record.STATE).exists() or (folder / record.RESULT).exists():
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
    seeds: Collection[int] = (),
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
    seeds : collection of int
        Only these are run; all where it is empty.
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
    if keep and records is not None:
        kept = find_records(suite, [records])
        found |= {i: _keep(suite, path, records) for i, path in found.items() if i not in kept}
    end = None if budget is None else time.monotonic() + budget
    wanted = [i for i, entry in enumerate(suite.entries) if not seeds or entry.spec.seed in seeds]
    todo = [i for i in wanted if i not in found]
    _say(f"{suite.title} ({suite.variant}): {len(wanted) - len(todo)} of {len(wanted)} runs are recorded")
    done = 0
    try:
        with _alarm(budget):
            if todo and found:
                _check_data(suite, found, data_dir, quiet)
            for i in todo:
                entry = suite.entries[i]
                _say(f"[{len(wanted) - len(todo) + done + 1}/{len(wanted)}] {entry.label}, seed {entry.spec.seed}")
                try:
                    found[i] = _one(suite, entry, out, records if keep else None, device, data_dir, quiet)
                except InUse:
                    _say("  another process is at work on it")
                except DissectError as error:
                    if error.status > 128:
                        raise Interrupted(-1, error.status - 128) from error
                    failed.append(f"{entry.label}, seed {entry.spec.seed}: {error}")
                    _say(f"failed: {failed[-1]}")
                except Exception as error:  # out of memory, say: the others go on
                    failed.append(f"{entry.label}, seed {entry.spec.seed}: {type(error).__name__}: {error}")
                    _say(f"failed: {failed[-1]}")
                done += 1
                gc.collect()  # a model and its loop refer to each other
    except Interrupted as why:
        if why.signum != signal.SIGTERM or end is None or time.monotonic() < end - 1:
            raise DissectError("stopped; the same command goes on", 128 + why.signum) from None
        _say(f"the budget is spent: {len(todo) - done} runs are left; the same command goes on")
    return found, failed


def _one(
    suite: Suite, entry: Entry, out: Path, records: Path | None, device: str | None, data_dir: str | None, quiet: bool
) -> Path:
    """Run or resume one entry; the folder of its record."""
    begun = _begun(entry, out)
    # A run's own tables would bury the suite's: a line says what came out.
    with redirect_stdout(io.StringIO()):
        if begun is not None:
            result = resume_run(begun, data_dir, quiet)
        else:
            options = {k: v for k, v in entry.options.items() if k != "model"}
            options |= concerning(entry.spec.model, {"device": device, "data_dir": data_dir})
            given = {k: v for k, v in options.items() if v is not None}
            # Another process may begin it meanwhile: then it has the folder, or it stopped and this one goes on.
            result = start_run(entry.spec.model, given, out=out, init=None, force=False, quiet=quiet, resume=True)
    test = result["test"]
    _say(f"  HR@20 {test['hr@20']:.2f}, MRR@20 {test['mrr@20']:.2f}, {result['seconds_per_epoch']:.0f} s an epoch")
    path = out / result["run_id"] if begun is None else begun
    return path if records is None else _keep(suite, path, records)


def _keep(suite: Suite, run: Path, records: Path) -> Path:
    target = records / run.name
    if suite.record == "all" and target.is_dir() and not (target / record.RANKS).exists():
        shutil.rmtree(target)  # results alone, kept by another suite
    try:
        return copy_record(run, target, results_only=suite.record == "results")
    except (DissectError, OSError):
        if not (target / record.RESULT).exists():
            raise
        return target  # another process that runs this suite was first


def _check_data(suite: Suite, found: Mapping[int, Path], data_dir: str | None, quiet: bool) -> None:
    """Refuse records of other data under the same name before hours are spent on runs that no table could hold."""
    spec = suite.entries[0].spec
    data = load(spec.dataset, data_dir=data_dir or spec.data_dir or None, progress=not quiet)
    for path in found.values():
        before = RunFolder(path).read_json(record.ENVIRONMENT).get("data_sha256")
        if before != data.sha256:
            raise DissectError(
                f"{path} was run on other data of the name {spec.dataset!r} (SHA-256 {str(before)[:12]}…, now "
                f"{data.sha256[:12]}…); choose another --records and --out"
            )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def plan(suite: Suite, found: Mapping[int, Path], seeds: Collection[int] = ()) -> str:
    """The runs in the order in which they would be run, as lines; of some seeds alone where they are given."""
    lines = []
    for i, entry in enumerate(suite.entries):
        if seeds and entry.spec.seed not in seeds:
            continue
        state = str(found[i]) if i in found else "not run"
        lines.append(f"{entry.priority}  {entry.label}, seed {entry.spec.seed}: {state}")
    return "\n".join(lines)


def check_entries(suite: Suite, data_dir: str | None = None) -> None:
    """Refuse an entry whose data set or whose parts there are not, which else its run would be the first to say."""
    for name in {entry.spec.dataset for entry in suite.entries}:
        if name not in SOURCES and name not in GENERATED:
            find(name, data_dir)
    kinds = {(e.spec.model, e.spec.encoder, e.spec.readout, e.spec.sparsify): e.spec for e in suite.entries}
    for spec in kinds.values():
        if spec.sparse:
            choose_parts(build(spec.recipe, items=2, dim=spec.dim).parts(), spec.which)


def suite_tables(suite: Suite, found: Mapping[int, Path]) -> list[Table]:
    """The suite's runs compared, with a note for what has not been run; none where nothing has."""
    by_label = rows(suite, found)
    there = {label: paths for label, paths in by_label.items() if paths}
    if not there:
        return []
    if suite.record == "results":
        return [outcomes(f"{suite.title} ({suite.variant})", by_label, suite.metrics)]
    baseline = suite.baseline if suite.baseline in there else None
    first, *others = tables(compare(there, baseline, suite.metrics))
    missing = [label for label, paths in by_label.items() if not paths]
    notes = [f"not run: {', '.join(missing)}"] if missing else []
    if suite.baseline and baseline is None:
        notes.append(f"the baseline {suite.baseline!r} is not run: the first row stands in for it")
    title = f"{suite.title} ({suite.variant}). {first.title}"
    return [replace(first, title=title, notes=[*notes, *first.notes]), *others]


def suite_command(
    file: Path,
    *,
    variant: str,
    budget: str | None,
    out: Path,
    records: Path | None,
    keep: bool,
    seeds: Collection[int],
    dry_run: bool,
    how: str,
    data_dir: str | None,
    device: str | None,
    precision: str | None = None,
    quiet: bool,
) -> int:
    """`dissect suite`: run, print one table and write it; returns how many runs are left or failed."""
    choose_format(how)
    limit = None if budget is None else seconds(budget)
    suite = load_suite(file, variant)
    if precision is not None:
        suite = suite.with_precision(precision)
    records = records or file.resolve().parent.parent / "records"
    unknown = set(seeds) - {entry.spec.seed for entry in suite.entries}
    if unknown:
        has = ", ".join(map(str, sorted({entry.spec.seed for entry in suite.entries})))
        raise DissectError(f"--seed {min(unknown)}: {file} has the seeds {has}")
    if dry_run:
        check_entries(suite, data_dir)
        print(plan(suite, find_records(suite, [records, out]), seeds))
        return 0
    found, failed = run_suite(
        suite,
        out=out,
        records=records,
        budget=limit,
        keep=keep,
        seeds=seeds,
        device=device,
        data_dir=data_dir,
        quiet=quiet,
    )
    made = suite_tables(suite, found)
    if made:
        print("\n\n".join(render(table, how) for table in made))
        for form, ending in (("markdown", "md"), ("latex", "tex")):
            target = out / "suites" / f"{suite.name}-{variant}.{ending}"
            record.write_atomically(target, "\n\n".join(render(table, form) for table in made) + "\n")
            _say(f"table: {target}")
    for line in failed:
        _say(f"failed: {line}")
    wanted = [i for i, entry in enumerate(suite.entries) if not seeds or entry.spec.seed in seeds]
    left = len([i for i in wanted if i not in found])
    _say(f"{left} of {len(wanted)} runs are left" if left else "all runs are recorded")
    return left
