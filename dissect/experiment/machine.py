"""The machine a run is on: its device, its memory, and what to write down about it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dissect.errors import DissectError


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where it is there, else the CPU.

    Apple's MPS is there by name alone: it has no float64, and in current versions of torch no sums over segments, which
    most models need.

    Raises
    ------
    DissectError
        If the device asked for is not there.
    """
    there = ["cuda"] * torch.cuda.is_available() + ["cpu"] + ["mps"] * torch.backends.mps.is_available()
    if name == "auto":
        return torch.device(there[0])
    if name.split(":")[0] not in there:
        raise DissectError(f"device {name!r} is not available here; choose from: auto, {', '.join(there)}")
    device = torch.device(name)
    if device.type == "cuda" and device.index is not None:
        if device.index >= torch.cuda.device_count():
            raise DissectError(
                f"device {name!r} is not available here; there are {torch.cuda.device_count()}, from cuda:0"
            )
        torch.cuda.set_device(device)  # streams and generators are those of the current device
    return device


@contextmanager
def deterministic(device: torch.device, wanted: bool) -> Iterator[None]:
    """Inside, torch uses algorithms that give the same bits each time, where that is wanted; on a CPU it does anyway.

    For CUDA it comes too late where cuBLAS has been used already: enter it first. The former setting comes back.
    """
    if not wanted or device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid, and two more passes a step
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def peak_memory_mb() -> float | None:
    """The most memory this process has held resident so far, in MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def peak_device_memory_mb(device: torch.device) -> float | None:
    """The most memory that tensors have held on a CUDA device so far, in MB; None on others."""
    return round(torch.cuda.max_memory_allocated(device) / (1 << 20), 1) if device.type == "cuda" else None


def environment(data_sha256: str, device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Versions, device, commit and the data's hash."""
    try:
        here = Path(__file__).resolve().parent
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        git = None
    names = ("sbr-dissect", "torch", "numpy", "safetensors")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {n: _version(n) for n in names},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "git_commit": git,
        "data_sha256": data_sha256,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # a checkout on the path
        return None


def device_name(device: torch.device) -> str:
    """``cpu``, or the kind of accelerator with its name."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
