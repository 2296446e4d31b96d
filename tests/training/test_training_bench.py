"""The benchmark takes the step that training takes."""

from __future__ import annotations

import pytest
import torch

from dissect.data.sources import load
from dissect.experiment.benchmark import make_loop
from dissect.experiment.spec import Spec
from dissect.experiment.splits import make_splits
from dissect.training.bench import StagedStep, loop_step


@pytest.mark.parametrize("model", ["srgnn", "dhcn"])
def test_the_timed_step_is_the_step_of_training(model: str) -> None:
    """DHCN has an auxiliary loss, which a step without it would show."""
    data = load("demo")
    spec = Spec.create(model, dataset="demo", dim=8, batch_size=32, sparsify="none", protocol="paper-code")
    splits = make_splits(data, spec, torch.device("cpu"))
    trained, timed = (make_loop(data, splits, spec, 2, False) for _ in range(2))
    step, staged = loop_step(trained), StagedStep(timed)
    for i in range(2):
        torch.manual_seed(i)
        step(i)
        torch.manual_seed(i)
        staged(i)
    for (name, one), other in zip(trained.model.named_parameters(), timed.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name
    assert all(ms > 0 for ms in staged.stages_ms(0).values())
