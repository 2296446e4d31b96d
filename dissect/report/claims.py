"""The claim table: sayings of a paper beside what committed runs say, by rules that were written down before.

`analyses/claims.toml` holds the claims and the rules in words; this module is the rules as code.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dissect.errors import DissectError
from dissect.report.axis import said_seeds, seeds_of
from dissect.report.compare import compare
from dissect.report.groups import finished
from dissect.report.rows import read_rows
from dissect.report.runs import Run
from dissect.report.statistics import bootstrap_of_sums, cluster_sums
from dissect.report.strata import FEWEST_SESSIONS, by_length, compare_by
from dissect.report.variance import grid_of, split_variance

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

HOLDS, FAILS, DEPENDS, UNDECIDED, NOT_RUN = "holds", "fails", "depends", "undecided", "not run"
WORDS = (HOLDS, FAILS, DEPENDS, UNDECIDED)
#: What several things do.
SEVERAL = {HOLDS: "hold", FAILS: "fail", DEPENDS: "depend", UNDECIDED: UNDECIDED}
METRICS = ("hr@20", "mrr@20")
#: Points of percent within which two models are as good as each other, and densities within which two parts are.
MARGIN, DENSITY = 0.25, 0.05
#: Runs at different hours on a shared machine: a smaller ratio of times says nothing.
FASTER = 1.5
#: Where a run says on what it was made; `dissect.experiment.record.ENVIRONMENT`.
ENVIRONMENT = "environment.json"
#: Fewer seeds make a verdict provisional.
SEEDS = 3
#: Lengths of the list that improvements are compared at.
KS = (5, 10, 20)

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
        One line for each thing that was judged: the word for it, its numbers and its seeds.
    seeds : int
        The fewest seeds behind one of them; 0 where nothing was run. Each line names its own.
    missing : tuple of str
        What has not been run.
    words : tuple of str
        The word for each thing that was judged.
    apart : int
        In how many of them the seeds disagree; see `Part`.
    """

    word: str
    details: tuple[str, ...]
    seeds: int
    missing: tuple[str, ...]
    words: tuple[str, ...] = ()
    apart: int = 0

    def __str__(self) -> str:
        if self.word == NOT_RUN:
            return NOT_RUN
        counts = [(self.words.count(word), word) for word in WORDS if word in self.words]
        each = ", ".join(f"{n} {word if n == 1 else SEVERAL[word]}" for n, word in counts)
        notes = ["incomplete"] * bool(self.missing) + ["provisional"] * (self.seeds < SEEDS)
        notes.append(f"{self.seeds} seed{'s' if self.seeds > 1 else ''}")
        if self.apart:
            notes.append(f"which disagree in {self.apart} of {len(self.words)}")
        return f"{self.word}{f': {each}' if len(counts) > 1 else ''} ({', '.join(notes)})"


@dataclass(frozen=True)
class Claims:
    """A file of claims: the rules in words, the claims, and what is said and not judged by any of them."""

    rule: str
    claims: tuple[Claim, ...]
    beyond: tuple[str, ...]


def load_claims(path: Path | str) -> Claims:
    """Read a file of claims.

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
    return Claims(str(data.get("rule", "")).strip(), tuple(claims), tuple(data.get("beyond", ())))


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
    words = {part.word for part in parts}
    if len(words) == 1:
        word = words.pop()
    elif words <= {HOLDS, UNDECIDED} or words <= {FAILS, UNDECIDED}:
        word = UNDECIDED
    else:
        word = DEPENDS
    details = tuple(f"{part.word}: {part.text} ({said_seeds(part.seeds)})" for part in parts)
    fewest = min(len(part.seeds) for part in parts)
    return Verdict(word, details, fewest, tuple(missing), tuple(p.word for p in parts), sum(p.apart for p in parts))


class Part(NamedTuple):
    """One thing that was judged: the word for it, what was seen, and of which seeds.

    `apart` is whether these disagree: the interval over test sessions leaves out 0, and they lie on both sides of it.
    """

    word: str
    text: str
    seeds: tuple[int, ...]
    apart: bool = False


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
    """A above B: above 0, by however little; fails where it isn't, and no gain that matters is left either."""
    return _compared(found, options, _is_better)


