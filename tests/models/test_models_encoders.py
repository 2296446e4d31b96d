"""What encoders and readouts are made of, against torch's own modules and against figures worked out by hand."""

from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dissect.batch import Batch, PackedExamples, shuffled_graph
from dissect.errors import DissectError
from dissect.models import ENCODERS, READOUTS, build, recipe_of
from dissect.models.blocks import SelfAttentionBlock
from dissect.models.encoders import GatedGraphEncoder, HypergraphEncoder, StarGraphEncoder
from dissect.models.encoders.adaptive import entmax, exponent
from dissect.models.encoders.dilated import CausalConvolution
from dissect.models.encoders.hypergraph import CompressedRows, hypergraph
from dissect.models.norm import BatchNorm
from dissect.models.pairs import all_pairs, arrivals, earlier_pairs, places, places_from_last, shortcut_pairs
from dissect.models.recurrence import GRUCell, run_cell
from dissect.sparsity import wrap

SESSIONS = [[0, 1, 0, 2], [3], [4, 1, 1]]
BATCH = Batch.from_lists(SESSIONS)
TRAINED = PackedExamples(BATCH.items, BATCH.offsets[:-1], BATCH.offsets[1:])


def test_a_unit_runs_as_torchs_does_on_packed_sequences() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([2, 5, 1, 5, 3])
    cell, theirs = GRUCell(3, 4).double(), nn.GRU(3, 4).double()
    with torch.no_grad():
        for own, other in (("input", "ih"), ("hidden", "hh")):
            cell.get_parameter(f"{own}.weight").copy_(theirs.get_parameter(f"weight_{other}_l0"))
            cell.get_parameter(f"{own}.bias").copy_(theirs.get_parameter(f"bias_{other}_l0"))
    inputs = torch.randn(16, 3, dtype=torch.float64)
    states, last = run_cell(cell, inputs, lengths)
    for i, part in enumerate(inputs.split(lengths.tolist())):
        expected, final = theirs(part[:, None])
        start = int(lengths[:i].sum())
        torch.testing.assert_close(states[start : start + len(part)], expected[:, 0])
        torch.testing.assert_close(last[i], final[0, 0])


@pytest.mark.parametrize("dilation", [1, 2, 5])
def test_a_convolution_is_torchs_padded_on_the_left(dilation: int) -> None:
    torch.manual_seed(0)
    ours, theirs = CausalConvolution(3, 3, dilation), nn.Conv1d(3, 3, 3, dilation=dilation)
    with torch.no_grad():
        theirs.weight.copy_(torch.stack([*ours.past.weight.split(3, 1), ours.own.weight], 2))
        assert theirs.bias is not None
        theirs.bias.copy_(ours.own.bias)
    x = torch.randn(8, 3)
    found = ours(x, places(BATCH)).split(BATCH.lengths.tolist())
    for own, session in zip(found, x.split(BATCH.lengths.tolist()), strict=True):
        expected = theirs(F.pad(session.t()[None], (2 * dilation, 0)))[0].t()
        torch.testing.assert_close(own, expected)


