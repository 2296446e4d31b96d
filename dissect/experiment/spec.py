"""What is to be run: a frozen, validated description, and the id that follows from it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from dissect.errors import KINDS, DissectError
from dissect.experiment.concerns import COUNTED, check_concerns, check_trained
from dissect.models.counting import COUNTING, counting_options
from dissect.models.recipes import RECIPES, Recipe, choose, recipe_of
from dissect.models.session_model import STARTS
from dissect.sparsity import NOISES, PRIORS, RULES
from dissect.training.evaluate import TIES
from dissect.training.loss import LOSSES
from dissect.training.optimizers import OPTIMIZERS
from dissect.training.precision import PRECISIONS

#: Version of the run folder; part of every run id.
SCHEMA = 1
PROTOCOLS = ("honest", "paper-code")
SETTINGS = ("published", "paper")
#: Fields that say where or how verbosely, not what: they are no part of the id.
HOW = ("device", "deterministic", "loss")
_FROM_RECIPE = (
    "dim", "batch_size", "lr", "weight_decay", "lr_step", "lr_gamma", "sigma", "item_dropout", "options",
    "optimizer", "start", "window", "max_norm",
)  # fmt: skip
_OUTSIDE_ID = ("data_dir", *HOW)
#: Fields that came after the first records: no part of the id while they have the value that says as before.
SINCE = {
    "optimizer": "adam", "start": "uniform", "window": 0, "max_norm": 0.0, "shadows": 0, "delete": "", "mask": "",
    "init_seed": None,
}  # fmt: skip
#: Types of the fields that may be left out.
_OPTIONAL = {"threshold": float, "init_seed": int}


def _typed(name: str, value: Any, kind: type) -> Any:
    """`value` as a `kind`, numpy's numbers too; a DissectError for another type (``"false"`` is true in Python)."""
    wanted = {int: Integral, float: Real}.get(kind, kind)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise DissectError(f"--{name.replace('_', '-')} is {value!r}; it takes {KINDS[kind]}")
    return kind(value)


