"""The run folder: every file name, and writes that are whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dissect.errors import DissectError, InUse

SPEC = "spec.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
DENSITY = "density.jsonl"
RANKS = "ranks.npz"
WEIGHTS = "model.safetensors"
PRUNED_WEIGHTS = "pruned.safetensors"
MASKS = "masks.safetensors"
INTERVENTIONS = "interventions.json"
TASKS = "tasks.jsonl"
STATE = "state/state.pt"
LOCK = "state/lock"
RESULT = "result.json"
THRESHOLDS = "thresholds.json"
ATTENTION = "attention.json"
PRUNING = "pruning.json"
FIGURES = "figures"
#: What a committed record leaves out, as patterns.
LARGE = ("*.safetensors", "state")
#: What a committed record holds where only results are wanted, as of a grid of hundreds of runs.
SMALL = (SPEC, ENVIRONMENT, RESULT, PRUNING, THRESHOLDS)

#: What else a run is read from.
OWN = (WEIGHTS, STATE, LOCK, METRICS, DENSITY, RANKS, ATTENTION, INTERVENTIONS, MASKS)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to such that a reader, or a crash, sees the old content or the new and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


class RunFolder:
    """The folder of one run.

    Parameters
    ----------
    path : Path
    writes : bool
        Whether anything is written: of several processes that train one model, one keeps the record.
    """

    def __init__(self, path: Path | str, writes: bool = True) -> None:
        self.path, self.writes = Path(path), writes
        self._logs: dict[str, Any] = {}

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Make the folder, keep other processes out of it, and clear what a killed one was in the middle of writing.

        The system lets go of it when the process dies, however it dies.

        Raises
        ------
        InUse
            If another process has it.
        DissectError
            If it can't be written.
        """
        if not self.writes:
            yield
            return
        lock = FileLock(self / LOCK, timeout=0)
        try:
            (self / LOCK).parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            probe = self.path / ".probe.tmp"
            probe.touch()
            for stale in (*self.path.glob("*.tmp"), *self.path.glob("state/*.tmp"), probe):
                stale.unlink(missing_ok=True)
        except Timeout:
            raise InUse(f"another process is at work on {self.path}; let it end, or stop it first") from None
        except OSError as error:
            lock.release()
            raise DissectError(f"can't write to {self.path}: {error.strerror}; choose another --out DIR") from None
        try:
            yield
        finally:
            self.close()
            lock.release()

    @property
    def result(self) -> dict[str, Any] | None:
        """The finished run's result, or None."""
        return self.read_json(RESULT) if (self / RESULT).exists() else None

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the run.

        Raises
        ------
        DissectError
            If it is not there, or holds no JSON object.
        """
        path = self / name
        try:
            found = json.loads(path.read_text())
        except OSError:
            raise DissectError(f"{self.path} is no run folder: {name} is missing") from None
        except ValueError:
            raise DissectError(f"{path} is damaged: not JSON") from None
        if not isinstance(found, dict) or not found:
            raise DissectError(f"{path} is damaged: it holds no fields")
        return found

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write a JSON file atomically."""
        if not self.writes:
            return
        write_atomically(self / name, json.dumps(data, indent=1) + "\n")

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to a jsonl file; they can be read at once."""
        if not self.writes:
            return
        if name not in self._logs:
            self._logs[name] = open(self / name, "ab")  # noqa: SIM115 - open for the run's length
        log = self._logs[name]
        log.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        log.flush()

    def log_sizes(self) -> dict[str, int]:
        """Bytes written so far to each jsonl file."""
        return {n: (self / n).stat().st_size if (self / n).exists() else 0 for n in (METRICS, DENSITY)}

    def cut_logs(self, sizes: Mapping[str, int]) -> None:
        """Cut the jsonl files back to `sizes`: what was logged after the saved state is logged again."""
        if not self.writes:
            return
        self.close()
        for name in (METRICS, DENSITY):
            with open(self / name, "ab") as file:
                file.truncate(sizes.get(name, 0))

    def close(self) -> None:
        """Close the jsonl files."""
        for log in self._logs.values():
            log.close()
        self._logs.clear()


def copy_record(run: Path | str, destination: Path | str, *, results_only: bool = False) -> Path:
    """Copy a finished run without weights and state: what is small enough to commit.

    Parameters
    ----------
    run, destination : path
        `destination` must not exist.
    results_only : bool
        Whether to leave out what was logged on the way and the ranks too: without these a run can't be compared test
        example by test example.
    """
    target = Path(destination)
    if target.exists():
        raise DissectError(f"{target} exists already; a record is never overwritten")
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        if results_only:
            partial.mkdir(parents=True)
            for name in SMALL:
                if (Path(run) / name).exists():
                    shutil.copy2(Path(run) / name, partial / name)
        else:
            shutil.copytree(run, partial, ignore=shutil.ignore_patterns(*LARGE))
        os.replace(partial, target)  # whole or not there
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
