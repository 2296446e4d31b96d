"""The instrument on worlds with known answers: what it says of each part beside what the part is worth.

One SR-GNN a world (`dissect.data.worlds`), small, trained three ways: wrapped in sparse variational dropout with
shadow columns; dense; and dense once for each part with that part deleted, its weights held at zero from the start.
The rules by which the answers are judged were fixed before the runs:

keeps more
    A part keeps clearly more than weights with nothing to say if the 95% interval of its density minus the keep-rate of
    its shadow columns lies above 0.05. The interval is drawn over output units, matrix by matrix: weights of one unit
    come and go together.
needed, helps, idle
    By HR@1 of the test examples, intact minus deleted and retrained, with a paired bootstrap interval: *needed* if the
    interval's lower end is at least half of the intact HR@1, *helps* if it is above 2 points, *idle* otherwise.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from dissect.data import expand
from dissect.data.worlds import make
from dissect.experiment.held import all_dropped, holding
from dissect.experiment.splits import packed
from dissect.models import SessionModel, build
from dissect.report.statistics import bootstrap_of_sums, paired_bootstrap
from dissect.sparsity import Instrument, keep_mask, wrap
from dissect.training.evaluate import rank_examples
from dissect.training.plan import Plan
from dissect.training.train import Loop

MODEL = "srgnn"
PARTS = ("propagation", "combination", "attention", "transformation")
NEEDED, HELPS, IDLE = "needed", "helps", "idle"
#: World -> part -> (verdicts of deletion that are right, whether it keeps more than its shadow columns; None: either).
EXPECTED: dict[str, dict[str, tuple[tuple[str, ...], bool | None]]] = {
    "successor-recall": {"propagation": ((NEEDED,), True)},
    "last-item": {"propagation": ((IDLE,), False), "attention": ((IDLE,), None)},
    # Whether attention keeps more was expected at first, and did not come out: few weights may do all the work.
    "intent": {"attention": ((NEEDED, HELPS), None)},
    "shuffled": dict.fromkeys(PARTS, ((IDLE,), False)),
}
MARGIN = 0.05  # of density over the keep-rate of shadow columns
LOSS = 2.0  # points of HR@1


@dataclass(frozen=True)
class Setting:
    """How the worlds' models are trained; everything that decides the outcome but for world and seed."""

    noise: str = "weight"
    kl_scale: float = 1.0
    sessions: int = 12_500
    dim: int = 32
    batch_size: int = 100
    steps: int = 2000
    lr: float = 3e-3
    lr_sigma: float = 1e-2
    shadows: int = 8
    warmup: tuple[float, float] = (0.1, 0.4)
    seed: int = 0


def tasks(worlds: tuple[str, ...] = tuple(EXPECTED)) -> list[tuple[str, str]]:
    """World and what to train in it: ``sparse``, ``dense``, or the part that is deleted."""
    return [(world, what) for world in worlds for what in ("sparse", "dense", *PARTS)]


def run_task(world: str, what: str, setting: Setting) -> dict[str, Any]:
    """Train one model in one world, and measure it.

    Returns
    -------
    dict
        ``world``, ``what``, ``setting``, ``hr@1`` in percent and ``hits`` (a hexadecimal bit mask over the test
        examples). Under ``sparse`` also ``pruned`` (HR@1 with the kept weights alone) and ``density`` (part -> kept,
        total, shadow_kept, shadow_total and the interval of the difference); under ``dense`` also ``zeroed`` (part ->
        HR@1 with its weights set to zero).
    """
    data = make(world, setting.seed, setting.sessions)
    device = torch.device("cpu")
    train, test = packed(expand(data.train, data.last_only), device), packed(data.test, device)
    torch.manual_seed(setting.seed)
    model = build(MODEL, data.items, setting.dim)
    per_epoch = math.ceil(len(train) / setting.batch_size)
    decay = max(1, round(0.75 * setting.steps / per_epoch))  # the last quarter is at a tenth of the rate
    plan = Plan(len(train), setting.batch_size, setting.steps, setting.seed, decay)
    instrument = None
    if what == "sparse":
        instrument = wrap(
            model, model.parts(), examples=len(train), steps=setting.steps, noise=setting.noise,
            kl_scale=setting.kl_scale, warmup=setting.warmup, shadows=setting.shadows,
        )  # fmt: skip
        groups = instrument.param_groups(setting.lr, setting.lr_sigma)
    else:
        groups = [{"name": "rest", "params": list(model.parameters()), "lr": setting.lr}]
    optimizer = torch.optim.Adam(groups, fused=True)
    with holding(model, all_dropped(model, what) if what in PARTS else {}):
        Loop(model, train, optimizer, plan, (), instrument).run()
        hits = rank_examples(model, test) < 1.5  # a tie with one other item counts half a place
    out = {"world": world, "what": what, "setting": asdict(setting), "hr@1": 100 * float(hits.mean())}
    out["hits"] = np.packbits(hits).tobytes().hex()
    if instrument is not None:
        with instrument.masked():
            out["pruned"] = 100 * float((rank_examples(model, test) < 1.5).mean())
        out["density"] = densities(instrument)
    if what == "dense":
        out["zeroed"] = {part: _zeroed(model, part, test) for part in PARTS}
    return out


