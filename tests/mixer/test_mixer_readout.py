"""Atten-Mixer in the paper's reading: against equations written out session by session, and at the edges."""

from __future__ import annotations

import math
import re
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mixer import AttenMixer, AttenMixerReadout, AttentionMaps, Intents, lp_mixture
from mixer.attention import head_products
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


def test_maps_are_equation_7_with_heads_that_read_a_slice() -> None:
    """W_h^Q and W_h^K of d x d for each head, zero outside its d/H columns; the divisor is sqrt(d)."""
    net, (queries, keys, lengths, rows) = maps_and_input()
    found = net(queries, keys, lengths, rows).view(2, 3, 5, 4)
    for head in range(4):
        own = torch.zeros(DIM, dtype=torch.float64)
        own[2 * head : 2 * head + 2] = 1
        w_q, w_k = net.w_q.weight.T * own, net.w_k.weight.T * own
        logits = (queries @ w_q) @ (keys.view(2, 3, DIM) @ w_k).transpose(1, 2) / math.sqrt(DIM)
        torch.testing.assert_close(found[..., head], logits.softmax(2).transpose(1, 2))


def test_a_sharpness_of_the_root_of_the_heads_is_the_usual_scale() -> None:
    net, given = maps_and_input(sharpness=math.sqrt(4))
    queries, keys, *_ = given
    usual = torch.nn.MultiheadAttention(DIM, 4, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        usual.in_proj_weight.copy_(torch.cat([net.w_q.weight, net.w_k.weight, torch.eye(DIM, dtype=torch.float64)]))
    packed = keys.view(2, 3, DIM)
    _, maps = usual(queries, packed, packed, average_attn_weights=False)  # (B, H, L, n)
    torch.testing.assert_close(net(*given), maps.permute(0, 3, 2, 1).flatten(0, 1))
    assert not torch.allclose(maps_and_input()[0](*given), net(*given))


def test_maps_start_almost_flat() -> None:
    torch.manual_seed(0)
    net = AttenMixer(500, 64)
    weights = net.readout.weights(net.embedding(torch.randint(0, 500, (3000,))), torch.full((300,), 10)).detach()
    each = weights.view(300, 10, 8)
    assert 1.0015 < float((each.amax(1) / each.amin(1)).mean()) < 1.0035


def test_no_map_gets_a_gradient_where_all_are_zero() -> None:
    net, (hidden, lengths) = readout(), states()
    maps = [*net.intents.parameters(), *net.attention.parameters()]
    for scale, zero in ((1.0, False), (0.0, True)):
        with torch.no_grad():
            for parameter in maps:
                parameter.mul_(scale)
        for slope in torch.autograd.grad(net(hidden, lengths).pow(2).sum(), maps):
            assert (not slope.any()) == zero


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
        ({"dim": 0}, "dim is 0; it must be a whole number >= 1"),
        ({"dim": 8.0}, "dim is 8.0; it must be a whole number >= 1"),
        ({"heads": 3}, "heads is 3; it must divide the width 8"),
        ({"heads": 0}, "heads is 0; it must divide the width 8"),
        ({"heads": "4"}, "heads is '4'; it must divide the width 8"),
        ({"levels": 0}, "levels is 0; it must be a whole number >= 1"),
        ({"levels": [3, 2]}, "levels is [3, 2]; it must be a whole number >= 1"),
        ({"levels": True}, "levels is True; it must be a whole number"),
        ({"p": 0.5}, "p is 0.5; it must be a finite number >= 1"),
        ({"p": math.nan}, "p is nan"),
        ({"p": "4"}, "p is '4'"),
        ({"sharpness": math.inf}, "sharpness is inf; it must be a finite number > 0"),
        ({"learn_sharpness": "False"}, "learn_sharpness is 'False'; it must be True or False"),
        ({"values": 1}, "values is 1; it must be True or False"),
        ({"map_dropout": None}, "map_dropout is None; it must lie in [0, 1)"),
        ({"intents": ["sets"]}, "unknown intents ['sets']; choose from: sets, all, concatenated, subsets"),
        ({"intents": "subsets", "positions": 2}, "positions have no place"),
        ({"positions": 1.5}, "positions is 1.5"),
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
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        AttenMixerReadout(**{"dim": DIM, **options})
    assert "\n" not in str(refused.value)


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


def test_a_whole_model_refuses_wrong_options() -> None:
    for options, says in (
        ({"items": 0}, "items is 0"), ({"dim": 0}, "dim is 0"), ({"sigma": -1.0}, "sigma is -1.0"),
        ({"unit_query": "no"}, "unit_query is 'no'"), ({"levels": 0}, "levels is 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            AttenMixer(**{"items": 9, "dim": DIM, **options})
    with pytest.raises(ValueError, match="bias is None"):
        Intents(DIM, 2, bias=None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="levels is 0"):
        AttentionMaps(DIM, 2, levels=0)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a list of lengths": ({"lengths": [3, 1]}, "lengths is of type list; it must be a tensor, (B,)"),
    "lengths of floats": ({"lengths": torch.tensor([3.0, 1.0])}, "lengths is torch.float32; it must be int64 or int32"),
    "lengths in a table": ({"lengths": torch.tensor([[3, 1]])}, "lengths is (1, 2), hidden (4, 8); it must be (B,)"),
    "lengths elsewhere": ({"lengths": torch.ones(2, dtype=torch.int64, device="meta")}, "lengths is on meta, hidden"),
    "a list of states": ({"hidden": [[1.0] * 8] * 4}, "hidden is of type list; it must be a tensor, (T, d) or (B, n,"),
    "one state": ({"hidden": torch.ones(8)}, "hidden is (8,); it must be (T, d) or (B, n, d)"),
    "another width": ({"hidden": torch.ones(4, 6)}, "hidden is (4, 6); it must be (T, d) or (B, n, d) with d = 8"),
    "ids as states": ({"hidden": torch.ones(4, 8, dtype=torch.int64)}, "hidden is torch.int64, the parameters are"),
    "another type": ({"hidden": torch.ones(4, 8)}, "hidden is torch.float32, the parameters are torch.float64"),
    "more sessions": ({"hidden": torch.ones(3, 2, 8)}, "lengths is (2,), hidden (3, 2, 8); it must be (B,)"),
    "a list as mask": ({"lengths": None, "mask": [[True]]}, "mask is of type list; it must be a tensor, (B, n)"),
    "a mask that is added": (
        {"hidden": torch.ones(1, 4, 8), "lengths": None, "mask": torch.zeros(1, 4)}, "mask is torch.float32; it must be"
    ),
    "both": ({"mask": torch.ones(2, 2)}, "give either lengths or mask"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "says"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_refused(given: dict[str, Any], says: str) -> None:
    hidden, lengths = states([3, 1])
    for call in (readout().forward, readout().weights):
        with pytest.raises(ValueError, match=re.escape(says)) as refused:
            call(**{"hidden": hidden, "lengths": lengths, **given})
        assert "\n" not in str(refused.value)


def test_lengths_of_int32_are_taken_and_autocast_brings_types_together() -> None:
    net, (hidden, lengths) = readout(torch.float32), states(dtype=torch.float32)
    assert torch.equal(net(hidden, lengths.int()), net(hidden, lengths))
    padded = hidden[:4].expand(2, 4, DIM)
    assert torch.equal(net(padded, torch.tensor([4, 2]).int()), net(padded, torch.tensor([4, 2])))
    with torch.autocast("cpu", torch.bfloat16):
        assert bool(net(hidden.bfloat16(), lengths).isfinite().all())


def test_wrong_ids_are_refused() -> None:
    net, lengths = AttenMixer(9, DIM), torch.tensor([2])
    for ids, says in (
        (torch.tensor([0, 9]), "ids go from 0 to 9; they must lie in 0 to 8"),
        (torch.tensor([-1, 2]), "ids go from -1 to 2"),
        (torch.tensor([0.0, 1.0]), "items is torch.float32; it must be int64 or int32"),
        ([1, 2], "items is of type list"),
        (torch.zeros(1, 1, 2, dtype=torch.int64), r"items is \(1, 1, 2\); it must be \(T,\) or \(B, n\)"),
    ):
        with pytest.raises(ValueError, match=says):
            net(ids, lengths)


def test_the_pieces_refuse_wrong_input() -> None:
    maps, (queries, keys, lengths, rows) = maps_and_input(positions=2, levels=5)
    plain, _ = maps_and_input()
    sets, pool = Intents(DIM, 3).double(), Intents(DIM, 3, "subsets").double()
    dense = keys.view(2, 3, DIM)
    for call, says in (
        (lambda: maps(queries[..., :7], keys, lengths, rows), "queries is (2, 5, 7); it must be (B, L, d) with d = 8"),
        (lambda: maps(queries, dense, lengths, rows), "keys is (2, 3, 8); it must be (T, d) with d = 8"),
        (lambda: maps(queries[:1], keys, lengths, rows), "queries are of 1 sessions, lengths of 2"),
        (lambda: maps(queries[:, :4], keys, lengths, rows), "queries have 4 levels; there must be 5"),
        (lambda: maps(queries[:, :0], keys, lengths, rows), "queries have 0 levels; there must be 5"),
        (lambda: plain(queries[:, :0], keys, lengths, rows), "queries have 0 levels; there must be >= 1"),
        (lambda: maps(queries, keys, lengths, rows[:5]), "rows is (5,), but there are 6 clicks"),
        (lambda: maps(queries, keys, lengths, rows.flip(0)), "rows are not those of lengths"),
        (lambda: maps(queries, keys, lengths[None], rows), "lengths is (1, 2); it must be (B,)"),
        (lambda: maps.dense(queries, dense), "dense knows no positions"),
        (lambda: plain.dense(queries, keys), "keys is (6, 8); it must be (G, n, d) with d = 8"),
        (lambda: plain.dense(queries[:1], dense), "queries are of 1 sessions, keys of 2"),
        (lambda: sets(keys, lengths + 1, rows), "lengths add up to 8, but there are 6 states"),
        (lambda: sets(keys, lengths * 0, rows), "every session needs at least one item"),
        (lambda: sets(keys[:, :5], lengths, rows), "hidden is (6, 5); it must be (T, d) with d = 8"),
        (lambda: pool(keys, lengths, rows), "call subsets(hidden, lengths)"),
        (lambda: next(sets.subsets(keys, lengths)), "intents are 'sets', one a level; call forward"),
        (lambda: next(pool.subsets(keys, lengths[None])), "lengths is (1, 2); it must be (B,)"),
        (lambda: next(pool.subsets(keys, lengths[:1])), "lengths add up to 3, but there are 6 states"),
        (lambda: lp_mixture(keys, 4), "maps is (6, 8) of torch.float64; it must be (T, L, H)"),
        (lambda: lp_mixture(queries, 0.5), "p is 0.5"),
    ):
        with pytest.raises(ValueError, match=re.escape(says)) as refused:
            call()
        assert "\n" not in str(refused.value)


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


def test_products_at_once_are_those_of_one_level_after_the_other() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(3, 4, 6, requires_grad=True), torch.randn(7, 6, requires_grad=True)
    rows = torch.tensor([0, 0, 1, 2, 2, 2, 2])
    found = []
    for at_once in (True, False):
        out = head_products(queries, keys, rows, 2, at_once)
        assert out.shape == (7, 4, 2)
        found.append((out, *torch.autograd.grad(out.square().sum(), (queries, keys))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    own = (queries[2, 3] * keys[5]).view(2, 3).sum(1)
    torch.testing.assert_close(found[0][0][5, 3], own)
