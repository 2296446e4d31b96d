"""Matrix products with bfloat16 factors and fp32 sums, by whatever the device has for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

PRECISIONS = ("fp32", "bf16")


@cache
def native_bf16(device_type: str) -> bool:
    """Whether the device has bfloat16 products.

    A CPU has them with AVX512_BF16 or AMX (Intel since Cooper Lake, AMD since Zen 4). Elsewhere torch's bfloat16
    product takes ten times as long as its fp32 one, so factors are rounded and multiplied in fp32: the same
    numbers, no gain in time.
    """
    if device_type != "cpu":
        return True
    return has_amx() or _supports("_is_avx512_bf16_supported")


@cache
def has_amx() -> bool:
    """Whether the CPU multiplies tiles of bfloat16 (Intel since Sapphire Rapids): its fp32 products can use them too.

    With AVX512_BF16 alone oneDNN's bfloat16 mode of fp32 products is no faster than fp32, and prepares a product of its
    own for each shape, of which a packed batch has a new one each time.
    """
    return _supports("_is_amx_tile_supported")


def _supports(name: str) -> bool:  # private names, and not in every build
    return torch.backends.mkldnn.is_available() and bool(getattr(torch.cpu, name, bool)())


def _rounded(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


@cache
def sums_in_fp32() -> bool:
    """Whether CUDA multiplies bfloat16 matrices into an fp32 one: torch does from 2.8 on, cards from Ampere on.

    Elsewhere factors are rounded and multiplied in fp32: the same numbers, no gain in time.
    """
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return False
    a = torch.ones(8, 8, dtype=torch.bfloat16, device="cuda")
    try:
        torch.mm(a, a, out_dtype=torch.float32)  # type: ignore[call-overload]
    except (TypeError, RuntimeError):
        return False
    return True


def factor(x: Tensor, bf16: bool) -> Tensor:
    """A factor of several products by `matmul`, rounded once for all of them."""
    if not bf16:
        return x
    return x.bfloat16() if x.device.type == "cuda" and sums_in_fp32() else _rounded(x)


def matmul(
    a: Tensor, b: Tensor, bf16: bool = False, *, out: Tensor | None = None, add_to: Tensor | None = None
) -> Tensor:
    """``a @ b`` into `out`, or added to `add_to`; both fp32.

    Parameters
    ----------
    a, b : Tensor, (n, k) and (k, m)
    bf16 : bool
        Whether `a` and `b` are rounded to bfloat16 first; the products are summed in fp32.
    out, add_to : Tensor, (n, m), at most one of them

    Notes
    -----
    Factors that come in bfloat16 are multiplied as they are: summed in fp32, the result rounded to bfloat16 before
    it is written or added. A CPU has no product of them with an fp32 result; of one with AVX512_BF16 but no AMX,
    this is the form that is faster than fp32 (by 2 on a Zen 4).
    """
    if a.dtype == torch.bfloat16 and a.device.type == "cpu":
        if out is not None and out.dtype == a.dtype:
            return torch.mm(a, b, out=out)
        product = torch.mm(a, b)
        if add_to is not None:
            return add_to.add_(product)
        return product if out is None else out.copy_(product)
    if bf16 and a.device.type == "cuda" and sums_in_fp32():
        product = torch.mm(a.bfloat16(), b.bfloat16(), out_dtype=torch.float32, out=out)  # type: ignore[call-overload]
        return product if add_to is None else add_to.add_(product)
    if bf16 and not has_amx():
        a, b = _rounded(a), _rounded(b)
    # Where a CPU has AMX, `fast_products` has told the library to use it for fp32 matrices.
    if add_to is not None:
        return add_to.addmm_(a, b)
    return torch.mm(a, b) if out is None else torch.mm(a, b, out=out)


class _Bf16Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return matmul(a, b, True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        a, b = ctx.saved_tensors
        return matmul(grad, b.t(), True), matmul(a.t(), grad, True)


def differentiable_matmul(a: Tensor, b: Tensor, bf16: bool = False) -> Tensor:
    """``a @ b`` as `matmul` forms it, its gradients too; for use outside of functions with a backward of their own."""
    return _Bf16Matmul.apply(a, b) if bf16 else a @ b  # type: ignore[no-any-return]


class _Bf16Linear(TorchFunctionMode):
    """Gives every linear map bfloat16 factors: products of its own where the CPU has them, else rounded fp32 ones."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        x, weight, *rest = args
        if not native_bf16("cpu"):
            return F.linear(_rounded(x), _rounded(weight), *rest, **(kwargs or {}))
        bias = rest[0] if rest else (kwargs or {}).get("bias")
        product = F.linear(x.bfloat16(), weight.bfloat16()).to(x.dtype)  # rounded as well: see `matmul`
        return product if bias is None else product + bias


@contextmanager
def products(bf16: bool, device: torch.device) -> Iterator[None]:
    """Around a forward pass: linear maps have bfloat16 factors, and what lies between them stays fp32 on a CPU.

    An accelerator has autocast for it. A CPU with AMX needs `fast_products` instead, around the backward pass too.
    """
    if not bf16:
        yield
    elif device.type != "cpu":
        # No cache of cast weights: a graph would go on with those of the step that captured it.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
    elif has_amx():
        yield
    else:
        with _Bf16Linear():
            yield


@contextmanager
def fast_products(bf16: bool, device: torch.device) -> Iterator[None]:
    """Around a whole step: a CPU with AMX uses it inside its fp32 products; elsewhere nothing changes.

    All that lies between two products stays fp32. The former setting comes back afterwards.
    """
    if not (bf16 and device.type == "cpu" and has_amx()):
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
