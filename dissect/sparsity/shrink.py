"""Shrinking a pruned model: what its zeros allow to be removed without changing the output.

Single zeros make no matrix product faster. What can go is an all-zero row (an output unit that is its bias, whatever
the input) and an all-zero column (an input that nobody reads):

- between the linear maps of an nn.Sequential, where the data flow is known, the unit itself goes, from both maps;
- elsewhere the flow is unknown, and what can be done is local: pick the inputs that are read, multiply by the small
  matrix, spread the result into the full output.

Both are exact for finite inputs, up to rounding.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dissect.errors import DissectError
from dissect.sparsity.reduced import REDUCED, Reduced, used
from dissect.sparsity.variational import variational_modules

ELEMENTWISE: frozenset[type[nn.Module]] = frozenset({
    nn.Identity, nn.Dropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.Hardtanh, nn.Hardsigmoid,
    nn.Hardswish,
})  # fmt: skip
"""What may stand between two linear maps of a chain: one number in, one number out, no weights."""


@dataclass(frozen=True)
class ShrinkRow:
    """What became of one matrix. Parameters and bytes are those of the matrix, its bias and its indices."""

    name: str
    """Full name of the parameter in the dense model."""
    before: tuple[int, ...]
    after: tuple[int, ...]
    nonzeros: int
    """Nonzero weights after."""
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    empty: bool
    """Whether the matrix had an all-zero row or column."""
    note: str
    """Why it was left as it is, where that is not for want of an all-zero row or column."""


@dataclass(frozen=True)
class ShrinkReport:
    """The shrunk model and what was removed from it; prints as a table with a sentence under it."""

    model: nn.Module
    rows: list[ShrinkRow]
    """Every matrix of the dense model, embedding tables aside."""
    parameters_before: int
    parameters_after: int
    """Of the whole models, as are the bytes (buffers included)."""
    bytes_before: int
    bytes_after: int

    @property
    def shrunk(self) -> int:
        """Number of matrices that are smaller now."""
        return sum(row.after != row.before for row in self.rows)

    @property
    def sentence(self) -> str:
        """What was gained in size, or why nothing was."""
        empty, total = sum(row.empty for row in self.rows), len(self.rows)
        if self.shrunk:
            return (
                f"{self.shrunk} of {total} matrices are smaller: {self.parameters_after:,} of "
                f"{self.parameters_before:,} parameters, {self.bytes_after:,} of {self.bytes_before:,} bytes"
            )
        why = "" if not empty else ", and nothing is saved by removing it"
        return f"no gain: {empty} of {total} matrices have an empty row or column{why}"

    def __str__(self) -> str:
        table: list[tuple[str, ...]] = [("matrix", "before", "after", "nonzero", "bytes", "note")]
        for r in self.rows:
            shapes = ("x".join(map(str, r.before)), "x".join(map(str, r.after)))
            table.append((r.name, *shapes, f"{r.nonzeros:,}", f"{r.bytes_before:,} -> {r.bytes_after:,}", r.note))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table]
        return "\n".join([*lines, self.sentence])


@torch.no_grad()
def shrink(model: nn.Module) -> ShrinkReport:
    """A copy of a dense model without the all-zero rows and columns of its linear maps, and a report of it.

    Parameters
    ----------
    model : nn.Module
        A model with zeros in plain layers, as `pruned_copy` gives; it is left as it is. An nn.Sequential of linear
        maps with elementwise activations between them is taken to be called as a whole, so its inner widths may
        change. Every other nn.Linear, and nn.Conv1d of one group, keeps its input and output, and changes only where
        that saves bytes, the indices counted.

    Returns
    -------
    ShrinkReport
        Its `model` gives the outputs of `model` in evaluation mode, up to rounding; in training mode too, unless a
        unit with a constant nonzero output stood before an nn.Dropout. Left as they are, with a note: nn.GRUCell and
        all other types, subclasses, tied weights, and layers with hooks.

    Raises
    ------
    DissectError
        If a layer is still variational.
    """
    for name, module in variational_modules(model):
        raise DissectError(f"{name!r} is {type(module).__name__}; shrink takes dense layers, as export() gives them")
    twin = copy.deepcopy(model)
    shared = _shared(twin)
    for module in twin.modules():
        if _is_sequential(module):
            _fold_chain(module, shared)
    small = _reduce(twin, shared)
    return ShrinkReport(
        model=small,
        rows=list(_rows(model, small)),
        parameters_before=_count(model.parameters()),
        parameters_after=_count(small.parameters()),
        bytes_before=_bytes(tensors_of(model, recurse=True)),
        bytes_after=_bytes(tensors_of(small, recurse=True)),
    )


def _shared(model: nn.Module) -> set[int]:
    """Ids of the modules and parameters that are held at more than one place."""
    held = (x for m in model.modules() for x in (*m._modules.values(), *m._parameters.values()) if x is not None)
    return {key for key, count in Counter(map(id, held)).items() if count > 1}


def _hooked(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)


def _why_left(module: nn.Module, shared: set[int]) -> str:
    """Why a module can't be reduced; empty where it can."""
    if type(module) not in REDUCED:
        return f"left: {type(module).__name__} is not reduced"
    if isinstance(module, nn.Conv1d) and (module.groups > 1 or module.padding_mode != "zeros"):
        return "left: convolution with groups or padding other than zeros"
    if any(id(p) in shared for p in module.parameters(recurse=False)):
        return "left: tied"
    return "left: has hooks" if _hooked(module) else ""


