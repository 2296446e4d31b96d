"""`dissect run`: start or resume a run, draw its figure, print its table."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from dissect.errors import DissectError
from dissect.experiment import record
from dissect.experiment.checkpoint import Interrupted
from dissect.experiment.held import Masks, digest, read_masks
from dissect.experiment.record import RunFolder
from dissect.experiment.run import Run
from dissect.experiment.spec import HOW, Spec


def start_run(
    model: str,
    options: dict[str, Any],
    *,
    out: Path,
    init: Path | None,
    force: bool,
    quiet: bool,
    mask: Path | Masks | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Run `model` with the given options, unless a finished run of the same id is in `out`.

    `mask` names a file of masks, or is the masks: weights that are held at zero. With `resume` a run that was begun is
    gone on with; without, it is an error.
    """
    if init is not None:
        source = RunFolder(init).read_json(record.RESULT)
        options = {**options, "init": source["run_id"]}
    masks = None if mask is None else read_masks(mask) if isinstance(mask, Path) else mask
    if masks is not None:
        options = {**options, "mask": digest(masks)}
    run = Run(Spec.create(model, **options), out=out, quiet=quiet, masks=masks)
    with run.world.main_first():
        if run.world.main:
            _clear(run, force, resume)
    return _finish(run, None if init is None else init / record.WEIGHTS)


def train_as(spec: Spec, *, out: Path, init: Path | None, masks: Masks | None, quiet: bool) -> Path:
    """Run a spec as one step of something larger: without a table, and gone on with where it was stopped.

    Returns
    -------
    Path
        The run's folder; a finished run of the same id is used as it is.
    """
    options = {k: v for k, v in vars(spec).items() if k not in ("model", "mask")}
    with redirect_stdout(StringIO()):
        found = start_run(spec.model, options, out=out, init=init, force=False, quiet=quiet, mask=masks, resume=True)
    return out / found["run_id"]


def end_process() -> None:
    """End a process that is not the first of several, at once; nothing in the first.

    Its work is done, and a native thread of the process group may still be on its way out: the interpreter's own exit
    would now and then abort the process for that ("terminate called without an active exception").
    """
    if os.environ.get("RANK", "0") != "0":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _clear(run: Run, force: bool, resume: bool) -> None:
    """Make way for a run, or say what is in its folder already."""
    path = run.folder.path
    finished, begun = run.folder.result is not None, (run.folder / record.STATE).exists()
    if force and (finished or begun):
        with run.folder.taken():  # not by another process
            pass
        shutil.rmtree(path)
    elif finished:
        stored = Spec.from_json((path / record.SPEC).read_text(), str(path / record.SPEC))
        differ = [
            f"--{name} {getattr(stored, name)}" for name in HOW if getattr(stored, name) != getattr(run.spec, name)
        ]
        how = f" with {', '.join(differ)}" if differ else ""
        print(f"{path} holds this run, finished{how}; --force runs it again", file=sys.stderr)
    elif begun and not resume:
        raise DissectError(
            f"{path} holds this run, unfinished: dissect run --resume {path} goes on, --force starts over"
        )


def resume_run(folder: Path, data_dir: str | None, quiet: bool) -> dict[str, Any]:
    """Go on with the run in `folder`; a finished one is printed."""
    return _finish(Run.resume(folder, data_dir, quiet), None)


def _finish(run: Run, init: Path | None) -> dict[str, Any]:
    import signal

    def stop(number: int, frame: Any) -> None:
        raise Interrupted(-1, number)

    before = signal.signal(signal.SIGTERM, stop)
    recorded = run.folder.result is not None
    try:
        result = run.execute(init)
    except (Interrupted, KeyboardInterrupt) as why:
        number = why.signum if isinstance(why, Interrupted) else signal.SIGINT
        at = f" at step {why.step}" if isinstance(why, Interrupted) and why.step >= 0 else ""
        raise DissectError(f"stopped{at}; go on with: dissect run --resume {run.folder.path}", 128 + number) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    run.world.leave()
    if not run.world.main:
        return result
    figure = None
    drawn = sorted((run.folder / record.FIGURES).glob("density.*"), reverse=True)  # as they are written: svg, png
    if recorded and drawn:  # a finished run is printed, and stays as it is
        figure = drawn
    elif result["density"]:
        from dissect.report.plot import write_density_figure

        figure = write_density_figure([run.folder.path], run.folder / record.FIGURES)
    from dissect.report.tables import print_result

    print_result(result, run.folder.path, figure)
    return result
