"""Time Atten-Mixer's readout, forward and backward, against session length n, levels L and heads H (Section 4.3).

    python analyses/readout_cost.py --out analyses/records/readout-cost

The paper states O(H L^2 n d) for it and O(H n^(n/2 + 2) d) for -pr, the pool without its two biases, in which every
subset of the items is a query. Sessions are random states; the item table is not part of it. ``cost.json`` holds the
median and quartiles of each point, in milliseconds for a batch.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dissect.experiment.machine import device_name, pick_device
from dissect.experiment.record import write_atomically
from mixer import AttenMixerReadout

BASE = {"n": 5, "levels": 7, "heads": 8}
AXES = {"n": (1, 2, 4, 8, 16, 32, 64), "levels": (1, 2, 4, 7, 10, 16), "heads": (1, 2, 4, 8, 16, 32)}
SUBSETS = tuple(range(1, 11))
ROUNDS, WARM_UP = 9, 2


def measure(
    dim: int, batch: int, n: int, levels: int, heads: int, intents: str, device: torch.device
) -> dict[str, Any]:
    """Milliseconds of forward and backward of one batch of sessions of n items."""
    torch.manual_seed(0)
    net = AttenMixerReadout(dim, levels, heads, intents=intents).to(device)
    hidden = torch.randn(batch * n, dim, device=device, requires_grad=True)
    lengths = torch.full((batch,), n, device=device)
    times = []
    for _ in range(ROUNDS + WARM_UP):
        begun = time.perf_counter()
        net(hidden, lengths).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - begun))
    low, middle, high = np.percentile(times[WARM_UP:], (25, 50, 75))
    return {
        "n": n, "levels": levels, "heads": heads, "intents": intents,
        "ms": round(middle, 3), "low_ms": round(low, 3), "high_ms": round(high, 3),
    }  # fmt: skip


def main() -> None:
    """Measure every point and write ``cost.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("runs/readout-cost"))
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = pick_device(given.device)
    points: dict[str, list[dict[str, Any]]] = {}
    for axis, values in AXES.items():
        points[axis] = []
        for value in values:
            sizes = {**BASE, axis: value}
            points[axis].append(measure(given.dim, given.batch_size, intents="sets", device=device, **sizes))
            print(f"{axis} {value}: {points[axis][-1]['ms']} ms", flush=True)
    points["subsets"] = []
    for n in SUBSETS:
        points["subsets"].append(measure(given.dim, given.batch_size, n, 10, BASE["heads"], "subsets", device))
        print(f"-pr, n {n}: {points['subsets'][-1]['ms']} ms", flush=True)
    found = {"dim": given.dim, "batch": given.batch_size, "base": BASE, "device": device_name(device), "points": points}
    target = given.out / "cost.json"
    write_atomically(target, json.dumps(found, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    main()
