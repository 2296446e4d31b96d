"""Run a list of `dissect` commands within a time budget and pack their records: what `make gpu` does last.

    python analyses/gpu.py analyses/gpu_runs.txt --budget 8m --out runs/gpu

Each line of the list is a command without ``dissect`` and without ``--out``; ``#`` begins a comment. A run that the
budget cuts short has saved its state: the same call later goes on with it, and skips what is finished. Records (no
weights, no data) go into ``records.tar.gz``.
"""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from dissect.experiment.record import RESULT, STATE, copy_record

#: Seconds that a stopped run gets to save its state.
GRACE = 60


def seconds(text: str) -> float:
    """``90``, ``90s``, ``8m`` or ``2h`` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90s, 8m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def commands(path: Path) -> list[list[str]]:
    """The commands of a list."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [shlex.split(line) for line in lines if line]


def one(command: list[str], folder: Path, left: float) -> bool:
    """Run or resume one command in `folder`; whether it finished within `left` seconds."""
    if list(folder.glob(f"*/{RESULT}")):
        return True
    begun = [path.parent.parent for path in folder.glob(f"*/{STATE}")]
    arguments = ["run", "--resume", str(begun[0])] if begun else [*command, "--out", str(folder)]
    print(f"== dissect {shlex.join(arguments)}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "dissect", *arguments])
    try:
        return process.wait(timeout=left) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
        return False


def main() -> int:
    """Work through the list; the exit status is 1 if anything is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("list", type=Path)
    parser.add_argument("--budget", type=seconds, default=seconds("8m"), help="for all runs together, as 90s, 8m, 2h")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    given = parser.parse_args()
    if not given.list.is_file():
        parser.error(f"{given.list} is no file")
    end, left = time.monotonic() + given.budget, 0
    for number, command in enumerate(commands(given.list), 1):
        folder = given.out / "runs" / f"{number:02}"
        if time.monotonic() >= end or not one(command, folder, end - time.monotonic()):
            left += 1
            continue
        for result in folder.glob(f"*/{RESULT}"):
            target = given.out / "records" / f"{number:02}-{result.parent.name}"
            if not target.exists():
                copy_record(result.parent, target)
    records = given.out / "records"
    if records.is_dir():
        with tarfile.open(given.out / "records.tar.gz", "w:gz") as tar:
            tar.add(records, "records")
        print(f"records: {given.out / 'records.tar.gz'}")
    print(f"{left} of {len(commands(given.list))} commands are not finished" if left else "all finished")
    return 1 if left else 0


if __name__ == "__main__":
    raise SystemExit(main())
