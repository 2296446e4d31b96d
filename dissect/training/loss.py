"""Cross-entropy over all items, as one operation tiled over the item table.

The plain path, ``cross_entropy(query @ table.T, targets)``, writes and reads the (B, items) logits and their
gradient half a dozen times. Here a tile of the table is read once: scored, exponentiated against a running
maximum (Milakov and Gimelshein 2018, arXiv 1805.02867), and multiplied back at once into the queries' gradient,
while it is in cache. The backward pass is one matrix product a tile, written into its place in the table's
gradient. Scores are held in units of log 2: exp2 takes a third of exp's time on a CPU.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dissect.training.precision import differentiable_matmul, matmul, native_bf16
from dissect.training.whole import whole_item_cross_entropy

#: Scores of a tile on a CPU (1.2 MB), which stay in its cache: 3,072 items for a batch of 100, 600 for one of 512.
TILE = 3072 * 100
#: Items of a tile at the least: below, the products are slow.
LEAST = 512
#: Elements of the largest block of scores that is kept for the backward pass (512 MB in fp32); above it, the
#: scores of each tile are computed anew there.
KEEP = 1 << 27
#: Elements of a block of scores that CUDA takes as a whole, twice (512 MB in fp32).
WHOLE = 1 << 26
#: Elements of a tile of scores on an accelerator, where each kernel has a price and the cache is no limit.
ACCELERATOR_TILE = 1 << 26


#: Sums of plain exponentials that are trusted, far from what fp32 can't hold; outside, scores are shifted.
TRUSTED = (1e-25, 1e30)
LOG2E = math.log2(math.e)


class _Options(NamedTuple):
    cosine: bool
    bf16: bool


def _tiles(batch: int, items: int, device: torch.device) -> list[tuple[int, int]]:
    cached = max(LEAST, TILE // max(1, batch))
    size = cached if device.type == "cpu" else max(1, ACCELERATOR_TILE // max(1, batch))
    return [(i, min(i + size, items)) for i in range(0, items, size)]


class _Scan:
    """One pass over the table's tiles: sums of exponentials, and the rows they weigh.

    Blocks of scores are (items of the tile, B): tall matrices, which a CPU multiplies a fifth faster than flat ones.

    Attributes
    ----------
    kept : Tensor, (items x B,) or empty
        exp(score - peak), tile after tile, where `keep` is set.
    peaks : Tensor, (tiles, B)
        What was subtracted from each tile's scores, in units of log 2: the highest score so far, or zero.
    total : Tensor, (B,)
        Sum of exp(score - last peak).
    pull : Tensor, (B, d)
        Sum of exp(score - last peak) times the (normalised) rows.
    own : Tensor, (B,)
        exp(score - last peak) of the targets, where they are counted apart from the blocks; else 0.
    """

    def __init__(
        self,
        query: Tensor,
        table: Tensor,
        targets: Tensor,
        options: _Options,
        *,
        shifted: bool,
        keep: bool,
        with_pull: bool,
    ) -> None:
        batch, items = query.shape[0], table.shape[0]
        self.query, self.table, self.options, self.shifted = query, table, options, shifted
        self.tiles = _tiles(batch, items, query.device)
        # A CPU's products of bfloat16 matrices are fast, and have bfloat16 results: so are the blocks then.
        narrow = options.bf16 and query.device.type == "cpu" and native_bf16("cpu")
        self.factor = torch.bfloat16 if narrow else table.dtype
        # The target's probability is taken from 1 in the gradient, and near 1 a rounded one would leave more error than
        # gradient: under bfloat16 targets are left out of the blocks, and counted in fp32.
        self.apart = targets if options.bf16 else None
        self.columns = (query * LOG2E).to(self.factor).t()
        self.scale = query.new_empty(items) if options.cosine else None  # 1 / |e|
        self.kept = query.new_empty(batch * items if keep else 0, dtype=self.factor)
        spare = query.new_empty(0 if keep else batch * (self.tiles[0][1] - self.tiles[0][0]), dtype=self.factor)
        self.peaks = query.new_zeros(len(self.tiles), batch)
        self.total, self.pull = query.new_zeros(batch), torch.zeros_like(query)
        self.peak = query.new_full((batch,), -torch.inf) if shifted else query.new_zeros(batch)
        for k, (i, j) in enumerate(self.tiles):
            if self.scale is not None:
                torch.linalg.vector_norm(table[i:j], dim=1, out=self.scale[i:j]).clamp_min_(1e-12).reciprocal_()
            buffer = self.kept[batch * i : batch * j] if keep else spare[: batch * (j - i)]
            rows = self._rows(i, j)
            block = matmul(rows, self.columns, options.bf16, out=buffer.view(j - i, batch))
            if shifted:
                last, self.peak = self.peak, torch.maximum(self.peak, block.amax(0))
                self.peaks[k] = self.peak
                block.sub_(self.peak)
                shrink = torch.exp2(last - self.peak)  # brings what was summed before to the new peak
                self.total.mul_(shrink)
                self.pull.mul_(shrink[:, None])
            self._leave_out(k, block.exp2_())
            self.total.add_(block.sum(0, dtype=self.total.dtype))
            if with_pull:
                matmul(block.t(), rows, options.bf16, add_to=self.pull)
        rows = table[targets]
        self.targets = rows if self.scale is None else rows * self.scale[targets][:, None]
        self.score = (query * self.targets).sum(1)
        self.own = torch.zeros_like(self.score)
        if self.apart is not None:
            self.own = torch.exp2(self.score * LOG2E - self.peak)
            self.total.add_(self.own)
            self.pull.add_(self.own[:, None] * self.targets)

    def _leave_out(self, k: int, block: Tensor) -> Tensor:
        """Set the exponentials of the tile's targets to 0, in place, where targets are counted apart."""
        if self.apart is not None:
            place = self.apart - self.tiles[k][0]
            inside = (place >= 0) & (place < len(block))
            place = place.clamp(0, len(block) - 1)[None]  # of other tiles' targets some item, which stays as it is
            block.scatter_(0, place, block.gather(0, place).masked_fill_(inside[None], 0))
        return block

    def _rows(self, i: int, j: int) -> Tensor:
        """The tile's rows as factors: (items of the tile, d), of unit length for a cosine."""
        rows = self.table[i:j] if self.scale is None else self.table[i:j] * self.scale[i:j, None]
        return rows.to(self.factor)

    def exponentials(self, k: int) -> Tensor:
        """exp(score - peak) of a tile, (items of the tile, B): kept, or computed anew."""
        i, j = self.tiles[k]
        batch = self.query.shape[0]
        if len(self.kept):
            return self.kept[batch * i : batch * j].view(j - i, batch)
        block = matmul(self._rows(i, j), self.columns, self.options.bf16)
        return self._leave_out(k, block.sub_(self.peaks[k]).exp2_())

    def trusted(self) -> bool:
        """Whether plain exponentials neither overflowed nor vanished; waits for the device."""
        low, high = (float(x) for x in self.total.aminmax())
        return TRUSTED[0] < low and high < TRUSTED[1]


