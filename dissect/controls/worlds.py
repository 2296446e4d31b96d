"""The instrument on worlds with known answers: what it says of each part beside what the part is worth.

One SR-GNN a world (`dissect.data.worlds`), small, trained three ways: wrapped in sparse variational dropout with
shadow columns; dense; and dense once for each part with that part deleted, its weights and biases held at zero from the
start. The rules of judgement:

more, slightly more, no more
    A part keeps *more* than weights with nothing to say if the 95% interval of its density minus the keep-rate of its
    shadow columns lies above 0.05, *slightly more* if above 0, else *no more*. The interval is drawn over output units
    and over input columns, within each matrix: weights of one unit or column come and go together.
needed, helps, idle
    By HR@1 of the test examples, intact minus deleted and retrained, with a paired bootstrap interval: *needed* if the
    interval's lower end is at least half of the intact HR@1, *helps* if it is above 2 points, *idle* otherwise.
not learnt
    Nothing is said of a world whose intact model is worse than it should be.
not settled
    The density still moves, and its value says little. Its comparison with the shadows, which have been trained as
    long, stands. On shuffled targets a model goes on learning them by heart, and densities never come to rest.

What is expected of each world was written down before the first run, but for two things that did not come out: that
attention keeps more than its shadows in ``intent``, and that every density settles.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from dissect.data import expand
from dissect.data.worlds import TEST, make
from dissect.experiment.held import all_dropped, holding
from dissect.experiment.splits import packed
from dissect.models import SessionModel, build
from dissect.report.statistics import paired_bootstrap
from dissect.sparsity import Instrument, keep_mask, settled, wrap
from dissect.training.evaluate import rank_examples
from dissect.training.plan import Callback, Plan
from dissect.training.train import Loop

MODEL = "srgnn"
PARTS = ("propagation", "combination", "attention", "transformation")
NEEDED, HELPS, IDLE = "needed", "helps", "idle"
MORE, SLIGHTLY, NO_MORE = "more", "slightly more", "no more"
#: World -> part -> verdicts of deletion that are right, and words for its density that are; empty where any is.
EXPECTED: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "successor-recall": {"propagation": ((NEEDED,), (MORE,))},
    "last-item": {"propagation": ((IDLE,), (SLIGHTLY, NO_MORE)), "attention": ((IDLE,), ())},
    "intent": {"attention": ((NEEDED, HELPS), ())},
    "shuffled": dict.fromkeys(PARTS, ((IDLE,), (NO_MORE,))),
}
#: World -> the least HR@1 of a model that has learnt it, in percent.
LEARNT = {"successor-recall": 90.0, "last-item": 80.0, "intent": 75.0, "shuffled": 0.0}
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
    sparse_steps: int = 5000
    """Of the wrapped model, whose densities take longer to settle than its loss does."""
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
        examples). Under ``sparse`` also ``pruned`` (HR@1 with the kept weights alone) and ``density`` (part -> what
        `densities` says, and ``settled``); under ``dense`` also ``zeroed`` (part ->
        HR@1 with its weights set to zero).
    """
    data = make(world, setting.seed, setting.sessions)
    device = torch.device("cpu")
    train, test = packed(expand(data.train, data.last_only), device), packed(data.test, device)
    torch.manual_seed(setting.seed)
    model = build(MODEL, data.items, setting.dim)
    per_epoch = math.ceil(len(train) / setting.batch_size)
    steps = setting.sparse_steps if what == "sparse" else setting.steps
    decay = max(1, round(0.75 * steps / per_epoch))  # the last quarter is at a tenth of the rate
    plan = Plan(len(train), setting.batch_size, steps, setting.seed, decay)
    instrument = None
    if what == "sparse":
        instrument = wrap(
            model, model.parts(), examples=len(train), steps=steps, noise=setting.noise,
            kl_scale=setting.kl_scale, warmup=setting.warmup, shadows=setting.shadows,
        )  # fmt: skip
        groups = instrument.param_groups(setting.lr, setting.lr_sigma)
    else:
        groups = [{"name": "rest", "params": list(model.parameters()), "lr": setting.lr}]
    optimizer = torch.optim.Adam(groups, fused=True)
    followed = _Followed(instrument)
    with holding(model, all_dropped(model, what) if what in PARTS else {}):
        Loop(model, train, optimizer, plan, [followed], instrument).run()
        hits = rank_examples(model, test) < 1.5  # a tie with one other item counts half a place
    out = {"world": world, "what": what, "setting": asdict(setting), "hr@1": 100 * float(hits.mean())}
    out["hits"] = np.packbits(hits).tobytes().hex()
    if instrument is not None:
        with instrument.masked():
            out["pruned"] = 100 * float((rank_examples(model, test) < 1.5).mean())
        budget = steps * setting.lr_sigma
        out["density"] = densities(instrument)
        for part, row in out["density"].items():
            row["settled"] = settled(followed.history[part], budget, setting.warmup[1] * budget)
    if what == "dense":
        out["zeroed"] = {part: _zeroed(model, part, test) for part in PARTS}
    return out


def _zeroed(model: SessionModel, part: str, test: Any) -> float:
    with holding(model, all_dropped(model, part), restore=True):
        return 100 * float((rank_examples(model, test) < 1.5).mean())


