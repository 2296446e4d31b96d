"""Atten-Mixer as a recipe: equal to the leaf package's models; its options, its controls, its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect.batch import Batch, PackedExamples
from dissect.errors import DissectError
from dissect.experiment.main import start_run
from dissect.experiment.spec import Spec
from dissect.models import RECIPES, Recipe, build, options_of, recipe_of
from dissect.models.scorers import Scorer
from dissect.training.loss import item_cross_entropy
from mixer import AttenMixer, OfficialAttenMixer

SESSIONS = [[0, 1, 0, 3], [2], [1, 2], [4, 4, 4, 5, 6, 1]]
BATCH = Batch.from_lists(SESSIONS, [1, 0, 2, 5])
OPTIONS = {"levels": 3, "heads": 2}


def recipe(name: str, **options: object) -> Recipe:
    return recipe_of(name, options={**OPTIONS, **options})


def alike(own: nn.Module, other: nn.Module) -> None:
    """Give `other` the weights of `own`, whose readout lies one module deeper."""
    other.load_state_dict({name.replace("readout.mixer.", "readout."): p for name, p in own.state_dict().items()})


@pytest.mark.parametrize(
    "options", [{}, {"head_values": "full"}, {"positions": 4}, {"intents": "subsets", "levels": 6}]
)
def test_the_recipe_equals_the_package(options: dict[str, object]) -> None:
    own = build(recipe("attenmixer", **options), items=7, dim=8, sigma=9.0)
    other = AttenMixer(7, 8, sigma=9.0, **{**OPTIONS, **options})
    alike(own, other)
    torch.testing.assert_close(own.scores(BATCH), other(BATCH.items, BATCH.lengths))


@pytest.mark.parametrize("name", ["srgnn", "sgnnhn"])
def test_a_hybrid_by_hand(name: str) -> None:
    torch.manual_seed(0)
    model = build(recipe_of(f"{name}+attenmixer", options={"levels": 1, "heads": 1}), items=7, dim=8).double().eval()
    states = F.normalize(model.encoder(BATCH, model.embedding.weight).clicks, dim=1)
    assert not torch.allclose(states, F.normalize(model.embedding.weight[BATCH.items], dim=1)), "an encoder's"
    w = {name: p.detach() for name, p in model.readout.named_parameters()}
    unit = F.normalize(model.embedding.weight, dim=1)
    for own, scores in zip(states.split(BATCH.lengths.tolist()), model.scores(BATCH), strict=True):
        last = own[-1]
        query = w["mixer.attention.w_q.weight"] @ (w["mixer.intents.maps.0.weight"] @ last)  # Eq. 6, l = 1
        keys = own @ w["mixer.attention.w_k.weight"].t()
        alpha = (keys @ query / 8**0.5).softmax(0)  # Eq. 7; of one map the Lp mixture is the map itself
        pooled = F.normalize(alpha @ own, dim=0)
        expected = 12 * unit @ (w["mixer.w_m.weight"] @ torch.cat([pooled, last]))  # Section 4.2.3, sigma 12
        torch.testing.assert_close(scores, expected)


def test_the_official_recipe_equals_the_package() -> None:
    own = build(recipe("attenmixer-official"), items=7, dim=8, longest=9).eval()
    other = OfficialAttenMixer(7, 8, slots=10, **OPTIONS).eval()
    alike(own, other)
    torch.testing.assert_close(own.scores(BATCH), other(BATCH.items, BATCH.lengths))


def test_the_training_loss_is_that_of_the_scores() -> None:
    for name in ("attenmixer", "attenmixer-official", "meanpool", "meanlast", "srgnn+attenmixer"):
        model = build(
            recipe_of(name, options=OPTIONS if "levels" in options_of(RECIPES[name].readout) else None), 7, 8
        ).eval()
        out = model(BATCH)
        assert BATCH.targets is not None
        found = item_cross_entropy(out.query, out.table, BATCH.targets, out.unit_items)
        torch.testing.assert_close(found, F.cross_entropy(model.scores(BATCH), BATCH.targets), msg=name)


def test_equal_weights_make_it_the_control() -> None:
    """With zero queries every map is uniform, and Atten-Mixer is `meanlast`: the control holds all but the maps."""
    mixed, control = build(recipe("attenmixer"), 7, 8), build("meanlast", 7, 8)
    with torch.no_grad():
        mixed.get_parameter("readout.mixer.attention.w_q.weight").zero_()
        control.embedding.weight.copy_(mixed.embedding.weight)
        control.get_parameter("readout.w_m.weight").copy_(mixed.get_parameter("readout.mixer.w_m.weight"))
    torch.testing.assert_close(mixed.scores(BATCH), control.scores(BATCH))
    residual = build(recipe("attenmixer", output="residual"), 7, 8)
    residual.load_state_dict(mixed.state_dict())
    with_mean = build(recipe_of("meanlast", options={"output": "residual"}), 7, 8)
    with_mean.load_state_dict(control.state_dict())
    torch.testing.assert_close(residual.scores(BATCH), with_mean.scores(BATCH))
    assert not torch.allclose(residual.scores(BATCH), mixed.scores(BATCH))


def test_a_static_batch_gives_the_same_queries() -> None:
    """Shapes that a graph capture needs: the clicks are padded by one more session, which changes no other."""
    clicks = torch.tensor([i for session in SESSIONS for i in [*session, 0]])
    lengths = torch.tensor([len(s) for s in SESSIONS])
    start = (lengths + 1).cumsum(0) - lengths - 1
    examples = PackedExamples(clicks, start, start + lengths)
    model = build(recipe("attenmixer", positions=3), 7, 8)
    index = torch.arange(4)
    plain, padded = model(examples.batch(index)).query, model(examples.static_batch(index, 20)).query
    torch.testing.assert_close(padded[:4], plain)


def test_item_dropout_drops_normalised_entries_in_training_alone() -> None:
    torch.manual_seed(0)
    model = build(recipe_of("meanpool", item_dropout=0.5), items=40, dim=50)
    out = model(BATCH)
    assert not out.unit_items
    unit = F.normalize(model.embedding.weight, dim=1)
    kept = out.table != 0
    assert 0.4 < float(kept.float().mean()) < 0.6
    torch.testing.assert_close(out.table[kept], 2 * unit[kept])
    assert model.eval()(BATCH).unit_items


def test_scorers_by_hand() -> None:
    query, table = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, -1.0]])
    wanted: dict[str, list[float]] = {"dot": [6, -4], "unit-items": [30, -40], "cosine": [6, -8]}
    for name, scores in wanted.items():
        found: Tensor = Scorer(name, 10.0).scores(query, table)
        torch.testing.assert_close(found, torch.tensor([scores], dtype=torch.float32))


def test_options_come_with_their_readout() -> None:
    assert recipe_of("attenmixer-m").options["levels"] == 1
    assert recipe_of("attenmixer-m", options={"levels": "4"}).options["levels"] == 4
    assert recipe_of("attenmixer-m", readout="attenmixer-official").options["levels"] == 7  # another readout's own
    assert recipe_of("srgnn", readout="attenmixer").options == options_of("attenmixer")
    assert recipe_of("attenmixer", options={"values": "true", "p": 3}).options["p"] == 3.0


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("srgnn", {"levels": 3}, "unknown option 'levels' of the readout 'soft-attention', which takes none"),
        ("attenmixer", {"depth": 3}, "unknown option 'depth' .* it takes: levels, heads, p, head_values"),
        ("attenmixer", {"levels": "two"}, "option levels is 'two'; it takes a whole number"),
        ("attenmixer", {"levels": 2.5}, "option levels is 2.5; it takes a whole number"),
        ("attenmixer", {"values": "yes"}, "option values is 'yes'; it takes true or false"),
    ],
)
def test_wrong_options_are_refused(model: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(DissectError, match=says):
        recipe_of(model, options=options)


def test_every_subset_of_long_sessions_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(DissectError, match="sessions of at most 10; the longest of 'demo' has"):
        start_run("attenmixer-pr", {"sparsify": "none"}, out=tmp_path, init=None, force=False, quiet=True)
    assert not list(tmp_path.iterdir())


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(DissectError, match="readout 'attenmixer': heads is 3; it must divide the width 8"):
        build(recipe("attenmixer", heads=3), 7, 8)


def test_heads_follow_a_width_that_the_default_does_not_divide() -> None:
    assert Spec.create("srgnn", readout="attenmixer").options["heads"] == 5  # of 100
    assert Spec.create("attenmixer").options["heads"] == 8
    assert Spec.create("attenmixer", dim=64, heads=4).options["heads"] == 4


def test_places_alone_by_hand() -> None:
    model = build(recipe_of("meanlast", options={"positions": 2, "heads": 2, "output": "residual"}), 7, 4)
    position = model.get_parameter("readout.position.weight")
    assert not position.any(), "equal weights at the start"
    plain = build(recipe_of("meanlast", options={"output": "residual"}), 7, 4)
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(model.scores(BATCH), plain.scores(BATCH))
    with torch.no_grad():
        position[0, 0] = 50  # the first half of the state from the last click alone
    unit = F.normalize(model.embedding.weight, dim=1)
    s = torch.cat([unit[3, :2], unit[[0, 1, 0, 3], 2:].mean(0)])
    s = s / s.norm()
    query = s + model.get_parameter("readout.w_m.weight") @ torch.cat([s, unit[3]])
    torch.testing.assert_close(model.scores(BATCH)[0], 12 * unit @ query)
