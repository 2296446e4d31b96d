"""What passes between the halves of a model: encoder -> Encoded -> readout -> query -> scorer."""

from __future__ import annotations

from dataclasses import dataclass

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
    star : Tensor, (B, d), optional
        State of a session-wide node.
    table : Tensor, (items, d)
        The item table to score against.
    """

    batch: Batch
    clicks: Tensor
    table: Tensor
    nodes: Tensor | None = None
    star: Tensor | None = None


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


class Encoder(nn.Module):
    """Item table and batch in, hidden states out.

    `PARTS` names the weights of each part, `views` the views of a batch that `forward` reads: made with the batch,
    they are timed with it.
    """

    PARTS: Parts = {"propagation": (), "combination": ()}
    views: tuple[str, ...] = ()

    def forward(self, batch: Batch, table: Tensor) -> Encoded:  # pragma: no cover - interface
        """Encode `batch`; `table` is (items, d)."""
        raise TypeError(f"{type(self).__name__} has no forward")


class Readout(nn.Module):
    """Hidden states in, one query (B, d) for each session out; `PARTS` as in :class:`Encoder`."""

    PARTS: Parts = {"attention": (), "transformation": ()}

    def forward(self, encoded: Encoded) -> Tensor:  # pragma: no cover - interface
        """Read out `encoded`."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def attention(self, encoded: Encoded) -> Tensor | None:
        """Weight of each click and head in the readout, (T, H); None where there are none."""
        return None
