"""What was wrapped, one row for each layer, and what a forward pass makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dissect.sparsity.parts import ALIASES, Parts, matrices_of, resolve_parts
from dissect.sparsity.trace import Shape, traced


@dataclass(frozen=True)
class Row:
    """One replaced module or parameter."""

    part: str
    module: str
    old: str
    new: str
    parameters: tuple[str, ...]
    """Full names of the wrapped matrices; they keep their names."""
    weights: int
    """Number of wrapped weights, those tied to an earlier row left out."""
    note: str = ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text under a head, in columns."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


class Receipt(list[Row]):
    """The replaced modules, one row each; prints as a table."""

    def __str__(self) -> str:
        head = ("part", "module", "old", "new", "weights", "note")
        return table(head, ((r.part, r.module, r.old, r.new, f"{r.weights:,}", r.note) for r in self))


@dataclass(frozen=True)
class Planned:
    """One module or parameter that would be wrapped."""

    part: str
    module: str
    kind: str
    shapes: tuple[Shape, ...]
    """Shapes of its matrices."""
    weights: int
    calls: int | None
    """Calls in the forward pass, reads of a raw parameter as one; None where no pass was run."""
    inputs: tuple[Shape, ...]
    """Distinct shapes of the inputs, in order of appearance."""
    note: str = ""


class DryRun(list[Planned]):
    """What `dry_run` found; prints as a table, parts without parameters included."""

    empty: tuple[str, ...] = ()
    """Chosen parts without parameters."""

    @property
    def dead(self) -> list[str]:
        """Names that the forward pass never calls."""
        return [row.module for row in self if row.calls == 0]

    def __str__(self) -> str:
        head = ("part", "module", "kind", "weights", "calls", "inputs", "note")
        rows = [
            (
                r.part, r.module or "(the model)", r.kind, " + ".join(map(_times, r.shapes)) + f" = {r.weights:,}",
                "?" if r.calls is None else str(r.calls), ", ".join(map(_times, r.inputs)) or "-", r.note,
            )
            for r in self
        ]  # fmt: skip
        return table(head, [*rows, *((part, "-", "-", "no parameters", "-", "-", "") for part in self.empty)])


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))


def dry_run(
    model: nn.Module,
    parts: Parts,
    which: str | Iterable[str] = "all",
    run_forward: Callable[[], Any] | None = None,
    aliases: Mapping[str, Sequence[str]] = ALIASES,
) -> DryRun:
    """What `wrap` would wrap, and how a forward pass uses it, without a change to the model.

    Parameters
    ----------
    model, parts, which, aliases
        As for `wrap`.
    run_forward : callable, optional
        Runs the model once; calls, input shapes and dead weights are found by it. Reads of raw parameters can be seen
        after wrapping alone (`Instrument.check_dead`).

    Raises
    ------
    DissectError
        As `wrap` does for names.
    """
    resolved = resolve_parts(model, parts, which, aliases)
    modules = dict(model.named_modules(remove_duplicate=False))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names = [name for part in resolved.values() for name in part]
    watched = {name: modules[name] for name in names if name in modules}
    calls = traced(model, watched, run_forward) if run_forward is not None else {}
    out = DryRun()
    first: dict[int, str] = {}
    for part, found in resolved.items():
        for name in found:
            weights, notes, shapes = 0, [], []
            for full in matrices_of(name, modules):
                known = first.setdefault(id(parameters[full]), full)
                shapes.append(tuple(parameters[full].shape))
                if known == full:
                    weights += parameters[full].numel()
                else:
                    notes.append(f"{full.rpartition('.')[2]} tied to {known}")
            seen = calls.get(name)
            if seen is not None and not seen:
                notes.append("never called: dead weights, which no density should count")
            if name not in modules:
                notes.append("a raw parameter: 'weight' noise only")
            kind = type(modules[name]).__name__ if name in modules else "Parameter"
            count, inputs = None if seen is None else len(seen), tuple(dict.fromkeys(seen or ()))
            out.append(Planned(part, name, kind, tuple(shapes), weights, count, inputs, "; ".join(notes)))
    out.empty = tuple(part for part, found in resolved.items() if not found)
    return out
