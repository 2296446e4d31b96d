"""`dissect bench`: a training step of a recipe on a data set, held against the machine and against peers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dissect.data import Examples, load
from dissect.errors import DissectError
from dissect.experiment.instrument import instrument_of
from dissect.experiment.machine import device_name, pick_device
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits
from dissect.models import build
from dissect.training.bench import (
    STAGES,
    StagedStep,
    Step,
    alternate,
    matrix_rate,
    memory_rate,
    ratio,
    step_work,
)  # fmt: skip
from dissect.training.memory import keep_large_allocations
from dissect.training.train import Plan

Peer = Callable[..., Step]


def load_peer(reference: str) -> Peer:
    """Import CALLABLE from FILE, given as ``FILE:CALLABLE``.

    It is called once as ``CALLABLE(sessions=, targets=, items=, dim=, batch_size=, longest=, lr=,
    weight_decay=)``: lists of internal item ids, 0 .. items - 1. It returns ``step(i)``, which trains on the i-th
    `batch_size` of these examples, its preparation of the batch included.

    Raises
    ------
    DissectError
        If there is no such file or callable.
    """
    file, _, name = reference.rpartition(":")
    if not file or not Path(file).is_file():
        raise DissectError(f"--against {reference!r}: takes FILE:CALLABLE, and {file or 'FILE'} is no file")
    spec = importlib.util.spec_from_file_location("dissect_peer", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        raise DissectError(f"--against {reference!r}: {file} has no callable {name!r}")
    return getattr(module, name)


def _lists(examples: Examples, index: np.ndarray) -> tuple[list[list[int]], list[int]]:
    clicks = np.asarray(examples.clicks)
    starts, ends = examples.start[index], examples.end[index]
    return [clicks[a:b].tolist() for a, b in zip(starts, ends, strict=True)], clicks[ends].tolist()


def bench_model(
    model: str, *, rounds: int = 40, against: str | None = None, as_json: bool = False, **options: Any
) -> dict[str, Any]:
    """Time a step, print the figures and return them.

    Parameters
    ----------
    model : str
    rounds : int
        Steps timed, after three to warm up.
    against : str, optional
        Another implementation; see `load_peer`.
    **options
        Fields of `Spec`.
    """
    peer = load_peer(against) if against else None
    spec = Spec.create(model, protocol="paper-code", **options)
    device = pick_device(spec.device)
    keep_large_allocations()
    data = load(spec.dataset, data_dir=spec.data_dir or None)
    splits = make_splits(data, spec, device)
    rounds = min(rounds, len(splits.train) // spec.batch_size - 3)
    if rounds < 1:
        raise DissectError(f"data set {data.name!r} has too few examples for batches of {spec.batch_size}")
    plan = Plan(len(splits.train), spec.batch_size, rounds + 3, spec.seed)
    order = plan.order(0)

    def make(sparse: bool) -> StagedStep:
        torch.manual_seed(spec.seed)
        net = build(spec.recipe, data.items, spec.dim, spec.sigma).to(device)
        instrument = instrument_of(net, spec, plan, splits) if sparse else None
        groups: list[Any] = (
            instrument.param_groups(spec.lr, spec.lr_sigma, spec.weight_decay)
            if instrument is not None
            else [{"params": list(net.parameters()), "weight_decay": spec.weight_decay}]
        )
        optimizer = torch.optim.Adam(groups, lr=spec.lr, fused=True)
        net.train()
        return StagedStep(net, splits.train, optimizer, order.to(device), spec.batch_size, instrument, plan.steps)

    own = make(spec.sparse)
    steps: dict[str, Step] = {"step": own}
    if spec.sparse:
        steps["dense"] = make(False)
    if peer is not None:
        index = order[: (rounds + 3) * spec.batch_size].numpy()
        sessions, targets = _lists(splits.train_examples, index)
        steps["peer"] = peer(
            sessions=sessions, targets=targets, items=data.items, dim=spec.dim, batch_size=spec.batch_size,
            longest=int(splits.train_examples.lengths.max()), lr=spec.lr, weight_decay=spec.weight_decay,
        )  # fmt: skip
    flops, moved = step_work(own.model, splits.train, own.order[: spec.batch_size])
    gemm, copy = matrix_rate(device), memory_rate(device)
    times = alternate(steps, rounds)
    stages = np.median(np.asarray(own.times[3:]) * 1e3, axis=0)
    step_ms = float(np.median(times["step"]))
    limit = 1e3 * (flops / gemm + moved / copy)
    out: dict[str, Any] = {
        "model": model, "dataset": data.name, "items": data.items, "dim": spec.dim,
        "batch_size": spec.batch_size, "sparsify": spec.sparsify, "noise": spec.noise if spec.sparse else None,
        "device": device_name(device), "threads": torch.get_num_threads(), "rounds": rounds,
        "stages_ms": {s: round(float(t), 3) for s, t in zip(STAGES, stages, strict=True)},
        "step_ms": round(step_ms, 3),
        "gflop": round(flops / 1e9, 3), "megabytes": round(moved / 1e6, 1),
        "matrix_gflops": round(gemm / 1e9, 1), "memory_gbps": round(copy / 1e9, 1),
        "limit_ms": round(limit, 3), "limit_ratio": round(limit / step_ms, 3),
    }  # fmt: skip
    if "dense" in times:
        out["dense_ms"] = round(float(np.median(times["dense"])), 3)
        out["wrapped_over_dense"] = ratio(times["step"], times["dense"])
    if "peer" in times:
        out["peer"] = against
        out["peer_ms"] = round(float(np.median(times["peer"])), 3)
        out["peer_over_step"] = ratio(times["peer"], times["step"])
    _print(out)
    if as_json:
        print(json.dumps(out))
    return out


def _print(out: dict[str, Any]) -> None:
    wrapped = "dense" if out["sparsify"] == "none" else f"wrapped: {out['sparsify']}, {out['noise']} noise"
    print(
        f"{out['model']} ({wrapped}) on {out['dataset']}: d {out['dim']}, batch {out['batch_size']}, "
        f"{out['items']:,} items, {out['device']}, {out['threads']} threads, median of {out['rounds']} steps"
    )
    for stage, ms in out["stages_ms"].items():
        print(f"  {stage:<10} {ms:9.2f} ms")
    print(f"  {'step':<10} {out['step_ms']:9.2f} ms")
    print(
        f"limit: {out['gflop']:.2f} GFLOP at {out['matrix_gflops']:.0f} GFLOP/s + {out['megabytes']:.0f} MB at "
        f"{out['memory_gbps']:.1f} GB/s = {out['limit_ms']:.2f} ms; reached {100 * out['limit_ratio']:.0f}% of it"
    )
    for key, other, text in (
        ("wrapped_over_dense", "dense_ms", "wrapped / dense step"),
        ("peer_over_step", "peer_ms", "peer's / this step"),
    ):
        if key in out:
            r = out[key]
            print(
                f"{text}: {r['ratio']:.2f} (95% interval {r['low']:.2f} to {r['high']:.2f}); "
                f"{other.split('_')[0]} {out[other]:.2f} ms"
            )
