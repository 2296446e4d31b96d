"""Atten-Mixer in the paper's reading: against equations written out session by session, and at the edges."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mixer import AttenMixer, AttenMixerReadout, AttentionMaps, Intents, lp_mixture
from mixer.segments import segment_rows

SESSIONS = [4, 1, 7, 2]
DIM = 8


def readout(dtype: torch.dtype = torch.float64, **options: Any) -> AttenMixerReadout:
    torch.manual_seed(0)
    return AttenMixerReadout(DIM, **{"levels": 3, "heads": 4, **options}).to(dtype)


def states(lengths: list[int] = SESSIONS, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(sum(lengths), DIM, dtype=dtype), torch.tensor(lengths)


def written_out(net: AttenMixerReadout, h: Tensor) -> Tensor:
    """Eq. 4 and 6-8 for one session, (n, d), a sum at a time."""
    h = torch.stack([row / row.norm() for row in h])
    n, heads, width = len(h), net.heads, DIM // net.heads
    queries: list[Tensor] = []
    for level, linear in enumerate(net.intents.maps):
        weight = linear.get_parameter("weight")
        take = min(level + 1, n)
        if net.intents.kind == "all":
            queries.append(weight @ h.sum(0))
        elif net.intents.kind == "concatenated":
            row = torch.cat([*reversed(h[n - take :]), torch.zeros((level + 1 - take) * DIM, dtype=h.dtype)])
            queries.append(weight @ row)
        elif net.intents.kind == "sets":
            queries.append(weight @ h[n - take :].sum(0))
        else:
            queries += [weight @ h[list(chosen)].sum(0) for chosen in combinations(range(n), level + 1)]
    pooled = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        maps = []
        for q in queries:
            logits = [
                (net.attention.w_q.weight @ q)[part] @ (net.attention.w_k.weight @ h[j])[part] / math.sqrt(DIM)
                for j in range(n)
            ]
            maps.append(torch.softmax(torch.stack(logits), 0))
        stacked = torch.stack(maps)
        mixed = stacked.amax(0) if net.mixture == "max" else (stacked**net.p).sum(0) ** (1 / net.p)
        values = h if net.w_v is None else h @ net.w_v.weight.T
        full = sum((mixed[j] * values[j] for j in range(n)), torch.zeros(DIM, dtype=h.dtype))
        pooled.append(full[part] if net.head_values == "slices" else full)
    s = torch.stack(pooled).sum(0) if net.head_values == "sum" else torch.cat(pooled)
    s = s / s.norm()
    if net.w_m is None:
        return s
    mapped = net.w_m.weight @ torch.cat([s, h[-1]])
    return s + mapped if net.output == "residual" else mapped


@pytest.mark.parametrize(
    "options",
    [
        {}, {"levels": 1}, {"levels": 10}, {"heads": 1}, {"heads": 8}, {"p": 1.0}, {"p": 2.5}, {"head_values": "sum"},
        {"head_values": "full"}, {"intents": "all"}, {"intents": "concatenated"}, {"mixture": "max"}, {"values": True},
        {"intents": "subsets", "levels": 7}, {"output": "residual"}, {"output": "pooled"},
    ],
    ids=str,
)  # fmt: skip
def test_equals_the_equations_written_out(options: dict[str, Any]) -> None:
    net, (hidden, lengths) = readout(**options), states()
    expected = torch.stack([written_out(net, h) for h in hidden.split(SESSIONS)])
    torch.testing.assert_close(net(hidden, lengths), expected)


@pytest.mark.parametrize(
    "options", [{}, {"positions": 3, "learn_sharpness": True}, {"intents": "subsets", "levels": 7}], ids=str
)
def test_packed_and_padded_input_give_the_same(options: dict[str, Any]) -> None:
    net, (hidden, lengths) = readout(**options), states()
    packed = net(hidden, lengths)
    padded = torch.full((4, 9, DIM), torch.nan, dtype=torch.float64)  # what stands in the padding is not read
    mask = torch.zeros(4, 9, dtype=torch.bool)
    for row, part in enumerate(hidden.split(SESSIONS)):
        padded[row, : len(part)] = part
        mask[row, : len(part)] = True
    assert torch.equal(net(padded, lengths), packed)
    assert torch.equal(net(padded, mask=mask), packed)
    left = torch.stack([row.roll(9 - n, 0) for row, n in zip(padded, SESSIONS, strict=True)])
    assert torch.equal(net(left, mask=mask.flip(1)), packed)


def test_no_session_sees_another() -> None:
    net, (hidden, lengths) = readout(), states()
    together = net(hidden, lengths)
    alone = torch.cat([net(h, torch.tensor([len(h)])) for h in hidden.split(SESSIONS)])
    torch.testing.assert_close(together, alone)


def test_a_session_of_one_item_reads_that_item() -> None:
    net, (hidden, lengths) = readout(), states([1])
    unit = F.normalize(hidden, dim=1)
    assert net.w_m is not None
    torch.testing.assert_close(net(hidden, lengths), net.w_m(torch.cat([unit, unit], 1)))


def test_levels_above_n_repeat_the_full_sum() -> None:
    intents = Intents(DIM, 4).double()
    hidden, lengths = states([2])
    queries = intents(hidden, lengths, torch.zeros(2, dtype=torch.int64))[0]
    for level in (1, 2, 3):
        weight = intents.maps[level].weight
        assert isinstance(weight, Tensor)
        torch.testing.assert_close(queries[level], weight @ hidden.sum(0))


def test_the_order_of_the_last_items_matters_to_concatenation_alone() -> None:
    hidden, lengths = states([3])
    swapped = hidden[[1, 0, 2]]
    for intents, same in (("sets", False), ("all", True), ("concatenated", False), ("subsets", True)):
        net = readout(intents=intents, levels=3)
        assert torch.allclose(net(hidden, lengths), net(swapped, lengths)) == same, intents
    net = readout(levels=4)  # of levels 1, 3 and 4 none sees the swap of the first two but level 2
    with torch.no_grad():
        net.get_parameter("intents.maps.1.weight").zero_()
    torch.testing.assert_close(net(hidden, lengths), net(swapped, lengths))


def test_a_position_bias_can_pick_the_last_item() -> None:
    net, (hidden, lengths) = readout(positions=3), states()
    assert net.attention.position is not None
    with torch.no_grad():
        net.attention.position.weight.fill_(-60)
        net.attention.position.weight[0] = 60
    last = lengths.cumsum(0) - 1
    weights = net.weights(hidden, lengths)
    torch.testing.assert_close(weights[last], torch.full((4, 4), 3**0.25, dtype=torch.float64))
    keep = torch.ones(len(weights), dtype=torch.bool)
    keep[last] = False
    assert float(weights[keep].detach().max()) < 1e-20


@pytest.mark.parametrize(
    "options",
    [
        {}, {"mixture": "max"}, {"positions": 2, "learn_sharpness": True}, {"head_values": "sum"},
        {"head_values": "full"}, {"intents": "concatenated"}, {"values": True, "output": "residual"},
        {"output": "pooled"},
    ],
    ids=str,
)  # fmt: skip
def test_gradients(options: dict[str, Any]) -> None:
    net, (hidden, lengths) = readout(levels=2, heads=2, **options), states([3, 1, 2])
    inputs = [hidden.requires_grad_(), *net.parameters()]
    assert torch.autograd.gradcheck(lambda *_: net(hidden, lengths), inputs)


def test_the_mixture_is_exact_and_has_a_finite_gradient_at_zero() -> None:
    maps = torch.tensor([[[0.5, 0.0, 1e-30, 1.0]], [[0.25, 0.0, 0.0, 1e-12]]]).expand(2, 3, 4).clone().requires_grad_()
    mixed = lp_mixture(maps, 4)
    torch.testing.assert_close(mixed, maps.detach()[:, 0] * 3**0.25)
    mixed.sum().backward()
    assert maps.grad is not None
    expected = torch.where(maps.detach() > 0, 3**-0.75, 0.0)
    torch.testing.assert_close(maps.grad, expected)


def test_the_mixture_of_zeros_is_zero() -> None:
    """Not the smallest number that is no denormal, which stands in for a peak of zero, to any power."""
    for dtype in (torch.float32, torch.float64):
        for p in (1.0, 4.0, 8.0, 2000.0):
            maps = torch.zeros(2, 3, 1, dtype=dtype, requires_grad=True)
            mixed = lp_mixture(maps, p)
            assert not mixed.any(), (dtype, p)
            mixed.sum().backward()
            assert maps.grad is not None
            assert not maps.grad.any(), (dtype, p)


def test_the_mixture_nears_the_maximum() -> None:
    maps = torch.rand(5, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(lp_mixture(maps, 2000), maps.amax(1), atol=1e-3, rtol=0)


def test_sharp_maps_stay_finite() -> None:
    net = readout(torch.float32, sharpness=1e6)
    hidden, lengths = states(dtype=torch.float32)
    hidden.requires_grad_()
    out = net(hidden, lengths)
    out.sum().backward()
    assert bool(out.isfinite().all())
    for parameter in (hidden, *net.parameters()):
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())


def test_dropout_acts_in_training_alone() -> None:
    net, (hidden, lengths) = readout(dropout=0.5, map_dropout=0.5), states()
    assert not torch.equal(net(hidden, lengths), net(hidden, lengths))
    net.eval()
    assert torch.equal(net(hidden, lengths), net(hidden, lengths))
    torch.testing.assert_close(net(hidden, lengths), readout()(hidden, lengths))


def test_state_dropout_leaves_unit_states() -> None:
    net, (hidden, lengths) = readout(dropout=0.5), states()
    torch.manual_seed(2)
    found = net(hidden, lengths)
    torch.manual_seed(2)
    dropped = F.dropout(F.normalize(hidden, dim=1), 0.5)
    torch.testing.assert_close(found, net.eval()(dropped, lengths))  # which normalises what it is given


def test_map_dropout_drops_mixed_weights() -> None:
    net, (hidden, lengths) = readout(map_dropout=0.5, output="pooled"), states()
    torch.manual_seed(2)
    found = net(hidden, lengths)
    torch.manual_seed(2)
    weights = F.dropout(net.weights(hidden, lengths), 0.5)
    assert 0 < int((weights == 0).sum()) < weights.numel()
    weighted = F.normalize(hidden, dim=1) * weights.repeat_interleave(2, 1)  # a weight for each feature of a head
    pooled = torch.stack([part.sum(0) for part in weighted.split(SESSIONS)])
    torch.testing.assert_close(found, F.normalize(pooled, dim=1))


def maps_and_input(**options: Any) -> tuple[AttentionMaps, tuple[Tensor, Tensor, Tensor, Tensor]]:
    torch.manual_seed(3)
    net = AttentionMaps(DIM, 4, **options).double()
    keys, lengths = states([3, 3])
    queries = torch.randn(2, 5, DIM, dtype=torch.float64)
    return net, (queries, keys, lengths, segment_rows(lengths, 6))


def test_the_learnt_sharpness_of_a_head_is_the_factor_on_its_logits() -> None:
    learnt, given = maps_and_input(learn_sharpness=True)
    queries, keys, *_ = given
    dense = (queries, keys.view(2, 3, DIM))
    factors = [0.5, 1.0, 2.0, 7.0]
    assert learnt.log_sharpness is not None
    with torch.no_grad():
        learnt.log_sharpness.copy_(torch.tensor(factors).log())
    found = learnt(*given)
    torch.testing.assert_close(learnt.dense(*dense), found)
    for head, factor in enumerate(factors):
        fixed, _ = maps_and_input(sharpness=factor)
        torch.testing.assert_close(found[..., head], fixed(*given)[..., head], atol=1e-7, rtol=1e-6)
    for maps in (found, learnt.dense(*dense)):
        (slope,) = torch.autograd.grad(maps.pow(2).sum(), learnt.log_sharpness)
        assert bool((slope > 0).all()), "the sharper, the larger the sum of squares"


@pytest.mark.parametrize("options", [{}, {"head_values": "full"}, {"intents": "concatenated"}, {"values": True}])
def test_a_model_starts_as_the_released_code_does(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    for name, parameter in AttenMixer(300, 64, levels=3, **options).named_parameters():
        assert 0.99 / 8 < float(parameter.detach().abs().max()) <= 1 / 8, name
        assert float(parameter.detach().std()) == pytest.approx(1 / 8 / math.sqrt(3), rel=0.03), name


def test_a_model_scores_unit_items() -> None:
    torch.manual_seed(0)
    net = AttenMixer(30, DIM, levels=2, heads=2, sigma=5.0)
    clicks, lengths = torch.tensor([3, 4, 5, 29]), torch.tensor([3, 1])
    query = net.readout(net.embedding(clicks), lengths)
    expected = 5 * query @ F.normalize(net.embedding.weight, dim=1).T
    torch.testing.assert_close(net(clicks, lengths), expected)
    padded = torch.tensor([[3, 4, 5], [29, -1, 99]])  # what stands in the padding need be no item
    torch.testing.assert_close(net(padded, lengths), expected)
    unit = AttenMixer(30, DIM, levels=2, heads=2, unit_query=True)
    torch.testing.assert_close(unit.query(clicks, lengths).norm(dim=1), torch.full((2,), 12.0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"heads": 3}, "heads is 3; it must divide the width 8"),
        ({"levels": 0}, "levels is 0"),
        ({"p": 0.5}, "p is 0.5"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"intents": "none"}, "sets, all, concatenated, subsets"),
        ({"mixture": "mean"}, "lp, max"),
        ({"head_values": "half"}, "slices, sum, full"),
        ({"intents": "subsets", "levels": 11}, "up to 10 items"),
        ({"positions": -1}, "positions is -1"),
        ({"sharpness": 0.0}, "sharpness is 0.0"),
        ({"output": "mean"}, "linear, residual, pooled"),
        ({"output": "pooled", "head_values": "full"}, "needs a pooled state of width d"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        readout(**options)


@pytest.mark.parametrize(
    ("lengths", "says"),
    [([3, 0, 1], "at least one item"), ([3, 2], "add up to 5, but there are 4"), ([], "at least one item")],
)
def test_wrong_lengths_are_refused(lengths: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        readout()(torch.randn(4, DIM, dtype=torch.float64), torch.tensor(lengths, dtype=torch.int64))


def test_input_that_does_not_fit_is_refused() -> None:
    net, (hidden, lengths) = readout(), states([2, 2])
    with pytest.raises(ValueError, match="either lengths or mask"):
        net(hidden)
    with pytest.raises(ValueError, match="a mask goes with"):
        net(hidden, mask=torch.ones(2, 2))
    with pytest.raises(ValueError, match="the padded states hold 2"):
        net(hidden.view(2, 2, DIM), torch.tensor([3, 2]))
    many = readout(intents="subsets", levels=7)
    with pytest.raises(ValueError, match=r"a session has 9 items, more than 7: .* 511 queries"):
        many(*states([9]))
    assert lengths.sum() == 4


def test_our_additions_start_at_nothing() -> None:
    """In the leaf package and in a whole model alike, so that maps start as the paper's do."""
    plain = readout()
    added = readout(positions=5, learn_sharpness=True)
    added.load_state_dict(plain.state_dict(), strict=False)
    hidden, lengths = states()
    torch.testing.assert_close(added(hidden, lengths), plain(hidden, lengths))
    model = AttenMixer(9, DIM, heads=2, positions=5, learn_sharpness=True)
    assert model.readout.attention.position is not None
    assert not model.readout.attention.position.weight.any()
    assert model.readout.attention.log_sharpness is not None
    assert not model.readout.attention.log_sharpness.any()


def test_a_state_that_is_not_finite_stays_in_its_session() -> None:
    net, (hidden, lengths) = readout(levels=7), states()
    hidden[:4] = torch.nan
    assert bool(net(hidden, lengths)[1:].isfinite().all())
