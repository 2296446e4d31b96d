"""Each baseline equals the released code on the same weights: scores, loss, and the gradient of every weight.

The vectors in ``released/`` were computed by that code in float64; each file names it, its commit and how it was run.
Ids start at 1 there and row 0 of a table is padding. Sessions have repeats, one click, and unequal lengths; those of a
``_long`` file up to 40 clicks, and where it was made in training, a function of x stood in for dropout of x. In
``dhcn_unseen`` the sessions have items that no training session has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dissect.batch import Batch, PackedExamples
from dissect.models import SessionModel, build, recipe_of
from dissect.training.loss import item_cross_entropy

HERE = Path(__file__).parent / "released"
GRAPH = {
    "gnncell.incomming_conv.lin": "encoder.edge_in",
    "gnncell.outcomming_conv.lin": "encoder.edge_out",
    "gnncell.lin_ih": "encoder.cell.input",
    "gnncell.lin_hh": "encoder.cell.hidden",
    "pos_embedding": "readout.position",
    "linear_one": "readout.w1",
    "linear_two": "readout.w2",
    "linear_transform": "readout.w3",
}
UNIT = {"weight_ih_l0": "input.weight", "weight_hh_l0": "hidden.weight", "bias_ih_l0": "input.bias",
        "bias_hh_l0": "hidden.bias"}  # fmt: skip
GATES = ("w_ih", "w_hh", "b_ih", "b_hh")


class Case(NamedTuple):
    """How one model is built here, and what its weights are called there."""

    options: Mapping[str, Any]
    names: Mapping[str, str]
    dim: int = 4
    zero: tuple[str, ...] = ()  # weights of ours that the released code lacks
    long: Mapping[str, Any] = {}  # other options for the long sessions
    twice: tuple[str, str] | None = None  # what the released code has once
    start: float = 1.0  # factor on the embeddings that the vectors were made with


def _edge_order(layers: int) -> dict[str, str]:
    names: dict[str, str] = {}
    for i in range(layers):
        there, here = f"layers.{i}", f"encoder.layers.{i}"
        names |= {f"{there}.batch_norm": f"{here}.norm", f"{there}.activation": f"{here}.activation"}
        if i % 2:
            names |= {
                f"{there}.fc_{k}": f"{here}.{v}"
                for k, v in zip("qkve", ("query", "key", "value", "energy"), strict=True)
            }
        else:
            names |= {f"{there}.gru.{k}": f"{here}.cell.{v}" for k, v in UNIT.items()}
            names |= {f"{there}.fc_self": f"{here}.own", f"{there}.fc_neigh": f"{here}.neighbours"}
    return names


def _blocks(blocks: int) -> dict[str, str]:
    names: dict[str, str] = {}
    for i in range(2 * blocks):
        for k in (1, 2):
            names[f"residual_blocks.{i}.conv{k}"] = f"encoder.blocks.{i}.conv{k}"
            names[f"residual_blocks.{i}.ln{k}"] = f"encoder.blocks.{i}.norm{k}"
    return names


CASES = {
    "niser": Case(
        {"positions": 12}, {**GRAPH, "linear_three": "readout.q"}, zero=("bias_in", "bias_out"), long={"positions": 10}
    ),
    "sgnnhn": Case(
        {"positions": 12, "encoder.steps": 3, "encoder.highway": False},
        {**GRAPH, "linear_three": "readout.w_star", "linear_four": "readout.q"},
        zero=("bias_in", "bias_out"),
        long={"positions": 40},
    ),
    "gcsan": Case(
        {"blocks": 2, "weight": 0.52},
        {"gnn.w_ih": "encoder.cell.input.weight", "gnn.b_ih": "encoder.cell.input.bias",
         "gnn.w_hh": "encoder.cell.hidden.weight", "gnn.b_hh": "encoder.cell.hidden.bias",
         "gnn.b_iah": "encoder.bias_in", "gnn.b_oah": "encoder.bias_out", "gnn.linear_edge_in": "encoder.edge_in",
         "gnn.linear_edge_out": "encoder.edge_out", "rn.d1": "readout.blocks.0.inner",
         "rn.d2": "readout.blocks.0.outer"},
        twice=("readout.blocks.0", "readout.blocks.1"),
    ),
    "narm": Case(
        {"encoder.factor": 2},
        {**{f"gru.{k}": f"encoder.cell.{v}" for k, v in UNIT.items()}, "a_1": "readout.w1", "a_2": "readout.w2",
         "v_t": "readout.q", "b": "readout.w3"},
    ),
    "nextitnet": Case({"encoder.blocks": 1}, {**_blocks(1), "final_layer": "readout.w"}),
    "lessr": Case(
        {"encoder.layers": 3, "encoder.dropout": 0.0, "dropout": 0.0},
        {**_edge_order(3), "readout.batch_norm": "readout.norm", "readout.fc_u": "readout.u",
         "readout.fc_v": "readout.v", "readout.fc_e": "readout.energy", "readout.fc_out": "readout.pooled",
         "readout.activation": "readout.activation", "batch_norm": "readout.norm_both", "fc_sr": "readout.both"},
        long={"encoder.dropout": 0.2, "dropout": 0.2},
    ),
    "dhcn": Case(
        {"encoder.layers": 2},
        {"pos_embedding": "readout.position", "w_1": "readout.w1", "w_2": "readout.w2.weight", "glu1": "readout.g1",
         "glu2": "readout.g2"},
    ),
    "dsan": Case(
        {"encoder.positions": 70},
        {"pos_embedding": "encoder.position", "atten_w0": "readout.energy.weight",
         "atten_w1": "readout.of_click.weight", "atten_w2": "readout.of_target.weight",
         "atten_bias": "readout.of_target.bias", "w_f": "readout.w", "self_atten_w1": "encoder.inner",
         "self_atten_w2": "encoder.outer", "LN": "encoder.norm", "attention_mlp": "encoder.query",
         "alpha_w": "encoder.exponent"},
        twice=("encoder.exponent", "readout.exponent"),
        start=2.0,
    ),
}  # fmt: skip


def _vectors(name: str) -> dict[str, Any]:
    return json.loads((HERE / f"{name}.json").read_text())


def _ours(model: str, case: Case, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor of the released code's as one or more of ours; the same for weights and for gradients."""
    if name in ("embedding.weight", "item_embedding.weight"):
        if model == "dsan":  # its last row is the target token
            return {"embedding.weight": tensor[1:-1], "encoder.token.weight": tensor[-1:]}
        return {"embedding.weight": tensor if model in ("lessr", "dhcn") else tensor[1:]}  # these have no padding
    if model == "dsan" and name == "pos_embedding.weight":
        return {"encoder.position.weight": tensor[1:]}
    if model == "dhcn" and name == "w_2":
        tensor = tensor.t()
    if model == "dsan" and name in ("atten_w1", "atten_w2"):
        tensor = tensor.t()
    if name == "multihead_attn.in_proj_weight":
        maps = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        return {f"readout.blocks.0.{which}.weight": part for which, part in maps}
    module, _, kind = name.rpartition(".")
    if kind in GATES or module in ("gnncell.lin_ih", "gnncell.lin_hh"):  # their update gate keeps what ours lets go
        r, z, n = tensor.chunk(3)
        tensor = torch.cat([r, -z, n])
    target = case.names.get(name) or f"{case.names[module]}.{kind}"
    if ".conv" in target:
        if kind == "bias":
            return {target.replace("bias", "own.bias"): tensor}
        *past, own = tensor.squeeze(2).unbind(2)
        stem = target.removesuffix("weight")
        return {f"{stem}past.weight": torch.cat(past, 1), f"{stem}own.weight": own}
    return {target: tensor}