def test_pairs_and_places_by_hand() -> None:
    assert places(BATCH).tolist() == [0, 1, 2, 3, 0, 0, 1, 2]
    assert places_from_last(BATCH).tolist() == [3, 2, 1, 0, 0, 2, 1, 0]
    pairs = all_pairs(torch.tensor([2, 1]))
    assert list(zip(pairs.query.tolist(), pairs.key.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    earlier = earlier_pairs(Batch.from_lists([[7, 8], [9]]))
    assert list(zip(earlier.query.tolist(), earlier.key.tolist(), strict=True)) == [(0, 0), (1, 0), (1, 1), (2, 2)]
    values = torch.arange(5.0)
    square = pairs.rectangle(values, -1)
    assert square.tolist() == [[0, 1], [2, 3], [4, -1]]
    assert torch.equal(pairs.packed(square), values)


def test_lessrs_graphs_by_hand() -> None:
    # Nodes are the distinct items of a session in order: 0 1 2 | 3 | 1 4, numbered 0 to 5.
    reached = arrivals(BATCH)
    assert reached.node.tolist() == [0, 1, 2, 4]
    assert reached.lengths.tolist() == [1, 1, 1, 2]
    assert reached.source.tolist() == [1, 0, 0, 5, 4]  # 1 from 4, then from itself: each time counts, oldest first
    pairs = shortcut_pairs(BATCH)
    found = set(zip(pairs.key.tolist(), pairs.query.tolist(), strict=True))
    first = {(0, 0), (0, 1), (0, 2), (1, 1), (1, 0), (1, 2), (2, 2)}  # 1 before the second 0, never 2 before another
    assert found == first | {(3, 3)} | {(5, 5), (5, 4), (4, 4)}
    assert len(pairs.query) == len(found)


def test_a_self_attention_block_is_the_papers_on_each_session() -> None:
    torch.manual_seed(0)
    block = SelfAttentionBlock(4)
    h = torch.randn(8, 4)
    found = block(h, all_pairs(BATCH.lengths)).split(BATCH.lengths.tolist())
    for own, part in zip(found, h.split(BATCH.lengths.tolist()), strict=True):
        scores = block.query(part) @ block.key(part).t() / math.sqrt(4)
        attended = scores.softmax(1) @ block.value(part)
        torch.testing.assert_close(own, block.outer(F.relu(block.inner(attended))) + attended)


def test_gcsan_mixes_the_last_click_before_and_after_attention() -> None:
    torch.manual_seed(0)
    model = build(recipe_of("gcsan", options={"weight": 0.3}), items=5, dim=4).eval()
    h = model.encode(BATCH)
    readout = model.readout
    attended = readout.blocks[0](h.clicks, all_pairs(BATCH.lengths))  # type: ignore[index]
    expected = 0.3 * attended[BATCH.last] + 0.7 * h.clicks[BATCH.last]
    torch.testing.assert_close(readout(h), expected)
    weights = readout.attention(h)
    assert weights is not None
    assert weights.shape == (8, 1)
    torch.testing.assert_close(torch.stack([w.sum() for w in weights.split([4, 1, 3])]), torch.ones(3))


def test_the_highway_mixes_what_came_in_with_what_came_out() -> None:
    torch.manual_seed(0)
    gated = StarGraphEncoder(4, steps=2)
    plain = StarGraphEncoder(4, steps=2, highway=False)
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if not k.startswith("highway")})
    table = torch.randn(5, 4)
    out, h = gated(BATCH, table).nodes, plain(BATCH, table).nodes
    assert out is not None
    assert h is not None
    assert gated.highway is not None
    first = table[BATCH.session_graph.nodes]
    gate = torch.sigmoid(gated.highway(torch.cat([first, h], 1)))
    torch.testing.assert_close(out, gate * first + (1 - gate) * h)
    assert plain.PARTS["combination"] == ("cell.input", "cell.hidden")


def test_niser_sees_the_last_ten_clicks_alone_and_unit_items() -> None:
    model = build("niser", items=30, dim=4).eval()
    long = list(range(25))
    torch.testing.assert_close(
        model.scores(Batch.from_lists([long, [1]])), model.scores(Batch.from_lists([long[-10:], [1]]))
    )
    nodes, _ = model.encoder.embed(BATCH, model.embedding.weight)  # type: ignore[operator]
    torch.testing.assert_close(nodes.norm(dim=1), torch.ones(6))


def test_the_hypergraph_by_hand() -> None:
    clicks = torch.tensor([0, 1, 0, 2, 1, 2, 9])
    prefixes = PackedExamples(clicks, torch.tensor([0, 3, 0]), torch.tensor([3, 6, 1]))
    first, column, value, degree = hypergraph(prefixes, 4)  # prefixes {0, 1}, {1, 2}, {0}; item 3 in none
    assert degree.tolist() == [2, 2, 2 - 1, 1]
    expected = torch.tensor([[0.75, 0.25, 0, 0], [0.25, 0.5, 0.25, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0]])
    adjacency = torch.zeros(4, 4).index_put((torch.arange(4).repeat_interleave(first.diff()), column), value)
    torch.testing.assert_close(adjacency, expected)
    encoder = HypergraphEncoder(2, layers=3)
    encoder.prepare(prefixes, 4)
    table = torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]])
    torch.testing.assert_close(encoder.convolve(table)[3], table[3] / 4)


def test_gradients_go_through_the_hypergraph() -> None:
    torch.manual_seed(0)
    encoder = HypergraphEncoder(3, layers=2).double()
    encoder.prepare(TRAINED, 5)
    encoder.double()
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encoder.convolve, (table,))


def test_the_hypergraph_goes_with_the_weights() -> None:
    torch.manual_seed(0)
    model, other = build("dhcn", items=5, dim=4), build("dhcn", items=5, dim=4)
    model.prepare(TRAINED)
    alone = model.scores(BATCH)
    other.scores(BATCH)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.scores(BATCH), alone)