@dataclass(frozen=True)
class Spec:
    """One run, validated. Every scientific choice is a field, defaults too, so that the id covers it.

    Attributes
    ----------
    model, encoder, readout, scorer : str
        Recipe, and its halves where they are swapped.
    dataset, data_dir, max_train, max_valid
        Which data; `max_train` trains on a random subset of that many training sessions, `max_valid` validates on one
        of the validation sessions (0: all).
    sparsify : str
        ``all``, ``none``, or parts and aliases joined by commas.
    prior, noise, rule, threshold, kl_scale, warmup, lr_sigma, log_sigma2
        The instrument (see `dissect.sparsity`); `warmup` holds the shares of the planned steps at which the
        KL weight leaves 0 and reaches `kl_scale`.
    shadows : int
        Shadow columns of each wrapped matrix, the null for its density (0: none).
    options, item_dropout
        The options of the halves (levels, heads, encoder.layers ...) or of a model that counts, all of them, and
        dropout of the item table.
    dim, sigma, epochs, steps, batch_size, lr, weight_decay, lr_step, lr_gamma, optimizer, patience, seed
        The model's width and its training; `steps` (0: unused) outranks `epochs`.
    start, window, max_norm
        As for `dissect.models.SessionModel`: where weights start, clicks seen, largest norm of an item.
    protocol, refit, ties
        How epochs are selected and ranks counted.
    valid_fraction : float
        The last share of the training sessions that validates, under ``honest``.
    device, precision, deterministic, loss
        Where, with matrix products of which factors (``fp32`` or ``bf16``), whether to the same bits each time, and by
        which form of the loss over items (``tiled``, or ``plain`` to check it by).
    init : str
        Id of the run whose weights this one starts from; empty for none.
    delete, mask : str
        Parts whose weights are held at zero, joined by commas; digest of the masks that are held (see
        `dissect.experiment.held`). Empty for none.
    init_seed : int, optional
        Seed of the first weights alone; `seed` where it is left out.
    """

    model: str = "srgnn"
    encoder: str = ""
    readout: str = ""
    scorer: str = ""
    dataset: str = "demo"
    data_dir: str = ""
    max_train: int = 0
    max_valid: int = 0
    sparsify: str = "all"
    prior: str = "log-uniform"
    noise: str = "local"
    rule: str = "log-alpha"
    threshold: float | None = None
    kl_scale: float = 1.0
    warmup: tuple[float, float] = (0.1, 0.4)
    lr_sigma: float = 1e-2
    log_sigma2: float = -8.0
    shadows: int = 0
    setting: str = "published"
    options: dict[str, Any] = field(default_factory=dict)
    item_dropout: float = 0.0
    dim: int = 100
    sigma: float = 12.0
    epochs: int = 10
    steps: int = 0
    batch_size: int = 100
    lr: float = 1e-3
    weight_decay: float = 1e-5
    lr_step: int = 3
    lr_gamma: float = 0.1
    optimizer: str = "adam"
    start: str = "uniform"
    window: int = 0
    max_norm: float = 0.0
    patience: int = 3
    seed: int = 0
    protocol: str = "honest"
    refit: bool = False
    ties: str = "half"
    valid_fraction: float = 0.2
    device: str = "auto"
    precision: str = "fp32"
    deterministic: bool = False
    loss: str = "tiled"
    init: str = ""
    delete: str = ""
    mask: str = ""
    init_seed: int | None = None

    def __post_init__(self) -> None:
        self._check_types()
        choose("model", self.model, (*RECIPES, *COUNTING))
        if self.counts:
            self._leave_out_training()
        else:
            recipe = recipe_of(
                self.model, self.encoder or None, self.readout or None, self.scorer or None, self.options,
                self.item_dropout,
            )  # fmt: skip
            for name in ("encoder", "readout", "scorer", "options"):
                object.__setattr__(self, name, getattr(recipe, name))
        choose("protocol", self.protocol, PROTOCOLS)
        choose("setting", self.setting, SETTINGS)
        choose("precision", self.precision, PRECISIONS)
        choose("loss", self.loss, LOSSES)
        choose("optimizer", self.optimizer, OPTIMIZERS)
        choose("start", self.start, STARTS)
        choose("noise", self.noise, NOISES)
        choose("prior", self.prior, PRIORS)
        choose("rule", self.rule, RULES)
        choose("tie rule", self.ties, TIES)
        if self.threshold is None:
            object.__setattr__(self, "threshold", RULES[self.rule].threshold)
        # Before the ranges: no comparison with nan is true, so that it would pass most of them.
        for name, value in [(f.name, getattr(self, f.name)) for f in fields(self)] + list(self.options.items()):
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
                    raise DissectError(f"--{name.replace('_', '-')} is {shown}; it must be finite")
        for name, low in (
            ("dim", 1), ("batch_size", 1), ("epochs", 1), ("steps", 0), ("lr_step", 1), ("patience", 1),
            ("max_train", 0), ("max_valid", 0), ("seed", 0), ("weight_decay", 0), ("kl_scale", 0), ("shadows", 0),
        ):  # fmt: skip
            if getattr(self, name) < low:
                raise DissectError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be >= {low}")
        if self.seed >= 1 << 63:
            raise DissectError(f"--seed is {self.seed}; it must be below 2^63")
        for name in ("lr", "lr_sigma", "sigma"):
            if not getattr(self, name) > 0:
                raise DissectError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be > 0")
        if not 0 < self.lr_gamma <= 1:
            raise DissectError(f"--lr-gamma is {self.lr_gamma}; it must lie in (0, 1]")
        if not 0 < self.valid_fraction < 1:
            raise DissectError(f"valid_fraction is {self.valid_fraction}; it must lie between 0 and 1")
        start, end = self.warmup
        if not 0 <= start <= end <= 1:
            raise DissectError(f"--warmup is {start} {end}; it takes two shares with 0 <= START <= END <= 1")
        if self.scorer == "dot" and not self.counts and self.sigma != RECIPES[self.model].sigma:
            raise DissectError(f"--sigma {self.sigma:g} changes nothing: the scorer dot has no scale; leave it out")
        if self.mask and self.sparse:
            raise DissectError("--mask holds weights at zero, which noise would undo; use it with --sparsify none")
        if self.refit and self.protocol == "paper-code":
            raise DissectError(
                "--refit can't go with --protocol paper-code, which selects on the test set and leaves no validation "
                "part to train on; leave one of them out"
            )

    def _check_types(self) -> None:
        """Refuse a field of another type than its default's; a whole number will do for a float."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "warmup":
                if not isinstance(value, (list, tuple)) or len(value) != 2:
                    raise DissectError(f"--warmup is {value!r}; it takes two shares")
                value = tuple(_typed(f.name, share, float) for share in value)
            elif f.name == "options":
                continue  # the recipe's own
            elif f.default is None:
                value = value if value is None else _typed(f.name, value, _OPTIONAL[f.name])
            else:
                value = _typed(f.name, value, type(f.default))
            object.__setattr__(self, f.name, value)

    def _leave_out_training(self) -> None:
        """Set what does not concern a model that counts to its default, so that equal runs have equal specs."""
        if self.sparse:
            raise DissectError(
                f"--sparsify {self.sparsify}: {self.model} counts and has no weights to wrap; use --sparsify none"
            )
        for f in fields(self):
            if f.name not in COUNTED:
                object.__setattr__(self, f.name, f.default)
        object.__setattr__(self, "options", counting_options(self.model, self.options))

    @classmethod
    def create(cls, model: str, setting: str = "published", **options: Any) -> Spec:
        """A spec from the options that were given; the others come from the recipe's setting.

        Parameters
        ----------
        model : str
        setting : {"published", "paper"}
            ``paper``: what Atten-Mixer's Section 5.1 says of all models of Table 2: d 256, so that NARM's hidden
            states have it too, batch 100 and Adam. Of decay and schedule it says nothing: they stay the recipe's, but
            that Adam has LESSR's decay in the gradient, where AdamW has it beside.
        **options
            Fields of `Spec`, or options of the readout or of a model that counts; None means not given. `data_dir` is
            stored as an absolute path, so that the run can be resumed and pruned from any directory.

        Raises
        ------
        DissectError
            For what is out of range or unknown, and what a model that counts has no use for.
        """
        given = {k: v for k, v in options.items() if v is not None}
        known = {f.name for f in fields(cls)}
        for name in ("encoder", "readout", "scorer"):
            if given.get(name) == "":
                raise DissectError(f"--{name} is empty; 'dissect models' lists the choices, or leave it out")
        readout = {**given.pop("options", {}), **{k: given.pop(k) for k in list(given) if k not in known}}
        if given.get("data_dir"):
            given["data_dir"] = str(Path(given["data_dir"]).expanduser().resolve())
        if model in COUNTING:
            check_concerns(model, given, setting)
            return cls(model=model, **{"sparsify": "none", **given, "options": readout})
        choose("model", model, (*RECIPES, *COUNTING))
        choose("setting", setting, SETTINGS)
        own_encoder = given.get("encoder") in (None, "", RECIPES[model].encoder)
        if setting == "paper" and "encoder.factor" in RECIPES[model].options and own_encoder:
            readout = {"encoder.factor": 1, **readout}
        recipe = recipe_of(model, given.get("encoder"), given.get("readout"), given.get("scorer"), readout)
        dim = given.get("dim") or (256 if setting == "paper" else recipe.dim)
        if "heads" in recipe.options and "heads" not in readout and isinstance(dim, int) and dim > 0:
            # The default is for widths that it divides; SR-GNN's 100 takes 4.
            fitting = next(h for h in range(recipe.options["heads"], 0, -1) if dim % h == 0)
            recipe = replace(recipe, options={**recipe.options, "heads": fitting})
        base: dict[str, Any] = {name: getattr(recipe, name) for name in _FROM_RECIPE}
        if setting == "paper":
            base |= {"dim": 256, "batch_size": 100, "optimizer": "adam"}
        return cls(model=model, setting=setting, **(base | given))

    @classmethod
    def from_json(cls, text: str, where: str) -> Spec:
        """Read back what `to_json` wrote; `where` names the file in errors."""
        try:
            data = json.loads(text)
            known = {f.name for f in fields(cls)}
            if data.pop("schema") != SCHEMA:
                raise DissectError(f"{where}: written by another version of dissect (schema is not {SCHEMA})")
            unknown = set(data) - known
            if unknown:
                raise DissectError(f"{where}: unknown fields {sorted(unknown)}")
            return cls(**data)
        except (ValueError, KeyError, TypeError) as error:
            raise DissectError(f"{where}: not a run's spec ({error})") from None

    def to_json(self) -> str:
        """The spec as JSON, every field written out."""
        return json.dumps({"schema": SCHEMA, **self._fields()}, indent=1)

    def _fields(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k in COUNTED or not self.counts}

    @property
    def counts(self) -> bool:
        """Whether the model counts (see `dissect.models.counting`): it has no weights, and is not trained."""
        return self.model in COUNTING

    @property
    def sparse(self) -> bool:
        """Whether any part is wrapped."""
        return self.sparsify != "none"

    @property
    def which(self) -> str | list[str]:
        """The parts to wrap, as `dissect.sparsity.wrap` takes them."""
        return self.sparsify if self.sparsify == "all" else [p.strip() for p in self.sparsify.split(",")]

    @property
    def recipe(self) -> Recipe:
        """The recipe with the halves this run uses; a DissectError for a model that counts."""
        check_trained(self.model)
        found = recipe_of(self.model, self.encoder, self.readout, self.scorer, self.options, self.item_dropout)
        return replace(found, start=self.start, window=self.window, max_norm=self.max_norm)

    def replace(self, **changes: Any) -> Spec:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def _science(self) -> dict[str, Any]:
        return {k: v for k, v in self._fields().items() if k not in _OUTSIDE_ID and SINCE.get(k, ...) != v}

    @property
    def science(self) -> str:
        """Every field that matters to what comes out, as text: equal for the same run on the same data."""
        return json.dumps(self._science(), sort_keys=True)

    def run_id(self, data_sha256: str) -> str:
        """``MODEL-DATASET-xxxxxxxx``: equal for equal science.

        The digest covers every field but where the data lie and the device, the schema and the data's hash. A field
        that this version added counts where it is used, so that older records keep their ids.
        """
        text = json.dumps([SCHEMA, data_sha256, self._science()], sort_keys=True)
        return f"{self.model}-{self.dataset}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