def _zeroed(model: SessionModel, part: str, test: Any) -> float:
    with holding(model, all_dropped(model, part), restore=True):
        return 100 * float((rank_examples(model, test) < 1.5).mean())


def densities(instrument: Instrument) -> dict[str, dict[str, Any]]:
    """Density of each part beside its shadow columns', and the interval of the difference, drawn over output units.

    Returns
    -------
    dict
        Part -> ``kept``, ``total``, ``shadow_kept``, ``shadow_total``, ``excess`` (density minus keep-rate of the
        shadows), ``low``, ``high``.
    """
    real, shadow = _units(instrument, instrument.tensors()), _units(instrument, instrument.shadows())
    out = {}
    for part in instrument.modules:
        names = [name for p, name in real if p == part and (p, name) in shadow]
        if not names:
            continue
        kept, null = (np.concatenate([rates[part, n] for n in names]) for rates in (real, shadow))  # (units, 2)
        # Each unit's excess, weighted as its inputs are: sum k - rate of its shadows * n, over sum n.
        excess = kept[:, 0] - null[:, 0] / null[:, 1] * kept[:, 1]
        found = bootstrap_of_sums(excess[:, None], kept[:, 1])
        out[part] = {
            "kept": int(kept[:, 0].sum()), "total": int(kept[:, 1].sum()),
            "shadow_kept": int(null[:, 0].sum()), "shadow_total": int(null[:, 1].sum()),
            "excess": float(found.estimate[0]), "low": float(found.low[0]), "high": float(found.high[0]),
        }  # fmt: skip
    return out


def _units(instrument: Instrument, tensors: Any) -> dict[tuple[str, str], np.ndarray]:
    """Part and matrix -> kept and total weights of each output unit, (units, 2)."""
    counts = {}
    for part, name, theta, s in tensors:
        kept = keep_mask(theta, s, instrument.rule, instrument.threshold).flatten(1)
        total = torch.full((len(kept),), kept.shape[1])
        counts[part, name] = torch.stack([kept.sum(1).cpu(), total], 1).double().numpy()
    return counts


def judge(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts from the results of all tasks of some worlds.

    Returns
    -------
    list of dict
        One row for each world and part: ``density`` (as from `densities`), ``intact``, ``zeroed`` and ``deleted``
        (HR@1), ``loss`` with ``low`` and ``high`` (points of HR@1), ``keeps_more`` (bool), ``verdict``
        (needed, helps or idle), ``expected`` (the same two, None where either will do) and ``right``.
    """
    by_task = {(r["world"], r["what"]): r for r in results}
    rows = []
    for world in dict.fromkeys(r["world"] for r in results):
        sparse, dense = by_task[world, "sparse"], by_task[world, "dense"]
        for part in PARTS:
            deleted, density = by_task[world, part], sparse["density"][part]
            lost = _hits(dense) - _hits(deleted)
            found = paired_bootstrap(100 * lost[:, None], np.arange(len(lost)))
            low = float(found.low[0])
            verdict = NEEDED if low >= dense["hr@1"] / 2 else HELPS if low > LOSS else IDLE
            keeps_more = density["low"] > MARGIN
            right, more = EXPECTED[world].get(part, (None, None))
            if world == "shuffled" and verdict == NEEDED:  # half of next to nothing
                verdict = HELPS if low > LOSS else IDLE
            rows.append({
                "world": world, "part": part, "density": density, "intact": dense["hr@1"],
                "zeroed": dense["zeroed"][part], "deleted": deleted["hr@1"],
                "loss": float(found.estimate[0]), "low": low, "high": float(found.high[0]),
                "keeps_more": keeps_more, "verdict": verdict,
                "expected": {"verdict": right, "keeps_more": more},
                "right": (right is None or verdict in right) and (more is None or more == keeps_more),
            })  # fmt: skip
    return rows


def _hits(result: dict[str, Any]) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(result["hits"]), np.uint8))
    count = round(result["setting"]["sessions"] * 0.2)
    return bits[:count].astype(np.float64)
