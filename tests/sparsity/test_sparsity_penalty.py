"""The KL against quadrature, its analytic gradients against autograd, and what Adam makes of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import dawsn

from dissect.errors import DissectError
from dissect.sparsity import (
    PRIORS,
    kl_ard,
    kl_log_uniform,
    kl_normal,
    kl_sum,
    kl_total,
    log_alpha,
    warmup_weight,
)


def exact_kl(la: float) -> float:
    """KL from the log-uniform prior by quadrature of the Dawson function."""
    return 2 * quad(dawsn, 0, math.sqrt(0.5 * math.exp(-la)), limit=200)[0]


def exact_slope(la: float) -> float:
    root = math.sqrt(0.5 * math.exp(-la))
    return -root * float(dawsn(root))


def test_log_uniform_is_within_its_bounds_of_the_integral():
    grid = [k / 4 for k in range(-32, 33)]
    la = torch.tensor(grid, dtype=torch.float64, requires_grad=True)
    kl = kl_log_uniform(la)
    (slope,) = torch.autograd.grad(kl.sum(), la)
    assert max(abs(a - exact_kl(b)) for a, b in zip(kl.tolist(), grid, strict=True)) < 0.010
    assert max(abs(a - exact_slope(b)) for a, b in zip(slope.tolist(), grid, strict=True)) < 0.015


@pytest.mark.parametrize(
    ("la", "exact", "approximate"), [(-8, 4.6350, 4.6359), (0, 0.4267, 0.4312), (3, 0.0247, 0.0254)]
)
def test_spot_values(la: float, exact: float, approximate: float):
    assert exact_kl(la) == pytest.approx(exact, abs=1e-4)
    assert kl_log_uniform(torch.tensor(float(la))).item() == pytest.approx(approximate, abs=1e-4)


def test_other_priors_by_hand():
    assert kl_ard(torch.tensor(0.0)).item() == pytest.approx(0.5 * math.log(2))
    assert kl_normal(torch.tensor(2.0), torch.tensor(0.0)).item() == pytest.approx(2.0)
    distance = torch.distributions.kl_divergence(
        torch.distributions.Normal(0.3, math.exp(-0.5)), torch.distributions.Normal(0.0, 1.0)
    )
    assert kl_normal(torch.tensor(0.3), torch.tensor(-1.0)).item() == pytest.approx(distance.item())


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 2e-6)])
def test_fused_sum_and_gradients_equal_autograd(prior: str, dtype: torch.dtype, tolerance: float):
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(40, 30, generator=generator, dtype=dtype).requires_grad_()
    s = torch.empty(40, 30, dtype=dtype).uniform_(-12, 2, generator=generator).requires_grad_()
    plain = PRIORS[prior](theta, s).sum()
    expected = torch.autograd.grad(3 * plain, (theta, s))
    fused = kl_sum(theta, s, prior)
    actual = torch.autograd.grad(3 * fused, (theta, s))
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=0)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=tolerance)


@given(st.floats(-200, 100), st.sampled_from(["log-uniform", "ard"]))
@example(-200.0, "log-uniform")
def test_extreme_variances_stay_finite_and_keep_their_direction(s: float, prior: str):
    theta, log_variance = torch.tensor([0.5], requires_grad=True), torch.tensor([s], requires_grad=True)
    kl = kl_sum(theta, log_variance, prior)
    kl.backward()
    assert math.isfinite(kl.item())
    assert kl.item() >= -1e-6
    assert log_variance.grad is not None
    assert log_variance.grad.item() <= 0  # KL alone always raises sigma
    exact_theta, exact_s = (t.detach().double().requires_grad_() for t in (theta, log_variance))
    exact = PRIORS[prior](exact_theta, exact_s).sum()
    exact.backward()
    assert kl.item() == pytest.approx(exact.item(), rel=1e-5, abs=1e-6)
    for a, b in ((theta, exact_theta), (log_variance, exact_s)):
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.item() == pytest.approx(b.grad.item(), rel=1e-4, abs=1e-6)


def test_gradient_of_zero_weights_is_finite():
    theta, s = torch.zeros(3, requires_grad=True), torch.full((3,), -8.0, requires_grad=True)
    kl_sum(theta, s).backward()
    assert theta.grad is not None
    assert torch.equal(theta.grad, torch.zeros(3))


def test_total_over_matrices_is_the_sum_of_sums_and_hands_its_gradients_out_once():
    pairs = [(torch.randn(n, 2, requires_grad=True), torch.randn(n, 2, requires_grad=True)) for n in (5, 1, 7)]
    total = kl_total(pairs)
    assert total.item() == pytest.approx(sum(kl_sum(*p).item() for p in pairs), rel=1e-5)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="first backward"):
        total.backward()
    assert kl_total([]).item() == 0


def test_unknown_prior_lists_the_choices():
    with pytest.raises(DissectError, match="log-uniform, ard, normal"):
        kl_sum(torch.zeros(1), torch.zeros(1), "loguniform")


def steps_to_prune(theta0: float, s0: float, lr: float, lr_sigma: float) -> int:
    theta, s = torch.tensor([theta0], requires_grad=True), torch.tensor([s0], requires_grad=True)
    groups = [{"params": [s], "lr": lr_sigma}] + ([{"params": [theta], "lr": lr}] if lr else [])
    optimizer = torch.optim.Adam(groups)
    for step in range(3000):
        if log_alpha(theta, s).item() > 3:
            return step
        optimizer.zero_grad()
        kl_sum(theta, s).backward()
        optimizer.step()
    return 3000


@pytest.mark.parametrize(
    ("theta0", "lr", "lr_sigma", "steps"),
    [(0.05, 1e-3, 1e-3, 43), (0.05, 0.0, 1e-2, 1606), (0.5, 1e-3, 1e-3, 352)],
    ids=["theta collapses", "theta held", "far below any clamp"],
)
def test_adam_prunes_under_kl_alone_in_the_known_number_of_steps(theta0: float, lr: float, lr_sigma: float, steps: int):
    assert steps_to_prune(theta0, -10.0, lr, lr_sigma) == pytest.approx(steps, rel=0.02)


def test_warmup_is_zero_then_linear_then_one():
    assert [warmup_weight(t, 100) for t in (0, 10, 25, 40, 99)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert warmup_weight(0, 100, 0, 0) == 1
    assert [warmup_weight(t, 100, 0.2, 0.2) for t in (0, 19, 20, 21)] == [0, 0, 1, 1]
    assert [warmup_weight(t, 100, 1, 1) for t in (0, 99, 100)] == [0, 0, 1]
    with pytest.raises(DissectError, match="start <= end"):
        warmup_weight(0, 100, 0.5, 0.1)
