"""The list of runs within a budget: stops cleanly, goes on later, packs the records."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def work(listed: Path, budget: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "analyses" / "gpu.py"), str(listed), "--budget", budget, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def test_a_budget_cuts_runs_short_and_the_next_call_goes_on(toy_data: Path, tmp_path: Path) -> None:
    options = f"--dataset toy --data-dir {toy_data} --dim 4 --device cpu --sparsify none --quiet"
    listed, out = tmp_path / "list.txt", tmp_path / "out"
    listed.write_text(
        f"# a comment\nrun srgnn {options} --epochs 1   # short\n\n"
        f"run meanpool {options} --epochs 300000 --patience 400000\n"
    )
    first = work(listed, "15s", out)
    assert first.returncode == 1, first.stderr
    assert "1 of 2 commands are not finished" in first.stdout
    with tarfile.open(out / "records.tar.gz") as tar:
        names = tar.getnames()
    assert any(name.endswith("result.json") for name in names)
    assert not any(name.endswith((".safetensors", ".pt")) for name in names)
    assert next((out / "runs" / "02").glob("*/state/state.pt"))
    again = work(listed, "4s", out)
    assert "--resume" in again.stdout
    assert again.stdout.count("== dissect") == 1, "what is finished is not run again"


def test_bad_input(tmp_path: Path) -> None:
    done = work(tmp_path / "none.txt", "8m", tmp_path)
    assert done.returncode == 2
    assert "none.txt is no file" in done.stderr
    assert "write 90s, 8m or 2h" in work(tmp_path / "none.txt", "8 minutes", tmp_path).stderr
