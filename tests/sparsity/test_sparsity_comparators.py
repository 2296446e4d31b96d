"""Masks by hand, counts that must match, held weights, swapped parts, and iterative pruning step by step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks

from dissect.errors import DissectError
from dissect.sparsity import keep_mask, named_variational, wrap
from dissect.sparsity.comparators import METHODS, imp_schedule, iterative_magnitude, select_masks
from dissect.sparsity.masks import apply_masks, hold_masks, swap_masks

Entry = tuple[str, str, Tensor, Tensor]


def entries() -> list[Entry]:
    a = torch.tensor([[1.0, -4.0], [0.5, 0.5]]), torch.tensor([[0.0, 4.0], [-8.0, -2.0]])
    b = torch.tensor([9.0, -0.1, 2.0]), torch.tensor([8.0, -8.0, 0.0])
    c = torch.tensor([0.2, 0.3]), torch.tensor([0.0, 0.0])
    return [("gnn", "a", *a), ("gnn", "b", *b), ("out", "c", *c)]


@pytest.mark.parametrize(
    ("method", "a", "b", "c"),
    [
        ("magnitude", [[0, 1], [0, 0]], [1, 0, 1], [0, 1]),
        ("magnitude-global", [[1, 1], [0, 0]], [1, 0, 1], [0, 0]),
        # abs(theta) / sigma: 1, 0.54, 27.3, 1.36; 0.16, 5.5, 2; 0.2, 0.3
        ("snr", [[0, 0], [1, 0]], [0, 1, 1], [0, 1]),
        ("log-alpha", [[0, 0], [1, 0]], [0, 1, 1], [0, 1]),
    ],
)
def test_masks_by_hand(method: str, a: list, b: list, c: list):
    masks = select_masks(entries(), {"gnn": 3, "out": 1}, method)
    assert {name: mask.int().tolist() for name, mask in masks.items()} == {"a": a, "b": b, "c": c}
    assert all(mask.dtype == torch.bool for mask in masks.values())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("gnn", "out"), [(0, 0), (7, 2), (4, 0), (1, 2)])
def test_exactly_the_told_number_is_kept_also_among_equals(method: str, gnn: int, out: int):
    tied = [(part, name, torch.zeros_like(theta), torch.zeros_like(s)) for part, name, theta, s in entries()]
    for tensors in (entries(), tied):
        masks = select_masks(tensors, {"gnn": gnn, "out": out}, method, torch.Generator().manual_seed(0))
        count = {name: int(mask.sum()) for name, mask in masks.items()}
        assert sum(count.values()) == gnn + out
        if method != "magnitude-global":
            assert count["a"] + count["b"] == gnn
            assert count["c"] == out


def test_of_equal_weights_the_first_are_kept():
    one = torch.ones(1000)
    mask = select_masks([("p", "a", one, one)], {"p": 300})["a"]
    assert mask.nonzero().flatten().tolist() == list(range(300))


def test_log_alpha_at_the_instruments_own_count_is_its_own_mask():
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    probe = wrap(model, {"first": ["0"], "second": ["2"]}, examples=100, steps=10)
    with torch.no_grad():
        for _, _, s in named_variational(model):
            s.uniform_(-10, 4)
    kept = {row["part"]: row["kept"] for row in probe.density() if row["tensor"] is None}
    assert 0 < kept["first"] < 600
    masks = select_masks(probe.tensors(), kept, "log-alpha")
    for name, theta, s in named_variational(model):
        assert torch.equal(masks[name], keep_mask(theta, s))


def test_random_masks_come_from_the_generator_and_hit_every_weight_alike():
    generator = torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    total = torch.zeros(5)
    for _ in range(2000):
        total += select_masks([("p", "a", torch.ones(5), torch.ones(5))], {"p": 2}, "random", generator)["a"]
    assert torch.equal(torch.get_rng_state(), before)
    # Each weight is kept with probability 0.4.
    assert (total / 2000 - 0.4).abs().max() < 5 * (0.4 * 0.6 / 2000) ** 0.5
    twice = [
        select_masks(entries(), {"gnn": 3, "out": 1}, "random", torch.Generator().manual_seed(7)) for _ in range(2)
    ]
    assert all(torch.equal(twice[0][name], twice[1][name]) for name in twice[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "l1"}, "unknown method 'l1'; choose from magnitude, magnitude-global, random, snr, log-alpha"),
        ({"method": "random"}, "needs a torch.Generator"),
        ({"keep": {"gnn": 3}}, "'c' is in part 'out', which keep lacks; parts of keep: gnn"),
        ({"keep": {"gnn": 8, "out": 1}}, "part 'gnn': 8 weights to keep; a whole number from 0 to 7"),
        ({"keep": {"gnn": 3, "out": -1}}, "-1 weights to keep"),
        ({"keep": {"gnn": 3.5, "out": 1}}, "3.5 weights to keep"),
        ({"keep": {"gnn": 3, "out": 1, "nothing": 1}}, "part 'nothing': 1 weights to keep"),
        ({"tensors": entries() + entries()[:1]}, "'a' is given twice"),
        ({"tensors": [("gnn", "a", torch.ones(3), torch.ones(2))]}, r"theta is \(3,\) and s \(2,\)"),
        ({"tensors": [("gnn", "a", torch.tensor([1.0, float("nan")]), torch.ones(2))]}, "not finite"),
    ],
)
def test_wrong_choices_are_one_line(change: dict, message: str):
    with pytest.raises(DissectError, match=message):
        select_masks(**{"tensors": entries(), "keep": {"gnn": 3, "out": 1}, **change})


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))


def half(model: nn.Module) -> dict[str, Tensor]:
    """Every other weight of the two matrices."""
    return {
        name: torch.arange(p.numel()).view(p.shape) % 2 == 0 for name, p in model.named_parameters() if p.dim() == 2
    }


def test_masks_are_applied_in_place():
    model = small()
    before = copy.deepcopy(model.state_dict())
    weight = model.get_parameter("0.weight")
    masks = half(model)
    apply_masks(model, masks)
    assert model.get_parameter("0.weight") is weight
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name] * masks[name] if name in masks else before[name])


@pytest.mark.parametrize("use", [apply_masks, hold_masks])
def test_masks_that_do_not_fit_change_nothing(use):
    model = small()
    model.add_module("again", model[2])
    before = copy.deepcopy(model.state_dict())
    good = half(model)["0.weight"]
    one = torch.zeros(1, 3, dtype=torch.bool)
    wrong: list[tuple[dict[str, Tensor], str]] = [
        (
            {"0.weight": good, "9.weight": good},
            r"'9.weight' is no parameter of the model; parameters: 0.weight, 0.bias",
        ),
        ({"0.weight": good.T}, r"mask of '0.weight' is torch.bool of shape \(4, 3\); torch.bool of shape \(3, 4\)"),
        ({"0.weight": good.float()}, "torch.float32"),
        ({"2.weight": one, "again.weight": one}, "'again.weight' is named twice; its first name is '2.weight'"),
    ]
    for masks, message in wrong:
        with pytest.raises(DissectError, match=message):
            use(model, masks)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.randn(8, 4)) - 1).square().mean().backward()
        optimizer.step()


def hooks(model: nn.Module) -> int:
    own = sum(len(p._backward_hooks or ()) for p in model.parameters())
    return own + len(_global_optimizer_post_hooks)


@pytest.mark.parametrize("kind", ["adam", "momentum"])
def test_held_weights_stay_zero_and_the_others_train(kind: str):
    model = small()
    optimizer = (
        torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
        if kind == "adam"
        else torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    )
    train(model, optimizer)  # momentum from before moves weights without gradient
    masks = half(model)
    before = hooks(model)
    with hold_masks(model, masks):
        old = model.get_parameter("0.weight").detach().clone()
        for _ in range(3):
            train(model, optimizer, steps=1)
            for name, mask in masks.items():
                p = model.get_parameter(name)
                assert not p[~mask].any()
                assert p.grad is not None
                assert not p.grad[~mask].any()
                assert p.grad[mask].any()
        assert (model.get_parameter("0.weight") != old)[masks["0.weight"]].all()
    assert hooks(model) == before
    train(model, optimizer)
    assert model.get_parameter("0.weight").all()


def test_a_hold_lets_go_after_a_failure_and_lets_frozen_weights_be():
    model = small()
    model.get_parameter("0.weight").requires_grad_(False)
    before = hooks(model)

    def fail() -> None:
        with hold_masks(model, half(model)) as hold:
            with torch.no_grad():
                model.get_parameter("0.weight").fill_(1)
            hold.reapply()
            assert model.get_parameter("0.weight").flatten().tolist() == [1, 0] * 6
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert hooks(model) == before


def test_a_held_step_equals_training_the_product_of_weight_and_mask():
    model = small().double()
    twin = copy.deepcopy(model)
    masks = half(model)
    apply_masks(twin, masks)
    x = torch.randn(20, 4, dtype=torch.float64)
    with hold_masks(model, masks):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        other = torch.optim.Adam(twin.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            other.zero_grad()
            model(x).square().mean().backward()
            gated = {n: p * masks[n] if n in masks else p for n, p in twin.named_parameters()}
            out = torch.func.functional_call(twin, gated, (x,))
            out.square().mean().backward()
            optimizer.step()
            other.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def bools(*values: int, shape: tuple[int, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.bool).view(shape)


def test_swap_pairs_equal_shapes_in_order():
    one = bools(1, 0, shape=(1, 2))
    two, three = bools(1, 1, shape=(2,)), bools(0, 1, shape=(2,))
    four, five = bools(0, 0, shape=(2,)), bools(1, 0, shape=(2,))
    six, rest = bools(0, 1, shape=(1, 2)), bools(1, shape=(1,))
    parts = {"a": {"p": two, "q": one, "r": three}, "b": {"s": four, "t": five, "u": six}, "c": {"v": rest}}
    swapped = swap_masks(parts, "a", "b")
    expected = {"p": four, "q": six, "r": five, "s": two, "t": three, "u": one, "v": rest}
    assert set(swapped) == set(expected)
    assert all(swapped[name] is mask for name, mask in expected.items())


def test_swap_names_the_shapes_that_do_not_match():
    parts = {"a": {"p": bools(1, 0, shape=(1, 2))}, "b": {"q": bools(1, 0, shape=(2, 1))}, "c": {}}
    with pytest.raises(DissectError, match=r"part 'a' has shapes \(1, 2\), 'b' \(2, 1\)"):
        swap_masks(parts, "a", "b")
    with pytest.raises(DissectError, match=r"part 'c' has shapes none, 'a' \(1, 2\)"):
        swap_masks(parts, "c", "a")
    with pytest.raises(DissectError, match="unknown part 'd'; parts: a, b, c"):
        swap_masks(parts, "a", "d")
    with pytest.raises(DissectError, match="'p' of part 'c' is named twice"):
        swap_masks({**parts, "c": parts["a"]}, "a", "b")


def test_schedule_is_geometric_and_ends_at_keep():
    assert imp_schedule(1000, 512, 3) == [800, 640, 512]  # a fifth of the survivors a round
    assert imp_schedule(1000, 10, 2) == [100, 10]
    assert imp_schedule(100, 100, 3) == [100] * 3
    assert imp_schedule(100, 0, 2) == [10, 0]
    assert imp_schedule(0, 0, 2) == [0, 0]
    assert imp_schedule(7, 3, 1) == [3]
    for total, keep, rounds in ((30, 7, 12), (3, 1, 9), (997, 13, 5)):
        counts = imp_schedule(total, keep, rounds)
        assert counts[-1] == keep
        assert counts == sorted(counts, reverse=True)
        assert counts[0] <= total
    with pytest.raises(DissectError, match="at least 1"):
        imp_schedule(10, 5, 0)
    with pytest.raises(DissectError, match="from 0 to 10"):
        imp_schedule(10, 11, 2)


def test_iterative_pruning_step_by_step():
    """Four weights rewound to 1, 2, 3, 4; the two rounds' training decides which go, not the rewound values."""
    model = nn.Sequential(nn.Linear(4, 1))
    weight = model.get_parameter("0.weight")
    with torch.no_grad():
        weight.copy_(torch.tensor([[1.0, 2, 3, 4]]))
    seen: list[tuple[list[float], list[int]]] = []
    ends = [torch.tensor([[9.0, -8, 7, 0.1]]), torch.tensor([[0.0, -0.5, 0.2, 50]])]

    def train(model: nn.Module, masks: dict[str, Tensor]) -> None:
        seen.append((weight[0].tolist(), masks["0.weight"][0].int().tolist()))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        weight.grad = weight.detach() - ends[len(seen) - 1]
        optimizer.step()

    # The live state: training changes it unless it is copied.
    masks = iterative_magnitude(model, {"map": ["0.weight"]}, {"map": 1}, 2, train, model.state_dict())
    assert seen == [([1, 2, 3, 4], [1, 1, 1, 1]), ([1, 2, 0, 0], [1, 1, 0, 0])]
    assert masks["0.weight"].int().tolist() == [[0, 1, 0, 0]]  # 50 was cut before, and held at zero
    assert weight.tolist() == [[0, 2, 0, 0]]


