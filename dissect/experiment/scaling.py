"""`dissect bench --sweep`: what a training step costs against items, batch size, width and session length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dissect.batch import PackedExamples
from dissect.errors import DissectError
from dissect.experiment.concerns import check_trained
from dissect.experiment.machine import device_name, pick_device
from dissect.experiment.record import write_atomically
from dissect.experiment.spec import Spec
from dissect.models import build
from dissect.models.recipes import choose
from dissect.training.bench import alternate, loop_step, matrix_rate, memory_rate, step_work
from dissect.training.memory import keep_large_allocations
from dissect.training.plan import Plan
from dissect.training.train import Loop

#: Quantity -> the values it takes while the others stay at `BASE`.
AXES: dict[str, tuple[int, ...]] = {
    "items": (10_000, 30_000, 100_000, 300_000, 1_000_000),
    "batch": (25, 50, 100, 200, 400, 800),
    "dim": (32, 64, 128, 256, 512),
    "length": (2, 4, 8, 16, 32, 64),
}
BASE = {"items": 43_097, "batch": 100, "dim": 128, "length": 5}
#: The axes measured so far, until all are; a former ``scaling.json`` stays until then.
PARTIAL = "scaling.partial.json"
#: Steps timed at each point, after two to warm up.
ROUNDS, WARM_UP = 7, 2


def sessions_of(length: int, count: int, items: int, device: torch.device) -> PackedExamples:
    """`count` examples of exactly `length` clicks, each an item drawn at random: cost depends on sizes alone."""
    generator = torch.Generator().manual_seed(0)
    clicks = torch.randint(items, (count * (length + 1),), generator=generator)
    start = torch.arange(count) * (length + 1)
    return PackedExamples(clicks, start, start + length, device)


def measure(spec: Spec, items: int, length: int, device: torch.device) -> dict[str, Any]:
    """One point: median milliseconds of a step, its quartiles, and the step's useful work."""
    per_round = 20 if device.type == "cuda" else 1
    steps = (ROUNDS + WARM_UP) * per_round
    examples = sessions_of(length, steps * spec.batch_size, items, device)
    torch.manual_seed(0)
    net = build(spec.recipe, items, spec.dim, spec.sigma, length).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=spec.lr, fused=True, capturable=device.type == "cuda")
    plan = Plan(len(examples), spec.batch_size, steps)
    loop = Loop(net, examples, optimizer, plan, bf16=spec.precision == "bf16")
    ms = alternate({"step": loop_step(loop)}, ROUNDS, WARM_UP, device, per_round)["step"]
    loop.captured = None  # it refers back to the loop, whose memory the next point needs
    flops, moved = step_work(net, examples, torch.arange(spec.batch_size, device=device))
    low, high = np.percentile(ms, (25, 75))
    return {
        "items": items, "batch": spec.batch_size, "dim": spec.dim, "length": length,
        "step_ms": round(float(np.median(ms)), 3), "low_ms": round(float(low), 3), "high_ms": round(float(high), 3),
        "flop": flops, "bytes": moved,
    }  # fmt: skip


def sweep_model(model: str, axes: str, *, out: Path, as_json: bool = False, **options: Any) -> dict[str, Any]:
    """Time a step along some axes, write ``scaling.json`` and the figure, print a table.

    Parameters
    ----------
    model : str
    axes : str
        Names of `AXES`, joined by commas, or ``all``.
    out : path
        Directory for what is written.
    **options
        Fields of `Spec` (encoder, readout, scorer, precision, device); sizes come from the axes.
    """
    check_trained(model)
    names = list(AXES) if axes == "all" else [choose("--sweep axis", a.strip(), AXES) for a in axes.split(",")]
    device = pick_device(options.get("device") or "auto")
    _write(out / PARTIAL, {})  # whether it can be written, before anything is measured
    keep_large_allocations()
    bf16 = options.get("precision") == "bf16"
    before = matrix_rate(device, bf16), memory_rate(device)
    found: dict[str, Any] = {
        "model": model, "device": device_name(device), "threads": torch.get_num_threads(),
        "precision": options.get("precision") or "fp32", "base": BASE,
        "axes": {},
    }  # fmt: skip
    swept = ("encoder", "readout", "scorer", "precision", "device", "sigma", "levels", "heads", "p", "options",
             "item_dropout")  # fmt: skip
    keep = {k: v for k, v in options.items() if k in swept}
    for axis in names:
        found["axes"][axis] = []
        for value in AXES[axis]:
            sizes = {**BASE, axis: value}
            spec = Spec.create(model, sparsify="none", dim=sizes["dim"], batch_size=sizes["batch"], **keep)
            try:
                point = measure(spec, sizes["items"], sizes["length"], device)
            except RuntimeError as error:  # out of memory
                print(f"{axis} {value:,}: left out ({str(error).splitlines()[0]})")
                continue
            found["axes"][axis].append(point)
            print(f"{axis:<7} {value:>10,}  {point['step_ms']:9.2f} ms a step", flush=True)
        _write(out / PARTIAL, found)
    # Before and after, for the best: another program on the machine can only slow them.
    gemm, copy = max(before[0], matrix_rate(device, bf16)), max(before[1], memory_rate(device))
    found |= {"matrix_gflops": round(gemm / 1e9, 1), "memory_gbps": round(copy / 1e9, 1)}
    for axis, points in found["axes"].items():
        for point in points:
            point["limit_ms"] = round(1e3 * (point["flop"] / gemm + point["bytes"] / copy), 3)
        shares = ", ".join(f"{p[axis]:,} {100 * p['limit_ms'] / p['step_ms']:.0f}%" for p in points)
        print(f"share of the limit reached by {axis}: {shares}")
    _write(out / "scaling.json", found)
    (out / PARTIAL).unlink()
    from dissect.report.scaling import write_scaling_figure

    for path in write_scaling_figure(out / "scaling.json", out):
        print(path)
    if as_json:
        print(json.dumps(found))
    return found


def _write(path: Path, found: dict[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(found, indent=1) + "\n")
    except OSError as error:
        raise DissectError(f"can't write to {path.parent}: {error.strerror}; choose another --out DIR") from None
