"""Raw parameters, and the dry run that shows them with everything else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dissect.errors import DissectError
from dissect.sparsity import dry_run, masked, parameters_of, shared_noise, wrap


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 4))
        self.scale = nn.Parameter(torch.randn(4))
        self.unread = nn.Parameter(torch.randn(4))
        self.map = nn.Linear(4, 2)
        self.dead = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:  # (rows, 4)
        return self.map((x + self.table[: x.shape[0]]) * self.scale)


PARTS = {"positions": ["body.table"], "scale": ["body.scale"], "map": ["body.map"]}


def model() -> Any:
    torch.manual_seed(0)
    return nn.ModuleDict({"body": Positions()})


def test_a_raw_parameter_is_drawn_at_each_read_and_once_inside_shared_noise():
    one, dense = model(), model()
    x = torch.randn(3, 4)
    probe = wrap(one, PARTS, examples=1, steps=1, noise="weight", log_sigma2=-2.0)
    body, plain = one["body"], dense["body"]
    assert set(parameters_of(one)) == {"body.table", "body.scale", "body.map.weight"}
    assert {(row["part"], row["total"]) for row in probe.density() if row["tensor"] is None} == {
        ("positions", 20), ("scale", 4), ("map", 8),
    }  # fmt: skip
    drawn = torch.stack([body.table.detach() for _ in range(4000)])
    torch.testing.assert_close(
        drawn.mean(0), plain.table.detach(), rtol=0, atol=5 * (torch.tensor(-2.0).exp() / 4000).sqrt().item()
    )
    torch.testing.assert_close(drawn.var(0), torch.full((5, 4), -2.0).exp(), rtol=0.15, atol=0)
    with shared_noise(one):
        assert torch.equal(body(x), body(x))
    assert not torch.equal(body(x), body(x))
    one.eval()
    assert torch.equal(body(x), plain(x))
    with torch.no_grad():
        body.table_log_sigma2[0] = 20.0
    with masked(one):
        assert not body.table[0].any()
        assert torch.equal(body.table[1], plain.table[1])


def test_a_raw_parameter_keeps_its_name_loads_and_comes_back():
    one, dense = model(), model()
    names = list(dense.state_dict())
    probe = wrap(one, PARTS, examples=1, steps=1, noise="weight")
    assert [name for name in one.state_dict() if "log_sigma2" not in name] == names
    state = {name: torch.ones_like(value) for name, value in dense.state_dict().items()}
    one.load_state_dict(state)
    assert torch.equal(one["body"]._parameters["table"], torch.ones(5, 4))
    copied = copy.deepcopy(one)
    assert type(copied["body"]) is type(one["body"])
    exported: Any = probe.export("magnitude", 0.5)
    assert type(exported["body"]) is Positions
    assert list(exported.state_dict()) == names
    probe.exclude(["body.table"], "for the test")
    assert type(one["body"]) is not Positions
    assert "body.table" not in parameters_of(one)
    probe.exclude(["body.scale", "body.map"])
    assert type(one["body"]) is Positions
    assert not parameters_of(one)


def test_reads_are_traced():
    one = model()
    probe = wrap(one, {**PARTS, "unread": ["body.unread"]}, examples=1, steps=1, noise="weight")
    assert probe.check_dead(lambda: one["body"](torch.randn(2, 4))) == ["body.unread"]
    assert one["body"]._read is None


def test_other_noise_is_refused_before_anything_changes():
    one = model()
    with pytest.raises(
        DissectError, match=r"'body\.table' is read by its module's own code, where 'local' noise can't"
    ):
        wrap(one, PARTS, examples=1, steps=1)
    assert type(one["body"].map) is nn.Linear
    with pytest.raises(DissectError, match="matches no module and no parameter"):
        wrap(one, {"p": ["body.bias"]}, examples=1, steps=1, noise="weight")


def test_a_dry_run_shows_calls_shapes_dead_weights_and_changes_nothing():
    one = model()
    state = torch.get_rng_state()
    parts = {**PARTS, "dead": ["body.dead"], "none": []}
    found = dry_run(one, parts, run_forward=lambda: (one["body"](torch.randn(2, 4)), one["body"](torch.randn(5, 4))))
    assert torch.equal(torch.get_rng_state(), state)
    assert type(one["body"]) is Positions
    rows = {row.module: row for row in found}
    assert rows["body.map"].calls == 2
    assert rows["body.map"].inputs == ((2, 4), (5, 4))
    assert rows["body.map"].shapes == ((2, 4),)
    assert found.dead == ["body.dead"]
    assert rows["body.table"].weights == 20
    assert rows["body.table"].calls is None
    text = str(found)
    assert "no parameters" in text
    assert "2x4 = 8" in text
    assert "dead weights" in text
    assert dry_run(one, parts)[0].calls is None
    with pytest.raises(DissectError, match="unknown part"):
        dry_run(one, parts, "edges")


def test_a_container_and_a_matrix_of_its_own_can_be_named_together():
    one = model()
    with pytest.raises(DissectError, match=r"name it as the parameter 'body\.table'"):
        wrap(one, {"p": ["body"]}, examples=1, steps=1, noise="weight")
    probe = wrap(one, {"p": ["body", "body.table"]}, examples=1, steps=1, noise="weight")
    assert set(parameters_of(one)) == {"body.table", "body.map.weight", "body.dead.weight"}
    assert probe.prune_counts()[1] == 20 + 8 + 8


def test_tied_matrices_have_one_draw():
    one = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    one["b"].weight = one["a"].weight
    wrap(one, {"p": ["a", "b"]}, examples=1, steps=1, noise="weight", log_sigma2=-1.0)
    x = torch.randn(2, 3)
    with shared_noise(one):
        assert torch.equal(one["a"](x), one["b"](x))
    assert not torch.equal(one["a"](x), one["b"](x))


def test_weight_noise_on_half_precision():
    half = nn.ModuleList([nn.Linear(4, 3).to(torch.bfloat16)])
    wrap(half, {"p": ["0"]}, examples=1, steps=1, noise="weight")
    assert half[0](torch.randn(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
