"""What a sweep searches: a range for each field of a run, read off the run's recipe.

Ranges are those of Atten-Mixer, Section 5.1 (L in 1..10, H in {1, 2, 4, 8, 16, 32}, learning rate 5e-4..2e-2); dropout
in {0, 0.1} is ours. It names none for how deep a baseline is: steps of a graph encoder are in 1..8, about the six that
SGNN-HN takes, layers in 1..5, blocks in 1..6 (NextItNet) and 1..4 (GC-SAN), whose weight is in 0.2..0.8; DHCN's beta
is in 1e-3..5e-2. The learning rate, the weight decay and beta are drawn on a log scale. A recipe has a range for each
option of its own that is in `OPTIONS`, so that a new one needs no line here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from dissect.errors import KINDS, DissectError
from dissect.experiment.instrument import check_parts
from dissect.experiment.spec import Spec
from dissect.models.recipes import RECIPES, choose, encoder_options_of, options_of

#: Digits of a number drawn from an interval: what is trained can be typed.
DIGITS = 3
#: Of an interval of more widths the ends stand for all when legality is checked.
MANY = 512


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`, both included; whole ones where the ends are.

    Attributes
    ----------
    low, high : int or float
    log : bool
        Whether to draw on a log scale.
    """

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int)

    @property
    def probes(self) -> tuple[float, ...]:
        """Values that stand for all when legality is checked."""
        return (self.low, self.high)

    def draw(self, trial: Any, name: str) -> float:
        """Have an Optuna trial suggest a value."""
        if self.whole:
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def trained(self, value: float) -> float:
        """What is trained for a value that was drawn: it has `DIGITS` digits, and lies in the interval."""
        return int(value) if self.whole else min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low:.12g}:{self.high:.12g}{':log' * self.log}"


@dataclass(frozen=True)
class Choice:
    """A few values, in no order that the search would know of."""

    values: tuple[Any, ...]

    @property
    def probes(self) -> tuple[Any, ...]:
        """All values."""
        return self.values

    def draw(self, trial: Any, name: str) -> Any:
        """Have an Optuna trial suggest a value."""
        return trial.suggest_categorical(name, self.values)

    def trained(self, value: Any) -> Any:
        """The value itself."""
        return value

    def __str__(self) -> str:
        return ",".join(f"{value:.12g}" if isinstance(value, float) else str(value) for value in self.values)


Range = Interval | Choice
Space = Mapping[str, Range]

#: Fields of a spec that may be searched or fixed by name; each has a flag of `dissect run`.
FIELDS = (
    "lr", "weight_decay", "item_dropout", "sigma", "dim", "batch_size", "lr_step", "patience", "kl_scale", "lr_sigma",
)  # fmt: skip
#: Of these, what every recipe searches.
COMMON: Space = {
    "lr": Interval(5e-4, 2e-2, log=True),
    "weight_decay": Interval(1e-6, 1e-4, log=True),
    "item_dropout": Choice((0.0, 0.1)),
}
#: Options that a recipe searches where it has them: how deep a model is, as well as the ranges that its paper, or
#: Atten-Mixer's (levels, heads), gives.
OPTIONS: Space = {
    "levels": Interval(1, 10),
    "heads": Choice((1, 2, 4, 8, 16, 32)),
    "dropout": Choice((0.0, 0.1)),
    "encoder.dropout": Choice((0.0, 0.1)),
    "encoder.steps": Interval(1, 8),
    "encoder.layers": Interval(1, 5),
    "encoder.blocks": Interval(1, 6),
    "encoder.beta": Interval(1e-3, 5e-2, log=True),
    "blocks": Interval(1, 4),
    "weight": Interval(0.2, 0.8),
}
#: (Readout, option) -> the option without which it does nothing.
_NEEDS = {("mean-last", "heads"): "positions"}


def known(base: Spec) -> list[str]:
    """Names that may be searched or fixed: fields of a spec, and the options of this one's recipe."""
    return [*FIELDS, *_options(base)]


def _options(base: Spec) -> dict[str, Any]:
    """Options of a recipe's halves, those too that a spec leaves out for being at their default."""
    return {**options_of(base.readout), **encoder_options_of(base.encoder), **base.options}


def _idle(base: Spec, name: str) -> str | None:
    """Why a field changes nothing in this recipe, or None."""
    if name == "sigma" and base.scorer == "dot":
        return "the scorer 'dot' has no scale"
    if name in ("kl_scale", "lr_sigma") and not base.sparse:
        return "--sparsify none wraps nothing"
    needed = _NEEDS.get((base.readout, name))
    return f"the readout {base.readout!r} reads it with {needed} alone" if needed and not base.options[needed] else None


