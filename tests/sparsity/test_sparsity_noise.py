"""Moments, gradients and eval behaviour of the variational layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dissect.errors import DissectError
from dissect.sparsity import Examples, VariationalGRUCell, VariationalLinear, keep_mask, masked, shared_noise, wrap
from dissect.sparsity.layers import to_variational

DRAWS = 200_000


class Two:
    """A batch of two examples whose numbers of rows are known as listed."""

    def __init__(self, sessions: dict[int, torch.Tensor]) -> None:
        self.sessions = sessions

    def __len__(self) -> int:
        return 2

    def keys(self) -> torch.Tensor:
        return torch.tensor([5, 9])

    def session_of(self, count: int) -> torch.Tensor | None:
        return self.sessions.get(count)


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


def test_row_noise_is_one_draw_for_the_rows_of_a_session():
    rows = torch.tensor([[[1.0, -2.0, 0.5, 3.0], [0.5, 1.0, -1.0, 2.0]], [[2.0, 1.0, 0.0, -1.0]] * 2])
    one, many = layer("row"), VariationalLinear(4, DRAWS, noise="row")
    with torch.no_grad():
        for name, parameter in many.named_parameters():
            parameter.copy_(one.get_parameter(name).expand_as(parameter))
        out = many(rows).double()  # (sessions, rows, draws)
        again = many(rows.view(4, 4)).double()  # two axes: four sessions
        with shared_noise(many, Two({4: torch.tensor([0, 0, 1, 1])})):
            packed = many(rows.view(4, 4)).double().view(2, 2, DRAWS)
    mean = F.linear(rows, one.weight, one.bias)[..., 0].double()
    delta = (rows.square() @ one.log_sigma2.detach().exp()[0]).double()
    for drawn in (out, packed):
        assert ((drawn.mean(-1) - mean).abs() < 5 * (delta / DRAWS).sqrt()).all()
        torch.testing.assert_close(drawn.var(-1), delta, rtol=0.02, atol=0)
        covariance = torch.cov(drawn.reshape(4, DRAWS))
        expected = delta[0].prod().sqrt().item()  # sqrt(delta delta'), the most that there can be
        assert covariance[0, 1].item() == pytest.approx(expected, rel=0.02)
        assert torch.allclose(drawn[1, 0], drawn[1, 1])  # equal rows, equal draws
        error = 5 * float(delta[0, 0] * delta[1, 0]) ** 0.5 / DRAWS**0.5
        assert abs(covariance[0, 2].item()) < error
    alone = torch.cov(again)[0, 1].item()
    assert abs(alone) < 5 * expected / DRAWS**0.5


def test_row_noise_needs_to_know_the_sessions_of_packed_rows():
    linear, x = layer("row", 3), torch.randn(5, 4)
    with shared_noise(linear, Two({4: torch.zeros(4, dtype=torch.int64)})):
        with pytest.raises(DissectError, match="the 5 rows given to Linear belong to aren't known"):
            linear(x)
        # Nodes and clicks of one session have one draw, whatever their numbers.
        linear.weight.data.zero_()
        assert torch.equal(linear(x[:1].expand(4, 4))[0], linear(x[:1].expand(4, 4))[3])


@pytest.mark.parametrize("noise", ["local", "row", "weight"])
@pytest.mark.parametrize("options", [{"padding": 1}, {"dilation": 2, "padding": 2, "padding_mode": "circular"}])
def test_convolution_has_the_moments_of_the_linear_map_it_is(noise: str, options: dict[str, object]):
    torch.manual_seed(1)
    conv = to_variational(nn.Conv1d(2, 1, 3, **options), noise, -2.0)  # pyright: ignore
    x = torch.randn(1, 2, 4)
    dense = nn.functional.pad(x, (2, 2), "circular") if "dilation" in options else nn.functional.pad(x, (1, 1))
    step = 2 if "dilation" in options else 1
    windows = torch.stack([dense[0, :, t : t + 2 * step + 1 : step].flatten() for t in range(4)])  # (time, 6)
    with torch.no_grad():
        mean = F.linear(windows, conv.get_parameter("weight").flatten(1), conv.get_parameter("bias"))[:, 0]
        drawn = torch.cat(
            [
                conv(x.expand(500, 2, 4)) if noise != "weight" else conv(x)
                for _ in range(40 if noise != "weight" else 4000)
            ]
        )[:, 0]
        conv.eval()
        torch.testing.assert_close(conv(x)[0, 0], mean)
    count = drawn.shape[0]
    delta = windows.square().sum(1) * torch.tensor(-2.0).exp()
    assert ((drawn.mean(0) - mean).abs() < 5 * (delta / count).sqrt()).all()
    torch.testing.assert_close(drawn.var(0), delta, rtol=0.15, atol=0)
    shared = float(windows[0] @ windows[1] * torch.tensor(-2.0).exp())
    expected = {"local": 0.0, "weight": shared, "row": float((delta[0] * delta[1]).sqrt())}[noise]
    error = 5 * (float(delta[0] * delta[1]) + expected**2) ** 0.5 / count**0.5
    assert torch.cov(drawn.t())[0, 1].item() == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("noise", ["local", "row", "weight"])
def test_convolution_gradients_with_frozen_noise(noise: str):
    torch.manual_seed(0)
    conv = to_variational(nn.Conv1d(2, 3, 2, dtype=torch.float64), noise, -1.0)
    conv.frozen = {"weight": torch.randn(*((3, 2, 2) if noise == "weight" else (2, 3, 3)), dtype=torch.float64)}
    names = [name for name, _ in conv.named_parameters()]

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(conv, dict(zip(names, parameters, strict=True)), (x,))

    x = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *conv.parameters()))


@pytest.mark.parametrize("noise", ["local", "row", "weight"])
def test_a_compiled_layer_is_the_layer(noise: str):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    wrap(model, {"p": ["0"], "q": ["2"]}, examples=1, steps=1, noise=noise, shadows=2, log_sigma2=-2.0)
    x = torch.randn(5, 4)
    compiled = torch.compile(model, backend="aot_eager")
    batch = Examples(torch.arange(5))
    torch.manual_seed(7)
    with shared_noise(model, batch):
        expected = model(x)
    expected.sum().backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    torch.manual_seed(7)
    with shared_noise(model, batch):
        out = compiled(x)
    out.sum().backward()
    torch.testing.assert_close(out, expected)
    for mine, theirs in zip((p.grad for p in model.parameters() if p.grad is not None), grads, strict=True):
        torch.testing.assert_close(mine, theirs)
    model.eval()
    torch.testing.assert_close(compiled(x), model(x))


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


@pytest.mark.parametrize("noise", ["local", "row", "weight"])
def test_gru_noise_is_fixed_over_a_sequence(noise: str):
    cell = VariationalGRUCell(3, 2, noise=noise, log_sigma2=-1.0)
    x, h = torch.randn(4, 3), torch.randn(4, 2)
    assert not torch.equal(cell(x, h), cell(x, h))
    with shared_noise(cell):
        first = cell(x[:2], h[:2])
        assert torch.equal(cell(x, h)[:2], first)
        assert torch.equal(cell(x[:1], h[:1]), first[:1])


@pytest.mark.parametrize("noise", ["local", "row", "weight"])
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
    with pytest.raises(DissectError, match="local, row, weight"):
        VariationalLinear(2, 2, noise="column")