class _ItemCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, targets: Tensor, options: _Options) -> Tensor:
        batch = query.shape[0]
        how: dict[str, bool] = {
            "keep": ctx.needs_input_grad[1] and batch * table.shape[0] <= KEEP,
            "with_pull": ctx.needs_input_grad[0],
        }
        # On a CPU two passes over the scores are saved where they can be exponentiated as they are, which a look at
        # the sums tells. An accelerator would have to wait for that look.
        shifted = query.device.type != "cpu"
        scan = _Scan(query, table, targets, options, shifted=shifted, **how)
        if not shifted and not scan.trusted():
            scan = _Scan(query, table, targets, options, shifted=True, **how)
        ctx.save_for_backward(query, table, targets)
        ctx.scan = scan
        return (scan.total.log() + scan.peak / LOG2E - scan.score).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # pyright: ignore
        query, table, targets = ctx.saved_tensors
        scan: _Scan = ctx.scan
        share = grads[0] / query.shape[0]
        grad_query = grad_table = None
        if ctx.needs_input_grad[0]:
            grad_query = (scan.pull / scan.total[:, None]).sub_(scan.targets).mul_(share)
        if ctx.needs_input_grad[1]:
            grad_table = torch.empty_like(table)
            # softmax = exponential * weight; the weight is moved to the queries, which are fewer numbers.
            weights = torch.exp2(scan.peaks - scan.peak) * (share / scan.total)  # (tiles, B)
            scale = scan.scale
            for k, (i, j) in enumerate(scan.tiles):
                weighed = (query * weights[k][:, None]).to(scan.factor)
                out = matmul(scan.exponentials(k), weighed, scan.options.bf16, out=grad_table[i:j])
                if scale is not None:
                    _through_norm(out, table[i:j], scale[i:j])
            # The targets' rows go the same way through the norm by themselves: the map is linear.
            own = query * (share * (scan.own / scan.total - 1))[:, None]
            if scale is not None:
                _through_norm(own, table[targets], scale[targets])
            grad_table.index_add_(0, targets, own)
            grad_table.fresh = True  # type: ignore[attr-defined]  # a lookup in the same table may add its rows in place
        return grad_query, grad_table, None, None


def _through_norm(grad: Tensor, rows: Tensor, scale: Tensor) -> None:
    """Gradient of e from that of e / |e|, in place: the radial component is removed, the rest divided by |e|."""
    radial = (rows * grad).sum(1).mul_(scale.pow(3))
    grad.mul_(scale[:, None]).addcmul_(rows, radial[:, None], value=-1)


def item_cross_entropy(
    query: Tensor, table: Tensor, targets: Tensor, cosine: bool = False, bf16: bool = False
) -> Tensor:
    """Mean cross-entropy of the targets under a softmax over all items.

    Parameters
    ----------
    query : Tensor, (B, d)
        As the scorer gives it (scaled and normalised already for a cosine).
    table : Tensor, (items, d)
    targets : Tensor, (B,) int64
    cosine : bool
        Whether the table's rows are to be L2-normalised.
    bf16 : bool
        Whether the factors of the matrix products are rounded to bfloat16; sums and gradients stay in fp32. On a
        CPU with bfloat16 products (`native_bf16`) each block's results are rounded too, the scores of all items but
        the target among them.

    Returns
    -------
    Tensor
        A scalar, in nats.

    Notes
    -----
    Memory: one (B, items) block of exponentials, kept for the backward pass while it has at most `KEEP`
    elements; above that, one tile of it. On CUDA up to `WHOLE` elements are scored in one go
    (`whole_item_cross_entropy`), with two blocks in memory.
    """
    if query.device.type == "cuda" and query.shape[0] * table.shape[0] <= WHOLE:
        return whole_item_cross_entropy(query, table, targets, cosine, bf16)
    return _ItemCrossEntropy.apply(query, table, targets, _Options(cosine, bf16))  # type: ignore[no-any-return]


def plain_item_cross_entropy(
    query: Tensor, table: Tensor, targets: Tensor, cosine: bool = False, bf16: bool = False
) -> Tensor:
    """The same value by way of the whole logits; the reference that the tests hold the tiled form to."""
    table = F.normalize(table, dim=1) if cosine else table
    return F.cross_entropy(differentiable_matmul(query, table.t(), bf16), targets)


#: Name -> form of the loss.
LOSSES = {"tiled": item_cross_entropy, "plain": plain_item_cross_entropy}
