"""Shrunk models against the dense ones, units folded by hand, and the plain sentences."""

from __future__ import annotations

import copy
import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dissect.errors import DissectError
from dissect.sparsity import wrap
from dissect.sparsity.reduced import Reduced, ReducedConv1d, ReducedLinear
from dissect.sparsity.shrink import shrink
from dissect.sparsity.timing import Timing, measure


def sparse(layer: nn.Module, rows: tuple[int, ...] = (), columns: tuple[int, ...] = ()) -> nn.Module:
    """Zeros in rows and columns, and in every seventh weight."""
    with torch.no_grad():
        assert isinstance(layer.weight, Tensor)
        layer.weight.view(-1)[::7] = 0
        layer.weight[list(rows)] = 0
        layer.weight[:, list(columns)] = 0
    return layer


class Gate(nn.Module):
    """Two linear maps and a GRU cell whose data flow no container shows."""

    def __init__(self) -> None:
        super().__init__()
        self.a = sparse(nn.Linear(40, 60), rows=tuple(range(30)), columns=tuple(range(0, 40, 2)))
        self.b = sparse(nn.Linear(40, 60, bias=False), columns=tuple(range(25)))
        self.cell = nn.GRUCell(60, 20)
        self.table = nn.Embedding(5, 40, padding_idx=0)

    def forward(self, items: Tensor) -> Tensor:
        x = self.table(items)
        return self.cell(self.a(x) * torch.sigmoid(self.b(x)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [(range(20), ()), ((), range(0, 50, 3)), (range(5, 30), range(40)), (range(30), ()), ((), range(50))],
    ids=["rows", "columns", "both", "all rows", "all columns"],
)
@pytest.mark.parametrize("shape", [(50,), (4, 50), (2, 3, 50), (0, 50)])
def test_a_linear_map_gives_the_same_output(bias: bool, rows: range, columns: range, shape: tuple[int, ...]):
    dense = sparse(nn.Linear(50, 30, bias=bias), tuple(rows), tuple(columns))
    small = shrink(dense).model
    assert isinstance(small, ReducedLinear)
    x = torch.randn(shape)
    torch.testing.assert_close(small(x), dense(x))
    assert torch.equal(small.weight, dense.get_parameter("weight"))
    assert small.kernel.numel() < 30 * 50


def test_kernel_and_indices_by_hand():
    dense = nn.Linear(3, 3)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor([[1.0, 0, 2], [0, 0, 0], [3, 0, 0]]))
        dense.bias.copy_(torch.tensor([10.0, 20, 30]))
    small = ReducedLinear(dense)
    assert small.kernel.tolist() == [[1, 2], [3, 0]]
    assert small.rows is not None
    assert small.columns is not None
    assert (small.rows.tolist(), small.columns.tolist()) == ([0, 2], [0, 2])
    assert small(torch.tensor([1.0, 5, 7])).tolist() == [25, 20, 33]


def test_gradients_are_those_of_the_dense_map():
    dense = sparse(nn.Linear(6, 5), rows=(1, 3), columns=(0, 4)).double()
    assert isinstance(dense, nn.Linear)
    small = ReducedLinear(dense)
    small.bias = nn.Parameter(dense.bias.detach().clone())
    x = torch.randn(3, 6, dtype=torch.float64)
    for model in (dense, small):
        (model(x) ** 2).sum().backward()
    assert dense.weight.grad is not None
    assert dense.bias.grad is not None
    assert small.kernel.grad is not None
    assert small.bias.grad is not None
    torch.testing.assert_close(small.kernel.grad, dense.weight.grad[[0, 2, 4]][:, [1, 2, 3, 5]])
    torch.testing.assert_close(small.bias.grad, dense.bias.grad)