def _is_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _steps(sequential: nn.Module, shared: set[int]) -> Iterator[nn.Module]:
    """What a sequence calls, in order, with inner sequences in place."""
    for child in sequential._modules.values():  # children() would leave out an activation's second use
        assert child is not None
        if _is_sequential(child) and id(child) not in shared and not _hooked(child):
            yield from _steps(child, shared)
        else:
            yield child


def _fold_chain(sequential: nn.Module, shared: set[int]) -> None:
    links: list[tuple[nn.Linear, list[nn.Module], nn.Linear]] = []
    first: nn.Linear | None = None
    between: list[nn.Module] = []
    for step in _steps(sequential, shared):
        if type(step) is nn.Linear and id(step) not in shared and not _why_left(step, shared):
            if first is not None:
                links.append((first, between, step))
            first, between = step, []
        elif type(step) in ELEMENTWISE and not _hooked(step):
            between.append(step)
        else:
            first, between = None, []
    # A row that goes may leave an empty column, and a column an empty row.
    while any(_fold(*link) for link in links):
        pass


def _fold(first: nn.Linear, between: Iterable[nn.Module], second: nn.Linear) -> bool:
    """Remove the units between two maps that are constant, or not read; whether there were any."""
    varies, read = first.weight.any(1), second.weight.any(0)
    kept = varies & read
    if kept.all():
        return False
    constant = first.weight.new_zeros(len(kept)) if first.bias is None else first.bias.detach().clone()
    for activation in between:
        if not isinstance(activation, nn.Dropout):
            constant = activation(constant)
    shift = second.weight[:, ~kept] @ constant[~kept]
    if second.bias is not None:
        second.bias.add_(shift)
    elif shift.any():
        second.bias = nn.Parameter(shift, requires_grad=second.weight.requires_grad)
    first.weight = nn.Parameter(first.weight[kept], requires_grad=first.weight.requires_grad)
    if first.bias is not None:
        first.bias = nn.Parameter(first.bias[kept], requires_grad=first.bias.requires_grad)
    second.weight = nn.Parameter(second.weight[:, kept], requires_grad=second.weight.requires_grad)
    first.out_features = second.in_features = int(kept.sum())
    return True


def _reduce(model: nn.Module, shared: set[int]) -> nn.Module:
    """Put reduced layers where they save bytes."""
    new: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if not _why_left(module, shared):
            reduced: nn.Module = REDUCED[type(module)](module)
            if _bytes(tensors_of(reduced)) < _bytes(tensors_of(module)):
                new[module] = reduced
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in new:
                setattr(parent, name, new[child])
    return new.get(model, model)


def tensors_of(module: nn.Module, recurse: bool = False) -> list[Tensor]:
    """Parameters and buffers."""
    return [*module.parameters(recurse), *module.buffers(recurse)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def _rows(dense: nn.Module, small: nn.Module) -> Iterator[ShrinkRow]:
    shared = _shared(dense)
    for prefix, old in dense.named_modules():
        if isinstance(old, nn.Embedding | nn.EmbeddingBag):  # looked up, never multiplied by
            continue
        new = small.get_submodule(prefix)
        for name, matrix in old.named_parameters(recurse=False):
            if matrix.dim() < 2:
                continue
            if isinstance(new, Reduced):
                after, indices = new.kernel, list(new.buffers(recurse=False))
            else:
                after, indices = getattr(new, name), []
            bias = name.replace("weight", "bias")  # weight_ih: bias_ih
            biases = [
                [b] if (bias != name and isinstance(b := getattr(m, bias, None), nn.Parameter)) else []
                for m in (old, new)
            ]
            empty = not all(bool(used.all()) for used in used(matrix))
            note = ""
            if empty and after.shape == matrix.shape:
                note = _why_left(old, shared) or "left: the indices would take more bytes than they save"
            yield ShrinkRow(
                name=f"{prefix}.{name}" if prefix else name,
                before=tuple(matrix.shape),
                after=tuple(after.shape),
                nonzeros=int(after.count_nonzero()),
                parameters_before=_count([matrix, *biases[0]]),
                parameters_after=_count([after, *biases[1]]),
                bytes_before=_bytes([matrix, *biases[0]]),
                bytes_after=_bytes([after, *biases[1], *indices]),
                empty=empty,
                note=note,
            )
