"""Parts as data: names, patterns, aliases, and every way to get them wrong."""

from __future__ import annotations

import pytest
from torch import nn

from dissect.errors import DissectError
from dissect.sparsity import resolve_parts, wrap
from dissect.sparsity.variational import to_variational


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
        ({"p": ["c"]}, "all", "'c' matches no module; modules: a, b"),
        ({"p": ["c.*"]}, "all", r"'c\.\*' matches no module"),
        ({"p": ["b"], "q": ["b.0"]}, "all", r"'b\.0' is in two parts, 'p' and 'q'"),
        ({"p": ["b"], "q": ["b.0"]}, ["p"], "two parts"),
        ({"p": ["gru"]}, "all", "fused GRU.*nn.GRUCell"),
        ({"p": ["attention"]}, "all", "fused MultiheadAttention.*nn.Linear projections"),
        ({"p": ["table"]}, "all", "Embedding with the weight 'weight'.*valid types: nn.Linear, nn.GRUCell"),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "row"}, "local, weight"),
        ({"prior": "laplace"}, "log-uniform, ard, normal"),
        ({"rule": "alpha"}, "log-alpha, magnitude, signed, snr"),
        ({"warmup": (0.5, 0.1)}, "warm-up"),
        ({"examples": 0}, "at least 1"),
        ({"kl_scale": -1.0}, "kl_scale"),
    ],
)
def test_a_refused_wrap_leaves_the_model_dense(options: dict[str, object], message: str):
    one = model()
    with pytest.raises(DissectError, match=message):
        wrap(one, PARTS, **{"examples": 1, "steps": 1, **options})  # pyright: ignore
    assert type(one["a"]) is nn.Linear
