"""Hard concrete gates against their closed forms, as a parametrization, and on a toy regression."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dissect.errors import DissectError
from dissect.sparsity.hard_concrete import BETA, L0, HardConcrete, hard_concrete, l0_wrap, open_probability

DRAWS = 200_000


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("log_a", [-4.0, -1.0, 0.0, 1.5, 4.0])
def test_shares_of_closed_and_full_gates_equal_the_closed_forms(log_a: float):
    z = hard_concrete(torch.full((DRAWS,), log_a), torch.rand(DRAWS))
    # P(s > t) = sigmoid(log_a - beta logit(t)); z > 0 from s = 1/12 on, z = 1 from s = 11/12 on.
    is_open, is_full = logistic(log_a + BETA * math.log(11)), logistic(log_a - BETA * math.log(11))
    for share, p in (((z > 0).float().mean(), is_open), ((z == 1).float().mean(), is_full)):
        assert abs(float(share) - p) < 5 * math.sqrt(p * (1 - p) / DRAWS)
    assert float(open_probability(torch.tensor(log_a))) == pytest.approx(is_open, abs=1e-6)
    assert float(z.min()) >= 0


def test_certain_gates_by_hand():
    gates = hard_concrete(torch.tensor([-3.0, -2.398, -2.397, 0.0, 2.397, 2.398, 3.0]))
    assert gates[0] == gates[1] == 0
    assert 0 < gates[2] < 1e-3
    assert gates[3] == pytest.approx(0.5)
    assert 0.999 < gates[4] < 1
    assert gates[5] == gates[6] == 1


def test_extreme_noise_has_finite_gradients():
    log_a = torch.tensor([0.0, 0.0], requires_grad=True)
    z = hard_concrete(log_a, torch.tensor([0.0, 1 - 2**-24]))
    assert z.tolist() == [0, 1]
    z.sum().backward()
    assert log_a.grad is not None
    assert log_a.grad.isfinite().all()


def test_gradients_with_frozen_noise():
    gate = HardConcrete(torch.ones(4, 3, dtype=torch.float64), 0.0)
    assert gate.log_a.dtype == torch.float64
    gate.frozen = torch.rand(4, 3, dtype=torch.float64)

    def weights(weight: Tensor, log_a: Tensor) -> Tensor:
        return torch.func.functional_call(gate, {"log_a": log_a}, (weight,))

    inputs = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    z = hard_concrete(inputs[1], gate.frozen)
    assert ((z > 0) & (z < 1)).any()
    assert torch.autograd.gradcheck(weights, inputs)


def toy() -> tuple[nn.Sequential, L0]:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    return model, l0_wrap(model, ["0", "2"], examples=50, lam=3.0)


def roughen(probe: L0) -> None:
    with torch.no_grad():
        for gate in probe.gates.values():
            gate.log_a.uniform_(-5, 5)


def test_wrapped_equals_dense_in_eval_and_draws_nothing():
    dense = nn.Sequential(nn.Linear(5, 4), nn.GRUCell(4, 4)).train()
    model = copy.deepcopy(dense)
    before = torch.get_rng_state()
    probe = l0_wrap(model, ["*"], examples=50)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(probe.gates) == ["0.weight", "1.weight_ih", "1.weight_hh"]
    assert all(module.training for module in model.modules())
    x = torch.randn(3, 5)
    assert torch.equal(model.eval()(x), dense(x))


def test_training_draws_anew_at_each_call_and_once_inside_cached():
    model, probe = toy()
    roughen(probe)
    x = torch.randn(3, 5)
    assert not torch.equal(model(x), model(x))
    with parametrize.cached():
        first = model(x)
        assert torch.equal(model(x), first)
    assert not torch.equal(model(x), first)
    model.eval()
    assert torch.equal(model(x), model(x))


def test_draws_in_training_have_the_open_share_of_the_formula():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(500, 200))
    l0_wrap(model, "0", examples=10, log_a=0.3)
    count = int(model[0].weight.count_nonzero())  # pyright: ignore
    p = logistic(0.3 + BETA * math.log(11))
    assert abs(count / 100_000 - p) < 5 * math.sqrt(p * (1 - p) / 100_000)


def test_penalty_is_lambda_times_expected_open_gates_over_n():
    _, probe = toy()
    roughen(probe)
    values = [v for gate in probe.gates.values() for v in gate.log_a.flatten().tolist()]
    assert len(values) == 28
    expected = 3.0 / 50 * sum(logistic(v + BETA * math.log(11)) for v in values)
    penalty = probe.penalty()
    assert float(penalty.detach()) == pytest.approx(expected, rel=1e-5)
    penalty.backward()
    grad, p = probe.gates["0.weight"].log_a.grad, open_probability(probe.gates["0.weight"].log_a.detach())
    torch.testing.assert_close(grad, 3.0 / 50 * p * (1 - p))


def test_groups_cover_every_parameter_once_and_decay_the_rest_alone():
    model, probe = toy()
    groups = {g["name"]: g for g in probe.param_groups(1e-3, 2e-2, weight_decay=0.1)}
    assert {name: (len(g["params"]), g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "wrapped": (2, 1e-3, 0),
        "gates": (2, 2e-2, 0),
        "rest": (2, 1e-3, 0.1),
    }
    ids = [id(p) for g in groups.values() for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


def test_export_is_dense_equals_eval_and_leaves_the_model_as_it_was():
    model, probe = toy()
    roughen(probe)
    names = list(model.state_dict())
    dense = probe.export()
    assert [type(m) for m in dense] == [nn.Linear, nn.Tanh, nn.Linear]  # pyright: ignore
    assert set(dense.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in dense.parameters())
    kept = probe.kept()
    assert kept == {name: (int(dense.get_parameter(name).count_nonzero()), gate.log_a.numel())
                    for name, gate in probe.gates.items()}  # fmt: skip
    assert 0 < kept["0.weight"][0] < 20
    assert all(torch.equal(mask, dense.get_parameter(name) != 0) for name, mask in probe.masks().items())
    assert model.training
    assert list(model.state_dict()) == names
    model(torch.randn(3, 5)).sum().backward()
    assert probe.gates["0.weight"].log_a.grad is not None
    x = torch.randn(3, 5)
    torch.testing.assert_close(dense(x), model.eval()(x), atol=1e-6, rtol=0)
    dense.get_parameter("0.weight").data.zero_()
    assert model[0].weight.any()  # pyright: ignore
    assert all(torch.equal(a, b) for a, b in zip(probe.export().parameters(), probe.export().parameters(), strict=True))


def test_toy_regression_finds_the_relevant_inputs():
    """20 of 100 inputs relevant, N = 1000, noise 0.5; lambda 20 nats for an open gate."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 100, generator=random)
    w = torch.zeros(100)
    signs = torch.randint(0, 2, (20,), generator=random) * 2 - 1
    w[:20] = (0.3 + 0.7 * torch.rand(20, generator=random)) * signs
    y = x @ w + 0.5 * torch.randn(1000, generator=random)
    model = nn.Sequential(nn.Linear(100, 1, bias=False))
    probe = l0_wrap(model, ["0"], examples=1000, lam=20.0)
    optimizer = torch.optim.Adam(probe.param_groups(3e-2, lr_gates=0.1))
    for _ in range(500):
        loss = (model(x)[:, 0] - y).square().mean() / (2 * 0.5**2) + probe.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    kept = probe.masks()["0.weight"][0]
    assert int(kept[:20].sum()) == 20
    assert int(kept[20:].sum()) <= 2
    weight = probe.export().get_parameter("0.weight")[0]
    assert float((weight[:20] - w[:20]).detach().abs().max()) < 0.1


def test_what_cannot_be_gated_is_one_line():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[1].weight = model[0].weight  # pyright: ignore
    for names, options, message in [
        (["0"], {}, "'0.weight' is tied"),
        (["7"], {}, "'7' matches no module"),
        (["2"], {}, "nothing to wrap"),
        (["3"], {"examples": 0}, "examples must be at least 1, got 0"),
        (["3"], {"lam": -1.0}, "lam must be a finite number of at least 0"),
        (["3"], {"log_a": math.nan}, "log_a must be a finite number"),
    ]:
        with pytest.raises(DissectError, match=message):
            l0_wrap(model, names, **{"examples": 10, **options})  # pyright: ignore
    assert not any(parametrize.is_parametrized(module) for module in model)
    l0_wrap(model, ["3"], examples=10)
    with pytest.raises(DissectError, match="already wrapped, parametrized"):
        l0_wrap(model, ["3"], examples=10)
