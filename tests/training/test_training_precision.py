"""Matrix products with bfloat16 factors: what is rounded, and that the settings come back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dissect.training import precision
from dissect.training.precision import differentiable_matmul, fast_products, matmul, products

CPU = torch.device("cpu")


def rounded(x: torch.Tensor) -> torch.Tensor:
    return x.bfloat16().to(x.dtype)


@pytest.fixture(autouse=True)
def _without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers then are the same on every machine."""
    monkeypatch.setattr(precision, "has_amx", lambda: False)


def test_matmul_in_each_form() -> None:
    a, b, start = torch.randn(5, 7), torch.randn(7, 3), torch.randn(5, 3)
    assert torch.equal(matmul(a, b), a @ b)
    assert torch.equal(matmul(a, b, True), rounded(a) @ rounded(b))
    out = torch.empty(5, 3)
    assert matmul(a, b, True, out=out) is out
    assert torch.equal(out, rounded(a) @ rounded(b))
    torch.testing.assert_close(matmul(a, b, add_to=start.clone()), start + a @ b)


def test_gradients_of_a_product_have_rounded_factors_too() -> None:
    a, b = torch.randn(5, 7, requires_grad=True), torch.randn(7, 3, requires_grad=True)
    grad = torch.randn(5, 3)
    of_a, of_b = torch.autograd.grad(differentiable_matmul(a, b, True), (a, b), grad)
    assert torch.equal(of_a, rounded(grad) @ rounded(b).t())
    assert torch.equal(of_b, rounded(a).t() @ rounded(grad))


@pytest.mark.parametrize("native", [False, True])
def test_linear_maps_inside_have_rounded_factors(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(precision, "native_bf16", lambda device_type: native)
    layer, x = nn.Linear(6, 4), torch.randn(3, 6)
    product = rounded(x) @ rounded(layer.weight).t()
    with products(True, CPU):
        inside, bare = layer(x), torch.nn.functional.linear(x, layer.weight)
    assert inside.dtype == bare.dtype == torch.float32
    # A product of its own is summed in fp32 and rounded once, before the bias.
    expected = rounded(product) if native else product
    torch.testing.assert_close(bare, expected, rtol=2**-7 if native else 1e-6, atol=1e-6)
    torch.testing.assert_close(inside, bare + layer.bias)
    assert torch.equal(bare, rounded(bare)) == native
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    with products(False, CPU):
        assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("native", [False, True])
def test_gradients_of_linear_maps_inside(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(precision, "native_bf16", lambda device_type: native)
    layer, x = nn.Linear(64, 32), torch.randn(50, 64, requires_grad=True)
    grad = torch.randn(50, 32)
    with products(True, CPU):
        inside = layer(x)
    found = torch.autograd.grad(inside, (x, layer.weight, layer.bias), grad)
    exact = torch.autograd.grad(layer(x), (x, layer.weight, layer.bias), grad)
    for mine, theirs in zip(found, exact, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.01 * theirs.norm()


def test_the_setting_of_a_cpu_that_has_them_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_amx", lambda: True)
    before = torch.get_float32_matmul_precision()
    with fast_products(False, CPU):
        assert torch.get_float32_matmul_precision() == before
    with fast_products(True, CPU):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(RuntimeError, match=r"shapes cannot"):
        _multiply_wrongly()
    assert torch.get_float32_matmul_precision() == before


def _multiply_wrongly() -> None:
    with fast_products(True, CPU):
        torch.mm(torch.ones(2, 3), torch.ones(2, 3))