def test_a_surviving_zero_is_not_mistaken_for_a_dropped_weight():
    model = nn.Sequential(nn.Linear(6, 1, bias=False))
    start = copy.deepcopy(model.state_dict())
    values = iter([torch.tensor([[0.0, 5, 4, 3, 2, 1]]), torch.zeros(1, 6)])

    def train(model: nn.Module, masks: dict[str, Tensor]) -> None:
        with torch.no_grad():
            model.get_parameter("0.weight").copy_(next(values))

    masks = iterative_magnitude(model, {"map": ["0.weight"]}, {"map": 2}, 2, train, start)
    assert masks["0.weight"].int().tolist() == [[0, 1, 1, 0, 0, 0]]


def test_iterative_pruning_keeps_exactly_what_it_is_told_in_each_part():
    torch.manual_seed(1)
    model = small()
    start = copy.deepcopy(model.state_dict())
    parts = {"first": ["0.weight"], "second": ["2.weight"]}
    masks = iterative_magnitude(
        model, parts, {"first": 4, "second": 1}, 3, lambda m, _: train(m, torch.optim.Adam(m.parameters())), start
    )
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"0.weight": 4, "2.weight": 1}
    for name, p in model.named_parameters():
        assert torch.equal(p, start[name] * masks[name] if name in masks else start[name])


def test_iterative_pruning_refuses_what_does_not_fit():
    model = small()
    state = model.state_dict()

    def call(**change: object) -> None:
        options = {"names_by_part": {"p": ["0.weight"]}, "keep": {"p": 3}, "rounds": 2, "rewind_state": state, **change}
        iterative_magnitude(model, train=lambda *_: None, **options)  # pyright: ignore

    call()
    for change, message in [
        ({"keep": {"q": 3}}, "keep has the parts q, the names p"),
        ({"keep": {"p": 13}}, "from 0 to 12"),
        ({"rounds": 0}, "rounds is 0"),
        ({"names_by_part": {"p": ["0.weight", "0.weight"]}}, "named twice"),
        ({"names_by_part": {"p": ["w"]}}, "'w' is no parameter"),
        ({"rewind_state": {"0.weight": state["0.weight"]}}, "only one of the two has 0.bias, 2.bias, 2.weight"),
    ]:
        with pytest.raises(DissectError, match=message):
            call(**change)