def _is_better(low: float, high: float) -> str:
    return HOLDS if low > 0 else FAILS if high < MARGIN else UNDECIDED


def _no_worse(found: Found, options: Mapping[str, Any]) -> Judged:
    """A not below B by what matters: above minus the margin; fails where it isn't, and below 0."""
    return _compared(found, options, lambda low, high: HOLDS if low > -MARGIN else FAILS if high < 0 else UNDECIDED)


def _little(low: float, high: float) -> str:
    """What a difference that is one, and within the margin, is worth."""
    one = low > 0 or high < 0
    return ", too small to matter" if one and low > -MARGIN and high < MARGIN else ""


def _pair(found: Found, a: str, b: str) -> tuple[dict[str, list[Path]], tuple[int, ...]]:
    """Runs of the seeds that both rows have, the second first; and those seeds."""
    seeds = tuple(sorted(set(seeds_of(found[a])) & set(seeds_of(found[b]))))
    return {label: [r.path for r in found[label] if r.spec["seed"] in seeds] for label in (b, a)}, seeds


#: What is seen in the runs of a pair, B first: the word for it, what was seen, and whether the seeds disagree.
Seen = Callable[[dict[str, list[Path]], str, str], tuple[str, str, bool]]


def _each_pair(found: Found, options: Mapping[str, Any], see: Seen) -> Judged:
    parts: list[Part] = []
    missing: list[str] = []
    for a, b in options["pairs"]:
        if absent := _rows(found, (a, b)):
            missing += absent
            continue
        there, seeds = _pair(found, a, b)
        if not seeds:
            missing.append(f"{a} and {b} with one seed")
            continue
        word, text, apart = see(there, a, b)
        parts.append(Part(word, text, seeds, apart))
    return parts, list(dict.fromkeys(missing))


def _compared(found: Found, options: Mapping[str, Any], word: Callable[[float, float], str]) -> Judged:
    def see(there: dict[str, list[Path]], a: str, b: str) -> tuple[str, str, bool]:
        found = compare(there, b, METRICS)
        line = next(line for line in found.lines if line.label == a)
        assert line.difference is not None
        # `_pair` gave both the same seeds; a row's values are in the order of its group's.
        order = np.argsort(line.group.seeds)
        base = found.lines[found.baseline]
        each = (line.values[order] - base.values[np.argsort(base.group.seeds)]).T
        words, numbers, apart = [], [], False
        for m, (d, low, high) in enumerate(zip(*map(np.ndarray.tolist, line.difference[:3]), strict=True)):
            words.append(word(low, high))
            interval = f"{low:+.2f} to {high:+.2f}{_little(low, high)}"
            numbers.append(f"{METRICS[m].upper()} {d:+.2f} ({interval}{_by_seed(each[m], line.p[m])})")
            apart |= bool((low > 0 or high < 0) and each[m].min() < 0 < each[m].max())
        return _word(words), f"{a} minus {b}: {', '.join(numbers)}", apart

    return _each_pair(found, options, see)


def _by_seed(differences: NDArray[Any], p: float) -> str:
    """The difference with each seed, and what a paired t test over them makes of it."""
    if len(differences) < 2:
        return ""
    return f"; by seed {', '.join(f'{d:+.2f}' for d in differences)}, p {p:.2g}"


def _better_at_lengths(found: Found, options: Mapping[str, Any]) -> Judged:
    """A above B in every group of session lengths by itself, as by `_better`."""

    def see(there: dict[str, list[Path]], a: str, b: str) -> tuple[str, str, bool]:
        apart = compare_by(there, "length", b, METRICS)
        at = [row.label for row in apart.rows].index(a)
        words: dict[str, list[str]] = {}
        numbers = []
        for group in apart.strata:
            if group.sessions < FEWEST_SESSIONS:
                continue
            difference = group.differences[at]
            assert difference is not None
            low, high = difference.low.tolist(), difference.high.tolist()
            words.setdefault(_word(list(map(_is_better, low, high))), []).append(group.label)
            shown = (
                f"{m.upper()} {d:+.2f} ({x:+.2f} to {y:+.2f})"
                for m, d, x, y in zip(METRICS, difference.estimate, low, high, strict=True)
            )
            numbers.append(f"{group.label}: {', '.join(shown)}")
        if not words:
            return UNDECIDED, f"{a} minus {b}: too few sessions of every length", False
        verdicts = ", ".join(f"{word} at {', '.join(labels)}" for word, labels in words.items())
        return _word(list(words)), f"{a} minus {b}: {verdicts}; {', '.join(numbers)}", False

    return _each_pair(found, options, see)


