"""Parts as data: names, patterns, aliases, and every way to get them wrong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from dissect.errors import DissectError
from dissect.sparsity import resolve_parts, wrap
from dissect.sparsity.layers import to_variational


def model() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "a": nn.Linear(2, 2),
            "b": nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 2))),
            "gru": nn.GRU(2, 2),
            "attention": nn.MultiheadAttention(2, 1),
            "table": nn.Embedding(3, 2),
            "act": nn.ReLU(),
        }
    )


PARTS = {"propagation": ["a"], "combination": [], "attention": ["b"]}


def test_names_patterns_and_containers():
    assert resolve_parts(model(), PARTS) == {
        "propagation": ["a"],
        "combination": [],
        "attention": ["b.0", "b.2.1"],
    }
    assert resolve_parts(model(), {"p": ["b.*"]}) == {"p": ["b.0", "b.2.1"]}
    assert resolve_parts(model(), {"p": ["b.0", "b"]}) == {"p": ["b.0", "b.2.1"]}
    assert resolve_parts(nn.Linear(2, 2), {"p": [""]}) == {"p": [""]}


def test_choice_by_alias_or_name():
    assert list(resolve_parts(model(), PARTS, "gnn")) == ["propagation", "combination"]
    assert list(resolve_parts(model(), PARTS, ["readout", "propagation"])) == ["propagation", "attention"]
    assert list(resolve_parts(model(), PARTS, ["x"], {"x": ["attention"]})) == ["attention"]


@pytest.mark.parametrize(
    ("parts", "which", "message"),
    [
        (
            PARTS,
            "edges",
            "parts: propagation, combination, attention; aliases: gnn = propagation",
        ),
        ({"p": ["c"]}, "all", "'c' matches no module and no parameter; modules: a, b"),
        ({"p": ["c.*"]}, "all", r"'c\.\*' matches no module"),
        ({"p": ["b"], "q": ["b.0"]}, "all", r"'b\.0' is in two parts, 'p' and 'q'"),
        ({"p": ["b"], "q": ["b.0"]}, ["p"], "two parts"),
        ({"p": ["gru"]}, "all", "fused GRU.*unfuse\\(model, \\['gru'\\]\\) first"),
        ({"p": ["attention"]}, "all", "fused MultiheadAttention.*unfuse"),
        (
            {"p": ["table"]},
            "all",
            "Embedding with the weight 'weight'.*the parameter 'table.weight' .*nn.GRUCell, nn.Conv1d",
        ),
        ({"p": ["a.weight"]}, "all", "'a.weight' belongs to a layer, nn.Linear; name the layer, 'a'"),
        ({"p": ["table.weight"], "q": ["table.*"]}, "all", "parameter 'table.weight' is in two parts, 'p' and 'q'"),
        ({"p": ["act"]}, "all", "ReLU: nothing to wrap"),
    ],
)
def test_errors_name_the_cause_and_the_choices(parts: dict[str, list[str]], which: str, message: str):
    with pytest.raises(DissectError, match=message):
        resolve_parts(model(), parts, which)


def test_nothing_is_wrapped_twice_and_nothing_else_is_wrapped():
    one = model()
    wrap(one, PARTS, examples=1, steps=1)
    with pytest.raises(DissectError, match="already wrapped"):
        wrap(one, PARTS, examples=1, steps=1)
    with pytest.raises(DissectError, match="cannot wrap ReLU"):
        to_variational(nn.ReLU())


class Twice(nn.Linear):
    def doubled(self) -> torch.Tensor:
        return 2 * self.weight


class Cell(nn.GRUCell):
    pass


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Twice(2, 2), "'b.1' is Twice, a subclass of nn.Linear: .*valid types: nn.Linear, nn.GRUCell"),
        (Cell(2, 2), "'b.1' is Cell, a subclass of nn.GRUCell"),
        (nn.LazyLinear(2), "'b.1' is LazyLinear, a subclass of nn.Linear"),
        (parametrizations.weight_norm(nn.Linear(2, 2)), "'b.1' is ParametrizedLinear, .*parametrized"),
        (prune.l1_unstructured(nn.Linear(2, 2), "weight", 1), "'weight' of 'b.1' is computed from other tensors"),
    ],
)
def test_what_would_not_come_back_whole_is_refused_before_anything_changes(layer: nn.Module, message: str):
    one = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Sequential(nn.Linear(2, 2), layer)})
    kinds = [type(module) for module in one.modules()]
    names = [name for name, _ in one.named_parameters()]
    with pytest.raises(DissectError, match=message) as caught:
        wrap(one, {"p": ["a"], "q": ["b"]}, examples=1, steps=1)
    assert "\n" not in str(caught.value)
    assert [type(module) for module in one.modules()] == kinds
    assert [name for name, _ in one.named_parameters()] == names
    if type(layer) is not nn.Linear:
        with pytest.raises(DissectError, match="cannot wrap"):
            to_variational(layer)


def test_a_cell_whose_two_matrices_are_one_is_wrapped():
    cell = nn.GRUCell(2, 2)
    cell.weight_hh = cell.weight_ih
    probe = wrap(nn.ModuleDict({"cell": cell}), {"p": ["cell"]}, examples=1, steps=1)
    assert probe.prune_counts()[1] == 12
    assert probe.receipt[0].note == "weight_hh tied to cell.weight_ih"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "column"}, "local, row, weight"),
        ({"shadows": -1}, "shadows must be at least 0"),
        ({"prior": "laplace"}, "log-uniform, ard, normal"),
        ({"rule": "alpha"}, "log-alpha, magnitude, signed, snr"),
        ({"warmup": (0.5, 0.1)}, "warm-up"),
        ({"examples": 0}, "at least 1"),
        ({"kl_scale": -1.0}, "kl_scale"),
        ({"kl_scale": math.nan}, "kl_scale must be a finite number"),
        ({"log_sigma2": math.inf}, "log_sigma2 must be a finite number"),
        ({"threshold": math.nan}, "threshold of rule 'log-alpha' is nan; it must be a finite number"),
        ({"warmup": (math.nan, 1)}, "warm-up"),
    ],
)
def test_a_refused_wrap_leaves_the_model_dense(options: dict[str, object], message: str):
    one = model()
    with pytest.raises(DissectError, match=message):
        wrap(one, PARTS, **{"examples": 1, "steps": 1, **options})  # pyright: ignore
    assert type(one["a"]) is nn.Linear


def test_a_wildcard_leaves_no_matrix_out():
    """What a container's name refuses, or stands for itself, a pattern that reaches into it does too."""

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
            self.att = nn.Parameter(torch.ones(4, 2))
            self.scale = nn.Parameter(torch.ones(4))

    model = nn.ModuleDict({"gnn": nn.ModuleDict({"lin": nn.Linear(4, 4), "conv": nn.Conv2d(1, 3, 3)}), "held": Held()})
    for pattern in ("gnn", "gnn.*", "gnn*"):
        with pytest.raises(DissectError, match=r"'gnn.conv' is Conv2d with the weight 'weight'"):
            resolve_parts(model, {"encoder": [pattern]})
    assert resolve_parts(model, {"encoder": ["gnn.lin", "gnn.conv.weight"]})["encoder"] == [
        "gnn.lin",
        "gnn.conv.weight",
    ]
    assert resolve_parts(model, {"encoder": ["held.*"]})["encoder"] == ["held.lin", "held.att"]
    with pytest.raises(DissectError, match=r"'held' is Held with the weight 'att'"):
        resolve_parts(model, {"encoder": ["held"]})
