"""The instrument: what reads the wrapped parts of a model while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dissect.errors import DissectError
from dissect.sparsity import prune
from dissect.sparsity.density import get_rule, keep_mask, kept_curve
from dissect.sparsity.layers import to_dense
from dissect.sparsity.penalty import kl_total, warmup_weight
from dissect.sparsity.raw import RawParameters, to_dense_parameter
from dissect.sparsity.receipt import Receipt
from dissect.sparsity.rows import Packed
from dissect.sparsity.trace import called
from dissect.sparsity.variational import Variational, masked, shared_noise


class Instrument:
    """Sparse variational dropout on the wrapped parts of one model; made by `wrap`.

    Attributes
    ----------
    model : nn.Module
        The wrapped model, the same object as was given.
    modules : dict of str to dict of str to Variational
        Part -> module name -> layer; a raw parameter's name -> the module that owns it.
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
                    if isinstance(module, RawParameters):
                        if name != prefix.rpartition(".")[2]:  # another raw parameter of the same module
                            continue
                        full = prefix
                    else:
                        full = f"{prefix}.{name}" if prefix else name
                    if id(theta) not in seen:
                        seen.add(id(theta))
                        yield part, full, theta, s

    def shadows(self) -> Iterator[tuple[str, str, nn.Parameter, nn.Parameter]]:
        """As `tensors`, for the shadow columns of each matrix that has any, under the matrix's name."""
        for part, modules in self.modules.items():
            for prefix, module in modules.items():
                for name, theta, s in module.shadows():
                    yield part, f"{prefix}.{name}" if prefix else name, theta, s

    def _penalised(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        for _, _, theta, s in (*self.tensors(), *self.shadows()):
            yield theta, s

    def param_groups(self, lr: float, lr_sigma: float = 1e-2, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Groups for an optimizer, each with a "name": 'wrapped' means, their 'sigma', and the 'rest'.

        Decay reaches the rest only. The learning rate of 'sigma' is to be held constant while a schedule
        moves the others: its sum over the steps is the budget in nats that log alpha can travel.
        """
        thetas = [theta for theta, _ in self._penalised()]
        sigmas = [s for _, s in self._penalised()]
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
        for _, name, theta, s in (*self.tensors(), *self.shadows()):
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
        return kl_total(self._penalised(), self.prior) * weight

    def weighted(self, weight: Tensor) -> Tensor:
        """The summed KL times a weight that is a tensor: for a step captured once and replayed with other weights."""
        return kl_total(self._penalised(), self.prior) * weight

    @property
    def capturable(self) -> bool:
        """Whether a training step can be recorded as a CUDA graph: shapes must follow from the batch's size alone."""
        modules = [module for part in self.modules.values() for module in part.values()]
        return not any(module.noise == "row" or module.columns for module in modules)

    def drawing(self, batch: Packed | None = None) -> AbstractContextManager[None]:
        """Context for a training step's forward pass: all calls of a layer share one draw; see `shared_noise`.

        Shadow columns, and `row` noise on packed rows, need `batch` to tell which example a row belongs to:
        `rows.Examples` of the examples' numbers will do where a model's rows are its examples.
        """
        seen = getattr(self.model, "seen", None)  # a model may read a part of each example
        return shared_noise(self.model, batch if batch is None or seen is None else seen(batch))

    @torch.no_grad()
    def kl(self) -> Tensor:
        """Summed KL of all wrapped weights in nats, without warm-up, scale, 1 / N or gradient."""
        return kl_total(self._penalised(), self.prior)

    def density(self, rule: str | None = None, threshold: float | None = None) -> list[dict[str, Any]]:
        """Kept weights per part and per matrix.

        Returns
        -------
        list of dict
            Keys part, tensor (full parameter name, None for the part's total), rule, threshold, kept, total
            and density = kept / total (None for a part without wrapped weights). With shadow columns also shadow_kept
            and shadow_total.
        """
        rule, threshold = self._rule(rule, threshold)

        def count(found: Iterator[tuple[str, str, nn.Parameter, nn.Parameter]]) -> dict[tuple[str, str], list[int]]:
            return {
                (part, name): [int(keep_mask(theta, s, rule, threshold).sum()), theta.numel()]
                for part, name, theta, s in found
            }

        real, null = count(self.tensors()), count(self.shadows())
        rows: list[dict[str, Any]] = []
        for part in self.modules:
            names: list[str | None] = [name for p, name in real if p == part]
            for name in [*names, None]:
                mine = [c for key, c in real.items() if key[0] == part and name in (None, key[1])]
                kept, size = sum(k for k, _ in mine), sum(n for _, n in mine)
                row = {"part": part, "tensor": name, "rule": rule, "threshold": threshold, "kept": kept}
                row |= {"total": size, "density": kept / size if size else None}
                if null:
                    shadow = [c for key, c in null.items() if key[0] == part and name in (None, key[1])]
                    row |= {"shadow_kept": sum(k for k, _ in shadow), "shadow_total": sum(n for _, n in shadow)}
                rows.append(row)
        return rows

    def thresholds(self, rule: str | None = None, values: Sequence[float] | None = None) -> list[dict[str, Any]]:
        """Kept weights per part as a curve over thresholds.

        Returns
        -------
        list of dict
            Keys part, rule, total, thresholds (list of float) and kept (list of int, same length). With shadow columns
            also shadow_kept and shadow_total.
        """
        rule, _ = self._rule(rule, None)
        rows: list[dict[str, Any]] = []
        for part in self.modules:
            theta, s = _flat(self.tensors(), part)
            grid, kept = kept_curve(theta, s, rule, values)
            row = {"part": part, "rule": rule, "total": theta.numel(), "thresholds": grid, "kept": kept}
            theta, s = _flat(self.shadows(), part)
            if theta.numel():
                row |= {"shadow_total": theta.numel(), "shadow_kept": kept_curve(theta, s, rule, values)[1]}
            rows.append(row)
        return rows

    def prune_counts(self, rule: str | None = None, threshold: float | None = None) -> tuple[int, int]:
        """Kept and total number of wrapped weights over all parts."""
        totals = [row for row in self.density(rule, threshold) if row["tensor"] is None]
        return sum(row["kept"] for row in totals), sum(row["total"] for row in totals)

    def masked(
        self, rule: str | None = None, threshold: float | None = None, part: str | None = None
    ) -> AbstractContextManager[None]:
        """Context in which the model runs with theta * [kept] and without noise; leaves no trace.

        With `part` the others keep all of their weights.
        """
        only = None if part is None else self.modules[part].values()
        return masked(self.model, *self._rule(rule, threshold), only)

    def export(self, rule: str | None = None, threshold: float | None = None) -> nn.Module:
        """A dense copy of the model with zeros for the dropped weights; see `prune.pruned_copy`."""
        return prune.pruned_copy(self.model, *self._rule(rule, threshold))

    def check_dead(self, run_forward: Callable[[], Any]) -> list[str]:
        """Names of wrapped modules that `run_forward` never calls; see `trace.called`.

        No data reaches such weights, so under the KL alone they empty and falsify the density of their part.
        Pass the names to `exclude`.
        """
        modules = {name: m for part in self.modules.values() for name, m in part.items()}
        with self.masked():  # without noise and shadows, which would have to know the batch
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
                module = modules.pop(name, None)
                if isinstance(module, RawParameters):
                    to_dense_parameter(module, name.rpartition(".")[2])
                elif module is not None:
                    to_dense(module)
        for i, row in enumerate(self.receipt):
            if row.module in names:
                self.receipt[i] = replace(row, new=row.old, parameters=(), weights=0, note=f"excluded: {why}")

    def _rule(self, rule: str | None, threshold: float | None) -> tuple[str, float]:
        if rule is None or rule == self.rule:
            return self.rule, self.threshold if threshold is None else float(threshold)
        return rule, get_rule(rule, threshold)[1]


def _flat(found: Iterable[tuple[str, str, nn.Parameter, nn.Parameter]], part: str) -> tuple[Tensor, Tensor]:
    """Means and log variances of a part, end to end."""
    pairs = [(theta.detach().flatten(), s.detach().flatten()) for p, _, theta, s in found if p == part]
    if not pairs:
        return torch.empty(0), torch.empty(0)
    return torch.cat([theta for theta, _ in pairs]), torch.cat([s for _, s in pairs])
