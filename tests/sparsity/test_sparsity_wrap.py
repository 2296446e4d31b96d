"""Wrapping by name, the receipt, the optimizer's groups, dead weights, export."""

from __future__ import annotations

import copy
import doctest
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import dissect.sparsity
from dissect.errors import DissectError
from dissect.sparsity import Instrument, keep_mask, named_variational, parameters_of, prune_counts, wrap


class Toy(nn.Module):
    """A recurrence, two linear maps in a container, one of them never called, and an embedding."""

    PARTS: ClassVar = {
        "propagation": ["edges.*"],
        "combination": ["cell"],
        "attention": [],
        "transformation": ["out"],
    }

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.edges = nn.ModuleDict({"used": nn.Linear(4, 4), "dead": nn.Linear(4, 4)})
        self.cell = nn.GRUCell(4, 4)
        self.out = nn.Linear(4, 2, bias=False)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, items: Tensor) -> Tensor:
        h = self.table(items)
        return self.out(self.norm(self.cell(self.edges["used"](h), h)))


ITEMS = torch.tensor([0, 3, 6])


def toy(which: str = "all", **options: object) -> tuple[Toy, Instrument]:
    torch.manual_seed(0)
    model = Toy()
    return model, wrap(model, Toy.PARTS, which, examples=100, steps=10, **options)  # pyright: ignore


def roughen(model: nn.Module) -> None:
    with torch.no_grad():
        for _, _, s in named_variational(model):
            s.uniform_(-8, 6)


def test_five_lines_of_the_docstring():
    result = doctest.testmod(dissect.sparsity)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.parametrize("noise", ["local", "weight"])
def test_wrapped_equals_dense_in_eval_and_keeps_weights_names_and_rng(noise: str):
    torch.manual_seed(0)
    dense = Toy().eval()
    model = copy.deepcopy(dense)
    before = torch.get_rng_state()
    wrap(model, Toy.PARTS, examples=100, steps=10, noise=noise)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model(ITEMS), dense(ITEMS))
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in dense.state_dict().items())
    model.train()
    assert not torch.equal(model(ITEMS), model(ITEMS))


def test_receipt_names_each_replacement():
    _, probe = toy()
    rows = {row.module: row for row in probe.receipt}
    assert list(rows) == ["edges.used", "edges.dead", "cell", "out"]
    assert rows["cell"].part == "combination"
    assert (rows["cell"].old, rows["cell"].new) == ("GRUCell", "VariationalGRUCell")
    assert rows["cell"].parameters == ("cell.weight_ih", "cell.weight_hh")
    assert rows["cell"].weights == 2 * 12 * 4
    assert "edges.used" in str(probe.receipt)
    assert len(str(probe.receipt).splitlines()) == 5


def test_only_the_chosen_parts_are_wrapped():
    model, probe = toy("readout")
    assert list(parameters_of(model)) == ["out.weight"]
    assert {row["part"] for row in probe.density()} == {"attention", "transformation"}


def test_dense_and_wrapped_checkpoints_load():
    torch.manual_seed(5)
    dense = Toy()
    model, _ = toy()
    roughen(model)
    old = model.edges["used"].log_sigma2.clone()  # pyright: ignore
    model.load_state_dict(dense.state_dict())
    assert torch.equal(model.out.weight, dense.out.weight)
    assert torch.equal(model.edges["used"].log_sigma2, old)  # pyright: ignore
    assert len(dense.state_dict()) == len(Toy().state_dict())
    other, _ = toy()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.edges["used"].log_sigma2, old)  # pyright: ignore
    state = dense.state_dict()
    del state["out.weight"]
    with pytest.raises(RuntimeError, match=r"out\.weight"):
        model.load_state_dict(state)


