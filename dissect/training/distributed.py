"""Several processes that share each batch, as `torchrun` starts them; one process is a world of size 1.

Each process trains on its share of every batch with noise of its own, and gradients are averaged, so that all hold
the same weights: the same model as one process at the same global batch, up to the order of sums and, under
variational dropout, the draws of noise. The KL is added to each process's loss and averaged with it: counted once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from dissect.errors import DissectError


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device_type: str) -> World:
        """Join the processes that torchrun has started; without torchrun a world of one.

        Raises
        ------
        DissectError
            If they can't be reached.
        """
        size, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
        if size == 1:
            return ALONE
        if not dist.is_initialized():
            if device_type == "cuda":
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            try:
                dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
            except (RuntimeError, ValueError) as error:
                raise DissectError(f"process {rank} of {size} can't reach the others: {_line(error)}", 1) from None
        return cls(rank, size)

    @property
    def main(self) -> bool:
        """Whether this process writes the record."""
        return self.rank == 0

    def share(self, index: Tensor) -> tuple[Tensor, float]:
        """This process's part of the examples of a batch, and the weight that makes the average of means the mean.

        A batch smaller than the world leaves some without an example; they take one with weight 0.
        """
        if self.size == 1:
            return index, 1.0
        part = index.tensor_split(self.size)[self.rank]
        return (part, part.numel() * self.size / index.numel()) if part.numel() else (index[:1], 0.0)

    def average(self, grads: Iterable[Tensor | None], values: Tensor) -> Tensor:
        """Average gradients over the processes, in place, and some numbers with them, (n,), which are returned.

        Raises
        ------
        DissectError
            If another process has ended.
        """
        if self.size == 1:
            return values
        small: list[Tensor] = []
        pending = []
        try:
            for grad in grads:
                if grad is None:
                    continue
                if grad.numel() > 1 << 20:  # its own message; the others share one
                    pending.append(dist.all_reduce(grad.div_(self.size), async_op=True))
                else:
                    small.append(grad)
            flat = torch.cat([g.reshape(-1) for g in small] + [values]).div_(self.size)
            pending.append(dist.all_reduce(flat, async_op=True))
            for work in pending:
                assert work is not None
                work.wait()
        except RuntimeError as error:
            raise self._ended(error) from None
        *parts, means = flat.split([g.numel() for g in small] + [values.numel()])
        for grad, part in zip(small, parts, strict=True):
            grad.copy_(part.view_as(grad))
        return means

    def gather(self, mine: Any) -> list[Any]:
        """Every process's object, in order of rank."""
        if self.size == 1:
            return [mine]
        out: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(out, mine)
        except RuntimeError as error:
            raise self._ended(error) from None
        return out

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Inside, the first process goes before the others; an error of its own is everybody's.

        Raises
        ------
        DissectError
            In the others, what the first process raised.
        """
        if self.rank and (failed := self.gather(None)[0]) is not None:
            raise DissectError(*failed)
        try:
            yield
        except DissectError as error:
            if self.size > 1 and self.main:
                self.gather((str(error), error.status))
            raise
        if self.size > 1 and self.main:
            self.gather(None)

    def slice(self, count: int) -> tuple[int, int]:
        """This process's contiguous part of `count` examples to evaluate: (start, stop)."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def reseed(self, seed: int, step: int = 0) -> None:
        """Give every process but the first noise of its own; the first goes on as a lone process would."""
        if self.rank:
            torch.manual_seed((seed * 1_000_003 + self.rank * 7_919 + step) % (1 << 63))

    def leave(self) -> None:
        """Leave the world; nothing to do where there is none."""
        if self.size > 1 and dist.is_initialized():
            self.gather(None)  # nobody goes while another still listens
            dist.destroy_process_group()

    def _ended(self, error: Exception) -> DissectError:
        return DissectError(
            f"process {self.rank} of {self.size} stopped: another process has ended ({_line(error)}); "
            "the last saved state is kept, dissect run --resume goes on from it",
            1,
        )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


ALONE = World()
