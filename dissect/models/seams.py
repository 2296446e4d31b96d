"""What passes between the halves of a model: encoder -> Encoded -> readout -> query -> scorer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from dissect.batch import Batch

Parts = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Encoded:
    """What an encoder hands to a readout.

    Attributes
    ----------
    batch : Batch
    clicks : Tensor, (T, d)
        Hidden state of each click, packed as the batch is.
    nodes : Tensor, (M, d), optional
        Hidden state of each distinct item of each session, for readouts over nodes.
    table : Tensor, (items, d)
        The item table to score against.
    star : Tensor, (B, d), optional
        State of the session as a whole: of a star node, or a target token.
    inputs : Tensor, (T, d), optional
        Clicks as they came in, for readouts that pool those.
    second : Tensor, (B, d), optional
        Another view of each session, for a loss between the two.
    """

    batch: Batch
    clicks: Tensor
    table: Tensor
    nodes: Tensor | None = None
    star: Tensor | None = None
    inputs: Tensor | None = None
    second: Tensor | None = None


@dataclass(frozen=True)
class Output:
    """What a model returns.

    Attributes
    ----------
    query : Tensor, (B, d)
        As it is multiplied with the table: scaled, and normalised where the scorer does so.
    table : Tensor, (items, d)
    aux_loss : Tensor, optional
        Added to the loss over items.
    unit_items : bool
        Whether the table's rows have still to be L2-normalised.
    """

    query: Tensor
    table: Tensor
    aux_loss: Tensor | None = None
    unit_items: bool = False


class Examples(Protocol):
    """Training examples: example i is the prefix ``clicks[start[i]:end[i]]`` with target ``clicks[end[i]]``."""

    clicks: Any
    start: Any
    end: Any


class Encoder(nn.Module):
    """Item table and batch in, hidden states out.

    Attributes
    ----------
    PARTS : dict
        Part -> names of its modules.
    views : tuple of str
        Views of a batch that `forward` reads: made with the batch, they are timed with it.
    static : bool
        Whether shapes follow from the numbers of sessions and clicks alone, so that a step can be captured.
    distributed : bool
        Whether several processes, each with a share of a batch, train what one would.
    counted : tuple of str
        Buffers that `prepare` makes, whose sizes the training examples give.
    width : int, optional
        Width of the states, where it is not d.
    """

    PARTS: Parts = {"propagation": (), "combination": ()}
    views: tuple[str, ...] = ()
    static = True
    distributed = True
    counted: tuple[str, ...] = ()
    width: int | None = None

    def prepare(self, examples: Examples, items: int) -> None:
        """Learn what follows from the training examples by counting alone; most encoders have nothing to."""

    def auxiliary(self, encoded: Encoded, query: Tensor) -> Tensor | None:
        """A loss beside that over items, in training; most encoders have none."""
        return None

    def forward(self, batch: Batch, table: Tensor) -> Encoded:  # pragma: no cover - interface
        """Encode `batch`; `table` is (items, d)."""
        raise TypeError(f"{type(self).__name__} has no forward")


class Readout(nn.Module):
    """Hidden states in, one query for each session out; `PARTS`, `static` and `distributed` as in :class:`Encoder`.

    It is made with the width of the states, and ``out``, that of the items. One that does not map its query to that
    width says so by `width`, the query's own.
    """

    PARTS: Parts = {"attention": (), "transformation": ()}
    static = True
    distributed = True
    width: int | None = None

    def forward(self, encoded: Encoded) -> Tensor:  # pragma: no cover - interface
        """Read out `encoded`."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def attention(self, encoded: Encoded) -> Tensor | None:
        """Weight of each click and head in the readout, (T, H); None where there are none."""
        return None
