"""The claim table: sayings of a paper beside what committed runs say, by rules that were written down before.

`analyses/claims.toml` holds the claims and the rules in words; this module is the rules as code.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dissect.errors import DissectError
from dissect.report.compare import compare
from dissect.report.groups import finished
from dissect.report.runs import Run
from dissect.report.variance import grid_of, split_variance

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

HOLDS, FAILS, DEPENDS, UNDECIDED, NOT_RUN = "holds", "fails", "depends", "undecided", "not run"
METRICS = ("hr@20", "mrr@20")
#: Points of percent within which two models are as good as each other, and densities within which two parts are.
MARGIN, DENSITY = 0.25, 0.05
#: Runs at different hours on a shared machine: a smaller ratio of times says nothing.
FASTER = 1.5
#: Fewer seeds make a verdict provisional.
SEEDS = 3
LENGTHS = ("1", "2", "3", "4", "5", "6-9", "10-19", "20+")

Found = Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class Claim:
    """One saying. `options` are those of its kind; see `_OPTIONS`."""

    id: str
    section: str
    text: str
    suite: str
    kind: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What came out.

    Attributes
    ----------
    word : str
        holds, fails, depends, undecided or not run.
    details : tuple of str
        One line for each thing that was judged, with its numbers.
    seeds : int
        The fewest seeds behind one of them; 0 where nothing was run.
    missing : tuple of str
        What has not been run.
    """

    word: str
    details: tuple[str, ...]
    seeds: int
    missing: tuple[str, ...]

    def __str__(self) -> str:
        if self.word == NOT_RUN:
            return NOT_RUN
        seeds = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
        doubts = ["incomplete"] * bool(self.missing) + ["provisional"] * (self.seeds < SEEDS)
        return f"{self.word} ({', '.join([*doubts, seeds])})"


