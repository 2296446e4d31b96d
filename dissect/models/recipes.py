"""The one table from names to models."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from dissect.errors import DissectError
from dissect.models.encoders import GatedGraphEncoder, IdentityEncoder
from dissect.models.readouts import (
    LastItemReadout,
    MeanLastReadout,
    MeanReadout,
    MixerReadout,
    OfficialMixerReadout,
    SoftAttentionReadout,
)
from dissect.models.scorers import SCORERS, Scorer
from dissect.models.seams import Encoder, Readout
from dissect.models.session_model import SessionModel
from mixer import AttenMixerReadout, OfficialReadout

ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "gated-graph": GatedGraphEncoder,
    "identity": IdentityEncoder,
}
READOUTS: dict[str, Callable[..., Readout]] = {
    "soft-attention": SoftAttentionReadout,
    "mean": MeanReadout,
    "mean-last": MeanLastReadout,
    "last-item": LastItemReadout,
    "attenmixer": MixerReadout,
    "attenmixer-official": OfficialMixerReadout,
}
#: Readout -> what its options are read from; a readout that is not here has none.
_CONFIGURED: dict[str, Callable[..., Any]] = {
    "mean-last": MeanLastReadout,
    "attenmixer": AttenMixerReadout,
    "attenmixer-official": OfficialReadout,
}
#: Parameters of a readout that follow from the model or the data.
_DERIVED = ("dim", "slots")

Options = Mapping[str, Any]


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
    sigma : float
        Scale of a scorer that normalises items.
    item_dropout : float
        Dropout of the item table in training.
    options : mapping
        Options of the readout, such as levels and heads; see `options_of`.
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
    item_dropout: float = 0.0
    options: Options = field(default_factory=dict)


def _attenmixer(about: str, encoder: str = "identity", **options: Any) -> Recipe:
    return Recipe(encoder, "attenmixer", "unit-items", about, dim=256, options=options)


RECIPES: dict[str, Recipe] = {
    "srgnn": Recipe("gated-graph", "soft-attention", "dot", "SR-GNN (Wu et al., AAAI'19, arXiv 1811.00855)"),
    "attenmixer": _attenmixer("Atten-Mixer (Zhang et al., WSDM'23, arXiv 2206.12781), as the paper writes it"),
    "attenmixer-official": Recipe(
        "identity", "attenmixer-official", "cosine", "Atten-Mixer, as its released code computes it",
        dim=256, sigma=16.0, item_dropout=0.1,
    ),
    "attenmixer-m": _attenmixer("ablation: one level, the last item's", levels=1),
    "attenmixer-ip": _attenmixer("ablation: every level's query from all items", intents="all"),
    "attenmixer-li": _attenmixer("ablation: last items side by side, in order", intents="concatenated"),
    "attenmixer-lp": _attenmixer("ablation: maximum over the levels' maps", mixture="max"),
    "attenmixer-ours": Recipe(
        "identity", "attenmixer", "cosine", "a variant of this project: s + W_m [s || h_n], maps with a position bias",
        dim=256, options={"output": "residual", "positions": 20},
    ),
    "attenmixer-pr": _attenmixer("a query from every subset; sessions of at most 10 items", intents="subsets",
                                 levels=10),
    "srgnn+attenmixer": _attenmixer("SR-GNN's encoder, L2, Atten-Mixer (Table 3)", "gated-graph"),
    "meanpool": Recipe("identity", "mean", "cosine", "control: mean of the session's items", dim=256),
    "meanlast": Recipe("identity", "mean-last", "unit-items", "control: Atten-Mixer with equal attention weights",
                       dim=256),
    "last-item": Recipe("identity", "last-item", "dot", "control: the last item alone"),
}  # fmt: skip


def choose(kind: str, name: str, choices: Iterable[str]) -> str:
    """Return `name` if it is one of `choices`; else raise a DissectError that lists them."""
    choices = list(choices)
    if name in choices:
        return name
    near = difflib.get_close_matches(name, choices, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise DissectError(f"unknown {kind} {name!r}{hint}; choose from: {', '.join(choices) or 'none'}")


def options_of(readout: str) -> dict[str, Any]:
    """Options that a readout takes, with their defaults."""
    if readout not in _CONFIGURED:
        return {}
    parameters = inspect.signature(_CONFIGURED[readout]).parameters
    return {name: p.default for name, p in parameters.items() if name not in _DERIVED}


def fill_options(known: Options, given: Options, whose: str) -> dict[str, Any]:
    """The options `known`, those in `given` with their values, of the defaults' types."""
    out = dict(known)
    for name, value in given.items():
        if name not in known:
            has = f"; it takes: {', '.join(known)}" if known else ", which takes none"
            raise DissectError(f"unknown option {name!r} of {whose}{has}")
        out[name] = _typed(name, value, type(known[name]))
    return out


def _typed(name: str, value: Any, kind: type) -> Any:
    if isinstance(value, str) and kind is bool:
        value = {"true": True, "false": False}.get(value.lower(), value)
    elif isinstance(value, str) and kind in (int, float):
        with suppress(ValueError):
            value = kind(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        what = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}[kind]
        raise DissectError(f"option {name} is {value!r}; it takes {what}")
    return value


def recipe_of(
    model: str,
    encoder: str | None = None,
    readout: str | None = None,
    scorer: str | None = None,
    options: Options | None = None,
    item_dropout: float | None = None,
) -> Recipe:
    """The recipe `model`, with one half or another swapped, or options of the readout set.

    Raises
    ------
    DissectError
        For a name that no table has, and an option that the readout does not take.
    """
    base = RECIPES[choose("model", model, RECIPES)]
    read = choose("readout", readout or base.readout, READOUTS)
    own = base.options if read == base.readout else {}
    return replace(
        base,
        encoder=choose("encoder", encoder or base.encoder, ENCODERS),
        readout=read,
        scorer=choose("scorer", scorer or base.scorer, SCORERS),
        options=fill_options(options_of(read), {**own, **(options or {})}, f"the readout {read!r}"),
        item_dropout=base.item_dropout if item_dropout is None else item_dropout,
    )


def build(
    recipe: Recipe | str, items: int, dim: int | None = None, sigma: float | None = None, longest: int | None = None
) -> SessionModel:
    """Build a model from numbers.

    Parameters
    ----------
    recipe : Recipe or str
    items : int
        Number of items.
    dim : int, optional
        Width d; the recipe's published one by default.
    sigma : float, optional
        Scale of a scorer that normalises items.
    longest : int, optional
        Longest session of the data set; read by ``attenmixer-official`` alone, whose scores depend on it.

    Raises
    ------
    DissectError
        For options that don't fit, such as heads that do not divide the width.

    Examples
    --------
    >>> build("srgnn", items=50, dim=8).embedding.weight.shape
    torch.Size([50, 8])
    """
    recipe = recipe_of(recipe) if isinstance(recipe, str) else recipe
    dim = dim or recipe.dim
    options = dict(recipe.options)
    if recipe.readout == "attenmixer-official":
        options["longest"] = longest
    try:
        readout = READOUTS[recipe.readout](dim, **options)
    except ValueError as error:
        raise DissectError(f"readout {recipe.readout!r}: {error}") from None
    return SessionModel(
        items,
        dim,
        ENCODERS[recipe.encoder](dim),
        readout,
        Scorer(recipe.scorer, sigma if sigma is not None else recipe.sigma, recipe.item_dropout),
    )
