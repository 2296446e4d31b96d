"""The one table from names to models."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from dissect.errors import DissectError
from dissect.models.encoders import GatedGraphEncoder, IdentityEncoder
from dissect.models.readouts import LastItemReadout, MeanReadout, SoftAttentionReadout
from dissect.models.scorers import Scorer
from dissect.models.seams import Encoder, Readout
from dissect.models.session_model import SessionModel

ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "gated-graph": GatedGraphEncoder,
    "identity": IdentityEncoder,
}
READOUTS: dict[str, Callable[[int], Readout]] = {
    "soft-attention": SoftAttentionReadout,
    "mean": MeanReadout,
    "last-item": LastItemReadout,
}
SCORERS = ("dot", "cosine")


@dataclass(frozen=True)
class Recipe:
    """Which halves make a model, and its published training setting.

    Attributes
    ----------
    encoder, readout, scorer : str
        Names in `ENCODERS`, `READOUTS` and `SCORERS`.
    about : str
        One line for `dissect models`.
    dim, batch_size, lr, weight_decay
        The setting its authors published.
    lr_step, lr_gamma
        The rate is multiplied by `lr_gamma` every `lr_step` epochs.
    """

    encoder: str
    readout: str
    scorer: str
    about: str
    dim: int = 100
    batch_size: int = 100
    lr: float = 1e-3
    weight_decay: float = 1e-5
    lr_step: int = 3
    lr_gamma: float = 0.1
    sigma: float = 12.0


RECIPES: dict[str, Recipe] = {
    "srgnn": Recipe("gated-graph", "soft-attention", "dot", "SR-GNN (Wu et al., AAAI'19, arXiv 1811.00855)"),
    "meanpool": Recipe("identity", "mean", "cosine", "control: mean of the session's items, cosine scores"),
    "last-item": Recipe("identity", "last-item", "dot", "control: the last item alone"),
}


def choose(kind: str, name: str, choices: Iterable[str]) -> str:
    """Return `name` if it is one of `choices`; else raise a DissectError that lists them."""
    choices = list(choices)
    if name in choices:
        return name
    near = difflib.get_close_matches(name, choices, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise DissectError(f"unknown {kind} {name!r}{hint}; choose from: {', '.join(choices)}")


def recipe_of(
    model: str,
    encoder: str | None = None,
    readout: str | None = None,
    scorer: str | None = None,
) -> Recipe:
    """The recipe `model`, with one half or another swapped.

    Raises
    ------
    DissectError
        For a name that no table has.
    """
    base = RECIPES[choose("model", model, RECIPES)]
    return replace(
        base,
        encoder=choose("encoder", encoder or base.encoder, ENCODERS),
        readout=choose("readout", readout or base.readout, READOUTS),
        scorer=choose("scorer", scorer or base.scorer, SCORERS),
    )


def build(recipe: Recipe | str, items: int, dim: int | None = None, sigma: float | None = None) -> SessionModel:
    """Build a model from numbers.

    Parameters
    ----------
    recipe : Recipe or str
    items : int
        Number of items.
    dim : int, optional
        Width d; the recipe's published one by default.
    sigma : float, optional
        Scale of a cosine scorer.

    Examples
    --------
    >>> build("srgnn", items=50, dim=8).embedding.weight.shape
    torch.Size([50, 8])
    """
    recipe = recipe_of(recipe) if isinstance(recipe, str) else recipe
    dim = dim or recipe.dim
    return SessionModel(
        items,
        dim,
        ENCODERS[recipe.encoder](dim),
        READOUTS[recipe.readout](dim),
        Scorer(recipe.scorer, sigma if sigma is not None else recipe.sigma),
    )