def test_groups_cover_every_parameter_once_and_decay_none_of_the_wrapped():
    model, probe = toy()
    groups = {g["name"]: g for g in probe.param_groups(1e-3, 2e-2, weight_decay=0.1)}
    assert {n: g["weight_decay"] for n, g in groups.items()} == {"wrapped": 0, "sigma": 0, "rest": 0.1}
    assert groups["sigma"]["lr"] == 2e-2
    ids = [id(p) for g in groups.values() for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    sigmas = {id(p) for name, p in model.named_parameters() if "log_sigma2" in name}
    assert {id(p) for p in groups["sigma"]["params"]} == sigmas


def test_decay_guard():
    model, probe = toy()
    probe.guard(torch.optim.Adam(probe.param_groups(1e-3, weight_decay=0.1)))
    with pytest.raises(DissectError, match="decay"):
        probe.guard(torch.optim.Adam(model.parameters(), weight_decay=1e-5))
    with pytest.raises(DissectError, match="lacks the log variance"):
        probe.guard(torch.optim.Adam([p for n, p in model.named_parameters() if "log_sigma2" not in n]))


def test_penalty_is_the_weighted_sum():
    _, probe = toy(kl_scale=3.0, warmup=(0.0, 0.5))
    assert probe.penalty(0).item() == 0
    assert probe.kl_weight(2) == pytest.approx(0.4 * 3 / 100)
    assert probe.penalty(9).item() == pytest.approx(3 * probe.kl().item() / 100)
    assert probe.penalty(9).requires_grad
    assert not probe.kl().requires_grad
    empty = wrap(Toy(), {"none": []}, examples=1, steps=1, warmup=(0, 0))
    assert empty.penalty(1).item() == 0
    assert empty.density()[0]["density"] is None
    with pytest.raises(DissectError, match="there are no parts"):
        wrap(Toy(), {}, examples=1, steps=1)


def test_density_counts_by_hand_and_export_zeroes_the_same():
    model, probe = toy()
    with torch.no_grad():
        model.out.weight.fill_(1.0)
        model.out.log_sigma2.fill_(-8.0)  # pyright: ignore
        model.out.log_sigma2[0, :3] = 4.0  # pyright: ignore
    rows = {(row["part"], row["tensor"]): row for row in probe.density()}
    assert rows["transformation", "out.weight"]["kept"] == 5
    assert rows["transformation", None]["density"] == 5 / 8
    assert rows["attention", None]["total"] == 0
    exported = probe.export()
    assert int(exported.get_parameter("out.weight").count_nonzero()) == 5
    assert probe.prune_counts() == prune_counts(model)
    assert probe.prune_counts()[1] == 16 + 16 + 96 + 8
    curve = next(c for c in probe.thresholds(values=[-9, 3, 5]) if c["part"] == "transformation")
    assert curve["kept"] == [0, 5, 8]


@pytest.mark.parametrize("rule", ["log-alpha", "magnitude", "signed", "snr"])
def test_export_is_the_masked_model_in_dense_classes(rule: str):
    model, probe = toy(rule=rule)
    roughen(model)
    model.eval()
    exported = probe.export().eval()
    with probe.masked():
        pruned = model(ITEMS)
    assert 0 < probe.prune_counts()[0] < probe.prune_counts()[1]
    torch.testing.assert_close(exported(ITEMS), pruned, rtol=0, atol=1e-6)
    assert not torch.equal(pruned, model(ITEMS))
    assert exported.state_dict().keys() == Toy().state_dict().keys()
    assert [type(m) for m in exported.modules()] == [type(m) for m in Toy().modules()]
    assert "log_sigma2" in "".join(model.state_dict())  # the wrapped model is untouched


def test_dead_weights_are_found_excluded_and_noted():
    model, probe = toy()
    state, buffers = torch.get_rng_state(), model.norm.running_mean.clone()  # pyright: ignore
    assert probe.check_dead(lambda: model(ITEMS)) == ["edges.dead"]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.norm.running_mean, buffers)  # pyright: ignore
    probe.exclude(["edges.dead"])
    assert type(model.edges["dead"]) is nn.Linear
    assert "log_sigma2" not in dict(model.edges["dead"].named_parameters())
    assert "edges.dead" not in [row["tensor"] for row in probe.density()]
    assert "never called" in str(probe.receipt)
    assert probe.check_dead(lambda: model(ITEMS)) == []
    with pytest.raises(DissectError, match=r"wrapped: edges\.used"):
        probe.exclude(["edges.dead"])


def test_a_failing_run_leaves_no_trace():
    model, probe = toy()
    state = torch.get_rng_state()

    def fail() -> None:
        model.eval()
        torch.rand(3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        probe.check_dead(fail)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(m.training for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_tied_weights_share_a_variance_and_count_once():
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "table": nn.Embedding(3, 3)})
    model["b"].weight = model["a"].weight
    with pytest.raises(
        DissectError, match=r"'b.weight' of part 'q' and 'a.weight' of part 'p' are one shared parameter"
    ):
        wrap(model, {"p": ["a"], "q": ["b"]}, examples=1, steps=1)
    probe = wrap(model, {"p": ["a", "b"]}, examples=1, steps=1, warmup=(0, 0))
    assert model["a"].log_sigma2 is model["b"].log_sigma2
    assert probe.prune_counts()[1] == 9
    assert [row.weights for row in probe.receipt] == [9, 0]
    assert "tied to a.weight" in probe.receipt[1].note
    assert probe.penalty(0).item() == pytest.approx(dissect.sparsity.kl_sum(*parameters_of(model)["a.weight"]).item())
    exported = probe.export()
    assert exported.get_parameter("a.weight") is exported.get_parameter("b.weight")


def test_export_leaves_a_tied_embedding_whole():
    model = nn.ModuleDict({"table": nn.Embedding(3, 3), "out": nn.Linear(3, 3)})
    model["out"].weight = model["table"].weight
    probe = wrap(model, {"p": ["out"]}, examples=1, steps=1, log_sigma2=9.0)
    exported = probe.export()
    assert torch.equal(exported.get_parameter("table.weight"), model.get_parameter("table.weight"))
    assert not exported.get_parameter("out.weight").any()


@pytest.mark.parametrize(("scale", "low", "high"), [(1.0, 15, 40), (3.0, 0, 10), (10.0, 0, 2)], ids=["x1", "x3", "x10"])
def test_toy_regression_keeps_what_matters(scale: float, low: int, high: int):
    torch.manual_seed(0)
    x, steps = torch.randn(1000, 100), 1000
    sign = torch.randint(0, 2, (20,)) * 2 - 1
    truth = torch.cat([(torch.rand(20) * 0.7 + 0.3) * sign, torch.zeros(80)])
    y = x @ truth + 0.5 * torch.randn(1000)
    model = nn.Linear(100, 1)
    probe = wrap(model, {"map": [""]}, examples=1000, steps=steps, kl_scale=scale, warmup=(0, 0.2))
    optimizer = torch.optim.Adam(probe.param_groups(lr=1e-2, lr_sigma=2e-2))
    theta, sigma, rest = optimizer.param_groups
    assert sigma["name"] == "sigma"
    for step in range(steps):
        theta["lr"] = rest["lr"] = 1e-2 * (1 - step / steps)
        loss = (model(x)[:, 0] - y).square().mean() / (2 * 0.25) + probe.penalty(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    kept = keep_mask(*parameters_of(model)["weight"])[0]
    assert int(kept[:20].sum()) == 20
    assert low <= int(kept[20:].sum()) <= high