def test_under_autocast_the_type_is_that_of_the_dense_map():
    dense = sparse(nn.Linear(50, 30), rows=tuple(range(20)), columns=tuple(range(30)))
    small = shrink(dense).model
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        x = torch.randn(4, 50)
        assert small(x).dtype == dense(x).dtype == torch.bfloat16
        torch.testing.assert_close(small(x), dense(x), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("options", [{}, {"padding": 2, "stride": 2}, {"padding": "same", "dilation": 2}])
@pytest.mark.parametrize("shape", [(3, 10, 12), (10, 12)])
def test_a_convolution_gives_the_same_output(options: dict, shape: tuple[int, ...]):
    dense = sparse(nn.Conv1d(10, 8, 3, **options), rows=(0, 5, 6), columns=(1, 2, 9))
    small = shrink(dense).model
    assert isinstance(small, ReducedConv1d)
    assert small.kernel.shape == (5, 7, 3)
    x = torch.randn(shape)
    torch.testing.assert_close(small(x), dense(x))


def test_any_module_gives_the_same_output_and_is_left_alone():
    dense = Gate()
    before = copy.deepcopy(dense.state_dict())
    report = shrink(dense)
    items = torch.tensor([0, 3, 4])
    torch.testing.assert_close(report.model(items), dense(items))
    assert dense.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())
    rows = {row.name: row for row in report.rows}
    assert list(rows) == ["a.weight", "b.weight", "cell.weight_ih", "cell.weight_hh"]
    a = rows["a.weight"]
    assert (a.before, a.after) == ((60, 40), (30, 20))
    assert (a.parameters_before, a.parameters_after) == (60 * 40 + 60, 30 * 20 + 60)
    assert (a.bytes_before, a.bytes_after) == (4 * (60 * 40 + 60), 4 * (30 * 20 + 60) + 4 * (30 + 20))
    assert isinstance(dense.a.weight, Tensor)
    assert a.nonzeros == int(dense.a.weight.count_nonzero())
    assert rows["b.weight"].after == (60, 15)
    gru = 3 * 20 * (60 + 20 + 2)
    assert report.parameters_before == 200 + 2460 + 2400 + gru
    assert report.parameters_after == 200 + 660 + 900 + gru
    assert report.bytes_after == 4 * (200 + 660 + 900 + gru + 50 + 15)
    assert report.sentence.startswith("2 of 4 matrices are smaller: 6,680 of 9,980 parameters")
    assert str(report).splitlines()[1].split()[:3] == ["a.weight", "60x40", "30x20"]


def test_a_gru_cell_and_a_wide_index_are_left_with_a_note():
    model = nn.ModuleDict({"cell": nn.GRUCell(4, 4), "vector": sparse(nn.Linear(100, 1), columns=(3, 5))})
    with torch.no_grad():
        assert isinstance(model["cell"].weight_ih, Tensor)
        model["cell"].weight_ih[:, 2] = 0
    report = shrink(model)
    notes = {row.name: row.note for row in report.rows}
    assert notes["cell.weight_ih"] == "left: GRUCell is not reduced"
    assert notes["cell.weight_hh"] == ""
    assert "indices" in notes["vector.weight"]
    assert type(report.model.get_submodule("vector")) is nn.Linear
    assert report.sentence == (
        "no gain: 2 of 3 matrices have an empty row or column, and nothing is saved by removing it"
    )


def test_tied_hooked_and_grouped_layers_are_left_with_a_note():
    model = nn.Module()
    model.tied, model.table = sparse(nn.Linear(20, 30), rows=tuple(range(20))), nn.Embedding(30, 20)
    model.table.weight = model.tied.weight  # pyright: ignore
    model.hooked = sparse(nn.Linear(20, 30), rows=tuple(range(20)))
    model.hooked.register_forward_hook(lambda *_: None)
    model.grouped = sparse(nn.Conv1d(20, 30, 3, groups=2), rows=tuple(range(20)))
    report = shrink(model)
    notes = {row.name: row.note for row in report.rows}
    assert "tied" in notes["tied.weight"]
    assert "hooks" in notes["hooked.weight"]
    assert "groups" in notes["grouped.weight"]
    assert report.shrunk == 0


