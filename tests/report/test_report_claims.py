"""The claim table: rules by hand, on records made for the purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dissect.errors import DissectError
from dissect.report import claims
from dissect.report.claims import Claim, Verdict, judge, load_claims
from dissect.report.runs import Run
from dissect.report.statistics import gains
from dissect.report.strata import FEWEST_SESSIONS

ROOT = Path(__file__).resolve().parent.parent.parent


def run(seed: int, **result: Any) -> Run:
    return Run(Path(f"run-{seed}"), {"seed": seed}, result, [], [], [])


def claim(kind: str, **options: Any) -> Claim:
    return Claim("id", "1", "text", "suite", kind, options)


def density(**parts: tuple[int, int, bool]) -> dict[str, Any]:
    return {
        part: {"kept": k, "total": n, "density": k / n if n else None, "settled": s}
        for part, (k, n, s) in parts.items()
    }


def test_density_below():
    low, high = density(propagation=(4, 100, True)), density(propagation=(6, 100, True))
    restless = density(propagation=(4, 100, False))
    rule = claim("density below", part="propagation", limit=0.05)
    assert judge(rule, {"a": [run(0, density=low), run(1, density=low)]}).word == "holds"
    assert judge(rule, {"a": [run(0, density=high)], "b": [run(0, density=high)]}).word == "fails"
    assert judge(rule, {"a": [run(0, density=low)], "b": [run(0, density=restless)]}).word == "undecided"
    assert judge(rule, {"a": [run(0, density=restless)]}).word == "undecided"
    assert judge(rule, {"a": [run(0, density=low)], "b": [run(0, density=high)]}).word == "depends"
    mixed = judge(rule, {"a": [run(0, density=low), run(1, density=high)], "b": []})
    assert (mixed.word, mixed.missing, mixed.seeds) == ("depends", ("b",), 2)
    assert mixed.details == ("depends: a: propagation 0.040, 0.060 (4, 6 of 100) (seeds 0, 1)",)
    assert "not settled" in judge(rule, {"a": [run(0, density=restless)]}).details[0]
    assert str(judge(rule, {"a": []})) == "not run"
    assert str(judge(rule, {"a": [run(s, density=low) for s in range(3)]})) == "holds (3 seeds)"
    assert str(judge(rule, {"a": [run(0, density=low)]})) == "holds (provisional, 1 seed)"
    assert str(judge(rule, {"a": [run(0, density=low)], "b": []})) == "holds (incomplete, provisional, 1 seed)"


def unsettled(kept: int, moved: float | None) -> dict[str, Any]:
    return {"kept": kept, "total": 100, "density": kept / 100, "settled": False, "moved": moved}


def test_a_density_on_its_way_decides_what_as_much_training_again_would_not_change():
    below = claim("density below", part="propagation", limit=0.05)
    assert judge(below, {"a": [run(0, density={"propagation": unsettled(80, -0.05)})]}).word == "fails"
    assert judge(below, {"a": [run(0, density={"propagation": unsettled(20, -0.05)})]}).word == "undecided"
    assert judge(below, {"a": [run(0, density={"propagation": unsettled(4, -0.01)})]}).word == "holds"
    assert judge(below, {"a": [run(0, density={"propagation": unsettled(4, 0.01)})]}).word == "undecided"
    assert judge(below, {"a": [run(0, density={"propagation": unsettled(80, None)})]}).word == "undecided"
    shown = judge(below, {"a": [run(0, density={"propagation": unsettled(80, -0.05)})]}).details[0]
    assert "not settled, -0.050 in the last quarter" in shown

    def pair(attention: float, propagation: float) -> str:
        parts = {"attention": unsettled(40, attention), "propagation": unsettled(70, propagation)}
        return judge(claim("density above", part="attention", than="propagation"), {"a": [run(0, density=parts)]}).word

    assert pair(-0.06, -0.04) == "fails"  # the gap widens
    assert pair(-0.02, -0.09) == "fails"  # 0.32 against 0.34 then
    assert pair(-0.01, -0.10) == "undecided"  # 0.36 against 0.30 then: the other way round


def test_what_an_older_result_does_not_say_comes_from_its_log():
    old = run(0, density={"propagation": {"kept": 80, "total": 100, "density": 0.8, "settled": False}})
    budgets = [{"step": k, "lr_budget": float(k)} for k in range(0, 101, 10)]
    rows = [
        {"step": k, "part": part, "tensor": tensor, "density": 1 - k / 500}
        for k in range(0, 101, 25)
        for part, tensor in (("propagation", None), ("propagation", "w"), ("attention", None))
    ]
    logged = replace(old, steps=budgets, density=rows)
    below = claim("density below", part="propagation", limit=0.05)
    assert judge(below, {"a": [old]}).word == "undecided"
    assert judge(below, {"a": [logged]}).word == "fails"
    assert "-0.050 in the last quarter" in judge(below, {"a": [logged]}).details[0]


def test_a_density_above_several_others():
    parts = density(attention=(50, 100, True), propagation=(20, 100, True), combination=(70, 100, True))
    rule = claim("density above", part="attention", than=["propagation", "combination"])
    found = judge(rule, {"a": [run(0, density=parts)]})
    assert found.word == "depends"
    assert [line.split(" against ")[1].split()[0] for line in found.details] == ["propagation", "combination"]
    assert [line.split(":")[0] for line in found.details] == ["holds", "fails"]
    assert "(50 of 100) against" in found.details[0]
    assert "attention, as above, against" in found.details[1]


def test_density_above_pairs_runs_of_one_seed():
    rule = claim("density above", part="attention", than="propagation", pair=["GNN", "readout"])
    gnn = [run(s, density=density(propagation=(20, 100, True))) for s in (0, 1)]
    readout = [run(s, density=density(attention=(k, 100, True))) for s, k in ((0, 30), (1, 10))]
    both = [run(0, density=density(attention=(1, 100, True), propagation=(2, 100, True)))]
    near = [run(0, density=density(attention=(13, 100, True), propagation=(10, 100, True)))]
    restless = [run(0, density=density(attention=(90, 100, False), propagation=(10, 100, True)))]
    found = judge(rule, {"GNN, local": gnn, "readout, local": readout, "all": both})
    assert found.word == "depends"
    assert found.details == (
        "depends: readout, local: attention 0.300, 0.100 (30, 10 of 100) against propagation 0.200, "
        "0.200 (20, 20 of 100) in GNN, local (seeds 0, 1)",
        "fails: all: attention 0.010 (1 of 100) against propagation 0.020 (2 of 100) (seed 0)",
    )
    assert judge(rule, {"GNN, local": gnn[:1], "readout, local": readout[:1]}).word == "holds"
    assert judge(rule, {"all": both}).word == "fails"
    assert judge(rule, {"all": near}).word == judge(rule, {"all": restless}).word == "undecided"


SESSIONS, LENGTHS = 60, 3


def record(path: Path, seed: int, ranks: Any) -> Run:
    """A run folder of sessions that each have an example of every length, with these ranks (SESSIONS, LENGTHS)."""
    path.mkdir()
    spec = {"model": path.name[0], "readout": "mean", "options": {}, "dataset": "toy", "seed": seed}
    flat = np.ravel(ranks).astype(np.float32)
    result = {
        "run_id": path.name, "model": "a", "seed": seed, "steps": 7, "epoch": 1, "device": "cpu", "parameters": 3,
        "dataset": {"name": "toy", "sha256": "a" * 64, "items": 50, "train_examples": 9, "test_examples": len(flat)},
        "protocol": {"name": "honest", "refit": False, "ties": "half", "optimistic": False},
        "pruned": None, "sparsify": None, "test": {}, "seconds_per_epoch": 1.0,
    }  # fmt: skip
    (path / "spec.json").write_text(json.dumps(spec))
    (path / "result.json").write_text(json.dumps(result))
    session, length = np.repeat(np.arange(SESSIONS), LENGTHS), np.tile(np.arange(1, LENGTHS + 1), SESSIONS)
    np.savez_compressed(path / "ranks.npz", rank=flat, session=session, length=length)
    return Run(path, spec, result, [], [], [])


def hits(*counts: int, place: float = 1.0) -> Any:
    """Ranks of which this many are hits at each length, of the first sessions."""
    ranks = np.full((SESSIONS, LENGTHS), 50.0)
    for length, count in enumerate(counts):
        ranks[:count, length] = place
    return ranks


@pytest.mark.parametrize(
    ("counts", "word", "rises"),
    [
        ((55, 30, 5), "holds", "none"),
        ((40, 40, 5), "holds", "none"),
        ((5, 50, 10), "depends", "1 to 2"),
        ((50, 10, 40), "fails", "2 to 3"),
        ((5, 30, 55), "fails", "1 to 2, 2 to 3"),
        ((5, 50, 50), "fails", "1 to 2"),
        ((30, 30, 30), "undecided", "none"),
        ((31, 30, 31), "undecided", "none"),
    ],
)
def test_falls_with_length(counts: tuple[int, ...], word: str, rises: str, tmp_path: Path):
    rule = claim("falls with length", rows=["a"])
    held = judge(rule, {"a": [record(tmp_path / f"a{seed}", seed, hits(*counts)) for seed in (0, 2)]})
    assert (held.word, held.seeds) == (word, 2)
    means = ", ".join(f"{i}: {100 * count / SESSIONS:.1f}" for i, count in enumerate(counts, 1))
    assert held.details == (f"{word}: a: {means}; rises from {rises} (seeds 0, 2)",)


def test_falls_with_length_in_every_row(tmp_path: Path):
    rule = claim("falls with length", rows=["a", "b", "c"])
    found = {"a": [record(tmp_path / "a", 0, hits(55, 30, 5))], "b": [record(tmp_path / "b", 0, hits(5, 30, 55))]}
    held = judge(rule, {**found, "c": []})
    assert (held.word, held.missing) == ("depends", ("c",))


def test_steps_are_those_of_resampled_sessions():
    rng = np.random.default_rng(0)
    session = np.repeat(np.arange(200), rng.integers(1, 4, 200))
    length = np.concatenate([np.arange(1, n + 1) for n in np.bincount(session)])
    gain = 100.0 * (rng.random(len(session)) < 0.3 + 0.1 * (session % 3))
    groups, steps = claims._steps(gain, session, length)
    assert groups == [(str(k), pytest.approx(gain[length == k].mean())) for k in (1, 2, 3)]
    drawn = np.empty((4000, 2))
    where = [np.flatnonzero(session == s) for s in range(200)]
    for row in drawn:
        rows = np.concatenate([where[s] for s in rng.integers(0, 200, 200)])
        row[:] = np.diff([gain[rows][length[rows] == k].mean() for k in (1, 2, 3)])
    np.testing.assert_allclose(steps, np.quantile(drawn, (0.025, 0.975), axis=0).T, atol=1.0)


def test_better_at_every_length(tmp_path: Path):
    rule = claim("better at every length", pairs=[["a", "b"]])
    base = [record(tmp_path / f"b{seed}", seed, hits(20, 20, 20)) for seed in (1, 2)]

    def against(name: str, *counts: int) -> Verdict:
        return judge(rule, {"a": [record(tmp_path / f"a{name}", 1, hits(*counts))], "b": base})

    assert against("more", 40, 45, 50).word == "holds"
    assert against("same", 20, 20, 20).word == "fails"
    some = against("some", 40, 20, 45)
    assert some.word == "depends"
    assert some.details[0].startswith("depends: a minus b: holds at 1, 3, fails at 2; 1: HR@20 +33.33 (")
    assert some.details[0].endswith("(seed 1)")
    assert against("hardly", 40, 21, 45).word == "undecided"
    assert judge(rule, {"a": [], "b": base}).word == "not run"


def test_larger_at_smaller_k(tmp_path: Path):
    rule = claim("larger at smaller K", pairs=[["a", "b"]])
    low = np.full((SESSIONS, LENGTHS), 50.0)
    low[:, 0] = np.repeat((1.0, 8.0, 15.0), SESSIONS // 3)
    base = [record(tmp_path / "b", 0, low)]

    def against(name: str, ranks: Any) -> Verdict:
        return judge(rule, {"a": [record(tmp_path / f"a{name}", 0, ranks)], "b": base})

    better = low.copy()
    better[:20, 1:] = 1.0  # more hits, all of them high up
    held = against("high", better)
    assert held.word == "holds"
    ratios = [gains(better.ravel(), m).sum() / gains(low.ravel(), m).sum() - 1 for m in ("hr@5", "hr@10", "mrr@20")]
    for ratio, name in zip(ratios, ("HR@5", "HR@10", "MRR@20"), strict=True):
        assert f"{name} {100 * ratio:+.2f}%" in held.details[0]
    assert f"HR@5 over HR@10 {100 * (ratios[0] - ratios[1]):+.2f} (" in held.details[0]
    assert against("same", low).word == "undecided"
    worse = low.copy()  # more hits, low down
    worse[:40, 1] = 8.0
    worse[40:, 1] = worse[:40, 2] = 15.0
    assert against("low", worse).word == "fails"


def test_faster():
    rule = claim("faster", pairs=[["a", "b"]])

    def both(*seconds: float) -> list[Run]:
        return [run(seed, seconds_per_epoch=value, device="cpu") for seed, value in enumerate(seconds)]

    found = {"a": both(2.0, 3.0), "b": both(4.6, 4.6)}
    assert judge(rule, found).word == "holds"
    assert judge(rule, {"a": found["b"], "b": found["a"]}).word == "fails"
    for within in (2.5, 4.4, 1.4):  # between, and less or more in every run, by less than half
        assert judge(rule, {**found, "b": both(within, within)}).word == "undecided"
    assert judge(rule, {**found, "b": both(3.1)}).details[0].endswith("(seed 0)"), "of the seeds that both have"
    assert judge(rule, {**found, "b": [run(0, seconds_per_epoch=9.0, device="cuda")]}).word == "undecided"
    assert judge(rule, {**found, "b": [run(7, seconds_per_epoch=9.0, device="cpu")]}).word == "not run", "another seed"
    half = run(0, seconds_per_epoch=9.0, device="cpu")
    half.spec["precision"] = "bf16"
    assert judge(rule, {**found, "b": [half]}).word == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "better", "no_worse"),
    [
        ((0.1, 0.2), (1.0, 1.0), "holds", "holds"),
        ((-2.0, -2.0), (-0.1, -0.1), "fails", "fails"),
        ((-0.2, -0.2), (0.2, 0.2), "fails", "holds"),  # as good as each other
        ((0.16, 0.07), (0.24, 0.12), "holds", "holds"),  # a gain, too small to matter
        ((-0.24, -0.2), (-0.1, -0.1), "fails", "holds"),  # a loss, too small to matter
        ((0.0, 0.0), (0.3, 0.3), "undecided", "holds"),
        ((-0.25, -0.25), (-0.01, -0.01), "fails", "fails"),
        ((-1.0, -1.0), (1.0, 1.0), "undecided", "undecided"),
        ((0.1, -2.0), (1.0, -0.1), "depends", "depends"),
        ((0.1, -1.0), (1.0, 1.0), "undecided", "undecided"),
    ],
)
def test_comparisons_by_the_interval_in_both_metrics(
    low: tuple[float, float], high: tuple[float, float], better: str, no_worse: str, monkeypatch: pytest.MonkeyPatch
):
    from types import SimpleNamespace

    from dissect.report.statistics import Interval

    ends = np.array(low), np.array(high)
    interval = Interval((ends[0] + ends[1]) / 2, *ends, (ends[1] - ends[0]) / 3.92)
    seen: dict[str, Any] = {}

    def compared(there: dict[str, Any], baseline: str, metrics: Any) -> Any:
        seen.update(there)
        group = SimpleNamespace(seeds=(1,))
        lines = [
            SimpleNamespace(label="b", group=group, values=np.zeros((1, 2)), difference=None),
            SimpleNamespace(label="a", group=group, values=np.zeros((1, 2)), difference=interval, p=np.full(2, np.nan)),
        ]
        return SimpleNamespace(lines=lines, baseline=0)

    monkeypatch.setattr("dissect.report.claims.compare", compared)
    found = {"a": [run(0), run(1)], "b": [run(1), run(2)]}
    verdict = judge(claim("better", pairs=[["a", "b"]]), found)
    assert verdict.word == better
    small = [abs(a) < 0.25 and abs(b) < 0.25 and a * b > 0 for a, b in zip(low, high, strict=True)]
    assert verdict.details[0].count("too small to matter") == sum(small)
    assert verdict.details[0].endswith("(seed 1)")
    assert {label: len(runs) for label, runs in seen.items()} == {"a": 1, "b": 1}  # the seed that both have
    assert judge(claim("no worse", pairs=[["a", "b"]]), found).word == no_worse
    assert judge(claim("better", pairs=[["a", "b"]]), {"a": [run(0)], "b": []}).missing == ("b",)
    with pytest.raises(DissectError, match="no row 'c' in the suite; rows: a; b"):
        judge(claim("better", pairs=[["c", "b"]]), found)


def test_seeds_that_disagree_are_counted(tmp_path: Path):
    base = [record(tmp_path / f"b{seed}", seed, hits(20, 20, 20)) for seed in (2, 0, 1)]
    one = [record(tmp_path / f"a{seed}", seed, hits(20, 20, count)) for seed, count in ((0, 50), (1, 44), (2, 17))]
    other = [record(tmp_path / f"c{seed}", seed, hits(20, 20, 20 + seed)) for seed in (0, 1, 2)]
    found = {"a": one, "b": base, "c": other}
    verdict = judge(claim("better", pairs=[["a", "b"], ["b", "a"]]), found)
    more = 100 * np.array([30, 24, -3]) / (SESSIONS * LENGTHS)
    assert ", ".join(f"{d:+.2f}" for d in more) in verdict.details[0]  # by seed, in their order
    assert verdict.words == ("holds", "fails")
    assert str(verdict) == "depends: 1 holds, 1 fails (3 seeds, which disagree in 2 of 2)"
    few = judge(claim("better", pairs=[["c", "b"]]), found)
    assert few.apart == 0  # one seed has no difference: none is on the other side
    assert str(judge(claim("no worse", pairs=[["a", "b"], ["c", "b"]]), found)).startswith("holds (3 seeds, which")


def test_the_file_s_claims_name_rows_of_their_suites():
    from dissect.experiment.suite import load_suite

    given = load_claims(ROOT / "analyses" / "claims.toml")
    rule, written = given.rule, given.claims
    assert given.beyond
    assert "better: A above B holds" in rule
    assert f"{claims.MARGIN} points" in rule
    assert f"{FEWEST_SESSIONS} sessions" in rule
    assert len({c.id for c in written}) == len(written) >= 10
    for c in written:
        for variant in ("small", "full"):
            labels = load_suite(ROOT / "analyses" / "suites" / f"{c.suite}.toml", variant).labels
            assert judge(c, {label: [] for label in labels}).word == "not run"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[claims]]\nid = 'x'", "claim 1: it has no section"),
        (
            "[[claims]]\nid='x'\nsection='1'\ntext='t'\nsuite='s'\nkind='true'",
            "unknown kind 'true'; choose from better",
        ),
        ("[[claims]]\nid='x'\nsection='1'\ntext='t'\nsuite='s'\nkind='better'", "'pairs' is missing"),
        ("[[claims]]\nid='x'\nsection='1'\ntext='t'\nsuite='s'\nkind='better'\npairs=[]\nnegate=true", "'negate' is"),
        ("claims = ", "can't read"),
    ],
)
def test_a_faulty_file_is_one_line(text: str, message: str, tmp_path: Path):
    path = tmp_path / "claims.toml"
    path.write_text(text)
    with pytest.raises(DissectError, match=message):
        load_claims(path)


def _grid(rows: tuple[float, float], columns: tuple[float, float], seeds: int = 3) -> dict[str, list[Run]]:
    return {
        f"{i}, {j}": [
            Run(
                Path(f"run-{i}{j}{seed}"),
                {"seed": seed, "encoder": str(i), "readout": str(j), "lr": 1e-3},
                {
                    "test": dict.fromkeys(("hr@20", "mrr@20"), 30 + a + b + 0.1 * ((seed + i + 2 * j) % 3 - 1)),
                    "valid": {"hr@20": 1.0, "mrr@20": 1.0},
                },
                [], [], [],
            )
            for seed in range(seeds)
        ]
        for i, a in enumerate(rows)
        for j, b in enumerate(columns)
    }  # fmt: skip


def test_explains_more():
    rule = claim("explains more", half="readout")
    held = judge(rule, _grid((0, 0.5), (0, 4)))
    assert (held.word, held.seeds) == ("holds", 3)
    assert "HR@20: encoder" in held.details[0]
    assert judge(rule, _grid((0, 4), (0, 0.5))).word == "fails"
    assert judge(rule, _grid((0, 2), (0, 2))).word == "undecided"
    assert judge(claim("explains more", half="encoder"), _grid((0, 4), (0, 0.5))).word == "holds"
    assert judge(rule, _grid((0, 1), (0, 1), seeds=1)).missing == ("a second seed of every pair",)
    assert judge(rule, {"a": []}).word == "not run"