def _larger_at_smaller_k(found: Found, options: Mapping[str, Any]) -> Judged:
    """A's improvement over B, in percent of B, at each K against that at the next larger one, in HR and in MRR."""

    def see(there: dict[str, list[Path]], a: str, b: str) -> tuple[str, str, bool]:
        names = [f"{family}@{k}" for family in ("hr", "mrr") for k in KS]
        rows = read_rows(there, names)
        gain = {row.label: row.gains for row in rows.rows}
        sums, _ = cluster_sums(np.concatenate([gain[a], gain[b]], axis=1), rows.clusters)
        mine, theirs = sums[:, : len(names)], sums[:, len(names) :]
        ratio = mine.sum(0) / theirs.sum(0)
        # Each session's share in what chance does to the ratio of two sums, to first order.
        pull = 100 * (mine - ratio * theirs) / theirs.sum(0)
        words, shown = [], []
        for family in range(2):
            for k in range(len(KS) - 1):
                small, large = (len(KS) * family + k + i for i in (0, 1))
                more = 100 * float(ratio[small] - ratio[large])
                low, high = _spread(more, pull[:, small] - pull[:, large])
                words.append(HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED)
                shown.append(
                    f"{names[small].upper()} over {names[large].upper()} {more:+.2f} ({low:+.2f} to {high:+.2f})"
                )
        all_of = ", ".join(f"{name.upper()} {100 * (r - 1):+.2f}%" for name, r in zip(names, ratio, strict=True))
        return _word(words), f"{a} over {b}: {all_of}; {', '.join(shown)}", False

    return _each_pair(found, options, see)


def _spread(estimate: float, pull: NDArray[Any]) -> tuple[float, float]:
    """95% interval over test sessions of an estimate, from what each session adds to its error, (C,)."""
    drawn = bootstrap_of_sums(len(pull) * pull[:, None], np.ones(len(pull)))
    return estimate + float(drawn.low[0]), estimate + float(drawn.high[0])


def _faster(found: Found, options: Mapping[str, Any]) -> Judged:
    parts: list[Part] = []
    missing: list[str] = []
    for a, b in options["pairs"]:
        if absent := _rows(found, (a, b)):
            missing += absent
            continue
        seeds = _pair(found, a, b)[1]
        rows = [[r for r in found[label] if r.spec["seed"] in seeds] for label in (a, b)]
        if not seeds:
            missing.append(f"{a} and {b} with one seed")
            continue
        if len({_machine(r) for row in rows for r in row}) > 1:
            text = f"{a} and {b}: not on one device with one precision and as many threads"
            parts.append(Part(UNDECIDED, text, seeds))
            continue
        mine, theirs = ([finished(r)["seconds_per_epoch"] for r in row] for row in rows)
        text = f"{a} {np.median(mine):.0f} s, {b} {np.median(theirs):.0f} s an epoch (medians)"
        held = HOLDS if max(mine) * FASTER < min(theirs) else FAILS if min(mine) > max(theirs) * FASTER else UNDECIDED
        parts.append(Part(held, text, seeds))
    return parts, missing


def _machine(run: Run) -> tuple[str, str, int | None]:
    """What seconds depend on beside the model: device, precision, threads."""
    file = run.path / ENVIRONMENT
    threads = json.loads(file.read_text()).get("threads") if file.exists() else None
    return finished(run)["device"], run.spec.get("precision", "fp32"), threads


def _densities(found: Found, part: str) -> dict[str, list[tuple[Run, dict[str, Any]]]]:
    """Label -> runs with that part wrapped, and what their results say of it."""
    out = {}
    for label, runs in found.items():
        there = [(r, d) for r in runs if (d := finished(r)["density"].get(part)) and d["total"]]
        if there:
            out[label] = [(r, {**d, "moved": d["moved"] if "moved" in d else _moved(r, part)}) for r, d in there]
    return out


