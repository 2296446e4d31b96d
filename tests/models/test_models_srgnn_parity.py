"""SR-GNN through the seams equals the released code on the same weights: scores, loss and gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dissect.batch import Batch
from dissect.models import SessionModel, build
from dissect.training.loss import item_cross_entropy

#: Computed by the released code (the files name its commit); ids start at 1 there, row 0 is padding. Sessions of the
#: second have up to 40 clicks.
FILES = ("srgnn_released", "srgnn_released_long")
NAMES = {
    "embedding.weight": "embedding.weight",
    "gnn.w_ih": "encoder.cell.input.weight",
    "gnn.w_hh": "encoder.cell.hidden.weight",
    "gnn.b_ih": "encoder.cell.input.bias",
    "gnn.b_hh": "encoder.cell.hidden.bias",
    "gnn.b_iah": "encoder.bias_in",
    "gnn.b_oah": "encoder.bias_out",
    "gnn.linear_edge_in.weight": "encoder.edge_in.weight",
    "gnn.linear_edge_in.bias": "encoder.edge_in.bias",
    "gnn.linear_edge_out.weight": "encoder.edge_out.weight",
    "gnn.linear_edge_out.bias": "encoder.edge_out.bias",
    "linear_one.weight": "readout.w1.weight",
    "linear_one.bias": "readout.w1.bias",
    "linear_two.weight": "readout.w2.weight",
    "linear_two.bias": "readout.w2.bias",
    "linear_three.weight": "readout.q.weight",
    "linear_transform.weight": "readout.w3.weight",
    "linear_transform.bias": "readout.w3.bias",
}


def _rows(name: str, tensor: Tensor) -> Tensor:
    return tensor[1:] if name == "embedding.weight" else tensor


@pytest.fixture(params=FILES)
def vectors(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / f"{request.param}.json").read_text())


@pytest.fixture
def model(vectors: dict[str, Any]) -> SessionModel:
    net = build("srgnn", items=12, dim=4).double()
    with torch.no_grad():
        for p, row in enumerate(vectors["parameters"]):
            size = torch.Size(row["shape"])
            values = 0.6 * torch.sin(1 + 7 * p + 1.7 * torch.arange(size.numel(), dtype=torch.float64))
            own = net.get_parameter(NAMES[row["name"]])
            own.copy_(_rows(row["name"], values.reshape(size)))
    return net


@pytest.fixture
def batch(vectors: dict[str, Any]) -> Batch:
    sessions = [[i - 1 for i in s] for s in vectors["sessions"]]
    return Batch.from_lists(sessions, [t - 1 for t in vectors["targets"]])


def test_every_weight_is_mapped(model: SessionModel) -> None:
    assert {n for n, _ in model.named_parameters()} == set(NAMES.values())


def test_scores_equal_the_released_ones(model: SessionModel, batch: Batch, vectors: dict[str, Any]) -> None:
    expected = torch.tensor(vectors["scores"], dtype=torch.float64)
    torch.testing.assert_close(model.scores(batch), expected, rtol=0, atol=1e-6)


def test_loss_and_gradients_equal_the_released_ones(model: SessionModel, batch: Batch, vectors: dict[str, Any]) -> None:
    out = model(batch)
    assert batch.targets is not None
    loss = item_cross_entropy(out.query, out.table, batch.targets)
    loss.backward()
    assert loss.item() == pytest.approx(vectors["loss"], abs=1e-6)
    for row in vectors["parameters"]:
        expected = torch.tensor(row["grad"], dtype=torch.float64).reshape(row["shape"])
        grad = model.get_parameter(NAMES[row["name"]]).grad
        assert grad is not None
        torch.testing.assert_close(
            grad, _rows(row["name"], expected), rtol=0, atol=1e-6, msg=lambda m, n=row["name"]: f"{n}: {m}"
        )


def test_a_session_scores_the_same_alone(model: SessionModel, vectors: dict[str, Any]) -> None:
    for session, expected in zip(vectors["sessions"], vectors["scores"], strict=True):
        alone = model.scores(Batch.from_lists([[i - 1 for i in session]]))[0]
        torch.testing.assert_close(alone, torch.tensor(expected).double(), rtol=0, atol=1e-6)