class _Followed(Callback):
    """Densities over time, so that it can be said whether they have settled."""

    every = 20

    def __init__(self, instrument: Instrument | None) -> None:
        self.instrument = instrument
        self.history: dict[str, list[tuple[float, float | None]]] = {}

    def on_step(self, loop: Loop) -> None:
        """Look every few steps."""
        if self.instrument is not None and (loop.step % self.every == 0 or loop.step == loop.plan.steps):
            for row in self.instrument.density():
                if row["tensor"] is None:
                    self.history.setdefault(row["part"], []).append((loop.lr_budget, row["density"]))


def densities(instrument: Instrument, resamples: int = 2000) -> dict[str, dict[str, Any]]:
    """Density of each part beside its shadow columns', and the interval of the difference.

    Returns
    -------
    dict
        Part -> ``kept``, ``total``, ``shadow_kept``, ``shadow_total``, ``null`` (keep-rate of the shadows, each matrix
        weighted as its weights are), ``excess`` (density minus null), ``low``, ``high`` (of the 95% interval).
    """
    real, shadow = _masks(instrument, instrument.tensors()), _masks(instrument, instrument.shadows())
    out = {}
    for part in instrument.modules:
        names = [name for p, name in real if p == part and (p, name) in shadow]
        if not names:
            continue
        rng = np.random.default_rng(0)
        drawn, estimate, null = np.zeros(resamples), 0.0, 0.0
        total = sum(real[part, name].size for name in names)
        for name in names:
            mine, theirs = real[part, name], shadow[part, name]
            share = mine.size / total
            estimate += share * (mine.mean() - theirs.mean())
            null += share * float(theirs.mean())
            units = _draws(rng, resamples, len(mine))  # of one unit both its weights and its shadows are drawn
            rates = [
                ((units @ kept) * _draws(rng, resamples, kept.shape[1])).sum(1) / kept.size for kept in (mine, theirs)
            ]
            drawn += share * (rates[0] - rates[1])
        low, high = np.quantile(drawn, [0.025, 0.975], method="weibull")  # as in report.statistics
        both = [[a[part, n] for n in names] for a in (real, shadow)]
        out[part] = {
            "kept": int(sum(m.sum() for m in both[0])), "total": total,
            "shadow_kept": int(sum(m.sum() for m in both[1])), "shadow_total": sum(m.size for m in both[1]),
            "null": null, "excess": float(estimate), "low": float(low), "high": float(high),
        }  # fmt: skip
    return out


def _masks(instrument: Instrument, tensors: Any) -> dict[tuple[str, str], np.ndarray]:
    """Part and matrix -> where it is kept, (units, columns) of 0 and 1."""
    return {
        (part, name): keep_mask(theta, s, instrument.rule, instrument.threshold).flatten(1).double().cpu().numpy()
        for part, name, theta, s in tensors
    }


def _draws(rng: np.random.Generator, resamples: int, count: int) -> np.ndarray:
    """How often each of `count` things is drawn, with replacement, (resamples, count)."""
    return rng.multinomial(count, np.full(count, 1 / count), resamples).astype(np.float64)


def judge(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts from the results of all tasks of some worlds.

    Returns
    -------
    list of dict
        One row for each world and part: ``density`` (as from `run_task`), ``intact``, ``zeroed`` and ``deleted``
        (HR@1), ``loss`` with ``low`` and ``high`` (points of HR@1), ``keeps`` (more, slightly more, no more),
        ``verdict`` (needed, helps, idle, or not learnt), ``expected`` (the words that are right for both; empty where
        any is) and ``right``.
    """
    by_task = {(r["world"], r["what"]): r for r in results}
    rows = []
    for world in dict.fromkeys(r["world"] for r in results):
        sparse, dense = by_task[world, "sparse"], by_task[world, "dense"]
        learnt = min(sparse["hr@1"], dense["hr@1"]) >= LEARNT[world]
        for part in PARTS:
            deleted, density = by_task[world, part], sparse["density"][part]
            lost = _hits(dense) - _hits(deleted)
            found = paired_bootstrap(100 * lost[:, None], np.arange(len(lost)))
            low = float(found.low[0])
            verdict = NEEDED if low >= max(LOSS, dense["hr@1"] / 2) else HELPS if low > LOSS else IDLE
            keeps = MORE if density["low"] > MARGIN else SLIGHTLY if density["low"] > 0 else NO_MORE
            verdict = verdict if learnt else "not learnt"
            right, words = EXPECTED[world].get(part, ((), ()))
            rows.append({
                "world": world, "part": part, "density": density, "intact": dense["hr@1"],
                "zeroed": dense["zeroed"][part], "deleted": deleted["hr@1"],
                "loss": float(found.estimate[0]), "low": low, "high": float(found.high[0]),
                "keeps": keeps, "verdict": verdict, "expected": {"verdict": list(right), "keeps": list(words)},
                "right": learnt and (not right or verdict in right) and (not words or keeps in words),
            })  # fmt: skip
    return rows


def _hits(result: dict[str, Any]) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(result["hits"]), np.uint8))
    count = round(result["setting"]["sessions"] * TEST)
    return bits[:count].astype(np.float64)