def _moved(run: Run, part: str) -> float | None:
    """What a result of before it was part of results does not say: as `dissect.sparsity.moved`, from the logs."""
    spent = [(row["step"], row["lr_budget"]) for row in run.steps if "lr_budget" in row]
    rows = [row for row in run.density if row["part"] == part and row["tensor"] is None]
    if not spent or not rows:
        return None
    steps, budgets = zip(*spent, strict=True)
    spent_by = np.interp([row["step"] for row in rows], steps, budgets)
    before = [row["density"] for row, budget in zip(rows, spent_by, strict=True) if budget <= 0.75 * budgets[-1]]
    return rows[-1]["density"] - before[-1] if before and budgets[-1] > 0 else None


def _density_below(found: Found, options: Mapping[str, Any]) -> Judged:
    parts: list[Part] = []
    for label, rows in _densities(found, options["part"]).items():
        held = _word([_below(d, options["limit"]) for _, d in rows])
        parts.append(Part(held, f"{label}: {_counts(options['part'], rows)}", seeds_of(r for r, _ in rows)))
    return parts, [label for label, runs in found.items() if not runs]


def _density_above(found: Found, options: Mapping[str, Any]) -> Judged:
    """One part's density against others' in one run, or in two of one seed whose labels differ in the given words."""
    parts: list[Part] = []
    than = options["than"]
    said: dict[str, str] = {}
    one, other = options.get("pair", ("", ""))
    above = _densities(found, options["part"])
    for name in [than] if isinstance(than, str) else than:
        below = _densities(found, name)
        for label, rows in above.items():
            partner = label if label in below else label.replace(other, one) if other else label
            theirs = {r.spec["seed"]: (r, d) for r, d in below.get(partner, [])}
            mine = [(r, d) for r, d in rows if r.spec["seed"] in theirs]
            if not mine:
                continue
            others = [theirs[r.spec["seed"]] for r, _ in mine]
            held = _word([_above(a, b) for (_, a), (_, b) in zip(mine, others, strict=True)])
            where = "" if partner == label else f" in {partner}"
            own = _counts(options["part"], mine)
            # What is above against one part is not said again against the next.
            own = f"{options['part']}, as above," if own == said.get(label) else said.setdefault(label, own)
            text = f"{label}: {own} against {_counts(name, others)}{where}"
            parts.append(Part(held, text, seeds_of(r for r, _ in mine)))
    return parts, [label for label, runs in found.items() if not runs]


def _below(d: Mapping[str, Any], limit: float) -> str:
    later = _later(d)
    said = {HOLDS if value <= limit else FAILS for value in (d["density"], later) if value is not None}
    return UNDECIDED if later is None or len(said) > 1 else said.pop()


