"""The claim table: rules by hand, on records made for the purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dissect.errors import DissectError
from dissect.report.claims import Claim, judge, load_claims
from dissect.report.runs import Run

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
    assert "4 / 100 = 0.040, 6 / 100 = 0.060" in mixed.details[0]
    assert "not settled" in judge(rule, {"a": [run(0, density=restless)]}).details[0]
    assert str(judge(rule, {"a": []})) == "not run"
    assert str(judge(rule, {"a": [run(s, density=low) for s in range(3)]})) == "holds (3 seeds)"
    assert str(judge(rule, {"a": [run(0, density=low)]})) == "holds (provisional, 1 seed)"
    assert str(judge(rule, {"a": [run(0, density=low)], "b": []})) == "holds (incomplete, provisional, 1 seed)"


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
        "readout, local: attention 30 / 100 = 0.300 against 20 / 100 = 0.200, 10 / 100 = 0.100 against "
        "20 / 100 = 0.200",
        "all: attention 1 / 100 = 0.010 against 2 / 100 = 0.020",
    )
    assert judge(rule, {"GNN, local": gnn[:1], "readout, local": readout[:1]}).word == "holds"
    assert judge(rule, {"all": both}).word == "fails"
    assert judge(rule, {"all": near}).word == judge(rule, {"all": restless}).word == "undecided"


def test_falls_with_length_and_faster():
    def lengths(*values: float) -> dict[str, Any]:
        return {"by_length": {str(i + 1): {"hr@20": v} for i, v in enumerate(values)}}

    rule = claim("falls with length", rows=["a", "b"])
    assert judge(rule, {"a": [run(0, **lengths(3, 2, 1))], "b": [run(0, **lengths(5, 4, 3))]}).word == "holds"
    assert judge(rule, {"a": [run(0, **lengths(3, 2, 1))], "b": [run(0, **lengths(1, 2, 1))]}).word == "depends"
    assert judge(rule, {"a": [run(0, **lengths(3, 3, 1)), run(1, **lengths(3, 4, 1))], "b": []}).word == "fails"
    rule = claim("faster", pairs=[["a", "b"]])
    found = {"a": [run(s, seconds_per_epoch=v, device="cpu") for s, v in ((0, 2.0), (1, 3.0))],
             "b": [run(0, seconds_per_epoch=4.6, device="cpu")]}  # fmt: skip
    assert judge(rule, found).word == "holds"
    assert judge(rule, {"a": found["b"], "b": found["a"]}).word == "fails"
    assert judge(rule, {**found, "b": [run(0, seconds_per_epoch=2.5, device="cpu")]}).word == "undecided"
    assert judge(rule, {**found, "b": [run(0, seconds_per_epoch=9.0, device="cuda")]}).word == "not run"


@pytest.mark.parametrize(
    ("low", "high", "better", "no_worse"),
    [
        ((0.1, 0.2), (1.0, 1.0), "holds", "holds"),
        ((-2.0, -2.0), (-0.1, -0.1), "fails", "fails"),
        ((-0.2, -0.2), (0.2, 0.2), "fails", "holds"),  # as good as each other
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
        return SimpleNamespace(lines=[SimpleNamespace(label="a", difference=interval)])

    monkeypatch.setattr("dissect.report.claims.compare", compared)
    found = {"a": [run(0), run(1)], "b": [run(1), run(2)]}
    assert judge(claim("better", pairs=[["a", "b"]]), found).word == better
    assert {label: len(runs) for label, runs in seen.items()} == {"a": 1, "b": 1}  # the seed that both have
    assert judge(claim("no worse", pairs=[["a", "b"]]), found).word == no_worse
    assert judge(claim("better", pairs=[["a", "b"]]), {"a": [run(0)], "b": []}).missing == ("b",)
    with pytest.raises(DissectError, match="no row 'c' in the suite; rows: a; b"):
        judge(claim("better", pairs=[["c", "b"]]), found)


def test_the_file_s_claims_name_rows_of_their_suites():
    from dissect.experiment.suite import load_suite

    rule, claims = load_claims(ROOT / "analyses" / "claims.toml")
    assert "better: A above B holds" in rule
    assert len({c.id for c in claims}) == len(claims) >= 10
    for c in claims:
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
                {"seed": seed, "encoder": str(i), "readout": str(j)},
                {"test": dict.fromkeys(("hr@20", "mrr@20"), 30 + a + b + 0.1 * ((seed + i + 2 * j) % 3 - 1))},
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
