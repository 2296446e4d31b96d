"""The one table from names to models."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from dissect.errors import KINDS, DissectError
from dissect.models.encoders import (
    AdaptiveEncoder,
    DilatedEncoder,
    EdgeOrderEncoder,
    GatedGraphEncoder,
    HypergraphEncoder,
    IdentityEncoder,
    NormalisedGraphEncoder,
    RecurrentEncoder,
    SelfAttentionEncoder,
    StarGraphEncoder,
)
from dissect.models.readouts import (
    AdaptiveReadout,
    AdditiveReadout,
    GraphAttentionReadout,
    LastItemReadout,
    LastLinearReadout,
    MeanLastReadout,
    MeanReadout,
    MixerReadout,
    OfficialMixerReadout,
    PositionalAttentionReadout,
    ReversedReadout,
    SelfAttentionReadout,
    SoftAttentionReadout,
    StarAttentionReadout,
)
from dissect.models.scorers import SCORERS, Scorer
from dissect.models.seams import Encoder, Readout
from dissect.models.session_model import SessionModel
from mixer import AttenMixerReadout, OfficialReadout

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "gated-graph": GatedGraphEncoder,
    "identity": IdentityEncoder,
    "normalised-graph": NormalisedGraphEncoder,
    "star-graph": StarGraphEncoder,
    "edge-order": EdgeOrderEncoder,
    "hypergraph": HypergraphEncoder,
    "self-attention": SelfAttentionEncoder,
    "adaptive": AdaptiveEncoder,
    "recurrent": RecurrentEncoder,
    "dilated": DilatedEncoder,
}
READOUTS: dict[str, Callable[..., Readout]] = {
    "soft-attention": SoftAttentionReadout,
    "mean": MeanReadout,
    "mean-last": MeanLastReadout,
    "last-item": LastItemReadout,
    "last-linear": LastLinearReadout,
    "attenmixer": MixerReadout,
    "attenmixer-official": OfficialMixerReadout,
    "positional-attention": PositionalAttentionReadout,
    "star-attention": StarAttentionReadout,
    "self-attention": SelfAttentionReadout,
    "graph-attention": GraphAttentionReadout,
    "reversed": ReversedReadout,
    "adaptive": AdaptiveReadout,
    "additive": AdditiveReadout,
}
#: Readout -> what its options are read from, where that is not the readout itself.
_CONFIGURED: dict[str, Callable[..., Any]] = {
    "attenmixer": AttenMixerReadout,
    "attenmixer-official": OfficialReadout,
}
#: Parameters of a half that follow from the model or the data.
_DERIVED = ("dim", "out", "slots")
#: Options of encoders that a run writes down only where they are not the default: its records are older than they.
_UNWRITTEN = {("gated-graph", "encoder.steps")}
#: What the options of an encoder are called by, so that they can't be taken for a readout's.
ENCODER_PREFIX = "encoder."

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
        Options of the readout, such as levels and heads, and of the encoder, as ``encoder.layers``; see `options_of`.
    optimizer : str
        A key of `dissect.training.optimizers.OPTIMIZERS`.
    start, window, max_norm
        As for `SessionModel`.
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
    optimizer: str = "adam"
    start: str = "uniform"
    window: int = 0
    max_norm: float = 0.0


def _attenmixer(about: str, encoder: str = "identity", **options: Any) -> Recipe:
    return Recipe(encoder, "attenmixer", "unit-items", about, dim=256, options=options)


RECIPES: dict[str, Recipe] = {
    # SR-GNN's released code steps its scheduler before each epoch: by the torch that its README names, 0.4, the rate is
    # that of stepping after it, as here; from torch 1.1 on it falls an epoch early.
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
    "gcsan": Recipe(
        "gated-graph", "self-attention", "dot", "GC-SAN (Xu et al., IJCAI'19)", dim=120, batch_size=50,
    ),
    "niser": Recipe(
        "normalised-graph", "positional-attention", "cosine", "NISER+ (Gupta et al. 2019, arXiv 1909.04276)",
        sigma=16.0, window=10, options={"positions": 10},
    ),
    "sgnnhn": Recipe(
        "star-graph", "star-attention", "centred", "SGNN-HN (Pan et al., CIKM'20)", dim=256,
    ),
    "sgnnhn+attenmixer": _attenmixer("SGNN-HN's encoder, L2, Atten-Mixer (Table 3)", "star-graph"),
    "lessr": Recipe(
        "edge-order", "graph-attention", "dot", "LESSR (Chen and Wong, KDD'20)", dim=32, batch_size=512,
        weight_decay=1e-4, optimizer="adamw", lr_gamma=1.0, start="torch", max_norm=1.0,
    ),
    "dhcn": Recipe(
        "hypergraph", "reversed", "dot", "DHCN with its self-supervised loss (Xia et al., AAAI'21, arXiv 2012.06852)",
        weight_decay=0.0, lr_gamma=1.0,
    ),
    "dsan": Recipe(
        "adaptive", "adaptive", "cosine", "DSAN (Yuan et al., AAAI'21)", batch_size=512, weight_decay=0.0, sigma=20.0,
        optimizer="amsgrad", lr_gamma=1.0, start="torch", max_norm=1.5,
    ),
    "narm": Recipe(
        "recurrent", "additive", "dot", "NARM (Li et al., CIKM'17, arXiv 1711.04725)", dim=50, batch_size=512,
        weight_decay=0.0, lr_gamma=1.0, start="xavier", options={"encoder.factor": 2},
    ),
    "nextitnet": Recipe(
        "dilated", "last-linear", "dot", "NextItNet (Yuan et al., WSDM'19, arXiv 1808.05163)", weight_decay=0.0,
        lr_gamma=1.0, start="small",
    ),
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
    return _defaults(_CONFIGURED.get(readout, READOUTS[readout]))


def encoder_options_of(encoder: str) -> dict[str, Any]:
    """Options that an encoder takes, with their defaults, as they are given: ``encoder.layers``."""
    return {ENCODER_PREFIX + name: value for name, value in _defaults(ENCODERS[encoder]).items()}


def _defaults(make: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(make).parameters
    return {name: p.default for name, p in parameters.items() if name not in _DERIVED}


def _options(encoder: str, readout: str, given: Options) -> dict[str, Any]:
    of_readout, of_encoder = options_of(readout), encoder_options_of(encoder)

    def whose(name: str) -> tuple[str, Options]:
        if name.startswith(ENCODER_PREFIX):
            return f"the encoder {encoder!r}", of_encoder
        return f"the readout {readout!r}", of_readout

    filled = fill_options({**of_readout, **of_encoder}, given, whose)
    for name, value in filled.items():
        if name.endswith("dropout") and not 0 <= value < 1:  # all dropped, nothing would be learnt, unsaid
            raise DissectError(f"option {name} is {value:g}; it takes a share of at least 0, less than 1")
    return {
        name: value for name, value in filled.items() if (encoder, name) not in _UNWRITTEN or value != of_encoder[name]
    }


def fill_options(known: Options, given: Options, whose: Callable[[str], tuple[str, Options]]) -> dict[str, Any]:
    """The options `known`, those in `given` with their values, of the defaults' types.

    Parameters
    ----------
    known, given : mapping
    whose : callable
        Of an option that is not known: what it would belong to, and the options that this has.
    """
    out = dict(known)
    for name, value in given.items():
        if name not in out:
            owner, its = whose(name)
            has = f"; it takes: {', '.join(its)}" if its else ", which takes none"
            meant = f" (did you mean {ENCODER_PREFIX + name}?)" if ENCODER_PREFIX + name in known else ""
            raise DissectError(f"unknown option {name!r} of {owner}{has}{meant}")
        out[name] = _typed(name, value, type(out[name]))
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
        raise DissectError(f"option {name} is {value!r}; it takes {KINDS[kind]}")
    return value


def recipe_of(
    model: str,
    encoder: str | None = None,
    readout: str | None = None,
    scorer: str | None = None,
    options: Options | None = None,
    item_dropout: float | None = None,
) -> Recipe:
    """The recipe `model`, with one half or another swapped, options of either set, or the item dropout.

    Raises
    ------
    DissectError
        For a name that no table has, an option that neither half takes, and a dropout that is no share.
    """
    base = RECIPES[choose("model", model, RECIPES)]
    encode = choose("encoder", encoder or base.encoder, ENCODERS)
    read = choose("readout", readout or base.readout, READOUTS)
    own = {
        name: value
        for name, value in base.options.items()
        if (encode == base.encoder if name.startswith(ENCODER_PREFIX) else read == base.readout)
    }
    if item_dropout is not None and not 0 <= item_dropout < 1:
        raise DissectError(f"--item-dropout is {item_dropout}; it must lie in [0, 1)")
    return replace(
        base,
        encoder=encode,
        readout=read,
        scorer=choose("scorer", scorer or base.scorer, SCORERS),
        options=_options(encode, read, {**own, **(options or {})}),
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
    dim = recipe.dim if dim is None else dim
    if items < 1 or dim < 1:
        raise DissectError(f"a model of {items} items, {dim} wide; both must be at least 1")
    of_encoder = {n.removeprefix(ENCODER_PREFIX): v for n, v in recipe.options.items() if n.startswith(ENCODER_PREFIX)}
    of_readout = {n: v for n, v in recipe.options.items() if not n.startswith(ENCODER_PREFIX)}
    if recipe.readout == "attenmixer-official":
        of_readout["longest"] = longest
    half = f"encoder {recipe.encoder!r}"
    try:
        encoder = ENCODERS[recipe.encoder](dim, **of_encoder)
        half = f"readout {recipe.readout!r}"
        readout = READOUTS[recipe.readout](encoder.width or dim, out=dim, **of_readout)
    except ValueError as error:
        raise DissectError(f"{half}: {error}") from None
    return SessionModel(
        items,
        dim,
        encoder,
        readout,
        Scorer(recipe.scorer, sigma if sigma is not None else recipe.sigma, recipe.item_dropout),
        start=recipe.start,
        window=recipe.window,
        max_norm=recipe.max_norm,
    )
