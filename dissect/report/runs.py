"""Reading run folders, finished or still going."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dissect.errors import DissectError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes
    ----------
    path : Path
    spec : dict
    result : dict or None
        None while the run is going.
    steps, evaluations : list of dict
        Rows of metrics.jsonl, by kind.
    density : list of dict
        Rows of density.jsonl by the run's own rule; it may have logged others besides.
    """

    path: Path
    spec: Row
    result: Row | None
    steps: list[Row]
    evaluations: list[Row]
    density: list[Row]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name


def _json(path: Path) -> Row:
    try:
        found = json.loads(path.read_text())
    except ValueError:
        raise DissectError(f"{path} is damaged: not JSON") from None
    if not isinstance(found, dict) or not found:
        raise DissectError(f"{path} is damaged: it holds no fields")
    return found


def _lines(path: Path) -> list[Row]:
    if not path.exists():
        return []
    rows = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError
            rows.append(row)
        except ValueError:
            if number == len(lines):  # a run that is going may be in the middle of a line
                break
            raise DissectError(f"{path}, line {number} is damaged: no JSON object") from None
    return rows


def _last_phase(rows: list[Row]) -> list[Row]:
    """The rows of the refit where there was one: it is what the result speaks of."""
    refit = [row for row in rows if row.get("phase") == "refit"]
    return refit or rows


def _of_own_rule(rows: list[Row], spec: Row) -> list[Row]:
    """The densities by the rule that the run prunes by; rows that name no rule are."""
    own = spec.get("rule")
    return [row for row in rows if row.get("rule", own) == own]


def read_run(path: Path | str) -> Run:
    """Read the run folder `path`.

    Raises
    ------
    DissectError
        If it is no run folder, or a file of it is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise DissectError(f"no run folder at {path}")
    if not (path / "spec.json").exists():
        raise DissectError(f"{path} is no run folder: spec.json is missing")
    spec = _json(path / "spec.json")
    metrics = _lines(path / "metrics.jsonl")
    steps = _last_phase([r for r in metrics if r.get("kind") == "step"])
    return Run(
        path,
        spec,
        _json(path / "result.json") if (path / "result.json").exists() else None,
        steps,
        [r for r in metrics if r.get("kind") == "evaluation"],
        _last_phase(_of_own_rule(_lines(path / "density.jsonl"), spec)),
    )


def read_ranks(run: Run) -> dict[str, NDArray[Any]]:
    """The arrays of a run's ranks.npz, each (N,) for N test examples.

    Returns
    -------
    dict
        ``rank`` (from 1, half-integers where ties count half, infinite for a miss), ``session`` (which test session an
        example is a prefix of), ``length``, and ``rank_pruned`` where parts were wrapped.

    Raises
    ------
    DissectError
        If the file is missing or damaged.
    """
    import numpy as np

    path = run.path / "ranks.npz"
    if not path.exists():
        raise DissectError(f"{run.path} has no ranks.npz: without the rank of each test example it can't be compared")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise DissectError(f"{path} is damaged: not an archive of arrays") from None
    for name in ("rank", "session"):
        if name not in arrays:
            raise DissectError(f"{path} is damaged: no array {name!r}")
    for name, array in arrays.items():
        if array.shape != arrays["rank"].shape or (name.startswith("rank") and not (array >= 1).all()):
            raise DissectError(f"{path} is damaged: {name!r} is not one value for each example, ranks from 1")
    return arrays