def test_batch_norm_takes_a_single_row() -> None:
    norm = BatchNorm(3)
    norm(torch.randn(10, 3))
    row = torch.randn(1, 3)
    torch.testing.assert_close(norm(row), norm.eval()(row))


def test_norms_of_items_are_cut() -> None:
    lessr = build("lessr", items=6, dim=4)
    with torch.no_grad():
        lessr.embedding.weight.copy_(torch.randn(6, 4) * 3)
        lessr.embedding.weight[2] = 0.1
    lessr.eval().scores(BATCH)
    norms = lessr.embedding.weight.norm(dim=1)
    torch.testing.assert_close(norms[[0, 1, 3, 4, 5]], torch.ones(5))
    assert lessr.embedding.weight[2].tolist() == pytest.approx([0.1] * 4)
    dsan = build("dsan", items=6, dim=4)
    with torch.no_grad():
        dsan.embedding.weight.fill_(3)
    dsan.eval().scores(Batch.from_lists([[1, 2]]))
    torch.testing.assert_close(dsan.embedding.weight.norm(dim=1), torch.tensor([6, 1.5, 1.5, 6, 6, 6]))


def test_options_of_encoders() -> None:
    assert recipe_of("lessr", options={"encoder.layers": "2"}).options["encoder.layers"] == 2
    assert recipe_of("lessr", encoder="identity").options == {"dropout": 0.2}
    with pytest.raises(
        DissectError, match=r"unknown option 'encoder.depth' of the encoder 'edge-order'; it takes: enc"
    ):
        recipe_of("lessr", options={"encoder.depth": 2})
    with pytest.raises(DissectError, match="encoder 'dilated': blocks is 0"):
        build(recipe_of("nextitnet", options={"encoder.blocks": 0}), items=3, dim=4)
    with pytest.raises(DissectError, match=r"encoder 'identity', which takes none"):
        recipe_of("srgnn", encoder="identity", options={"encoder.steps": 2})
    with pytest.raises(DissectError, match=r"'steps' of the readout .* \(did you mean encoder\.steps\?\)"):
        recipe_of("srgnn", options={"steps": 2})
    for name in ("dropout", "encoder.dropout"):
        with pytest.raises(DissectError, match=rf"option {name} is 1; it takes a share of at least 0, less than 1"):
            recipe_of("narm", options={name: 1.0})


def test_narm_starts_as_recboles_does() -> None:
    torch.manual_seed(0)
    model = build("narm", items=3000, dim=50)
    expected = {  # N(0, 2 / (inputs + outputs)), but U(+-1/sqrt(100)) in the recurrent unit, whose start is torch's
        "embedding": (2 / 3050) ** 0.5, "encoder.cell.input": 0.1 / 3**0.5, "encoder.cell.hidden": 0.1 / 3**0.5,
        "readout.w1": 0.1, "readout.w3": (2 / 250) ** 0.5,
    }  # fmt: skip
    for name, std in expected.items():
        weight = model.get_parameter(f"{name}.weight")
        assert weight.std().item() == pytest.approx(std, rel=0.05), name


def test_units_in_pieces_start_as_torchs_whole_ones() -> None:
    torch.manual_seed(0)
    pieces = (
        (GRUCell(20, 80), nn.GRUCell(20, 80)),
        (GRUCell(80, 20), nn.GRUCell(80, 20)),
        (CausalConvolution(64, 3, 1), nn.Conv1d(64, 64, 3)),
    )
    for ours, whole in pieces:
        bound = max(p.abs().max().item() for p in whole.parameters())
        for name, parameter in ours.named_parameters():
            rel = 0.02 if parameter.dim() > 1 else 0.2  # a bias has few numbers
            assert parameter.abs().max().item() == pytest.approx(bound, rel=rel), name


def test_the_released_reading_starts_as_the_released_code_does() -> None:
    torch.manual_seed(0)
    model = build("attenmixer-official", items=30, dim=64, longest=20)
    for name, parameter in model.named_parameters():
        assert 0.1 < parameter.abs().max().item() <= 0.125, name
    whole = build(recipe_of("srgnn", encoder="edge-order", readout="attenmixer"), items=30, dim=16)
    slopes = [module.weight for module in whole.modules() if isinstance(module, nn.PReLU)]
    assert slopes
    assert all((slope == 0.25).all() for slope in slopes)


