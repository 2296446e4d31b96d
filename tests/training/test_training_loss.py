"""The tiled loss equals the plain one, gradients too."""

from __future__ import annotations

import pytest
import torch

from dissect.training import loss as module
from dissect.training import precision
from dissect.training.loss import item_cross_entropy, plain_item_cross_entropy
from dissect.training.whole import whole_item_cross_entropy


def tensors(items: int, batch: int = 7, dim: int = 5, scale: float = 1.0, dtype: torch.dtype = torch.float64):
    torch.manual_seed(items)
    query = (scale * torch.randn(batch, dim, dtype=dtype)).requires_grad_()
    table = torch.randn(items, dim, dtype=dtype).requires_grad_()
    targets = torch.randint(items, (batch,))
    targets[1] = targets[0]  # a target shared by two rows adds up
    return query, table, targets


@pytest.mark.parametrize("items", [3, 16, 33, 64])  # fewer than a tile, exact tiles, a short last tile
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("keep", [1 << 27, 0])  # exponentials kept for the backward pass, or computed anew
@pytest.mark.parametrize("trusted", [module.TRUSTED, (1.0, 1.0)])  # plain exponentials, or shifted ones
def test_equals_the_plain_path(
    monkeypatch: pytest.MonkeyPatch, items: int, cosine: bool, keep: int, trusted: tuple[float, float]
) -> None:
    monkeypatch.setattr(module, "TILE", 0)
    monkeypatch.setattr(module, "LEAST", 16)
    monkeypatch.setattr(module, "KEEP", keep)
    monkeypatch.setattr(module, "TRUSTED", trusted)
    query, table, targets = tensors(items)
    grads = []
    for form in (item_cross_entropy, plain_item_cross_entropy):
        value = form(query, table, targets, cosine)
        # A factor, so that an incoming gradient other than one is seen.
        grads.append((value.detach(), *torch.autograd.grad(3 * value, (query, table))))
    for tiled, plain in zip(*grads, strict=True):
        torch.testing.assert_close(tiled, plain, rtol=0, atol=1e-12)


def test_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TILE", 0)
    monkeypatch.setattr(module, "LEAST", 4)
    query, table, targets = tensors(11, batch=3, dim=4)
    assert torch.autograd.gradcheck(lambda q, t: item_cross_entropy(q, t, targets, True), (query, table))


