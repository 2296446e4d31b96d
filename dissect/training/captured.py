"""Training steps captured as CUDA graphs: at a batch of 100 a step's time goes into launching its kernels.

A graph replays fixed kernels on fixed memory. So batches are padded to a few sizes (`PackedExamples.static_batch`),
one graph each, and whatever changes from step to step (the examples, the KL's weight) is written into place first.
The host never waits for a step.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dissect.training.train import Loop

#: Steps of a size run without capture first: they make the optimizer's state, load kernels and make workspaces.
WARM_UP = 2
#: Steps between checks that the losses are finite; each waits for the device.
CHECK_EVERY = 200


def padded_size(clicks: int) -> int:
    """The size to which a batch of that many clicks is padded: above it, four sizes to an octave, 64 at least.

    Examples
    --------
    >>> [padded_size(n) for n in (3, 64, 450, 512, 600)]
    [64, 80, 512, 640, 640]
    """
    step = max(16, 1 << max(0, clicks.bit_length() - 3))
    return max(64, (clicks // step + 1) * step)


class CapturedSteps:
    """Steps of a loop on static batches, replayed from graphs where the device can, run one by one elsewhere.

    Parameters
    ----------
    loop : Loop
    capture : bool
        False runs every step one by one: what a graph would do, without the graph.
    """

    def __init__(self, loop: Loop, capture: bool = True) -> None:
        self.loop, self.capture = loop, capture
        device, batch = loop.device, loop.plan.batch_size
        self.window: int = getattr(loop.model, "window", 0)
        self.index = torch.zeros(batch, dtype=torch.int64, device=device)
        self.kl_weight = torch.zeros((), device=device)
        self.nll = torch.zeros((), device=device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.graphs: dict[int, Any] = {}
        self.rates: tuple[float, ...] = ()
        self.pool: Any = None
        self.clicks: list[int] = []
        self.seen: dict[int, int] = {}  # steps of each size
        self.side = torch.cuda.Stream() if device.type == "cuda" else None
        self.done = 0

    def begin(self, order: Tensor) -> None:
        """Take up an epoch's order, (examples,) int64 on the CPU: how many clicks each batch has."""
        lengths = self.loop.examples.host_lengths[order]
        if self.window:
            lengths = lengths.clamp_max(self.window)
        self.clicks = [int(part.sum()) for part in lengths.split(self.loop.plan.batch_size)]

    def step(self, i: int, index: Tensor) -> None:
        """The optimiser step on the i-th batch of the epoch, the examples `index`."""
        loop = self.loop
        if loop.penalty is not None:
            self.kl_weight.fill_(loop.penalty.kl_weight(loop.step))
        rates = tuple(float(group["lr"]) for group in loop.optimizer.param_groups)
        if rates != self.rates:  # a rate is a constant of the captured kernels
            self.graphs.clear()
            self.pool = None  # a pool ends with its last graph
            self.rates = rates
        size = padded_size(self.clicks[i])
        self.seen[size] = self.seen.get(size, 0) + 1
        if index.numel() != self.index.numel() or not self.capture or self.seen[size] <= WARM_UP:
            self._aside(index, size)
        else:
            self.index.copy_(index)
            graph = self.graphs.get(size) or self._capture(size)
            if graph is None:
                self._aside(index, size)
            else:
                graph.replay()
        self.done += 1
        loop.nll = self.nll
        if self.done % CHECK_EVERY == 0:
            loop.check_finite()

    def all_finite(self) -> bool:
        """Whether every loss so far was finite; waits for the device."""
        return bool(self.finite)

    def body(self, index: Tensor, size: int) -> None:
        """What is captured: batch, forward, loss, backward and optimizer, without a look at any value."""
        loop = self.loop
        nll, total = loop.objective(loop.examples.static_batch(index, size, self.window))
        if loop.penalty is not None:
            total = total + loop.penalty.weighted(self.kl_weight)
        total.backward()
        loop.optimizer.step()
        self.nll.copy_(nll.detach())
        self.finite.logical_and_(torch.isfinite(total.detach()))

    def _aside(self, index: Tensor, size: int) -> None:
        """Run the body once; on CUDA on a side stream, as capture asks of what comes before it."""
        self.loop.optimizer.zero_grad(set_to_none=True)
        if self.side is None:
            self.body(index, size)
            return
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            self.body(index, size)
        torch.cuda.current_stream().wait_stream(self.side)

    def _capture(self, size: int) -> Any:
        """Record the body for one size; None, and no more captures, where the device refuses."""
        self.loop.optimizer.zero_grad(set_to_none=True)  # gradients belong to the graph that makes them
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self.pool):
                self.body(self.index, size)
        except RuntimeError as error:
            # A capture that broke leaves its stream current and the generator in capture: both are put back.
            torch.cuda.set_stream(stream)
            generator = torch.cuda.default_generators[torch.cuda.current_device()]
            generator.graphsafe_set_state(generator.clone_state())
            self.capture = False
            self.graphs.clear()  # with their memory, which steps one by one may need
            self.pool = None
            torch.cuda.empty_cache()
            cause = str(error.__context__ or error).splitlines()[0]
            warnings.warn(f"steps run one by one: no CUDA graph of this model ({cause})", stacklevel=2)
            return None
        self.pool = graph.pool()
        self.graphs[size] = graph
        return graph
