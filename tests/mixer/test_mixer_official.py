"""The official reading equals the released code on the same weights: scores, loss and gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mixer import OfficialAttenMixer, OfficialReadout

#: Computed by the released code (the file names its commit); ids start at 1 there, row 0 is padding.
VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "attenmixer_released.json").read_text())
MODULES = {
    "embedding": "embedding",
    "mattn.linear_zero": "readout.w_q",
    "mattn.linear_one": "readout.w_k",
    "mattn.linear_two": "readout.w_v",
    "mattn.last_layernorm": "readout.norm",
    "linear_transform": "readout.w_m",
    **{f"linear_q.{i}": f"readout.intents.maps.{i}" for i in range(3)},
}
SESSIONS = [[i - 1 for i in session] for session in VECTORS["sessions"]]
CLICKS = torch.tensor([i for session in SESSIONS for i in session])
LENGTHS = torch.tensor([len(session) for session in SESSIONS])


def _own(name: str) -> str:
    module, _, kind = name.rpartition(".")
    return f"{MODULES[module]}.{kind}"


def _rows(name: str, tensor: Tensor) -> Tensor:
    return tensor[1:] if name == "embedding.weight" else tensor


@pytest.fixture
def model() -> OfficialAttenMixer:
    return _model(VECTORS)


def _model(vectors: dict[str, Any]) -> OfficialAttenMixer:
    net = OfficialAttenMixer(12, **vectors["settings"]).double().eval()
    with torch.no_grad():
        for p, row in enumerate(vectors["parameters"]):
            if row["name"] in vectors["unused"]:
                continue
            size = torch.Size(row["shape"])
            values = 0.6 * torch.sin(1 + 7 * p + 1.7 * torch.arange(size.numel(), dtype=torch.float64))
            net.get_parameter(_own(row["name"])).copy_(_rows(row["name"], values.reshape(size)))
    return net


def test_every_weight_is_mapped(model: OfficialAttenMixer) -> None:
    used = [row["name"] for row in VECTORS["parameters"] if row["name"] not in VECTORS["unused"]]
    assert {n for n, _ in model.named_parameters()} == {_own(name) for name in used}


@pytest.mark.parametrize("name", ["attenmixer_released", "attenmixer_released_long"])  # the latter up to 40 clicks
def test_scores_loss_and_gradients_equal_the_released_ones(name: str) -> None:
    vectors = json.loads((Path(__file__).parent / f"{name}.json").read_text())
    model = _model(vectors)
    clicks = torch.tensor([i - 1 for session in vectors["sessions"] for i in session])
    scores = model(clicks, torch.tensor([len(session) for session in vectors["sessions"]]))
    torch.testing.assert_close(scores, torch.tensor(vectors["scores"], dtype=torch.float64), rtol=0, atol=1e-9)
    loss = F.cross_entropy(scores, torch.tensor(vectors["targets"]) - 1)
    loss.backward()
    assert loss.item() == pytest.approx(vectors["loss"], abs=1e-9)
    for row in vectors["parameters"]:
        if row["name"] in vectors["unused"]:
            continue
        grad = model.get_parameter(_own(row["name"])).grad
        assert grad is not None
        expected = _rows(row["name"], torch.tensor(row["grad"], dtype=torch.float64).reshape(row["shape"]))
        torch.testing.assert_close(grad, expected, rtol=1e-7, atol=1e-8, msg=lambda m, n=row["name"]: f"{n}: {m}")


def test_single_precision_stays_within_a_millionth(model: OfficialAttenMixer) -> None:
    expected = torch.tensor(VECTORS["scores"])
    assert float((model.float()(CLICKS, LENGTHS).detach() - expected).abs().max() / expected.abs().max()) < 1e-6


def test_packed_equals_padded(model: OfficialAttenMixer) -> None:
    padded = torch.zeros(len(SESSIONS), int(LENGTHS.max()), dtype=torch.int64)
    for row, session in enumerate(SESSIONS):
        padded[row, : len(session)] = torch.tensor(session)
    assert torch.equal(model(padded, LENGTHS), model(CLICKS, LENGTHS))


def test_scores_depend_on_the_padding(model: OfficialAttenMixer) -> None:
    """The quirk that `slots` exists for."""
    before = model(CLICKS, LENGTHS)
    model.readout.slots = 20
    assert float((model(CLICKS, LENGTHS) - before).abs().max().detach()) > 1e-3
    model.readout.slots = 6
    with pytest.raises(ValueError, match="a session has 7 items, more than the 6 slots"):
        model(CLICKS, LENGTHS)


def test_dropout_acts_in_training_alone(model: OfficialAttenMixer) -> None:
    assert torch.equal(model(CLICKS, LENGTHS), model(CLICKS, LENGTHS))
    model.train()
    assert not torch.equal(model(CLICKS, LENGTHS), model(CLICKS, LENGTHS))


def test_the_readout_drops_states_and_maps() -> None:
    torch.manual_seed(0)
    net = OfficialReadout(8, levels=3, heads=2, dropout=0.5).double()
    hidden = torch.randn(len(CLICKS), 8, dtype=torch.float64)
    torch.manual_seed(1)
    found = net(hidden, LENGTHS)
    torch.manual_seed(1)
    unit = F.normalize(F.dropout(F.normalize(hidden, dim=1), 0.5), dim=1)
    weights = F.dropout(net.weights(unit, LENGTHS), 0.5).repeat_interleave(4, 1)  # a weight for each feature of a head
    pooled = torch.stack([part.sum(0) for part in (net.w_v(unit) * weights).split(LENGTHS.tolist())])
    last = unit[LENGTHS.cumsum(0) - 1]
    torch.testing.assert_close(found, net.w_m(torch.cat([net.norm(pooled), last], 1)))


def test_the_model_drops_entries_of_the_item_table(model: OfficialAttenMixer) -> None:
    query = F.normalize(model.readout(model.embedding(CLICKS), LENGTHS), dim=1)
    model.train()
    model.dropout, model.readout.dropout = 0.5, 0.0
    torch.manual_seed(1)
    found = model(CLICKS, LENGTHS)
    torch.manual_seed(1)
    table = F.dropout(F.normalize(model.embedding.weight, dim=1), 0.5)
    torch.testing.assert_close(found, model.sigma * query @ table.T)


def test_every_parameter_starts_as_in_the_released_code() -> None:
    """U(-1/sqrt(d), 1/sqrt(d)), the layer norm's gain and every bias too."""
    torch.manual_seed(0)
    for name, parameter in OfficialAttenMixer(300, 256, levels=2).named_parameters():
        assert 0.9 / 16 < float(parameter.detach().abs().max()) <= 1 / 16, name
        assert float(parameter.detach().mean().abs()) < 0.01, name


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dim": 0}, "dim is 0; it must be a whole number >= 1"),
        ({"heads": 3}, "heads is 3; it must divide the width 8: 1, 2, 4, 8"),
        ({"levels": 0}, "levels is 0"),
        ({"p": float("inf")}, "p is inf; it must be a finite number >= 1"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"slots": 0}, "slots is 0"),
        ({"items": 0}, "items is 0"),
        ({"sigma": 0}, "sigma is 0"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        OfficialAttenMixer(**{"items": 12, "dim": 8, **options})
    if not {"items", "sigma"} & set(options):
        with pytest.raises(ValueError, match=says):
            OfficialReadout(**{"dim": 8, **options})


def test_input_that_does_not_fit_is_refused(model: OfficialAttenMixer) -> None:
    with pytest.raises(ValueError, match="ids go from 0 to 12; they must lie in 0 to 11"):
        model(torch.tensor([0, 12]), torch.tensor([2]))
    with pytest.raises(ValueError, match="lengths is of type list"):
        model(CLICKS, SESSIONS)
    with pytest.raises(ValueError, match=r"hidden is \(4, 7\); it must be .* with d = 8"):
        OfficialReadout(8)(torch.randn(4, 7), torch.tensor([4]))
