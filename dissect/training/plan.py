"""What a loop is told: how long and in what order to train, and who watches."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from dissect.batch import Batch

if TYPE_CHECKING:
    from dissect.training.train import Loop


class Penalty(Protocol):
    """What the loop needs of an instrument: the regulariser at a step, already scaled and warmed up, and its noise."""

    @property
    def capturable(self) -> bool:
        """Whether a step can be recorded once and replayed."""
        ...

    def drawing(self, batch: Batch) -> AbstractContextManager[None]:
        """Context of a step's forward pass."""
        ...

    def penalty(self, step: int) -> Tensor:
        """The term to add to the mean loss."""
        ...

    def kl_weight(self, step: int) -> float:
        """The factor in it that changes from step to step."""
        ...

    def weighted(self, weight: Tensor) -> Tensor:
        """The same term with that factor as a tensor, which a captured step reads anew each time."""
        ...


class Stop(Exception):
    """Raised by a callback to end training before its last step."""


@dataclass(frozen=True)
class Plan:
    """How long and in what order to train.

    Attributes
    ----------
    examples : int
        Training examples in an epoch, after augmentation.
    batch_size : int
    steps : int
        Optimiser steps in all.
    seed : int
        Orders the examples: epoch e is shuffled by (seed, e) alone, so a resumed epoch has the same order.
    lr_step, lr_gamma
        The rate of every group but ``sigma`` is multiplied by `lr_gamma` after each `lr_step` epochs.
    """

    examples: int
    batch_size: int
    steps: int
    seed: int = 0
    lr_step: int = 3
    lr_gamma: float = 0.1

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return math.ceil(self.examples / self.batch_size)

    @property
    def epochs(self) -> int:
        """Epochs begun."""
        return math.ceil(self.steps / self.steps_per_epoch)

    def order(self, epoch: int) -> Tensor:
        """The shuffled example numbers of an epoch, (examples,) int64."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % (1 << 63))
        return torch.randperm(self.examples, generator=generator)

    def lr_factor(self, epoch: int) -> float:
        """What the base learning rate is multiplied by in an epoch."""
        return self.lr_gamma ** (epoch // self.lr_step)


class Callback:
    """Something that watches the loop; every method may be left out.

    A callback whose `state_dict` is not empty has it saved and given back on resume.
    """

    name = ""

    def on_start(self, loop: Loop) -> None:
        """Before the first step, after a state has been restored."""

    def on_step(self, loop: Loop) -> None:
        """After each optimiser step."""

    def on_epoch(self, loop: Loop) -> None:
        """After the last step of each epoch, and after the last step of all."""

    def on_end(self, loop: Loop) -> None:
        """When the loop is left, by an exception too."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs of this callback."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
