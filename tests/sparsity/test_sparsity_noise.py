"""Moments, gradients and eval behaviour of the variational layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dissect.errors import DissectError
from dissect.sparsity import VariationalGRUCell, VariationalLinear, keep_mask, masked, shared_noise
from dissect.sparsity.variational import to_variational

DRAWS = 200_000


def layer(noise: str, out: int = 1) -> VariationalLinear:
    torch.manual_seed(3)
    linear = VariationalLinear(4, out, noise=noise)
    nn.init.uniform_(linear.log_sigma2, -3, -1)
    return linear


def draws(noise: str, rows: torch.Tensor) -> torch.Tensor:
    """(DRAWS, rows) pre-activations; equal output units stand for repeated draws."""
    one = layer(noise)
    many = VariationalLinear(4, DRAWS, noise=noise)
    with torch.no_grad():
        many.weight.copy_(one.weight.expand(DRAWS, 4))
        many.log_sigma2.copy_(one.log_sigma2.expand(DRAWS, 4))
        many.bias.copy_(one.bias.expand(DRAWS))
        return many(rows).t().double()


@pytest.mark.parametrize("noise", ["local", "weight"])
def test_moments_of_preactivations(noise: str):
    rows = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.5, 1.0, -1.0, 2.0]])
    one = layer(noise)
    out = draws(noise, rows)
    mean = F.linear(rows, one.weight, one.bias)[:, 0].double()
    variance = one.log_sigma2.detach().exp()[0]  # (in,)
    delta = (rows.square() @ variance).double()
    assert ((out.mean(0) - mean).abs() < 5 * (delta / DRAWS).sqrt()).all()
    torch.testing.assert_close(out.var(0), delta, rtol=0.02, atol=0)
    covariance = torch.cov(out.t())[0, 1].item()
    shared = (rows[0] * rows[1] * variance).sum().item()
    error = 5 * (float(delta.prod()) + shared**2) ** 0.5 / DRAWS**0.5
    assert shared > 3 * error  # the two modes can be told apart
    assert covariance == pytest.approx(0.0 if noise == "local" else shared, abs=error)


@pytest.mark.parametrize("noise", ["local", "weight"])
def test_linear_gradients_with_frozen_noise(noise: str):
    torch.manual_seed(0)
    linear = VariationalLinear(3, 2, noise=noise, dtype=torch.float64, log_sigma2=-1.0)
    linear.frozen = {"weight": torch.randn(*((4, 2) if noise == "local" else (2, 3)), dtype=torch.float64)}
    a = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def run(a: torch.Tensor, theta: torch.Tensor, s: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        arguments = {"weight": theta, "log_sigma2": s, "bias": bias}
        return torch.func.functional_call(linear, arguments, (a,))

    inputs = (a, linear.weight, linear.log_sigma2, linear.bias)
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("noise", ["local", "weight"])
def test_gru_gradients_with_frozen_noise(noise: str):
    torch.manual_seed(0)
    cell = VariationalGRUCell(3, 2, noise=noise, dtype=torch.float64, log_sigma2=-1.0)
    shapes = (
        {"weight_ih": (4, 6), "weight_hh": (4, 6)} if noise == "local" else {"weight_ih": (6, 3), "weight_hh": (6, 2)}
    )
    cell.frozen = {name: torch.randn(*shape, dtype=torch.float64) for name, shape in shapes.items()}
    names = [name for name, _ in cell.named_parameters()]

    def run(x: torch.Tensor, h: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(cell, dict(zip(names, parameters, strict=True)), (x, h))

    x, h = (torch.randn(4, n, dtype=torch.float64, requires_grad=True) for n in (3, 2))
    assert torch.autograd.gradcheck(run, (x, h, *cell.parameters()))


def test_local_gru_without_noise_is_torch_s_gru_cell():
    torch.manual_seed(0)
    dense = nn.GRUCell(5, 4)
    x, h = torch.randn(3, 5), torch.randn(3, 4)
    expected = dense(x, h), dense(x), dense(x[0])
    cell = to_variational(dense)
    cell.frozen = {"weight_ih": torch.zeros(3, 12), "weight_hh": torch.zeros(3, 12)}
    torch.testing.assert_close(cell(x, h), expected[0])
    torch.testing.assert_close(cell(x), expected[1])
    cell.frozen = {"weight_ih": torch.zeros(1, 12), "weight_hh": torch.zeros(1, 12)}
    torch.testing.assert_close(cell(x[0]), expected[2])
    cell.eval()
    assert torch.equal(cell(x, h), expected[0])
    assert torch.equal(cell(x[0]), expected[2])


def test_weight_noise_is_drawn_per_call_and_once_inside_shared_noise():
    linear, x = layer("weight", 3), torch.randn(2, 4)
    assert not torch.equal(linear(x), linear(x))
    with shared_noise(linear):
        first = linear(x)
        with shared_noise(linear):
            assert torch.equal(linear(x), first)
        assert torch.equal(linear(x), first)
        assert torch.equal(linear(x[:1]), first[:1])
    assert not torch.equal(linear(x), first)
    with pytest.raises(ZeroDivisionError), shared_noise(linear):
        raise ZeroDivisionError
    assert linear._shared is None


@pytest.mark.parametrize("noise", ["local", "weight"])
def test_gru_noise_is_fixed_over_a_sequence(noise: str):
    cell = VariationalGRUCell(3, 2, noise=noise, log_sigma2=-1.0)
    x, h = torch.randn(4, 3), torch.randn(4, 2)
    assert not torch.equal(cell(x, h), cell(x, h))
    with shared_noise(cell):
        first = cell(x[:2], h[:2])
        assert torch.equal(cell(x, h)[:2], first)
        assert torch.equal(cell(x[:1], h[:1]), first[:1])


@pytest.mark.parametrize("noise", ["local", "weight"])
def test_eval_is_the_mean_and_masked_is_the_kept_mean(noise: str):
    linear, x = layer(noise, 3), torch.randn(2, 4)
    with torch.no_grad():
        linear.log_sigma2[0] = 9.0
        linear.weight[1] = 1.0
    linear.eval()
    assert torch.equal(linear(x), F.linear(x, linear.weight, linear.bias))
    kept = keep_mask(linear.weight, linear.log_sigma2)
    assert not kept[0].any()
    assert kept[1].all()
    linear.train()  # masked needs no eval()
    with masked(linear):
        assert torch.equal(linear(x), F.linear(x, linear.weight * kept, linear.bias))
    with pytest.raises(ZeroDivisionError), masked(linear):
        raise ZeroDivisionError
    assert not torch.equal(linear(x), linear(x))


def test_autocast_keeps_the_variance_in_full_precision():
    linear = VariationalLinear(4, 3, log_sigma2=-30.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = linear(torch.randn(2, 4))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert linear.log_sigma2.grad is not None
    assert torch.isfinite(linear.log_sigma2.grad).all()
    half = to_variational(nn.Linear(4, 3).to(torch.bfloat16))
    assert next(s for _, _, s in half.pairs()).dtype == torch.float32


def test_unknown_noise_lists_the_choices():
    with pytest.raises(DissectError, match="local, weight"):
        VariationalLinear(2, 2, noise="row")