def load_claims(path: Path | str) -> tuple[str, list[Claim]]:
    """The rules in words, and the claims.

    Raises
    ------
    DissectError
        For a file that can't be read, and a claim without a field or of an unknown kind.
    """
    try:
        data = tomllib.loads(Path(path).read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DissectError(f"can't read {path}: {error}") from None
    claims = []
    for number, given in enumerate(data.get("claims", []), 1):
        rest = dict(given)
        try:
            own = {name: str(rest.pop(name)) for name in ("id", "section", "text", "suite", "kind")}
        except KeyError as error:
            raise DissectError(f"{path}, claim {number}: it has no {error.args[0]}") from None
        if own["kind"] not in _KINDS:
            kinds = ", ".join(_KINDS)
            raise DissectError(f"{path}, claim {own['id']}: unknown kind {own['kind']!r}; choose from {kinds}")
        must, may = _OPTIONS[own["kind"]]
        wrong = [name for name in must if name not in rest] + [name for name in rest if name not in must | may]
        if wrong:
            raise DissectError(f"{path}, claim {own['id']}: {wrong[0]!r} is missing, or no option of {own['kind']!r}")
        claims.append(Claim(**own, options=rest))
    return str(data.get("rule", "")).strip(), claims


def judge(claim: Claim, found: Found) -> Verdict:
    """The verdict on a claim from its suite's runs, label -> runs.

    Raises
    ------
    DissectError
        For a row that the suite does not have.
    """
    parts, missing = _KINDS[claim.kind](found, claim.options)
    if not parts:
        return Verdict(NOT_RUN, (), 0, tuple(missing))
    words = {held for held, _, _ in parts}
    if len(words) == 1:
        word = words.pop()
    elif words <= {HOLDS, UNDECIDED} or words <= {FAILS, UNDECIDED}:
        word = UNDECIDED
    else:
        word = DEPENDS
    return Verdict(word, tuple(text for _, text, _ in parts), min(n for _, _, n in parts), tuple(missing))


#: The word for a part of a claim, what was seen, and seeds.
Part = tuple[str, str, int]
Judged = tuple[list[Part], list[str]]


def _rows(found: Found, labels: Sequence[str]) -> list[str]:
    for label in labels:
        if label not in found:
            raise DissectError(f"no row {label!r} in the suite; rows: {'; '.join(found)}")
    return [label for label in labels if not found[label]]


def _word(by_metric: Sequence[str]) -> str:
    """One word for several metrics."""
    if len(set(by_metric)) == 1:
        return by_metric[0]
    return DEPENDS if {HOLDS, FAILS} <= set(by_metric) else UNDECIDED


def _better(found: Found, options: Mapping[str, Any]) -> Judged:
    """A above B: above 0, or nowhere above the margin."""
    return _compared(found, options, lambda low, high: HOLDS if low > 0 else FAILS if high < MARGIN else UNDECIDED)


def _no_worse(found: Found, options: Mapping[str, Any]) -> Judged:
    """A not below B: nowhere below minus the margin, or below 0."""
    return _compared(found, options, lambda low, high: HOLDS if low > -MARGIN else FAILS if high < 0 else UNDECIDED)


def _compared(found: Found, options: Mapping[str, Any], word: Callable[[float, float], str]) -> Judged:
    parts: list[Part] = []
    missing: list[str] = []
    for a, b in options["pairs"]:
        if absent := _rows(found, (a, b)):
            missing += absent
            continue
        seeds = sorted({r.spec["seed"] for r in found[a]} & {r.spec["seed"] for r in found[b]})
        there = {label: [r.path for r in found[label] if r.spec["seed"] in seeds] for label in (b, a)}
        if not seeds:
            missing.append(f"{a} and {b} with one seed")
            continue
        line = next(line for line in compare(there, b, METRICS).lines if line.label == a)
        assert line.difference is not None
        ends = zip(line.difference.low, line.difference.high, strict=True)
        held = _word([word(float(low), float(high)) for low, high in ends])
        numbers = ", ".join(
            f"{metric.upper()} {d:+.2f} ({low:+.2f} to {high:+.2f})"
            for metric, d, low, high in zip(METRICS, *line.difference[:3], strict=True)
        )
        parts.append((held, f"{a} minus {b}: {numbers}", len(seeds)))
    return parts, list(dict.fromkeys(missing))


def _faster(found: Found, options: Mapping[str, Any]) -> Judged:
    parts: list[Part] = []
    missing: list[str] = []
    for a, b in options["pairs"]:
        if absent := _rows(found, (a, b)):
            missing += absent
            continue
        devices = {finished(r)["device"] for label in (a, b) for r in found[label]}
        if len(devices) > 1:
            missing.append(f"{a} and {b} on one device")
            continue
        mine, theirs = ([finished(r)["seconds_per_epoch"] for r in found[label]] for label in (a, b))
        text = f"{a} {np.median(mine):.0f} s, {b} {np.median(theirs):.0f} s an epoch (medians)"
        held = HOLDS if max(mine) * FASTER < min(theirs) else FAILS if min(mine) > max(theirs) * FASTER else UNDECIDED
        parts.append((held, text, min(len(mine), len(theirs))))
    return parts, missing


def _densities(found: Found, part: str) -> dict[str, list[tuple[Run, dict[str, Any]]]]:
    """Label -> runs with that part wrapped, and what their results say of it."""
    out = {}
    for label, runs in found.items():
        there = [(r, d) for r in runs if (d := finished(r)["density"].get(part)) and d["total"]]
        if there:
            out[label] = there
    return out


def _density_below(found: Found, options: Mapping[str, Any]) -> Judged:
    parts: list[Part] = []
    for label, rows in _densities(found, options["part"]).items():
        low = [UNDECIDED if not d["settled"] else HOLDS if d["density"] <= options["limit"] else FAILS for _, d in rows]
        held = _word(low)
        shown = ", ".join(f"{_counts(d)}{'' if d['settled'] else ' (not settled)'}" for _, d in rows)
        parts.append((held, f"{label}: {options['part']} {shown}", len(rows)))
    return parts, [label for label, runs in found.items() if not runs]


def _density_above(found: Found, options: Mapping[str, Any]) -> Judged:
    """One part's density against another's in one run, or in two of one seed whose labels differ in the given words."""
    parts: list[Part] = []
    above, below = (_densities(found, options[name]) for name in ("part", "than"))
    one, other = options.get("pair", ("", ""))
    for label, rows in above.items():
        partner = label if label in below else label.replace(other, one) if other else label
        theirs = {r.spec["seed"]: d for r, d in below.get(partner, [])}
        pairs = [(d, theirs[r.spec["seed"]]) for r, d in rows if r.spec["seed"] in theirs]
        if not pairs:
            continue
        held = _word([_above(a, b) for a, b in pairs])
        shown = ", ".join(f"{_counts(a)} against {_counts(b)}" for a, b in pairs)
        parts.append((held, f"{label}: {options['part']} {shown}", len(pairs)))
    return parts, [label for label, runs in found.items() if not runs]


def _above(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    if not (a["settled"] and b["settled"]):
        return UNDECIDED
    more = a["density"] - b["density"]
    return HOLDS if more > DENSITY else FAILS if more < 0 else UNDECIDED


def _counts(density: Mapping[str, Any]) -> str:
    text = f"{density['kept']:,} / {density['total']:,} = {density['density']:.3f}"
    null = density.get("shadow_total")
    return text + (f" (shadows {density['shadow_kept'] / null:.3f})" if null else "")


def _falls(found: Found, options: Mapping[str, Any]) -> Judged:
    parts: list[Part] = []
    missing = _rows(found, options["rows"])
    for label in options["rows"]:
        results = [finished(r)["by_length"] for r in found[label]]
        if not results:
            continue
        groups = [length for length in LENGTHS if all(length in r for r in results)]
        means = [float(np.mean([r[length]["hr@20"] for r in results])) for length in groups]
        shown = ", ".join(f"{length}: {mean:.1f}" for length, mean in zip(groups, means, strict=True))
        held = HOLDS if all(b < a for a, b in itertools.pairwise(means)) else FAILS
        parts.append((held, f"{label}: {shown}", len(results)))
    return parts, missing


def _explains(found: Found, options: Mapping[str, Any]) -> Judged:
    """One half's share of a grid's variance against the other's."""
    missing = [label for label, runs in found.items() if not runs]
    everything = [r for runs in found.values() for r in runs]
    if missing or not everything:
        return [], missing
    words, shown, seeds = [], [], SEEDS
    for metric in METRICS:
        grid = grid_of(everything, metric).whole
        if grid.shape[2] < 2:
            return [], ["a second seed of every pair"]
        split, seeds = split_variance(grid), grid.shape[2]
        more, less = ("rows", "columns") if options["half"] == "encoder" else ("columns", "rows")
        held = split.low[more] > split.high[less]
        words.append(HOLDS if held else FAILS if split.high[more] < split.low[less] else UNDECIDED)
        shares = (
            f"{name} {100 * split.share[of]:.0f}% ({100 * split.low[of]:.0f} to {100 * split.high[of]:.0f})"
            for name, of in (("encoder", "rows"), ("readout", "columns"))
        )
        shown.append(f"{metric.upper()}: {', '.join(shares)}")
    return [(_word(words), "share of the variance: " + "; ".join(shown), seeds)], []


_KINDS: dict[str, Callable[[Found, Mapping[str, Any]], Judged]] = {
    "better": _better,
    "no worse": _no_worse,
    "faster": _faster,
    "density below": _density_below,
    "density above": _density_above,
    "falls with length": _falls,
    "explains more": _explains,
}
#: Kind -> options that it must have, and may have.
_OPTIONS: dict[str, tuple[set[str], set[str]]] = {
    "better": ({"pairs"}, set()),
    "no worse": ({"pairs"}, set()),
    "faster": ({"pairs"}, set()),
    "density below": ({"part", "limit"}, set()),
    "density above": ({"part", "than"}, {"pair"}),
    "falls with length": ({"rows"}, set()),
    "explains more": ({"half"}, set()),
}
