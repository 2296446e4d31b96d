"""The instrument: what reads the wrapped parts of a model while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dissect.errors import DissectError
from dissect.sparsity import prune
from dissect.sparsity.density import get_rule, keep_mask, kept_curve
from dissect.sparsity.penalty import kl_total, warmup_weight
from dissect.sparsity.trace import called
from dissect.sparsity.variational import Variational, masked, to_dense


@dataclass(frozen=True)
class Row:
    """One replaced module."""

    part: str
    module: str
    old: str
    new: str
    parameters: tuple[str, ...]
    """Full names of the wrapped matrices; they keep their names."""
    weights: int
    """Number of wrapped weights, those tied to an earlier row left out."""
    note: str = ""


class Receipt(list[Row]):
    """The replaced modules, one row each; prints as a table."""

    def __str__(self) -> str:
        head = ("part", "module", "old", "new", "weights", "note")
        rows = [head, *((r.part, r.module, r.old, r.new, f"{r.weights:,}", r.note) for r in self)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


class Instrument:
    """Sparse variational dropout on the wrapped parts of one model; made by `wrap`.

    Attributes
    ----------
    model : nn.Module
        The wrapped model, the same object as was given.
    modules : dict of str to dict of str to Variational
        Part -> module name -> layer.
    receipt : Receipt
        Every replacement.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: dict[str, dict[str, Variational]],
        receipt: Receipt,
        *,
        examples: int,
        steps: int,
        prior: str,
        kl_scale: float,
        warmup: tuple[float, float],
        rule: str,
        threshold: float | None,
    ) -> None:
        self.model, self.modules, self.receipt = model, modules, receipt
        self.examples, self.steps, self.warmup = examples, steps, warmup
        self.prior, self.kl_scale = prior, kl_scale
        self.rule, self.threshold = rule, get_rule(rule, threshold)[1]

    def tensors(self) -> Iterator[tuple[str, str, nn.Parameter, nn.Parameter]]:
        """Part, full parameter name, mean and log variance of each wrapped matrix, tied ones once."""
        seen: set[int] = set()
        for part, modules in self.modules.items():
            for prefix, module in modules.items():
                for name, theta, s in module.pairs():
                    if id(theta) not in seen:
                        seen.add(id(theta))
                        yield part, (f"{prefix}.{name}" if prefix else name), theta, s

    def param_groups(self, lr: float, lr_sigma: float = 1e-2, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Groups for an optimizer, each with a "name": 'wrapped' means, their 'sigma', and the 'rest'.

        Decay reaches the rest only. The learning rate of 'sigma' is to be held constant while a schedule
        moves the others: its sum over the steps is the budget in nats that log alpha can travel.
        """
        thetas = [theta for _, _, theta, _ in self.tensors()]
        sigmas = [s for _, _, _, s in self.tensors()]
        inside = {id(p) for p in (*thetas, *sigmas)}
        rest = [p for p in self.model.parameters() if id(p) not in inside]
        groups = [
            {"name": "wrapped", "params": thetas, "lr": lr, "weight_decay": 0.0},
            {"name": "sigma", "params": sigmas, "lr": lr_sigma, "weight_decay": 0.0},
            {"name": "rest", "params": rest, "lr": lr, "weight_decay": weight_decay},
        ]
        return [group for group in groups if group["params"]]

    def guard(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise DissectError if the optimizer decays a wrapped mean or log variance, or doesn't hold it at
        all.

        Coupled decay gives log sigma^2 a gradient of its own, far above that of KL / N.
        """
        decay = {id(p): g.get("weight_decay", 0.0) for g in optimizer.param_groups for p in g["params"]}
        for _, name, theta, s in self.tensors():
            for what, p in (("mean", theta), ("log variance", s)):
                if id(p) not in decay:
                    raise DissectError(f"the optimizer lacks the {what} of {name!r}; use param_groups()")
                if decay[id(p)]:
                    raise DissectError(
                        f"the {what} of {name!r} has decay {decay[id(p)]}; it must be 0: use param_groups()"
                    )

    def kl_weight(self, step: int) -> float:
        """Weight of the KL sum at a step: warm-up * kl_scale / examples."""
        return warmup_weight(step, self.steps, *self.warmup) * self.kl_scale / self.examples

    def penalty(self, step: int) -> Tensor:
        """What to add to a batch's mean loss: `kl_weight(step)` times the summed KL, in nats per example.

        A constant zero, without gradient, where the weight is zero.
        """
        weight = self.kl_weight(step)
        if not weight or not any(self.modules.values()):
            return torch.zeros((), device=next((p.device for p in self.model.parameters()), None))
        return kl_total(((theta, s) for _, _, theta, s in self.tensors()), self.prior) * weight

    def weighted(self, weight: Tensor) -> Tensor:
        """The summed KL times a weight that is a tensor: for a step captured once and replayed with other weights."""
        return kl_total(((theta, s) for _, _, theta, s in self.tensors()), self.prior) * weight

    @torch.no_grad()
    def kl(self) -> Tensor:
        """Summed KL of all wrapped weights in nats, without warm-up, scale, 1 / N or gradient."""
        return kl_total(((theta, s) for _, _, theta, s in self.tensors()), self.prior)

    def density(self, rule: str | None = None, threshold: float | None = None) -> list[dict[str, Any]]:
        """Kept weights per part and per matrix.

        Returns
        -------
        list of dict
            Keys part, tensor (full parameter name, None for the part's total), rule, threshold, kept, total
            and density = kept / total (None for a part without wrapped weights).
        """
        rule, threshold = self._rule(rule, threshold)
        counts: dict[str, list[tuple[str | None, int, int]]] = {part: [] for part in self.modules}
        for part, name, theta, s in self.tensors():
            counts[part].append((name, int(keep_mask(theta, s, rule, threshold).sum()), theta.numel()))
        rows: list[dict[str, Any]] = []
        for part, tensors in counts.items():
            total: tuple[str | None, int, int] = (
                None,
                sum(k for _, k, _ in tensors),
                sum(n for _, _, n in tensors),
            )
            for name, kept, size in [*tensors, total]:
                row = {"part": part, "tensor": name, "rule": rule, "threshold": threshold, "kept": kept}
                rows.append({**row, "total": size, "density": kept / size if size else None})
        return rows

    def thresholds(self, rule: str | None = None, values: Sequence[float] | None = None) -> list[dict[str, Any]]:
        """Kept weights per part as a curve over thresholds.

        Returns
        -------
        list of dict
            Keys part, rule, total, thresholds (list of float) and kept (list of int, same length).
        """
        rule, _ = self._rule(rule, None)
        rows: list[dict[str, Any]] = []
        for part in self.modules:
            pairs = [(theta, s) for p, _, theta, s in self.tensors() if p == part]
            theta = torch.cat([t.detach().flatten() for t, _ in pairs]) if pairs else torch.empty(0)
            s = torch.cat([v.detach().flatten() for _, v in pairs]) if pairs else torch.empty(0)
            grid, kept = kept_curve(theta, s, rule, values)
            rows.append({"part": part, "rule": rule, "total": theta.numel(), "thresholds": grid, "kept": kept})
        return rows

    def prune_counts(self, rule: str | None = None, threshold: float | None = None) -> tuple[int, int]:
        """Kept and total number of wrapped weights over all parts."""
        totals = [row for row in self.density(rule, threshold) if row["tensor"] is None]
        return sum(row["kept"] for row in totals), sum(row["total"] for row in totals)

    def masked(self, rule: str | None = None, threshold: float | None = None) -> AbstractContextManager[None]:
        """Context in which the model runs with theta * [kept] and without noise; leaves no trace."""
        return masked(self.model, *self._rule(rule, threshold))

    def export(self, rule: str | None = None, threshold: float | None = None) -> nn.Module:
        """A dense copy of the model with zeros for the dropped weights; see `prune.pruned_copy`."""
        return prune.pruned_copy(self.model, *self._rule(rule, threshold))

    def check_dead(self, run_forward: Callable[[], Any]) -> list[str]:
        """Names of wrapped modules that `run_forward` never calls; see `trace.called`.

        No data reaches such weights, so under the KL alone they empty and falsify the density of their part.
        Pass the names to `exclude`.
        """
        modules = {name: m for part in self.modules.values() for name, m in part.items()}
        seen = called(self.model, modules, run_forward)
        return [name for name in modules if name not in seen]

    def exclude(self, names: Iterable[str], why: str = "never called in a forward pass") -> None:
        """Turn wrapped modules back into dense ones, with their means, and say so in the receipt.

        Build the optimizer afterwards.

        Raises
        ------
        DissectError
            If a name is not that of a wrapped module.
        """
        names = list(names)
        for name in names:
            if not any(name in modules for modules in self.modules.values()):
                known = ", ".join(n for modules in self.modules.values() for n in modules) or "none"
                raise DissectError(f"{name!r} is not a wrapped module; wrapped: {known}")
        for name in names:
            for modules in self.modules.values():
                if name in modules:
                    to_dense(modules.pop(name))
        for i, row in enumerate(self.receipt):
            if row.module in names:
                self.receipt[i] = replace(row, new=row.old, parameters=(), weights=0, note=f"excluded: {why}")

    def _rule(self, rule: str | None, threshold: float | None) -> tuple[str, float]:
        if rule is None or rule == self.rule:
            return self.rule, self.threshold if threshold is None else float(threshold)
        return rule, get_rule(rule, threshold)[1]
