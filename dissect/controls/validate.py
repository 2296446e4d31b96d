"""`dissect validate`: the worlds' models trained side by side, and the verdicts as a table."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from dissect import __version__
from dissect.controls.worlds import EXPECTED, LOSS, MARGIN, Setting, judge, run_task, tasks
from dissect.data.worlds import TEST, make
from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.machine import environment
from dissect.sparsity.noise import check_noise

SCHEMA = 1


def validate_worlds(
    worlds: Collection[str] = (),
    *,
    out: Path | str = "runs",
    workers: int | None = None,
    force: bool = False,
    quiet: bool = False,
    as_json: bool = False,
    **setting: Any,
) -> dict[str, Any]:
    """Run the instrument on worlds with known answers and print what it found beside what is true.

    Tasks that are done stay done, as long as the version and the worlds' data are the same: the command goes on where
    it was stopped, and says how much was done before.

    Parameters
    ----------
    worlds : collection of str
        Some of `EXPECTED`; all where it is empty.
    out : path
        The folder ``validate-NOISE-xxxxxxxx`` goes into this directory; the digest covers setting, worlds and version.
    workers : int, optional
        Processes, of one thread each; by default as many as there are cores.
    force : bool
        Start over.
    quiet : bool
        No progress.
    as_json : bool
        End with the result as JSON on one line of stdout.
    **setting
        Fields of `Setting`; None means not given.

    Returns
    -------
    dict
        The content of result.json: ``setting``, ``rows`` (see `judge`), ``right``.

    Raises
    ------
    DissectError
        For an unknown world or setting, and on an interrupt.
    """
    chosen = _setting({k: v for k, v in setting.items() if v is not None})
    for world in worlds:
        if world not in EXPECTED:
            raise DissectError(f"unknown world {world!r}; choose from {', '.join(EXPECTED)}")
    names = tuple(world for world in EXPECTED if world in worlds or not worlds)
    data = {name: make(name, chosen.seed, chosen.sessions).sha256 for name in names}
    text = json.dumps([SCHEMA, __version__, data, asdict(chosen)], sort_keys=True)
    folder = Path(out) / f"validate-{chosen.noise}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / record.TASKS
    if force:
        path.unlink(missing_ok=True)
    done = _done(path)
    left = [task for task in tasks(names) if task not in done]
    if done:
        total = len(tasks(names))
        sys.stderr.write(f"{total - len(left)} of {total} trainings lie in {folder} already; --force starts over\n")
    if left:
        sha = hashlib.sha256(json.dumps(data).encode()).hexdigest()
        env = environment(sha, torch.device("cpu"))
        record.write_atomically(folder / record.ENVIRONMENT, json.dumps(env, indent=1) + "\n")
    _run(left, chosen, path, done, workers or os.cpu_count() or 1, quiet)
    rows = judge([done[task] for task in tasks(names)])
    result = {
        "schema": SCHEMA, "control": "worlds", "setting": asdict(chosen), "margin": MARGIN, "loss": LOSS, "rows": rows,
        "pruned": {world: done[world, "sparse"]["pruned"] for world in names},
        "right": all(row["right"] for row in rows),
    }  # fmt: skip
    record.write_atomically(folder / record.RESULT, json.dumps(result, indent=1) + "\n")
    _print(result, folder)
    if as_json:
        print(json.dumps(result))
    return result


def _setting(given: dict[str, Any]) -> Setting:
    chosen = replace(Setting(), **given)
    check_noise(chosen.noise)
    for name, least in (
        ("steps", 1),
        ("sparse_steps", 1),
        ("dim", 1),
        ("shadows", 1),
        ("sessions", 100),
        ("seed", 0),
        ("kl_scale", 0),
    ):
        if getattr(chosen, name) < least:
            raise DissectError(f"--{name.replace('_', '-')} is {getattr(chosen, name)}; it must be >= {least}")
    return chosen


def _done(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Finished tasks; a line that a crash cut short is left out."""
    done = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        done[row["world"], row["what"]] = row
    return done


def _alone() -> None:
    torch.set_num_threads(1)


def _run(
    left: list[tuple[str, str]],
    setting: Setting,
    path: Path,
    done: dict[tuple[str, str], dict[str, Any]],
    workers: int,
    quiet: bool,
) -> None:
    """Run tasks in processes of their own, and write each as it ends."""
    if not left:
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    pool = ProcessPoolExecutor(min(workers, len(left)), multiprocessing.get_context("spawn"), _alone)
    try:
        with Bar(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
            shown = bar.add_task("training the worlds' models", total=len(left))
            waiting = {pool.submit(run_task, world, what, setting) for world, what in left}
            torn = path.exists() and path.stat().st_size > 0 and not path.read_text().endswith("\n")
            with path.open("a") as file:
                if torn:  # by a crash in the middle of a line
                    file.write("\n")
                for _ in left:
                    ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    future = ready.pop()
                    waiting.discard(future)
                    row = future.result()
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    done[row["world"], row["what"]] = row
                    bar.advance(shown)
                    if not quiet and not console.is_terminal:
                        count = len(left) - len(waiting)
                        sys.stderr.write(f"{count}/{len(left)} {row['world']}, {row['what']}: HR@1 {row['hr@1']:.1f}\n")
    except KeyboardInterrupt:
        raise DissectError(f"stopped; what is done lies in {path}, and the same command goes on", 130) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _print(result: dict[str, Any], folder: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    setting = result["setting"]
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 190)
    table = Table(
        title=f"SR-GNN, d {setting['dim']}, {setting['noise']} noise, KL x{setting['kl_scale']:g}, seed "
        f"{setting['seed']}, {setting['steps']:,} steps (wrapped {setting['sparse_steps']:,}); HR@1 in percent of "
        f"{round(setting['sessions'] * TEST):,} test examples",
        caption=f"more, slightly more: the interval of density minus shadows' keep-rate lies above {MARGIN:g}, above "
        f"0; needed: deleting the part and training again loses half of HR@1; helps: more than {LOSS:g} points; idle: "
        "less",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
    table.add_column("", no_wrap=True)
    for name in ("kept / total", "density", "shadows", "excess", "intact", "zeroed", "deleted", "lost"):
        table.add_column(name, justify="right")
    for name in ("expected", "found", ""):
        table.add_column(name)
    world = None
    for row in result["rows"]:
        d = row["density"]
        if row["world"] != world:
            table.add_section()
            table.add_row(f"[bold]{row['world']}[/bold]")
        world = row["world"]
        table.add_row(
            f"  {row['part']}",
            f"{d['kept']:,} / {d['total']:,}",
            f"{d['kept'] / d['total']:.3f}",
            f"{d['null']:.3f}",
            f"{d['excess']:+.3f} ({d['low']:.3f}, {d['high']:.3f})",
            *(f"{row[name]:.1f}" for name in ("intact", "zeroed", "deleted")),
            f"{row['loss']:.1f} ({row['low']:.1f}, {row['high']:.1f})",
            "; ".join(" or ".join(words) for words in row["expected"].values() if words),
            f"{row['verdict']}; {row['keeps']}{'' if d['settled'] else ' (not settled)'}",
            "" if row["right"] else "not learnt" if row["verdict"] == "not learnt" else "WRONG",
        )
    console.print(table)
    wrong = sum(not row["right"] for row in result["rows"])
    console.print("every answer is as expected" if not wrong else f"{wrong} answers are not as expected")
    console.print(f"record: {folder}", soft_wrap=True)
