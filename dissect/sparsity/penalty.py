"""KL divergence of the weights' posterior from the prior, per weight and as a fused sum, and its warm-up.

With alpha = sigma^2 / theta^2 and s = log sigma^2, log alpha = s - log(theta^2 + 1e-8). It is never clamped:
a clamp has zero gradient, so a weight beyond it would never be pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dissect.errors import DissectError

K1, K2, K3 = 0.63576, 1.87320, 1.48695
EPSILON = 1e-8


def log_alpha(theta: Tensor, s: Tensor) -> Tensor:
    """Log of the noise-to-signal ratio of each weight, s - log(theta^2 + 1e-8); same shape as both."""
    return s - torch.log(theta * theta + EPSILON)


def kl_log_uniform(log_alpha: Tensor) -> Tensor:
    """KL from the log-uniform prior, in nats per weight (Molchanov et al. 2017, arXiv 1701.05369, Eq. 14).

    An approximation, within 0.0094 nats of the integral on log alpha in [-8, 8]; goes to 0 as alpha grows.
    """
    return 0.5 * F.softplus(-log_alpha) + K1 * torch.sigmoid(-(K2 + K3 * log_alpha))


def kl_ard(log_alpha: Tensor) -> Tensor:
    """KL from N(0, theta^2 + sigma^2), the best normal prior per weight (Kharitonov et al. 2018, arXiv
    1811.00596).

    0.5 log(1 + 1 / alpha), in nats per weight.
    """
    return 0.5 * F.softplus(-log_alpha)


def kl_normal(theta: Tensor, s: Tensor) -> Tensor:
    """KL from N(0, 1), in nats per weight: a ridge penalty, which shrinks weights and makes none sparse."""
    return 0.5 * (s.exp() + theta * theta - 1 - s)


PRIORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log-uniform": lambda theta, s: kl_log_uniform(log_alpha(theta, s)),
    "ard": lambda theta, s: kl_ard(log_alpha(theta, s)),
    "normal": kl_normal,
}
"""Prior -> function of (theta, s) that gives the KL of each weight."""


def check_prior(prior: str) -> str:
    """Return `prior` where it is the name of a prior, and raise DissectError with the choices elsewhere."""
    if prior not in PRIORS:
        raise DissectError(f"unknown prior {prior!r}; choose from {', '.join(PRIORS)}")
    return prior


def _kl_and_slopes(theta: Tensor, s: Tensor, prior: str) -> tuple[Tensor, Tensor, Tensor]:
    """Summed KL and its gradients by `theta` and `s`; all flat."""
    if prior == "normal":
        slope = s.exp()
        total = (slope.sum() + theta.square().sum() - theta.numel() - s.sum()) * 0.5
        return total, theta.clone(), slope.sub_(1).mul_(0.5)
    square = (theta * theta).add_(EPSILON)
    la = torch.log(square).sub_(s).clamp_min_(-80)  # minus log alpha; its sigmoid must not underflow
    slope = torch.sigmoid(la)
    # softplus(x) = x - log sigmoid(x), of which the sigmoid is needed anyway.
    total = torch.log(slope).neg_().add_(la).sum() * 0.5
    slope.mul_(-0.5)
    if prior == "log-uniform":
        p = la.mul_(K3).sub_(K2).sigmoid_()
        total += p.sum() * K1
        slope.sub_(p, alpha=K1 * K3).addcmul_(p, p, value=K1 * K3)  # d p / d log alpha = -k3 p (1 - p)
    return total, torch.div(theta, square, out=square).mul_(slope).mul_(-2), slope


class _KLTotal(torch.autograd.Function):
    """Sum of the KL over many matrices, with the gradients computed in the same pass.

    A matrix by itself is too small to keep two cores busy through a dozen short operations, so all are laid end to
    end first; their gradients are views of one buffer.
    """

    @staticmethod
    def forward(ctx: Any, prior: str, *tensors: Tensor) -> Tensor:
        thetas, sigmas = tensors[::2], tensors[1::2]
        theta, s = (torch.cat([t.reshape(-1) for t in part]) for part in (thetas, sigmas))
        total, *ctx.slopes = _kl_and_slopes(theta, s, prior)
        ctx.shapes = [theta.shape for theta in thetas]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        if ctx.slopes is None:
            raise RuntimeError("the KL's gradients were handed out in a first backward pass; compute it again")
        slopes, ctx.slopes = ctx.slopes, None
        sizes = [shape.numel() for shape in ctx.shapes]
        parts = [slope.mul_(grad).split(sizes) for slope in slopes]
        views = [
            part.view(shape) for pair, shape in zip(zip(*parts, strict=True), ctx.shapes, strict=True) for part in pair
        ]
        return None, *views


def kl_total(pairs: Iterable[tuple[Tensor, Tensor]], prior: str = "log-uniform") -> Tensor:
    """Sum of `kl_sum` over pairs (theta, s) of one device; zero for none. One backward pass only."""
    flat = [t for theta, s in pairs for t in (theta.to(s.dtype), s)]
    if not flat:
        return torch.zeros(())
    with torch.autocast(flat[0].device.type, enabled=False):
        out: Any = _KLTotal.apply(check_prior(prior), *flat)
    return out


def kl_sum(theta: Tensor, s: Tensor, prior: str = "log-uniform") -> Tensor:
    """Sum over the weights of the KL from `prior`, in nats, with analytic gradients.

    Parameters
    ----------
    theta, s : Tensor, any common shape
        Means and log variances.
    prior : {'log-uniform', 'ard', 'normal'}

    Returns
    -------
    Tensor, shape ()
        In the precision of `s`. Allows one backward pass.

    Raises
    ------
    DissectError
        If there is no prior of that name.
    """
    return kl_total([(theta, s)], prior)


def warmup_weight(step: int, total_steps: int, start: float = 0.1, end: float = 0.4) -> float:
    """Weight of the KL at a step: 0 until start * total, then linear up to 1 at end * total.

    Parameters
    ----------
    step : int
        Steps taken so far, from 0.
    total_steps : int
        Planned steps.
    start, end : float
        Fractions of the plan, 0 <= start <= end. Where they are equal the weight steps from 0 to 1; both 0
        is no warm-up.

    Raises
    ------
    DissectError
        If start and end are not in that order.
    """
    if not 0 <= start <= end:
        raise DissectError(f"warm-up needs 0 <= start <= end as fractions of the steps, got {start} and {end}")
    first, last = start * total_steps, end * total_steps
    if step >= last:
        return 1.0
    return (step - first) / (last - first) if step > first else 0.0