def test_default_steps_of_a_gated_graph_are_not_written_down() -> None:
    assert recipe_of("srgnn", options={"encoder.steps": 1}) == recipe_of("srgnn")
    two = recipe_of("srgnn", options={"encoder.steps": "2"})
    assert two.options == {"encoder.steps": 2}
    assert cast(GatedGraphEncoder, build(two, items=3, dim=4).encoder).steps == 2


@pytest.mark.parametrize("recipe", ["srgnn", "sgnnhn", "lessr"])
def test_shuffled_edges_reach_every_graph_encoder(recipe: str) -> None:
    torch.manual_seed(0)
    model = build(recipe, items=12, dim=4).eval()
    batch, same = Batch.from_lists([list(range(12))]), Batch.from_lists([list(range(12))])
    batch.__dict__["session_graph"] = shuffled_graph(same, torch.Generator().manual_seed(1))
    changed, own = model.encode(batch).clicks, model.encode(same).clicks
    assert not torch.allclose(changed, own)


def test_noise_of_rows_knows_what_a_windowed_model_reads() -> None:
    torch.manual_seed(0)
    model = build("niser", items=30, dim=4)
    probe = wrap(model, model.parts(), "readout", examples=10, steps=10, noise="row", shadows=2)
    batch = Batch.from_lists([list(range(25)), [1, 2]], [3, 4])
    with probe.drawing(batch):
        model(batch).query.sum().backward()


def test_a_convolved_table_is_kept_until_it_changes() -> None:
    torch.manual_seed(0)
    model = build("dhcn", items=5, dim=4).eval()
    model.prepare(TRAINED)
    with torch.no_grad():
        before = model.scores(BATCH)
        assert torch.equal(model.scores(BATCH), before)
        model.embedding.weight.mul_(2)
        changed = model.scores(BATCH)
    fresh = build("dhcn", items=5, dim=4).eval()
    fresh.load_state_dict(model.state_dict())
    assert not torch.allclose(changed, before)
    torch.testing.assert_close(fresh.scores(BATCH), changed)


@pytest.mark.parametrize("mode", [True, False])
def test_a_convolved_table_is_not_kept_over_a_training_step(mode: bool) -> None:
    """A fused optimizer changes weights without a trace in their version."""
    torch.manual_seed(0)
    model = build("dhcn", items=5, dim=4).eval()
    model.prepare(TRAINED)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5, fused=True)
    with torch.no_grad():
        before = model.scores(BATCH)
    model.train(mode)
    model.scores(BATCH).square().sum().backward()
    optimizer.step()
    model.eval()
    fresh = build("dhcn", items=5, dim=4).eval()
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        after = model.scores(BATCH)
        torch.testing.assert_close(after, fresh.scores(BATCH))
    assert not torch.allclose(after, before)


def test_an_exponent_near_one_is_no_nan_in_bfloat16() -> None:
    logits = torch.tensor([[1.0, 2.0, -torch.inf], [0.0, -1.0, 3.0]]).bfloat16()
    alpha = exponent(torch.tensor([[-6.0], [0.0]]).bfloat16())
    weights = entmax(logits, alpha)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))


def test_static_models_read_a_static_batch_as_any_other() -> None:
    """What says that it may be captured must not read what is left over in a batch of a fixed size."""
    clicks = torch.arange(40) % 12
    examples = PackedExamples(clicks, torch.tensor([0, 5, 20]), torch.tensor([4, 6, 29]))
    index = torch.arange(3)
    for encoder in ENCODERS:
        for readout in READOUTS:
            torch.manual_seed(0)
            model = build(recipe_of("srgnn", encoder, readout, "cosine"), items=12, dim=8, longest=12).eval()
            if model.static:
                fixed = model(examples.static_batch(index, 30)).query[:3]
                torch.testing.assert_close(fixed, model(examples.batch(index)).query, msg=f"{encoder}, {readout}")


def test_rows_in_pieces_are_the_same_matrix() -> None:
    torch.manual_seed(0)
    dense = torch.rand(9, 7) * (torch.rand(9, 7) < 0.6)
    dense[2] = 0  # an empty row
    sparse = dense.to_sparse_csr()
    rows = CompressedRows(sparse.crow_indices(), sparse.col_indices(), sparse.values())
    x = torch.randn(7, 3)
    for size in (1, 2, 3, 64):
        cut = rows.cut(size)
        assert int(cut.first.diff().max()) <= size
        torch.testing.assert_close(cut @ x, dense @ x)
    torch.testing.assert_close(rows @ x, dense @ x)


def test_what_a_small_start_is() -> None:
    model = build("nextitnet", items=2000, dim=8)
    assert float(model.embedding.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
