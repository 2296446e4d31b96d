"""What a sweep searches: ranges by recipe, what overrides them, and one line for what makes no sense."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dissect.errors import DissectError
from dissect.experiment.instrument import check_parts
from dissect.experiment.spec import Spec
from dissect.experiment.sweep_space import Choice, Interval, fixed_values, space_of, spec_of, trained
from dissect.models.recipes import RECIPES, encoder_options_of


class Drawing:
    """Stands for an Optuna trial: draws evenly."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def suggest_int(self, name: str, low: int, high: int, log: bool) -> int:
        return self.random.randint(low, high)

    def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
        return self.random.uniform(low, high)

    def suggest_categorical(self, name: str, values: tuple[Any, ...]) -> Any:
        return self.random.choice(values)


@pytest.mark.parametrize("model", RECIPES)
def test_whatever_a_recipes_space_draws_is_a_legal_run(model: str) -> None:
    base = Spec.create(model, dim=32, sparsify="none")
    space = space_of(base)
    assert {"lr", "weight_decay", "item_dropout"} <= set(space)
    assert not set(space) & set(RECIPES[model].options), "what the recipe sets makes it what it is"
    for seed in range(4):
        values = trained(space, {name: range_.draw(Drawing(seed), name) for name, range_ in space.items()})
        spec = spec_of(base, values)
        check_parts(spec)
        found = {**vars(spec), **encoder_options_of(spec.encoder), **spec.options}
        assert all(found[name] == value for name, value in values.items())


def test_ranges_are_the_papers_and_follow_the_recipe() -> None:
    space = space_of(Spec.create("attenmixer"))
    assert (space["levels"], space["heads"]) == (Interval(1, 10), Choice((1, 2, 4, 8, 16, 32)))
    assert space["lr"] == Interval(5e-4, 2e-2, log=True)
    assert space["dropout"] == Choice((0.0, 0.1))
    assert space_of(Spec.create("attenmixer", dim=12))["heads"] == Choice((1, 2, 4, 6)), "divisors of d; 6 is its own"
    assert "levels" not in space_of(Spec.create("attenmixer-m"))
    assert {"levels", "heads"} <= set(space_of(Spec.create("srgnn", readout="attenmixer", dim=32)))
    assert set(space_of(Spec.create("srgnn"))) == {"lr", "weight_decay", "item_dropout", "encoder.steps"}
    assert space_of(Spec.create("srgnn"))["encoder.steps"] == Interval(1, 8)
    for model, options in (
        ("gcsan", {"encoder.steps", "blocks", "weight", "dropout"}), ("lessr", {"encoder.layers"}),
        ("dhcn", {"encoder.layers", "encoder.beta"}), ("nextitnet", {"encoder.blocks"}),
    ):  # fmt: skip
        assert options <= set(space_of(Spec.create(model)))
    assert "heads" not in space_of(Spec.create("meanlast", dim=32)), "without positions it does nothing"
    assert "heads" in space_of(Spec.create("meanlast", dim=32, positions=5))
    assert "lr" not in space_of(Spec.create("srgnn"), ["lr"])
    given = space_of(Spec.create("srgnn"), [], ["dim=8:64:log", "lr=1e-3,1e-2"])
    assert (given["dim"], given["lr"]) == (Interval(8, 64, log=True), Choice((0.001, 0.01)))
    assert Interval(5e-4, 2e-2).trained(0.0123456) == 0.0123
    assert Interval(0.0123456, 1.0).trained(0.0123456) == 0.0123456, "never below the range"


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        ("srgnn", "lr", "--space 'lr' is not FIELD=LOW:HIGH"),
        ("srgnn", "rl=1:2", "unknown field 'rl'.*choose from: lr, weight_decay"),
        ("srgnn", "levels=1:3", "unknown field 'levels'"),
        ("srgnn", "lr=0.1:0.01", "LOW must be less than HIGH"),
        ("srgnn", "lr=0:1:log", "on a log scale LOW must be > 0"),
        ("srgnn", "lr=1e-3:1e-2:lin", r"is not FIELD=LOW:HIGH\[:log\]"),
        ("srgnn", "lr=a:b", "lr is 'a'; it takes a finite number"),
        ("srgnn", "lr=1e-3:inf", "lr is 'inf'; it takes a finite number"),
        ("srgnn", "dim=1.5:3", "dim is '1.5'; it takes a whole number"),
        ("srgnn", "lr=0.1", "one value is no range; use --fix lr=0.1"),
        ("srgnn", "lr=0.1,0.1", "a value stands there twice"),
        ("srgnn", "lr=0:0.1", "--space lr=0:0.1: --lr is 0.0; it must be > 0"),
        ("srgnn", "sigma=1:20", "it changes nothing, for the scorer 'dot' has no scale"),
        ("srgnn", "kl-scale=1:20", "it changes nothing, for --sparsify none wraps nothing"),
        ("meanlast", "heads=1,2", "it changes nothing, for the readout 'mean-last' reads it with positions alone"),
        ("attenmixer", "heads=3,5", "--space heads=3,5: .*heads is 3; it must divide the width 32"),
        ("attenmixer", "mixture=1:2", "mixture is no number; list its values, as mixture=A,B"),
        ("attenmixer", "mixture=lp,min", "unknown mixture 'min'"),
        ("attenmixer", "dim=32,36", "heads is 8; it must divide the width 36"),
    ],
)
def test_bad_spaces(model: str, given: str, says: str) -> None:
    with pytest.raises(DissectError, match=says):
        space_of(Spec.create(model, dim=32, sparsify="none"), ["heads"] if "dim=" in given else [], [given])


def test_what_is_fixed_is_not_searched_and_something_must_be() -> None:
    base = Spec.create("attenmixer", dim=32)
    with pytest.raises(DissectError, match="levels is both fixed and searched"):
        space_of(base, ["levels"], ["levels=1:3"])
    with pytest.raises(DissectError, match="--space lr is given twice"):
        space_of(base, [], ["lr=1e-3:1e-2", "lr=1e-3,1e-2"])
    with pytest.raises(DissectError, match="nothing is left to search"):
        space_of(Spec.create("srgnn"), ["lr", "weight_decay", "item_dropout", "encoder.steps"])
    found = fixed_values(base, {"levels": "3", "lr": "1e-3", "learn_sharpness": "true", "mixture": "max"})
    assert found == {"levels": 3, "lr": 1e-3, "learn_sharpness": True, "mixture": "max"}
    with pytest.raises(DissectError, match="unknown field 'epochs'"):
        fixed_values(base, {"epochs": "3"})
    with pytest.raises(DissectError, match="learn_sharpness is 'yes'; it takes true or false"):
        fixed_values(base, {"learn_sharpness": "yes"})