def space_of(base: Spec, fixed: Iterable[str] = (), given: Sequence[str] = ()) -> Space:
    """The ranges to search.

    Parameters
    ----------
    base : Spec
        What is not searched. Options that the recipe sets itself make it what it is, and have no range by default;
        the recipe's own value is always among the choices.
    fixed : iterable of str
        Fields and options that keep the value of `base`.
    given : sequence of str
        ``FIELD=LOW:HIGH[:log]`` or ``FIELD=A,B,...``, which outrank the ranges by default.

    Raises
    ------
    DissectError
        For what can't be read, is not known, is fixed as well, changes nothing, or makes no legal run.
    """
    fixed = set(fixed)
    mine: dict[str, Range] = {}
    for text in given:
        name, found = _parse(text, base)
        if name in mine:
            raise DissectError(f"--space {name} is given twice")
        if name in fixed:
            raise DissectError(f"{name} is both fixed and searched; leave one out")
        if (why := _idle(base, name)) is not None:
            raise DissectError(f"--space {name}: it changes nothing, for {why}")
        mine[name] = found
    recipe = RECIPES[base.model]
    own = recipe.options if recipe.readout == base.readout else {}
    options = _options(base)
    ranges = {**COMMON, **{name: range_ for name, range_ in OPTIONS.items() if name in options}}
    skipped = fixed | set(own) | {name for name in ranges if _idle(base, name) is not None}
    widths = _values(mine.get("dim")) or [base.dim]
    space: dict[str, Range] = {}
    for name, range_ in ranges.items():
        if name in skipped or name in mine:
            continue
        value = options[name] if name in options else getattr(base, name)
        if isinstance(range_, Interval) and not range_.low <= value <= range_.high:
            # No interval has both a decay of 0 and others on a log scale: a few values stand for it.
            range_ = Choice((range_.low, _middle(range_), range_.high))
        if isinstance(range_, Choice):
            values = {*range_.values, value}
            if name == "heads":
                values = {value for value in values if all(width % value == 0 for width in widths)}
            range_ = Choice(tuple(sorted(values)))
            if len(values) < 2:
                continue
        space[name] = range_
    space |= mine
    if not space:
        raise DissectError("every field is fixed: nothing is left to search; add --space FIELD=LOW:HIGH")
    _check(base, space, widths)
    return space


def spec_of(base: Spec, values: Mapping[str, Any]) -> Spec:
    """`base` with some fields and options changed."""
    own = {name: value for name, value in values.items() if name in FIELDS}
    options = {name: value for name, value in values.items() if name not in FIELDS}
    return base.replace(**own, options={**base.options, **options})


def trained(space: Space, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are trained for those that a trial drew."""
    return {name: range_.trained(drawn[name]) for name, range_ in space.items() if name in drawn}


def _middle(range_: Interval) -> float:
    middle = math.sqrt(range_.low * range_.high) if range_.log else (range_.low + range_.high) / 2
    return round(middle) if range_.whole else float(f"{middle:.{DIGITS}g}")


def _values(range_: Range | None) -> list[Any]:
    """Every width of a range: one between two legal ones need not be legal."""
    if isinstance(range_, Interval) and range_.whole and range_.high - range_.low < MANY:
        return list(range(int(range_.low), int(range_.high) + 1))
    return [] if range_ is None else list(range_.probes)


def _check(base: Spec, space: Space, widths: Sequence[int]) -> None:
    """Build the values of each range, options at each width, since many have to fit it; the widths first."""
    if "dim" not in space:
        check_parts(base)  # what is wrong without the ranges is not laid to one
    for name in sorted(space, key=lambda name: name != "dim"):
        for value in _values(space[name]) if name == "dim" else space[name].probes:
            for width in (value,) if name == "dim" else widths[:1] if name in FIELDS else widths:
                try:
                    check_parts(spec_of(base, {"dim": width, name: value}))
                except DissectError as error:
                    raise DissectError(f"--space {name}={space[name]}: {error}") from None


def _parse(text: str, base: Spec) -> tuple[str, Range]:
    name, _, rest = text.partition("=")
    name = name.strip().replace("-", "_")
    if not name or not rest.strip():
        raise DissectError(f"--space {text!r} is not FIELD=LOW:HIGH[:log] or FIELD=A,B,...")
    choose("field", name, known(base))
    options = _options(base)
    kind = type(options[name]) if name in options else _TYPES[name]
    if ":" not in rest:
        values = [_value(name, part, kind) for part in rest.split(",")]
        if len(values) < 2:
            raise DissectError(f"--space {text}: one value is no range; use --fix {text}")
        if len(set(values)) < len(values):
            raise DissectError(f"--space {text}: a value stands there twice")
        return name, Choice(tuple(values))
    if kind not in (int, float):
        raise DissectError(f"--space {text}: {name} is no number; list its values, as {name}=A,B")
    low, high, *log = rest.split(":")
    if log not in ([], ["log"]):
        raise DissectError(f"--space {text} is not FIELD=LOW:HIGH[:log]")
    ends = _value(name, low, kind), _value(name, high, kind)
    if not ends[0] < ends[1]:
        raise DissectError(f"--space {text}: LOW must be less than HIGH")
    if log and ends[0] <= 0:
        raise DissectError(f"--space {text}: on a log scale LOW must be > 0")
    return name, Interval(*ends, log=bool(log))


_TYPES = {f.name: type(f.default) for f in fields(Spec)}


def fixed_values(base: Spec, given: Mapping[str, str]) -> dict[str, Any]:
    """Values of ``FIELD=VALUE`` pairs, of their fields' types.

    Raises
    ------
    DissectError
        For a field that is not known, or a value that is not of its type.
    """
    for name in given:
        choose("field", name, known(base))
    options = _options(base)
    return {
        name: _value(name, text, type(options[name]) if name in options else _TYPES[name])
        for name, text in given.items()
    }


def _value(name: str, text: str, kind: type) -> Any:
    text = text.strip()
    wrong = DissectError(f"{name} is {text!r}; it takes {KINDS[kind]}")
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        value = kind(text)
    except (ValueError, KeyError):
        raise wrong from None
    if value == "" or (kind is float and not math.isfinite(value)):
        raise wrong
    return value