@pytest.fixture(params=[*(file for name in CASES for file in (name, f"{name}_long")), "dhcn_unseen"])
def made(request: pytest.FixtureRequest) -> tuple[str, Case, dict[str, Any], SessionModel]:
    name, _, long = request.param.partition("_")
    case, vectors = CASES[name], _vectors(request.param)
    torch.manual_seed(0)
    options = {**case.options, **(case.long if long else {})}
    model = build(recipe_of(name, options=options), items=12, dim=case.dim).double()
    left = dict(model.named_parameters())
    with torch.no_grad():
        for row in vectors["parameters"]:
            if row["grad"] is None:  # the released code has weights that it never uses
                continue
            size = torch.Size(row["shape"])
            values = 0.6 * torch.sin(1 + 7 * row["fill"] + 1.7 * torch.arange(size.numel(), dtype=torch.float64))
            values = values.reshape(size) * (case.start if "embedding" in row["name"] else 1)
            for target, tensor in _ours(name, case, row["name"], values).items():
                left.pop(target).copy_(tensor)
        if case.twice:
            first, second = case.twice
            for target in [target for target in left if target.startswith(second)]:
                left.pop(target).copy_(model.get_parameter(target.replace(second, first)))
        for target in case.zero:
            left.pop(f"encoder.{target}").zero_()
    assert not left, f"weights without a counterpart: {list(left)}"
    model.train(vectors["training"])
    if name == "dhcn":
        clicks = torch.tensor([i - 1 for s in vectors["training_sessions"] for i in s] + [0])
        ends = torch.tensor([len(s) for s in vectors["training_sessions"]]).cumsum(0)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
        model.prepare(PackedExamples(clicks, starts, ends))
        model.double()
    return name, case, vectors, model


def _batch(vectors: Mapping[str, Any]) -> Batch:
    return Batch.from_lists([[i - 1 for i in s] for s in vectors["sessions"]], [t - 1 for t in vectors["targets"]])


def _in_place_of_dropout(module: nn.Dropout, x: Tensor) -> Tensor:
    return 1.5 * x + 0.1 * torch.sin(3 * x) if module.training and module.p else x


def _same(a: Tensor, b: Tensor, what: str = "") -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=lambda m: f"{what}: {m}")


def test_scores_loss_and_gradients_equal_the_released_ones(
    made: tuple[str, Case, dict[str, Any], SessionModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, case, vectors, model = made
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n).flip(0))  # DHCN's vectors were made so
    monkeypatch.setattr(nn.Dropout, "forward", _in_place_of_dropout)
    batch = _batch(vectors)
    _same(model.scores(batch), torch.tensor(vectors["scores"], dtype=torch.float64))
    out = model(batch)
    assert batch.targets is not None
    loss = item_cross_entropy(out.query, out.table, batch.targets, out.unit_items)
    if out.aux_loss is not None:
        loss = loss + out.aux_loss
    loss.backward()
    assert loss.item() == pytest.approx(vectors["loss"], abs=1e-6)
    for row in vectors["parameters"]:
        if row["grad"] is None:
            continue
        theirs = torch.tensor(row["grad"], dtype=torch.float64).reshape(row["shape"])
        for target, expected in _ours(name, case, row["name"], theirs).items():
            grad = model.get_parameter(target).grad
            assert grad is not None, target
            if case.twice and target.startswith(case.twice[0]):
                grad = grad + model.get_parameter(target.replace(*case.twice)).grad  # type: ignore[operator]
            _same(grad, expected, f"{row['name']} ({target})")
