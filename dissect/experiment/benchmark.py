"""`dissect bench`: a training step of a recipe on a data set, held against the machine and against peers."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dissect.data import Dataset, Examples, load
from dissect.errors import DissectError
from dissect.experiment.concerns import check_trained
from dissect.experiment.instrument import instrument_of
from dissect.experiment.machine import device_name, environment, pick_device
from dissect.experiment.spec import Spec
from dissect.experiment.splits import Splits, make_splits
from dissect.models import build
from dissect.training.bench import (
    StagedStep,
    Step,
    alternate,
    evaluation_rate,
    loop_step,
    loss_ms,
    matrix_rate,
    memory_rate,
    ratio,
    step_work,
)
from dissect.training.kernels import profile_steps
from dissect.training.memory import keep_large_allocations
from dissect.training.optimizers import make_optimizer
from dissect.training.plan import Plan
from dissect.training.train import Loop

#: Rounds before those timed.
WARM_UP = 3
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


def make_loop(data: Dataset, splits: Splits, spec: Spec, steps: int, sparse: bool) -> Loop:
    """A loop over the training examples, as a run of that spec makes it, without callbacks."""
    device = splits.train.clicks.device
    torch.manual_seed(spec.seed)
    net = build(spec.recipe, data.items, spec.dim, spec.sigma, data.longest).to(device)
    net.prepare(splits.train)
    plan = Plan(len(splits.train), spec.batch_size, steps, spec.seed)
    instrument = instrument_of(net, spec, plan, splits) if sparse else None
    groups: list[Any] = (
        instrument.param_groups(spec.lr, spec.lr_sigma, spec.weight_decay)
        if instrument is not None
        else [{"params": list(net.parameters()), "weight_decay": spec.weight_decay}]
    )
    optimizer = make_optimizer(spec.optimizer, groups, spec.lr, device.type == "cuda")
    return Loop(net, splits.train, optimizer, plan, penalty=instrument, bf16=spec.precision == "bf16")


def bench_model(
    model: str, *, rounds: int = 40, against: tuple[str, ...] = (), as_json: bool = False, **options: Any
) -> dict[str, Any]:
    """Time a step, print the figures and return them.

    Parameters
    ----------
    model : str
    rounds : int
        Steps timed (turns of twenty steps on a GPU), after some to warm up.
    against : tuple of str
        Other implementations; see `load_peer`.
    **options
        Fields of `Spec`.
    """
    check_trained(model)
    peers = [load_peer(reference) for reference in against]
    spec = Spec.create(model, protocol="paper-code", **options)
    device = pick_device(spec.device)
    keep_large_allocations()
    data = load(spec.dataset, data_dir=spec.data_dir or None)
    splits = make_splits(data, spec, device)
    per_round = 20 if device.type == "cuda" and not peers else 1
    rounds = min(rounds, len(splits.train) // spec.batch_size // per_round - WARM_UP)
    if rounds < 1:
        raise DissectError(f"data set {data.name!r} has too few examples for batches of {spec.batch_size}")
    total = (rounds + WARM_UP) * per_round
    staged = StagedStep(make_loop(data, splits, spec, total, spec.sparse))
    steps: dict[str, Step] = {"step": loop_step(make_loop(data, splits, spec, total, spec.sparse))}
    if spec.sparse:
        steps["dense"] = loop_step(make_loop(data, splits, spec, total, False))
    sessions, targets = _lists(splits.train_examples, staged.order[: total * spec.batch_size].cpu().numpy())
    for reference, peer in zip(against, peers, strict=True):
        steps[reference] = peer(
            sessions=sessions, targets=targets, items=data.items, dim=spec.dim, batch_size=spec.batch_size,
            longest=int(splits.train_examples.lengths.max()), lr=spec.lr, weight_decay=spec.weight_decay,
        )  # fmt: skip
    bf16, net = spec.precision == "bf16", staged.loop.model
    flops, moved = step_work(net, splits.train, staged.order[: spec.batch_size])
    # Before and after, for the best: another program on the machine can only slow them.
    _say("measuring this machine's matrix and memory rates")
    rates = [(matrix_rate(device, bf16), memory_rate(device))]
    _say(f"timing {rounds} rounds of {', '.join(steps)}")
    times = alternate(steps, rounds, WARM_UP, device, per_round)
    for i in range(WARM_UP + min(rounds, 20)):
        staged(i)
    profiled = None
    if device.type == "cuda":
        _say("profiling a round of steps")
        profiled = profile_steps(steps["step"], WARM_UP * per_round, per_round, device)
    _say("timing the loss over items alone, then evaluation")
    losses = loss_ms(device, spec.batch_size, spec.dim, data.items, cosine=spec.scorer != "dot", bf16=bf16)
    evaluated, eval_flops = evaluation_rate(net, splits.test)
    rates.append((matrix_rate(device, bf16), memory_rate(device)))
    gemm, copy = (max(found) for found in zip(*rates, strict=True))
    step_ms = float(np.median(times["step"]))
    limit = 1e3 * (flops / gemm + moved / copy)
    epoch = len(splits.train) / spec.batch_size * step_ms / 1e3
    out: dict[str, Any] = {
        "model": model, "dataset": data.name, "items": data.items, "dim": spec.dim,
        "batch_size": spec.batch_size, "sparsify": spec.sparsify, "noise": spec.noise if spec.sparse else None,
        "precision": spec.precision, "device": device_name(device), "threads": torch.get_num_threads(),
        "rounds": rounds, "steps_per_round": per_round,
        "stages_ms": staged.stages_ms(WARM_UP),
        "step_ms": round(step_ms, 3), "epoch_s": round(epoch, 1),
        "gflop": round(flops / 1e9, 3), "megabytes": round(moved / 1e6, 1),
        "matrix_gflops": round(gemm / 1e9, 1), "memory_gbps": round(copy / 1e9, 1),
        "limit_ms": round(limit, 3), "limit_ratio": round(limit / step_ms, 3),
        "profile": profiled, "environment": environment(data.sha256, device),
        "loss_ms": losses,
        "evaluation": {
            "examples_per_second": round(evaluated, 1), "share_of_matrix_rate": round(eval_flops / gemm, 3)
        },
        "peers": [
            {"peer": name, "ms": round(float(np.median(times[name])), 3), **ratio(times[name], times["step"])}
            for name in against
        ],
    }  # fmt: skip
    if "dense" in times:
        out["dense_ms"] = round(float(np.median(times["dense"])), 3)
        out["wrapped_over_dense"] = ratio(times["step"], times["dense"])
    _print(out)
    if as_json:
        print(json.dumps(out))
    return out


def _say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


def _print(out: dict[str, Any]) -> None:
    wrapped = "dense" if out["sparsify"] == "none" else f"wrapped: {out['sparsify']}, {out['noise']} noise"
    print(
        f"{out['model']} ({wrapped}, {out['precision']}) on {out['dataset']}: d {out['dim']}, batch "
        f"{out['batch_size']}, {out['items']:,} items, {out['device']}, {out['threads']} threads, median of "
        f"{out['rounds']} rounds of {out['steps_per_round']}"
    )
    if out["profile"]:
        print("  stages one by one, each waited for:")
    for stage, ms in out["stages_ms"].items():
        print(f"  {stage:<10} {ms:9.2f} ms")
    print(f"  {'step':<10} {out['step_ms']:9.2f} ms   {out['epoch_s']:,.0f} s an epoch")
    print(
        f"limit: {out['gflop']:.2f} GFLOP at {out['matrix_gflops']:.0f} GFLOP/s + {out['megabytes']:.0f} MB at "
        f"{out['memory_gbps']:.1f} GB/s = {out['limit_ms']:.2f} ms; reached {100 * out['limit_ratio']:.0f}% of it"
    )
    if out["profile"]:
        _print_profile(out["profile"])
    print("loss over items alone: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in out["loss_ms"].items()))
    evaluation = out["evaluation"]
    print(
        f"evaluation: {evaluation['examples_per_second']:,.0f} examples/s, maps and scores at "
        f"{100 * evaluation['share_of_matrix_rate']:.0f}% of the matrix rate"
    )
    if "dense_ms" in out:
        _print_ratio("wrapped / dense step", out["wrapped_over_dense"], f"dense {out['dense_ms']:.2f} ms")
    for peer in out["peers"]:
        _print_ratio(f"{peer['peer']} / this step", peer, f"peer {peer['ms']:.2f} ms")


def _print_profile(found: dict[str, Any]) -> None:
    span = found["span_ms"]
    kinds = ", ".join(f"{kind} {100 * ms / span:.0f}%" for kind, ms in found["kinds"].items())
    print(
        f"profile: {found['kernels']:.0f} kernels a step, some running {100 * found['busy_ms'] / span:.0f}% of the "
        f"{span:.2f} ms from the first to the last ({kinds})"
    )


def _print_ratio(text: str, found: dict[str, Any], note: str) -> None:
    print(f"{text}: {found['ratio']:.2f} (95% interval {found['low']:.2f} to {found['high']:.2f}); {note}")
