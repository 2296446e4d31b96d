"""Recipes, halves and scorers, against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dissect.batch import Batch, PackedExamples
from dissect.errors import DissectError
from dissect.experiment.spec import Spec
from dissect.models import ENCODERS, READOUTS, RECIPES, SCORERS, Recipe, SessionModel, build, recipe_of
from dissect.models.recurrence import GRUCell
from dissect.models.scorers import Scorer
from dissect.models.seams import Encoded
from dissect.sparsity import resolve_parts
from dissect.training.loss import item_cross_entropy

BATCH = Batch.from_lists([[0, 1, 0], [2], [1, 2]], [1, 0, 2])


def _loss(model: SessionModel, batch: Batch) -> torch.Tensor:
    out = model(batch)
    assert batch.targets is not None
    loss = item_cross_entropy(out.query, out.table, batch.targets, out.unit_items)
    return loss if out.aux_loss is None else loss + out.aux_loss


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("readout", READOUTS)
def test_every_pair_of_halves_trains_a_step(encoder: str, readout: str) -> None:
    for scorer in SCORERS if readout == "mean" else ("cosine",):
        model = build(recipe_of("srgnn", encoder, readout, scorer), items=5, dim=8)
        assert model(BATCH).query.shape == (3, 8)
        _loss(model, BATCH).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.layout == torch.strided, name


SESSIONS = [[0, 1, 0, 3, 0, 1], [2], [1, 2], [4, 4, 4], list(range(12)), [3, 5, 3, 5, 6]]


def _filled(recipe: str | Recipe, items: int = 12) -> SessionModel:
    torch.manual_seed(1)
    model = build(recipe, items=items, dim=8, longest=12).double()  # the released Atten-Mixer pads to the longest
    clicks = torch.tensor([i for s in SESSIONS for i in s] + [0])
    ends = torch.tensor([len(s) for s in SESSIONS]).cumsum(0)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
    model.prepare(PackedExamples(clicks, starts, ends))
    return model.double()


#: Every recipe by its own scorer, and every pair of halves; of the last one's sessions none is longer than it takes.
EVERY = [
    *RECIPES,
    *(pytest.param(recipe_of("srgnn", e, r, "cosine"), id=f"{e},{r}") for e in ENCODERS for r in READOUTS),
]


def _sessions(model: str | Recipe) -> list[list[int]]:
    return [s[-10:] for s in SESSIONS] if model == "attenmixer-pr" else SESSIONS


@pytest.mark.parametrize("recipe", EVERY)
def test_every_weight_has_a_gradient(recipe: str | Recipe) -> None:
    model = _filled(recipe)
    _loss(model, Batch.from_lists(_sessions(recipe), [1, 2, 3, 4, 5, 6])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # Under a softmax over one head a bias of every logit has none; PReLU's slope only where an input is negative.
        assert parameter.grad.abs().max() > 0 or "activation" in name, name


@pytest.mark.parametrize("recipe", EVERY)
def test_a_session_scores_the_same_alone_and_among_others_in_any_order(recipe: str | Recipe) -> None:
    model, sessions = _filled(recipe).eval(), _sessions(recipe)
    together = model.scores(Batch.from_lists(sessions))
    order = [3, 0, 5, 1, 4, 2]
    torch.testing.assert_close(model.scores(Batch.from_lists([sessions[i] for i in order])), together[order])
    for session, scores in zip(sessions, together, strict=True):
        torch.testing.assert_close(model.scores(Batch.from_lists([session]))[0], scores)


@pytest.mark.parametrize("recipe", EVERY)
def test_every_matrix_but_embeddings_belongs_to_exactly_one_part(recipe: str | Recipe) -> None:
    model = build(recipe, items=5, dim=8)
    matrices = {n.removesuffix(".weight") for n, p in model.named_parameters() if p.dim() == 2}
    matrices -= {n for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    named = [name for names in resolve_parts(model, model.parts()).values() for name in names]
    assert sorted(named) == sorted(matrices)


def test_sparse_lookups_and_the_dense_loss_add_up() -> None:
    model = build("srgnn", items=6, dim=4).double()
    assert BATCH.targets is not None
    out = model(BATCH)
    item_cross_entropy(out.query, out.table, BATCH.targets).backward()
    found = model.embedding.weight.grad
    # The same by autograd alone: a table that is no leaf is looked up densely.
    table = model.embedding.weight.detach().requires_grad_()
    encoded = model.encoder(BATCH, table * 1)
    F.cross_entropy(model.readout(encoded) @ table.t(), BATCH.targets).backward()
    torch.testing.assert_close(found, table.grad)


def test_gru_cell_equals_torchs() -> None:
    ours, theirs = GRUCell(3, 4), nn.GRUCell(3, 4)
    with torch.no_grad():
        for own, other in (("input", "ih"), ("hidden", "hh")):
            linear = ours.get_submodule(own)
            assert isinstance(linear, nn.Linear)
            linear.weight.copy_(theirs.get_parameter(f"weight_{other}"))
            linear.bias.copy_(theirs.get_parameter(f"bias_{other}"))
    a, h = torch.randn(7, 3), torch.randn(7, 4)
    torch.testing.assert_close(ours(a, h), theirs(a, h))


def test_mean_and_last_item_by_hand() -> None:
    clicks = torch.tensor([[1.0, 0], [2, 3], [3, 0], [5, 5], [1, 1], [3, 2]])
    encoded = Encoded(BATCH, clicks, torch.zeros(3, 2))
    unit = F.normalize(clicks, dim=1)
    mean = torch.stack([unit[:3].mean(0), unit[3], unit[4:].mean(0)])
    torch.testing.assert_close(READOUTS["mean"](2)(encoded), mean)
    both = READOUTS["mean-last"](2)
    expected = torch.cat([F.normalize(mean, dim=1), unit[[2, 3, 5]]], 1) @ both.get_parameter("w_m.weight").T
    torch.testing.assert_close(both(encoded), expected)
    assert READOUTS["last-item"](2)(encoded).tolist() == [[3, 0], [5, 5], [3, 2]]


def test_cosine_scores_are_sigma_times_the_cosine() -> None:
    model = build("meanpool", items=5, dim=4, sigma=7.0)
    scores = model.scores(Batch.from_lists([[3]]))[0]
    expected = 7 * F.cosine_similarity(model.embedding.weight[3][None], model.embedding.weight)
    torch.testing.assert_close(scores, expected)
    assert float(scores.detach()[3]) == pytest.approx(7, abs=1e-5)


def test_centring_has_its_gradient() -> None:
    torch.manual_seed(0)
    query, table = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    assert torch.autograd.gradcheck(Scorer("centred", 2.0).scores, (query, table))
    torch.testing.assert_close(
        Scorer("centred", 2.0).scores(query, table),
        2
        * F.cosine_similarity((query - query.mean(1, keepdim=True))[:, None], table - table.mean(1, keepdim=True), -1),
    )


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(DissectError, match=r"unknown readout 'men' \(did you mean 'mean'\?\); choose from: .*mean"):
        recipe_of("srgnn", readout="men")


def test_wrong_values_are_refused_by_the_models_themselves() -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"items": 0}, "a model of 0 items, 100 wide"),
        ({"dim": 0}, "a model of 3 items, 0 wide"),
    )
    for wrong, message in cases:
        with pytest.raises(DissectError, match=message):
            build("srgnn", **{"items": 3, **wrong})
    with pytest.raises(DissectError, match="unknown scorer 'cosin'; choose from dot"):
        Scorer("cosin")
    with pytest.raises(DissectError, match="unknown start 'unifrom'; choose from uniform"):
        build(replace(recipe_of("srgnn"), start="unifrom"), items=3, dim=4)
    with pytest.raises(DissectError, match=r"item-dropout is 1\.0; it must lie in"):
        recipe_of("srgnn", item_dropout=1.0)
    with pytest.raises(DissectError, match="must be finite and >= 0"):
        build(recipe_of("dhcn", options={"encoder.beta": float("nan")}), items=3, dim=4)


@pytest.mark.parametrize("name", list(RECIPES))
def test_queries_by_themselves_are_those_of_the_whole_pass(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, items=9, dim=16, longest=5).eval()
    batch = Batch.from_lists([[1, 2, 1], [3], [4, 5, 6, 7]])
    torch.testing.assert_close(model.query(batch), model(batch).query, rtol=0, atol=0)


def test_the_released_reading_refuses_a_session_longer_than_the_data_s() -> None:
    model = build("attenmixer-official", items=20, dim=16, longest=5).eval()
    with pytest.raises(ValueError, match="more than the 6 slots"):
        model(Batch.from_lists([list(range(10))]))


def test_the_paper_s_setting_is_what_it_says_of_all_models() -> None:
    for name in ("narm", "lessr", "dsan", "gcsan", "srgnn"):
        spec = Spec.create(name, setting="paper")
        assert (spec.dim, spec.batch_size, spec.optimizer) == (256, 100, "adam"), name
    narm = Spec.create("narm", setting="paper")
    assert narm.options["encoder.factor"] == 1, "hidden states of d 256 too"
    assert build(narm.recipe, items=3, dim=narm.dim).encoder.width == 256
    assert Spec.create("narm", setting="paper", encoder="recurrent") == narm
    assert Spec.create("narm").options["encoder.factor"] == 2
    assert Spec.create("narm", setting="paper", options={"encoder.factor": 2}).options["encoder.factor"] == 2
    assert "encoder.factor" not in Spec.create("narm", setting="paper", encoder="identity").options
    assert Spec.create("lessr", setting="paper", optimizer="adamw").optimizer == "adamw"
