"""Steps on padded batches of fixed shapes train as steps on ragged ones; on CUDA, captured ones too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dissect.batch import PackedExamples
from dissect.errors import DissectError
from dissect.models import build
from dissect.models.encoders import hypergraph
from dissect.sparsity import wrap
from dissect.training.captured import CapturedSteps, padded_size
from dissect.training.kernels import REST, busy, kind_of
from dissect.training.plan import Plan
from dissect.training.train import Loop

ITEMS = 40
MODELS = ["srgnn", "meanpool", "last-item", "meanlast", "attenmixer", "attenmixer-ours", "attenmixer-official",
          "srgnn+attenmixer", "niser", "sgnnhn", "gcsan", "dhcn", "nextitnet"]  # fmt: skip
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def examples(device: str = "cpu", count: int = 50) -> PackedExamples:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 9, (count,), generator=generator)
    ends = (lengths + 1).cumsum(0)
    clicks = torch.randint(ITEMS, (int(ends[-1]),), generator=generator)
    return PackedExamples(clicks, ends - lengths - 1, ends - 1, device)


def loop_of(
    device: str = "cpu", model: str = "srgnn", sparse: bool = False, steps: int = 13, bf16: bool = False
) -> Loop:
    torch.manual_seed(1)
    net = build(model, ITEMS, 8, longest=8).to(device)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # type: ignore[assignment]
    net.scorer = replace(net.scorer, dropout=0.0)
    net.prepare(examples())
    data, plan = examples(device), Plan(50, 8, steps, lr_step=1)
    probe = wrap(net, net.parts(), examples=50, steps=steps, warmup=(0.2, 0.6), noise="weight") if sparse else None
    groups = probe.param_groups(1e-2) if probe else [{"name": "rest", "params": list(net.parameters())}]
    optimizer = torch.optim.Adam(groups, lr=1e-2, fused=True, capturable=device == "cuda")
    return Loop(net, data, optimizer, plan, penalty=probe, bf16=bf16)


def weights(loop: Loop) -> dict[str, torch.Tensor]:
    return {k: v.detach().cpu() for k, v in loop.model.state_dict().items()}


def test_a_size_holds_its_clicks_and_a_click_of_padding() -> None:
    sizes = [padded_size(n) for n in range(1, 5000)]
    assert all(size > n for n, size in enumerate(sizes, 1))
    assert all(size <= max(64, 1.34 * n + 16) for n, size in enumerate(sizes, 1))
    assert len(set(sizes)) < 40


@pytest.mark.parametrize("model", MODELS)
def test_a_padded_batch_gives_the_same_queries_and_gradients(model: str) -> None:
    data, index = examples(), torch.tensor([3, 7, 7, 0, 21])
    torch.manual_seed(1)
    net = build(model, ITEMS, 8, longest=8)
    net.prepare(data)
    net = net.double().eval()
    net.window = min(net.window, 3)  # shorter than most sessions
    found = []
    static = (data.static_batch(index, size, net.window) for size in (64, 200))
    for batch in (data.batch(index), *static):
        net.zero_grad()
        query = net(batch).query[: len(index)]
        assert batch.targets is not None
        query.square().sum().backward()
        found.append(
            [query.detach(), batch.targets, *(p.grad.to_dense() for p in net.parameters() if p.grad is not None)]
        )
    for padded in found[1:]:
        for a, b in zip(found[0], padded, strict=True):
            torch.testing.assert_close(a, b)


def test_shapes_depend_on_the_size_alone() -> None:
    data = examples()
    graphs = [data.static_batch(torch.tensor(i), 64).session_graph for i in ([1, 2, 3], [30, 31, 32])]
    shapes = [[t.shape for t in vars(graph).values() if t is not None] for graph in graphs]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 7


def test_nodes_that_are_left_over_belong_to_the_padding() -> None:
    data, index = examples(), torch.tensor([3, 7, 7, 0, 21])
    ragged, padded = data.batch(index).session_graph, data.static_batch(index, 64).session_graph
    assert ragged.session is not None
    assert padded.session is not None
    count = ragged.nodes.numel()
    assert padded.session[:count].tolist() == ragged.session.tolist()
    assert padded.nodes[:count].tolist() == ragged.nodes.tolist()
    assert set(padded.session[count:].tolist()) == {len(index)}


def test_the_second_view_of_a_padded_batch_leaves_the_padding_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypergraph, "_shuffle", lambda count, device: torch.arange(count).flip(0))
    data, index = examples(), torch.tensor([3, 7, 7, 0, 21])
    net = build("dhcn", ITEMS, 8)
    net.prepare(data)
    net = net.double()
    ragged, padded = (net(batch).aux_loss for batch in (data.batch(index), data.static_batch(index, 64)))
    assert ragged is not None
    torch.testing.assert_close(padded, ragged)


@pytest.mark.parametrize(("model", "sparse"), [("srgnn", False), ("srgnn", True), ("niser", False)])
def test_steps_on_padded_batches_train_alike(model: str, sparse: bool) -> None:
    ragged, padded = (loop_of(model=model, sparse=sparse) for _ in range(2))
    for loop in (ragged, padded):
        loop.model.window = min(int(loop.model.window), 3)  # type: ignore[arg-type]  # it cuts most sessions
    padded.captured = CapturedSteps(padded, capture=False)
    for loop in (ragged, padded):
        torch.manual_seed(5)
        loop.run()
        assert loop.step == 13
    assert float(padded.nll) == pytest.approx(float(ragged.nll), rel=1e-4)
    for name, value in weights(ragged).items():
        torch.testing.assert_close(weights(padded)[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_static_batch_is_read_by_the_window_it_was_cut_to() -> None:
    batch = examples().static_batch(torch.tensor([3, 7]), 64, 3)
    assert batch.tail(3) is batch
    with pytest.raises(ValueError, match="was cut to 3 clicks; asked for are 5"):
        batch.tail(5)


def test_kernels_are_told_apart_and_their_time_counts_once() -> None:
    names = {
        "sm80_xmma_gemm_f32f32": "matrix products", "void at::native::bfloat16_copy_kernel_cuda": "copies and casts",
        "Memcpy DtoD": "copies and casts", "FusedAdamMathFunctor": "optimiser", "softmax_warp_forward": REST,
    }  # fmt: skip
    assert {name: kind_of(name) for name in names} == names
    assert busy([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4.0
    assert busy([]) == 0.0


def test_a_loss_that_is_not_finite_is_found_before_the_epoch_is_judged() -> None:
    loop = loop_of()
    loop.captured = CapturedSteps(loop, capture=False)
    with torch.no_grad():
        loop.model.embedding.weight[0] = float("nan")  # type: ignore[union-attr]
    with pytest.raises(DissectError, match="loss is nan"):
        loop.run()


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_captured_steps_train_as_the_cpu_does(monkeypatch: pytest.MonkeyPatch, model: str, sparse: bool) -> None:
    monkeypatch.setattr(hypergraph, "_shuffle", lambda count, device: torch.arange(count, device=device).flip(0))
    here, there = loop_of(model=model), loop_of("cuda", model=model, sparse=sparse)
    here.captured = CapturedSteps(here, capture=False)
    assert there.captured is not None
    captures = Captures()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", captures)
    there.run()
    assert there.captured.capture, "the device refused the capture"
    assert captures.count
    assert torch.isfinite(there.nll)
    if not sparse:
        here.run()
        for name, value in weights(here).items():
            torch.testing.assert_close(weights(there)[name], value, rtol=2e-2, atol=1e-3, msg=name)


class Captures:
    """Counts the graphs that are made."""

    def __init__(self) -> None:
        self.count, self.make = 0, torch.cuda.CUDAGraph

    def __call__(self) -> torch.cuda.CUDAGraph:
        self.count += 1
        return self.make()


@gpu
@pytest.mark.gpu
def test_captured_noise_is_drawn_anew_at_each_replay() -> None:
    loop = loop_of("cuda", sparse=True, steps=40)
    seen: list[float] = []
    assert loop.captured is not None
    index = torch.arange(8, device="cuda")
    loop.captured.clicks = [int(loop.examples.host_lengths[:8].sum())]
    for group in loop.optimizer.param_groups:
        group["lr"] = 0.0
    for _ in range(20):
        loop.captured.step(0, index)
        loop.step += 1
        seen.append(float(loop.nll))
    assert len(set(seen[5:])) > 10


@gpu
@pytest.mark.gpu
def test_captured_dropout_is_drawn_anew_at_each_replay() -> None:
    loop = loop_of("cuda", model="gcsan", steps=40)
    for module in loop.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    assert loop.captured is not None
    index = torch.arange(8, device="cuda")
    loop.captured.clicks = [int(loop.examples.host_lengths[:8].sum())]
    for group in loop.optimizer.param_groups:
        group["lr"] = 0.0
    seen = set()
    for _ in range(20):
        loop.captured.step(0, index)
        loop.step += 1
        seen.add(float(loop.nll))
    assert loop.captured.graphs
    assert len(seen) > 10


@gpu
@pytest.mark.gpu
def test_bf16_trains_on_the_device() -> None:
    loop = loop_of("cuda", bf16=True)
    loop.run()
    assert torch.isfinite(loop.nll)
