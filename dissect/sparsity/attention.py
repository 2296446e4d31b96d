"""Multi-head attention from plain linear maps; see `dissect.sparsity.unfuse`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.errors import DissectError
from dissect.sparsity.replacement import Names, Replacement


class _NoFastPath:
    """Stands where the packed weight would be: nn.TransformerEncoder then leaves its fused path.

    That path, in eval mode without gradients, would hand the weights to a kernel, past masks and noise. An
    argument with ``__torch_function__`` makes the encoder keep out of it.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return NotImplemented


class MultiheadAttention(Replacement):
    """nn.MultiheadAttention from the linear maps ``query``, ``key``, ``value`` and ``out``.

    The call is that of the fused class. Nested tensors are not taken.
    """

    FUSED = nn.MultiheadAttention
    OPTIONS = ("embed_dim", "num_heads", "dropout", "kdim", "vdim", "batch_first")
    embed_dim: int
    num_heads: int
    dropout: float
    kdim: int
    vdim: int
    batch_first: bool
    # nn.TransformerEncoderLayer reads these two, and goes on without its fused path.
    in_proj_bias = None
    _qkv_same_embed_dim = False
    in_proj_weight = _NoFastPath()

    @staticmethod
    def names(module: Any) -> Names:
        """``in_proj_weight`` is the weights of query, key and value; ``out_proj.bias`` is ``out.bias``."""
        three = ("query", "key", "value")
        names: Names = {}
        if module.embed_dim == module.kdim == module.vdim:
            names["in_proj_weight"] = tuple(f"{name}.weight" for name in three)
        else:
            names |= {f"{name[0]}_proj_weight": (f"{name}.weight",) for name in three}
        names["out_proj.weight"] = ("out.weight",)
        if module.out_proj.bias is not None:
            names["in_proj_bias"] = tuple(f"{name}.bias" for name in three)
            names["out_proj.bias"] = ("out.bias",)
        return names

    @property
    def out_proj(self) -> nn.Module:
        """The map ``out`` under the fused module's name."""
        return self.get_submodule("out")

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention: (output, weights or None); a mask of bools is True where none may attend."""
        if is_causal and attn_mask is None:
            raise DissectError("MultiheadAttention: is_causal says that attn_mask is causal; it needs that mask")
        single = query.dim() == 2
        time_first = not (single or self.batch_first)
        if single:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif time_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        dropout = self.dropout if self.training else 0.0
        causal = is_causal and key_padding_mask is None and not need_weights  # as torch, which then trusts the hint
        q, k, v = (
            self.get_submodule(name)(rows).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for name, rows in (("query", query), ("key", key), ("value", value))
        )  # (batch, heads, length, d)
        size = (query.shape[0], query.shape[1], key.shape[1])
        mask = None if causal else self._mask(attn_mask, key_padding_mask, size, q.dtype)
        weights = None
        if need_weights:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (batch, heads, L, S)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            mixed = weights @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal)
        mixed = mixed.transpose(1, 2).flatten(2)  # (batch, L, heads * d)
        output = self.out_proj(mixed.transpose(0, 1) if time_first else mixed)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if single:
            return output[0], None if weights is None else weights[0]
        return output, weights

    def _mask(
        self, attn: Tensor | None, padding: Tensor | None, size: tuple[int, int, int], dtype: torch.dtype
    ) -> Tensor | None:
        """The sum of both masks as a summand of the scores, broadcast to (batch, heads, L, S)."""
        (batch, length, source), mask = size, None
        if attn is not None:
            shapes = (length, source), (batch * self.num_heads, length, source)
            attn = _summand("attn_mask", attn, shapes, dtype)
            mask = attn if attn.dim() == 2 else attn.unflatten(0, (batch, self.num_heads))
        if padding is not None:
            padding = _summand("key_padding_mask", padding, ((batch, source),), dtype)[:, None, None]
            mask = padding if mask is None else mask + padding
        return mask


def _summand(name: str, mask: Tensor, shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype) -> Tensor:
    """A mask of bools as 0 and -inf, one of floats as it is, in the type of the scores."""
    if mask.shape not in shapes:
        valid = " or ".join(map(str, shapes))
        raise DissectError(f"MultiheadAttention: {name} must be of shape {valid}, got {tuple(mask.shape)}")
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -torch.inf)
    if not mask.is_floating_point():
        raise DissectError(f"MultiheadAttention: {name} must be of bools or floats, got {mask.dtype}")
    return mask.to(dtype)