def test_a_module_at_two_places_stays_one():
    model = nn.Module()
    model.first = model.second = sparse(nn.Linear(20, 30), rows=tuple(range(20)))
    small = shrink(model).model
    assert isinstance(small.first, ReducedLinear)
    assert small.first is small.second


def test_a_chain_is_folded_by_hand():
    """Unit 0 is constant (tanh 1, read with weight 3), unit 1 is not read, unit 2 stays."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    first, second = model[0], model[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.0, 0], [5, 6], [7, 8]]))
        first.bias.copy_(torch.tensor([1.0, 2, 3]))
        second.weight.copy_(torch.tensor([[3.0, 0, 4]]))
        second.bias.fill_(0.5)
    report = shrink(model)
    one, two = report.model.get_submodule("0"), report.model.get_submodule("2")
    assert isinstance(one, nn.Linear)
    assert isinstance(two, nn.Linear)
    assert one.weight.tolist() == [[7, 8]]
    assert one.bias.tolist() == [3]
    assert two.weight.tolist() == [[4]]
    assert two.bias.item() == pytest.approx(0.5 + 3 * math.tanh(1))
    assert (one.out_features, two.in_features) == (1, 1)
    assert [(row.before, row.after) for row in report.rows] == [((3, 2), (1, 2)), ((1, 3), (1, 1))]


def test_a_removal_cascades_both_ways():
    # Backward: unit 0 of the third map is not read, so it goes; then the second layer's unit 1, which only it read.
    # Forward: unit 0 of the first map is constant; then unit 0 of the second, which reads it alone, is constant too.
    model = nn.Sequential(
        nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Sequential(nn.Sigmoid(), nn.Linear(3, 3)), nn.ReLU(),
        nn.Linear(3, 2),
    )  # fmt: skip
    maps = [m for m in model.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        maps[0].weight[0] = 0
        maps[0].bias[0] = 2
        maps[1].weight.copy_(torch.tensor([[4.0, 0, 0], [0, 1, 2], [0, 3, 4]]))
        maps[2].weight.copy_(torch.tensor([[1.0, 2, 3], [1, 0, 3], [2, 0, 1]]))
        maps[3].weight[:, 0] = 0
    small = shrink(model).model
    shapes = [tuple(m.weight.shape) for m in small.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(2, 3), (1, 2), (2, 1), (2, 2)]
    x = torch.randn(7, 3)
    torch.testing.assert_close(small(x), model(x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.GELU, nn.Softplus])
def test_a_pruned_mlp_gives_the_same_output(activation: type[nn.Module], bias: bool):
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 30, bias=bias), activation(), nn.Dropout(0.5),
        nn.Linear(30, 20, bias=bias), activation(),
        nn.Linear(20, 10, bias=bias),
    )  # fmt: skip
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight *= torch.rand(layer.weight.shape) < 0.05
    report = shrink(model)
    assert report.parameters_after < 0.5 * report.parameters_before
    model.eval()
    report.model.eval()
    x = torch.randn(5, 8, 8)
    torch.testing.assert_close(report.model(x), model(x))
    hidden = [m for m in report.model.modules() if type(m) is nn.Linear]
    assert all(bool(m.weight.any(1).all()) and bool(m.weight.any(0).all()) for m in hidden[:-1])


def test_an_empty_chain_gives_a_constant():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.zero_()  # pyright: ignore
    small = shrink(model).model
    x = torch.randn(6, 4)
    torch.testing.assert_close(small(x), model(x))
    assert small.get_submodule("0").weight.shape[0] == 0  # pyright: ignore


def test_activations_that_mix_units_break_a_chain():
    model = nn.Sequential(nn.Linear(30, 40), nn.Softmax(-1), sparse(nn.Linear(40, 20), columns=tuple(range(30))))
    small = shrink(model).model
    assert small.get_submodule("0").weight.shape == (40, 30)  # pyright: ignore
    assert isinstance(small.get_submodule("2"), ReducedLinear)
    x = torch.randn(6, 30)
    torch.testing.assert_close(small(x), model(x))


def test_a_sequence_with_code_of_its_own_or_a_shared_map_is_not_folded():
    class Odd(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            return self[2](self[0](input) + 1)

    a, b = sparse(nn.Linear(3, 4), rows=(1,)), nn.Linear(4, 3)
    odd = Odd(a, nn.ReLU(), b)
    loop = nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), a)
    for model in (odd, loop):
        small = shrink(model).model
        assert small.get_submodule("0").weight.shape == (4, 3)  # pyright: ignore
        x = torch.randn(6, 3)
        torch.testing.assert_close(small(x), model(x))


def test_a_hook_between_two_maps_still_sees_what_it_saw():
    model = nn.Sequential(sparse(nn.Linear(3, 4), rows=(1,)), nn.ReLU(), nn.Linear(4, 3))
    seen: list[torch.Size] = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    shrink(model).model(torch.randn(6, 3))
    assert seen == [(6, 4)]


def test_wrapped_layers_are_refused():
    model = nn.Sequential(nn.Linear(3, 3))
    wrap(model, {"map": ["0"]}, examples=10, steps=10)
    with pytest.raises(DissectError, match=r"'0' is VariationalLinear.*export"):
        shrink(model)


def test_full_matrices_are_no_gain():
    report = shrink(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)))
    assert report.sentence == "no gain: 0 of 2 matrices have an empty row or column"
    assert not any(isinstance(m, Reduced) for m in report.model.modules())
    assert measure(nn.Linear(3, 3), report, lambda m: m(torch.zeros(1, 3)), 2).sentence == report.sentence


class Slow(nn.Linear):
    """Moves a clock on by what it is told to, call by call."""

    def forward(self, input: Tensor) -> Tensor:
        assert not self.training
        self.clock[0] += next(self.waits)  # pyright: ignore
        return super().forward(input)


@pytest.mark.parametrize(
    ("shrunk_ms", "low", "middle", "high", "verdict"),
    [
        (10, 1.75, 2.5, 3.25, "faster"),
        (24, 0.72917, 1.04167, 1.35417, "not faster"),
        (50, 0.35, 0.5, 0.65, "not faster"),
    ],
)
def test_measure_by_hand(
    monkeypatch: pytest.MonkeyPatch, shrunk_ms: float, low: float, middle: float, high: float, verdict: str
):
    clock = [0.0]
    monkeypatch.setattr(sys.modules[Timing.__module__], "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    model = nn.Sequential(sparse(nn.Linear(30, 30), rows=tuple(range(20))), Slow(30, 3))
    report = shrink(model)
    warmup = 99.0
    for m, milliseconds in ((model, [10, 20, 30, 40]), (report.model, [shrunk_ms] * 4)):
        slow: Any = m.get_submodule("1")
        slow.clock, slow.waits = clock, iter([warmup, *(t / 1e3 for t in milliseconds)])
    calls: list[nn.Module] = []

    def forward(m: nn.Module) -> Tensor:
        calls.append(m)
        return m(torch.zeros(2, 30))

    timing = measure(model, report, forward, rounds=4, warmup=1)
    assert (timing.low, timing.speedup, timing.high) == pytest.approx((low, middle, high), rel=1e-4)
    assert (timing.dense_ms, timing.shrunk_ms) == pytest.approx((25, shrunk_ms))
    sentence = f"x{middle:.2f} (quartiles {low:.2f} to {high:.2f}), {verdict}; 1 of 2 matrices are smaller"
    assert timing.sentence.startswith(sentence)
    assert timing.bytes_after < timing.bytes_before
    assert len(calls) == 10
    assert {calls[2 * i] for i in range(1, 5)} == {model, report.model}  # each goes first in some rounds
    assert model.training
    assert model[1].training


def test_a_spread_needs_two_rounds():
    model = nn.Linear(3, 3)
    with pytest.raises(DissectError, match="rounds is 1"):
        measure(model, shrink(model), lambda m: m(torch.zeros(1, 3)), rounds=1)
