"""Shadow columns: fixed noise that tells nothing, counted apart, gone in eval."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from dissect.errors import DissectError
from dissect.sparsity import Examples, Instrument, keep_mask, parameters_of, prune_counts, wrap
from dissect.sparsity.rows import keyed_normal, mix, row_keys


def shadowed(noise: str = "local", **options: Any) -> tuple[nn.Sequential, Instrument]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2))
    options = {"examples": 10, "steps": 10, "warmup": (0, 0), "shadows": 2, **options}
    return model, wrap(model, {"p": ["0"], "q": ["2"]}, noise=noise, **options)


def quiet(linear: nn.Module, shadows: int) -> Instrument:
    """Wrapped with next to no noise, so that the shadows alone change what comes out."""
    return wrap(nn.ModuleList([linear]), {"p": ["0"]}, examples=1, steps=1, shadows=shadows, log_sigma2=-60.0)


def test_the_mixer_is_splitmix64():
    # The first two outputs of SplitMix64 from state 0 (known from its reference implementation).
    found = [int(v) % (1 << 64) for v in mix(torch.tensor([0, -7046029254386353131]))]
    assert found == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_noise_is_normal_and_a_function_of_key_column_and_seed():
    drawn = keyed_normal(torch.arange(50_000), 3, 1)
    assert stats.kstest(drawn.numpy().ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(torch.cat([drawn, keyed_normal(torch.arange(50_000), 2, 2)], 1).T)
    assert np.abs(correlation - np.eye(5)).max() < 5 / 50_000**0.5
    assert torch.equal(keyed_normal(torch.tensor([7, 3]), 3, 1), drawn[[7, 3]])
    assert torch.equal(keyed_normal(torch.tensor([7]), 2, 1), drawn[[7], :2])


def test_the_ends_of_the_range_are_finite(monkeypatch: pytest.MonkeyPatch):
    for bits in (0, -1):
        monkeypatch.setattr("dissect.sparsity.rows.mix", lambda x, bits=bits: torch.full_like(x, bits))
        assert 4 < abs(keyed_normal(torch.tensor([1]), 1, 0).item()) < 6


class Packs:
    def __len__(self) -> int:
        return 2

    def keys(self) -> torch.Tensor:
        return torch.tensor([11, 12])

    def session_of(self, count: int) -> torch.Tensor | None:
        return {2: torch.tensor([0, 1]), 5: torch.tensor([0, 0, 0, 1, 1])}.get(count)


def test_a_row_s_key_is_its_example_and_its_place_in_it():
    packed, padded = row_keys(Packs(), (5,), "x"), row_keys(Packs(), (2, 3), "x")
    assert len(set(packed.tolist())) == 5
    assert torch.equal(packed, padded[[0, 1, 2, 3, 4]])
    assert torch.equal(row_keys(Packs(), (2,), "x"), packed[[0, 3]])
    with pytest.raises(DissectError, match="the 4 rows given to x belong to aren't known"):
        row_keys(Packs(), (4,), "x")
    with pytest.raises(DissectError, match="x was given 3 examples in a batch of 2"):
        row_keys(Packs(), (3, 2), "x")


def test_shadows_are_the_same_noise_whenever_the_example_comes_and_have_the_columns_scale():
    linear = nn.Linear(6, 2)
    probe = quiet(linear, 2)
    assert linear.columns == (0, 3)  # pyright: ignore
    assert torch.equal(linear.get_parameter("shadow_weight"), linear.weight[:, [0, 3]])
    x = torch.randn(4000, 6) * torch.tensor([2.0, 1, 1, 0.1, 1, 1]) + 5
    order = torch.randperm(4000)
    with probe.drawing(Examples(torch.arange(4000))):
        extra = linear(x) - F.linear(x, linear.weight, linear.bias)
    with probe.drawing(Examples(order)):
        again = linear(x[order]) - F.linear(x[order], linear.weight, linear.bias)
    torch.testing.assert_close(again, extra[order], rtol=1e-3, atol=1e-3)
    columns = torch.linalg.solve(linear.get_parameter("shadow_weight"), extra.t())  # (2, rows)
    scale = x[:, [0, 3]].square().mean(0).sqrt()
    torch.testing.assert_close(columns.std(1), scale, rtol=0.06, atol=0)
    assert (columns.mean(1).abs() < 5 * columns.std(1) / 4000**0.5).all()
    with pytest.raises(DissectError, match=r"with instrument.drawing\(batch\)"):
        linear(x)


@pytest.mark.parametrize("noise", ["local", "row", "weight"])
def test_no_gradient_goes_through_a_shadow_into_the_input(noise: str):
    linear = nn.Linear(4, 2)
    probe = wrap(nn.ModuleList([linear]), {"p": ["0"]}, examples=1, steps=1, noise=noise, shadows=4, log_sigma2=-60.0)
    x = torch.randn(3, 4, requires_grad=True)
    with probe.drawing(Examples(torch.arange(3))):
        linear(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, linear.weight.detach().sum(0).expand(3, 4), rtol=1e-3, atol=1e-3)
    assert linear.get_parameter("shadow_weight").grad is not None


def test_shadows_are_penalised_trained_and_counted_apart():
    model, probe = shadowed()
    _, other = shadowed(shadows=0)
    assert probe.penalty(0) > other.penalty(0)
    groups = {g["name"]: g["params"] for g in probe.param_groups(1e-3)}
    assert len(groups["wrapped"]) == len(groups["sigma"]) == 4
    with torch.no_grad():
        model.get_parameter("0.log_sigma2").fill_(9.0)
        model.get_parameter("0.shadow_log_sigma2").fill_(-9.0)
        model.get_parameter("0.shadow_log_sigma2")[0, 0] = 9.0
    rows = {(row["part"], row["tensor"]): row for row in probe.density()}
    for key in (("p", None), ("p", "0.weight")):
        assert (rows[key]["kept"], rows[key]["total"]) == (0, 18)
        assert (rows[key]["shadow_kept"], rows[key]["shadow_total"]) == (5, 6)
    assert rows["q", None]["shadow_total"] == 4
    assert probe.prune_counts() == prune_counts(model)
    assert "shadow_kept" not in other.density()[0]
    assert "2 shadow columns" in str(probe.receipt)


def test_eval_masked_export_and_checkpoints_know_no_shadows():
    model, probe = shadowed()
    dense = nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2))
    keys = set(dense.state_dict())
    x = torch.randn(5, 6)
    exported = probe.export("magnitude", -1.0)
    assert set(exported.state_dict()) == keys
    model.eval()
    torch.testing.assert_close(model(x), exported(x))
    model.train()
    with probe.masked("magnitude", -1.0):
        torch.testing.assert_close(model(x), exported(x))
    assert probe.check_dead(lambda: model(x)) == []
    before = model.get_parameter("0.shadow_weight").clone()
    model.load_state_dict(dense.state_dict())
    assert torch.equal(model.get_parameter("0.shadow_weight"), before)
    model[0].remove_shadows()  # pyright: ignore
    left = {"0.log_sigma2", "2.log_sigma2", "2.shadow_weight", "2.shadow_log_sigma2"}
    assert set(copy.deepcopy(model).state_dict()) == keys | left


def test_a_convolution_has_shadow_channels_and_a_cell_none():
    torch.manual_seed(0)
    conv, cell = nn.Conv1d(4, 3, 2), nn.GRUCell(2, 2)
    model = nn.ModuleList([conv, cell])
    probe = wrap(model, {"p": ["0", "1"]}, examples=1, steps=1, shadows=2, log_sigma2=-60.0)
    assert [row.note for row in probe.receipt] == ["2 shadow columns", "no shadow columns"]
    assert conv.get_parameter("shadow_weight").shape == (3, 2, 2)
    assert probe.density()[-1]["shadow_total"] == 12
    x = torch.randn(2, 4, 5)
    with probe.drawing(Examples(torch.arange(2))):
        rows = conv._shadow_rows(x.movedim(-2, -1))  # pyright: ignore
        out = conv(x)
    expected = F.conv1d(x, conv.weight, conv.bias) + F.conv1d(rows.movedim(-1, -2), conv.get_parameter("shadow_weight"))
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)


def test_shadows_are_kept_as_often_as_inputs_that_do_not_matter():
    """Ten of a hundred inputs matter; the keep-rates of the other ninety and of a hundred shadows agree."""
    torch.manual_seed(0)
    x, steps = torch.randn(1000, 100), 800
    y = x[:, :10].sum(1) + 0.5 * torch.randn(1000)
    model = nn.Linear(100, 1)
    probe = wrap(model, {"map": [""]}, examples=1000, steps=steps, warmup=(0, 0.2), shadows=100)
    optimizer = torch.optim.Adam(probe.param_groups(lr=1e-2, lr_sigma=2e-2))
    batch = Examples(torch.arange(1000))
    for step in range(steps):
        with probe.drawing(batch):
            loss = (model(x)[:, 0] - y).square().mean() / (2 * 0.25) + probe.penalty(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    row = probe.density()[-1]
    assert row["total"] == row["shadow_total"] == 100
    irrelevant, null = (row["kept"] - 10) / 90, row["shadow_kept"] / 100
    assert 0.1 < null < 0.6
    assert abs(irrelevant - null) < 3 * (2 * null * (1 - null) / 95) ** 0.5


@pytest.mark.parametrize(("anew", "least", "most"), [(False, 15, 50), (True, 0, 5)])
def test_noise_drawn_anew_would_be_no_null(anew: bool, least: int, most: int):
    """With a rate that falls to 0, inputs that don't matter are kept as fixed noise is, and noise drawn anew is not."""
    torch.manual_seed(0)
    x, steps = torch.randn(1000, 100), 1500
    y = x[:, :10].sum(1) + 0.5 * torch.randn(1000)
    noise = torch.randn(1000, 100)
    model = nn.Linear(200, 1)
    probe = wrap(model, {"map": [""]}, examples=1000, steps=steps, warmup=(0, 0.2))
    optimizer = torch.optim.Adam(probe.param_groups(lr=1e-2, lr_sigma=2e-2))
    for step in range(steps):
        for group in optimizer.param_groups:
            if group["name"] != "sigma":
                group["lr"] = 1e-2 * (1 - step / steps)
        columns = torch.cat([x, torch.randn(1000, 100) if anew else noise], 1)
        loss = (model(columns)[:, 0] - y).square().mean() / (2 * 0.25) + probe.penalty(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    kept = keep_mask(*parameters_of(model)["weight"])[0]
    assert int(kept[:10].sum()) == 10
    assert 15 <= int(kept[10:100].sum()) <= 45  # of 90
    assert least <= int(kept[100:].sum()) <= most  # of 100