def _above(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    later = (_later(a), _later(b))
    if later[0] is None or later[1] is None:
        return UNDECIDED
    more = (a["density"] - b["density"], later[0] - later[1])
    said = {HOLDS if m > DENSITY else FAILS if m < 0 else UNDECIDED for m in more}
    return UNDECIDED if len(said) > 1 else said.pop()


def _later(d: Mapping[str, Any]) -> float | None:
    """Where a density comes in as much training again, at the pace of the run's last quarter; None if that isn't known.

    One that has settled stays where it is.
    """
    if d["settled"]:
        return float(d["density"])
    return None if d["moved"] is None else float(np.clip(d["density"] + 4 * d["moved"], 0, 1))


def _counts(part: str, rows: Sequence[tuple[Run, Mapping[str, Any]]]) -> str:
    """What runs kept of a part, in the order of the runs."""
    densities = [d for _, d in rows]
    kept, totals = ([f"{d[name]:,}" for d in densities] for name in ("kept", "total"))
    alike = len(set(totals)) == 1
    counts = (
        f"{', '.join(kept)} of {totals[0]}" if alike else ", ".join(map(" of ".join, zip(kept, totals, strict=True)))
    )
    notes = [counts]
    if all(d.get("shadow_total") for d in densities):
        notes.append("shadows " + ", ".join(f"{d['shadow_kept'] / d['shadow_total']:.3f}" for d in densities))
    for run, d in rows:
        if not d["settled"]:
            where = f"seed {run.spec['seed']} " if len(rows) > 1 else ""
            moved = "" if d["moved"] is None else f", {d['moved']:+.3f} in the last quarter"
            notes.append(f"{where}not settled{moved}")
    shares = ", ".join(f"{d['density']:.3f}" for d in densities)
    return f"{part} {shares} ({'; '.join(notes)})"


def _falls(found: Found, options: Mapping[str, Any]) -> Judged:
    """HR@20 of each group of session lengths against that of the one before, by the interval over test sessions."""
    parts: list[Part] = []
    missing = _rows(found, options["rows"])
    for label in options["rows"]:
        if not found[label]:
            continue
        rows = read_rows({label: [r.path for r in found[label]]}, ["hr@20"])
        groups, steps = _steps(rows.rows[0].gains[:, 0], rows.clusters, rows.examples["length"])
        falls = any(high < 0 for _, high in steps)
        names = [f"{a[0]} to {b[0]}" for a, b in itertools.pairwise(groups)]
        rises = [name for name, (low, _) in zip(names, steps, strict=True) if low > 0]
        if not rises:
            held = HOLDS if falls else UNDECIDED
        else:
            held = DEPENDS if falls and rises == ["1 to 2"] else FAILS
        means = ", ".join(f"{length}: {mean:.1f}" for length, mean in groups)
        text = f"{label}: {means}; rises from {', '.join(rises) or 'none'}"
        parts.append(Part(held, text, seeds_of(found[label])))
    return parts, missing


def _steps(
    gain: NDArray[Any], sessions: NDArray[Any], lengths: NDArray[Any]
) -> tuple[list[tuple[str, float]], list[tuple[float, float]]]:
    """Mean gain of each group of lengths, and the interval of each one's minus that of the one before.

    Groups of fewer than `FEWEST_SESSIONS` sessions are left out. One session may have examples in several groups.
    """
    groups, pulls = [], []
    for label, mask in by_length(lengths):
        if len(np.unique(sessions[mask])) < FEWEST_SESSIONS:
            continue
        mean = float(gain[mask].mean())
        sums, _ = cluster_sums(np.where(mask, gain - mean, 0.0)[:, None], sessions)
        groups.append((label, mean))
        pulls.append(sums[:, 0] / mask.sum())
    steps = [
        _spread(groups[i + 1][1] - groups[i][1], after - before)
        for i, (before, after) in enumerate(itertools.pairwise(pulls))
    ]
    return groups, steps


def _explains(found: Found, options: Mapping[str, Any]) -> Judged:
    """One half's share of a grid's variance against the other's."""
    missing = [label for label, runs in found.items() if not runs]
    everything = [r for runs in found.values() for r in runs]
    if missing or not everything:
        return [], missing
    words, shown, seeds = [], [], ()
    for metric in METRICS:
        # No row of the suite is missing: its rates are those of the runs.
        cells = grid_of(everything, metric)
        grid, seeds = cells.whole, cells.whole_seeds
        if grid.shape[2] < 2:
            return [], ["a second seed of every pair"]
        split = split_variance(grid)
        more, less = ("rows", "columns") if options["half"] == "encoder" else ("columns", "rows")
        held = split.low[more] > split.high[less]
        words.append(HOLDS if held else FAILS if split.high[more] < split.low[less] else UNDECIDED)
        shares = (
            f"{name} {100 * split.share[of]:.0f}% ({100 * split.low[of]:.0f} to {100 * split.high[of]:.0f})"
            for name, of in (("encoder", "rows"), ("readout", "columns"))
        )
        apart, low, high = (100 * end for end in split.difference)
        shown.append(
            f"{metric.upper()}: {', '.join(shares)}, encoder less readout {apart:.0f} ({low:.1f} to {high:.1f})"
        )
    return [Part(_word(words), "share of the variance: " + "; ".join(shown), seeds)], []


_KINDS: dict[str, Callable[[Found, Mapping[str, Any]], Judged]] = {
    "better": _better,
    "no worse": _no_worse,
    "faster": _faster,
    "density below": _density_below,
    "density above": _density_above,
    "falls with length": _falls,
    "better at every length": _better_at_lengths,
    "larger at smaller K": _larger_at_smaller_k,
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
    "better at every length": ({"pairs"}, set()),
    "larger at smaller K": ({"pairs"}, set()),
    "explains more": ({"half"}, set()),
}