@pytest.mark.parametrize("order", ["rising", "falling"])
def test_scores_far_apart_neither_overflow_nor_vanish(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    monkeypatch.setattr(module, "TILE", 0)
    monkeypatch.setattr(module, "LEAST", 4)
    table = torch.linspace(-300, 300, 16)[:, None]
    table = table if order == "rising" else table.flip(0)
    table = table.clone().requires_grad_()
    query = torch.ones(2, 1, requires_grad=True)
    targets = torch.tensor([0, 15])
    tiled = item_cross_entropy(query, table, targets)
    plain = plain_item_cross_entropy(query, table, targets)
    torch.testing.assert_close(tiled, plain)
    assert torch.isfinite(torch.autograd.grad(tiled, table)[0]).all()


def test_single_precision_is_close_at_full_size() -> None:
    query, table, targets = tensors(5000, batch=20, dim=32, dtype=torch.float32)
    tiled = item_cross_entropy(query, table, targets)
    plain = plain_item_cross_entropy(query, table, targets)
    for a, b in zip(
        torch.autograd.grad(tiled, (query, table)), torch.autograd.grad(plain, (query, table)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_one_gradient_alone_is_the_same() -> None:
    query, table, targets = tensors(40)
    both = torch.autograd.grad(item_cross_entropy(query, table, targets), (query, table))
    assert torch.equal(torch.autograd.grad(item_cross_entropy(query, table.detach(), targets), query)[0], both[0])
    assert torch.equal(torch.autograd.grad(item_cross_entropy(query.detach(), table, targets), table)[0], both[1])


@pytest.mark.parametrize("scale", [1.0, 200.0, -200.0])
def test_scores_beyond_plain_exponentials_are_shifted(scale: float) -> None:
    query, table, targets = tensors(500, scale=0.1, dtype=torch.float32)
    with torch.no_grad():
        table[:, 0], query[:, 0] = 1.0, scale  # every score moves by the scale: no softmax does
    tiled, plain = (form(query, table, targets) for form in (item_cross_entropy, plain_item_cross_entropy))
    assert torch.isfinite(tiled)
    torch.testing.assert_close(tiled, plain, rtol=1e-4, atol=1e-4)
    for a, b in zip(
        torch.autograd.grad(tiled, (query, table)), torch.autograd.grad(plain, (query, table)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("native", [False, True])  # factors rounded alone, or the blocks of scores too
@pytest.mark.parametrize("keep", [1 << 27, 0])
@pytest.mark.parametrize("trusted", [module.TRUSTED, (1.0, 1.0)])
def test_bf16_is_close_and_its_gradients_are_fp32(
    monkeypatch: pytest.MonkeyPatch, cosine: bool, native: bool, keep: int, trusted: tuple[float, float]
) -> None:
    for place in (module, precision):
        monkeypatch.setattr(place, "native_bf16", lambda device_type: native)
    monkeypatch.setattr(module, "KEEP", keep)
    monkeypatch.setattr(module, "TRUSTED", trusted)
    query, table, targets = tensors(3000, batch=20, dim=64, dtype=torch.float32)
    exact, rounded = (item_cross_entropy(query, table, targets, cosine, bf16) for bf16 in (False, True))
    assert exact != rounded
    torch.testing.assert_close(rounded, exact, rtol=2e-3, atol=2e-3)
    pairs = zip(*(torch.autograd.grad(loss, (query, table)) for loss in (exact, rounded)), strict=True)
    for a, b in pairs:
        assert b.dtype == torch.float32
        assert float((a - b).norm() / a.norm()) < 0.02


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("cosine", "scale"), [(True, 20.0), (False, 40.0)])
@pytest.mark.parametrize("keep", [1 << 27, 0])
def test_bf16_is_close_where_a_model_is_sure(
    monkeypatch: pytest.MonkeyPatch, native: bool, cosine: bool, scale: float, keep: int
) -> None:
    for place in (module, precision):
        monkeypatch.setattr(place, "native_bf16", lambda device_type: native)
    monkeypatch.setattr(module, "KEEP", keep)
    torch.manual_seed(0)
    table = torch.nn.functional.normalize(torch.randn(3000, 64), dim=1)
    targets = torch.randint(3000, (20,))
    query = (scale * table[targets] + 0.3 * torch.randn(20, 64)).requires_grad_()
    table.requires_grad_()
    exact, rounded = (item_cross_entropy(query, table, targets, cosine, bf16) for bf16 in (False, True))
    assert 0 <= rounded < 0.1
    assert float(rounded) == pytest.approx(float(exact), rel=0.05, abs=1e-5)
    pairs = zip(*(torch.autograd.grad(loss, (query, table)) for loss in (exact, rounded)), strict=True)
    for a, b in pairs:
        assert float((a - b).norm()) < max(0.05 * float(a.norm()), 1e-6)


@pytest.mark.parametrize("cosine", [False, True])
def test_one_block_equals_the_plain_path(cosine: bool) -> None:
    query, table, targets = tensors(33)
    grads = []
    for form in (whole_item_cross_entropy, plain_item_cross_entropy):
        value = form(query, table, targets, cosine, False)
        grads.append((value.detach(), *torch.autograd.grad(3 * value, (query, table))))
    for whole, plain in zip(*grads, strict=True):
        torch.testing.assert_close(whole, plain, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda q, t: whole_item_cross_entropy(q, t, targets, cosine, False), (query, table))


@pytest.mark.parametrize("cosine", [False, True])
def test_one_block_with_rounded_factors_is_close(cosine: bool) -> None:
    query, table, targets = tensors(400, batch=20, dim=16, dtype=torch.float32)
    table.data[targets] += 2 * query.data  # a model that is sure: targets' probabilities near 1
    grads = []
    for bf16 in (True, False):
        value = whole_item_cross_entropy(query, table, targets, cosine, bf16)
        grads.append((value.detach(), *torch.autograd.grad(value, (query, table))))
    for rounded, whole in zip(*grads, strict=True):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, whole, rtol=0.03, atol=0.01 * float(whole.abs().max()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("whole", [1 << 26, 0])  # in one block, or in tiles
def test_every_form_agrees_on_the_device(monkeypatch: pytest.MonkeyPatch, cosine: bool, bf16: bool, whole: int) -> None:
    monkeypatch.setattr(module, "WHOLE", whole)
    query, table, targets = tensors(5000, batch=100, dim=64, dtype=torch.float32)
    found = []
    for form, device in ((item_cross_entropy, "cuda"), (plain_item_cross_entropy, "cpu")):
        q, t = (x.detach().to(device).requires_grad_() for x in (query, table))
        value = form(q, t, targets.to(device), cosine, bf16 and device == "cuda")
        found.append([x.cpu() for x in (value.detach(), *torch.autograd.grad(value, (q, t)))])
    for there, here in zip(*found, strict=True):
        error = 2e-2 if bf16 else 1e-4
        torch.testing.assert_close(there, here, rtol=error, atol=error * float(here.abs().max()))
