"""A comparison says what the records say, refuses what can't be compared, and names what its numbers cover."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from dissect.cli import main
from dissect.errors import DissectError
from dissect.experiment.spec import HOW, SINCE
from dissect.report import groups
from dissect.report.compare import compare
from dissect.report.formats import WIDTH, render
from dissect.report.groups import group_runs
from dissect.report.layout import as_json, tables
from dissect.report.statistics import gains
from dissect.training.evaluate import metrics

stats: Any = scipy_stats  # its stubs know the results of one version only
SESSIONS = np.array([0, 0, 0, 1, 1, 2], np.int32)
RANKS = np.array([1, 2, 30, 4, np.inf, 2.5], np.float32)


def make(path: Path, ranks: Any = RANKS, *, pruned: Any = None, result: Any = None, **spec: Any) -> Path:
    """A run folder with these test ranks; `result` overlays its result, deeply."""
    path.mkdir(parents=True)
    base = {
        "schema": 1, "model": "srgnn", "readout": "soft-attention", "options": {}, "dataset": "toy", "data_dir": "",
        "max_train": 0, "sparsify": "none", "lr": 0.001, "batch_size": 100, "seed": 0, "protocol": "honest",
        "device": "auto", "deterministic": False, "loss": "tiled",
    } | spec  # fmt: skip
    ranks = np.asarray(ranks, np.float32)
    arrays = {"rank": ranks, "session": SESSIONS, "length": np.ones(len(ranks), np.int32)}
    found: dict[str, Any] = {
        "run_id": "toy-1", "model": base["model"], "seed": base["seed"], "steps": 70, "epoch": 2,
        "dataset": {
            "name": "toy", "sha256": "a" * 64, "items": 50, "train_examples": 900, "test_examples": len(ranks),
            "max_train": 0, "unseen_targets": {"test": 1},
        },
        "protocol": {"name": "honest", "refit": False, "ties": "half", "optimistic": False},
        "baselines": {"last-item": {"test": {"hr@20": 12.3456, "mrr@20": 4.5}}}, "sparsify": None, "density": {},
        "pruned": None, "test": metrics(ranks), "parameters": 1234, "seconds_per_epoch": 2.5, "device": "cpu",
    }  # fmt: skip
    if pruned is not None:
        arrays["rank_pruned"] = np.asarray(pruned, np.float32)
        found["pruned"] = {"test": metrics(arrays["rank_pruned"]), "kept": 300, "total": 1000}
        found["density"] = {"attention": {"total": 1000}, "empty": {"total": 0}}
        found["sparsify"] = {
            "rule": "log-alpha", "threshold": 3.0, "noise": "local", "prior": "log-uniform", "kl_scale": 1.0,
        }  # fmt: skip
    for key, value in (result or {}).items():
        found[key] = {**found[key], **value} if isinstance(found.get(key), dict) else value
    (path / "spec.json").write_text(json.dumps(base))
    (path / "metrics.jsonl").write_text("")
    (path / "result.json").write_text(json.dumps(found))
    np.savez_compressed(path / "ranks.npz", **arrays)
    return path


def three_seeds(root: Path, name: str, shift: float, **spec: Any) -> list[Path]:
    """Runs of seeds 0 to 2 whose ranks differ, and are `shift` places below."""
    rolled = [np.roll(np.array([1, 3, 12, 25, 7, 19]), s) + shift for s in range(3)]
    rolled[1] = rolled[1] + 4
    return [make(root / f"{name}-{s}", rolled[s], seed=s, **spec) for s in range(3)]


def labels(*runs: Path) -> list[tuple[str, tuple[int, ...]]]:
    return [(group.label, group.seeds) for group in group_runs(runs)]


# --- what is one row, and what it is called


def test_how_a_run_was_made_is_what_the_spec_says_it_is() -> None:
    assert set(groups._HOW) == {"data_dir", *HOW}
    assert {k: v for k, v in SINCE.items() if v} == groups._SINCE


def test_a_record_older_than_a_field_is_a_seed_of_the_same_row(tmp_path: Path) -> None:
    old, new = make(tmp_path / "old"), make(tmp_path / "new", seed=1)
    spec = json.loads((new / "spec.json").read_text())
    (new / "spec.json").write_text(json.dumps({**spec, **SINCE}))
    assert [group.seeds for group in groups.group_runs([old, new])] == [(0, 1)]
    (new / "spec.json").write_text(json.dumps({**spec, **SINCE, "optimizer": "adamw"}))
    assert len(groups.group_runs([old, new])) == 2


def test_seeds_make_one_row_in_their_order(tmp_path: Path) -> None:
    runs = [make(tmp_path / str(s), seed=s, loss="plain" if s == 2 else "tiled", data_dir=f"/{s}") for s in (2, 0, 10)]
    assert labels(*runs) == [("srgnn", (0, 2, 10))]


def test_labels_are_what_differs_within_a_model(tmp_path: Path) -> None:
    mixer = {"model": "attenmixer", "readout": "attenmixer"}
    runs = [
        make(tmp_path / "a", **mixer, options={"levels": 3, "heads": 8}, lr=0.002),
        make(tmp_path / "b", options={}),
        make(tmp_path / "c", **mixer, options={"levels": 7, "heads": 8}, lr=0.002),
        make(tmp_path / "d", model="attenmixer", readout="mean", lr=0.002),
        make(tmp_path / "e", **mixer, options={"levels": 7, "heads": 8}, lr=0.002, seed=1),
    ]
    assert labels(*runs) == [
        ("attenmixer, readout attenmixer, levels 3", (0,)),
        ("srgnn", (0,)),
        ("attenmixer, readout attenmixer, levels 7", (0, 1)),
        ("attenmixer, readout mean", (0,)),
    ]


def test_a_field_that_a_record_is_too_old_for_is_empty(tmp_path: Path) -> None:
    assert labels(make(tmp_path / "a"), make(tmp_path / "b", seed=1, max_valid=0, extra="")) == [("srgnn", (0, 1))]
    more = make(tmp_path / "c", max_valid=500, deep=True, weight_decay=0.0)
    assert labels(tmp_path / "a", more) == [("srgnn", (0,)), ("srgnn, max valid 500, deep", (0,))]


def test_the_same_seed_again_is_no_second_seed(tmp_path: Path) -> None:
    runs = [
        make(tmp_path / "a"),
        make(tmp_path / "b", loss="plain"),
        make(tmp_path / "c", seed=1),
        make(tmp_path / "d", result={"device": "H100"}),
    ]
    assert labels(*runs) == [
        ("srgnn, device cpu, loss tiled", (0, 1)),
        ("srgnn, device cpu, loss plain", (0,)),
        ("srgnn, device H100, loss tiled", (0,)),
    ]


def test_rows_may_be_named(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", init="x-1"), make(tmp_path / "b", seed=1, init="x-2")
    found = group_runs({"mine": [b, a], "none yet": []})
    assert [(g.label, g.seeds) for g in found] == [("mine", (0, 1))]
    with pytest.raises(DissectError, match=r"row 'mine'.*a and .*c differ in more than their seed: lr 0.001 against 1"):
        group_runs({"mine": [a, make(tmp_path / "c", seed=2, init="x-3", lr=1)]})
    with pytest.raises(DissectError, match=r"row 'mine'.*have the same seed, 0"):
        group_runs({"mine": [a, make(tmp_path / "d", init="x-4")]})


# --- what is refused


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"dataset": {"name": "other"}}, "data set toy against other"),
        ({"dataset": {"sha256": "b" * 64}}, "data (SHA-256) aaaaaaaaaaaa against bbbbbbbbbbbb"),
        ({"dataset": {"test_examples": 7}}, "test examples 6 against 7"),
        ({"dataset": {"max_train": 40}}, "training subset (max_train, 0: none) 0 against 40"),
        ({"dataset": {"max_valid": 40}}, "validation subset (max_valid, 0: none) 0 against 40"),
        ({"protocol": {"name": "paper-code"}}, "protocol honest against paper-code"),
        ({"protocol": {"refit": True}}, "refit False against True"),
        ({"protocol": {"ties": "optimistic"}}, "ties half against optimistic"),
        ({"protocol": {"optimistic": True}}, "selection on the test set (optimistic) False against True"),
    ],
)
def test_runs_that_differ_in_data_or_protocol_are_refused(tmp_path: Path, result: Any, text: str) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b", seed=1, result=result)
    with pytest.raises(DissectError) as caught:
        compare([a, b])
    assert str(caught.value) == f"can't compare {a} with {b}: {text}"


def test_records_that_lack_something_are_refused(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b", seed=1)
    ranks = (b / "ranks.npz").read_bytes()

    def refused(match: str, *runs: Path, **options: Any) -> None:
        with pytest.raises(DissectError, match=match) as caught:
            compare(runs or [a, b], **options)
        assert "\n" not in str(caught.value)

    refused("a and .*a are the same run, toy-1, seed 0", a, a)
    refused("a and .*copy are the same run, toy-1, seed 0", a, make(tmp_path / "copy"))
    refused("no run folder at", a, tmp_path / "none")
    refused(r"no metric 'p@20'; valid", metrics=["p@20"])
    refused(r"metrics must be named once each.*: hr@5, hr@5", metrics=["hr@5", "hr@5"])
    refused("baseline .*c is none of the runs compared; valid: .*srgnn", baseline=tmp_path / "c")
    (b / "ranks.npz").write_bytes(ranks[:100])
    refused("b/ranks.npz is damaged")
    np.savez(b / "ranks.npz", rank=np.ones(6), session=SESSIONS[:5])
    refused("b/ranks.npz is damaged: 'session'")
    np.savez(b / "ranks.npz", rank=np.array([1, 1, 1, 1, np.nan, 1]), session=SESSIONS)
    refused("b/ranks.npz is damaged: 'rank'")
    np.savez(b / "ranks.npz", rank=np.ones(6), session=SESSIONS[::-1])
    refused("can't compare .*a with .*b: their test sessions differ")
    (b / "ranks.npz").unlink()
    refused(r"b has no ranks.npz")
    (b / "result.json").write_text('{"dataset": {}}')
    refused("b/result.json is damaged")
    (b / "result.json").unlink()
    refused(r"b is not finished \(no result.json\): 'dissect run --resume .*b'")


# --- the numbers


def test_numbers_by_hand(tmp_path: Path) -> None:
    a = make(tmp_path / "a")
    b = make(tmp_path / "b", [1, 1, 20, 4, 20.5, 2.5], lr=0.002)
    found = compare([a, b], metrics=["hr@20", "mrr@2"])
    first, second = found.lines
    assert (found.examples, found.sessions, found.baseline) == (6, 3, 0)
    np.testing.assert_allclose(first.values, [[100 * 4 / 6, 100 * 1.5 / 6]])
    np.testing.assert_allclose(second.values, [[100 * 5 / 6, 100 * 2 / 6]])
    assert first.difference is None
    assert second.difference is not None
    np.testing.assert_allclose(second.difference.estimate, [100 / 6, 50 / 6])
    np.testing.assert_allclose(second.improvement, [25, 100 / 3])
    # The differences all lie in session 0, of 3 examples: none of it drawn gives 0 (chance 8/27), it alone 100/3.
    np.testing.assert_allclose(second.difference.low, [0, 0])
    np.testing.assert_allclose(second.difference.high, [100 / 3, 50 / 3])
    assert np.isnan(second.p).all()
    assert found.tests == 0
    other = compare([a, b], baseline=b, metrics=["hr@20", "mrr@2"])
    assert (other.baseline, other.lines[1].difference) == (1, None)
    assert other.lines[0].difference is not None
    np.testing.assert_allclose(other.lines[0].difference.estimate, [-100 / 6, -50 / 6])
    np.testing.assert_allclose(other.lines[0].improvement, [-20, -25])


def test_across_seeds_pairs_or_welch_and_holm(tmp_path: Path) -> None:
    base, other = three_seeds(tmp_path, "a", 0), three_seeds(tmp_path, "b", 2, lr=0.01)
    third = three_seeds(tmp_path, "c", 5, lr=0.1)[:2]
    found = compare([*base, *other, *third], metrics=["mrr@20", "ndcg@20"])
    assert [line.label for line in found.lines] == ["srgnn, lr 0.001", "srgnn, lr 0.01", "srgnn, lr 0.1"]
    assert [line.values.shape for line in found.lines] == [(3, 2), (3, 2), (2, 2)]
    a, b, c = (line.values for line in found.lines)
    expected = np.array([
        [stats.ttest_rel(b[:, m], a[:, m]).pvalue for m in range(2)],
        [stats.ttest_ind(c[:, m], a[:, m], equal_var=False).pvalue for m in range(2)],
    ])  # fmt: skip
    np.testing.assert_allclose([line.p for line in found.lines[1:]], expected)
    np.testing.assert_allclose(
        np.sort([line.p_holm for line in found.lines[1:]], axis=None)[0], min(1, 4 * expected.min())
    )
    assert found.tests == 4
    # A line's gains are averaged over its own seeds before they are compared.
    assert found.lines[2].difference is not None
    np.testing.assert_allclose(found.lines[2].difference.estimate, c.mean(0) - a.mean(0))
    text = render(tables(found)[0])
    assert "paired where the seeds are the same, else Welch's" in " ".join(text.split())
    assert "Warning: srgnn, lr 0.1 has seeds 0, 1, the baseline 0, 1, 2" in " ".join(text.split())


def test_seeds_are_paired_by_number_not_by_order(tmp_path: Path) -> None:
    base, other = three_seeds(tmp_path, "a", 0), three_seeds(tmp_path, "b", 2, lr=0.01)
    straight, mixed = compare([*base, *other]), compare([*base, other[2], other[0], other[1]])
    np.testing.assert_array_equal(straight.lines[1].p, mixed.lines[1].p)
    later = [make(tmp_path / f"c-{s}", np.load(run / "ranks.npz")["rank"], seed=5 + s, lr=0.01)
             for s, run in enumerate(other)]  # fmt: skip
    welch = compare([*base, *later])
    a, b = (line.values for line in welch.lines)
    np.testing.assert_allclose(welch.lines[1].p[1], stats.ttest_ind(b[:, 1], a[:, 1], equal_var=False).pvalue)
    assert np.ptp(a[:, 0]) == 0 or np.ptp(b[:, 0]) == 0  # one side that does not vary: no warning either
    assert "Welch's (the seeds differ)" in " ".join(tables(welch)[0].notes)


def test_a_wrapped_run_has_two_lines(tmp_path: Path) -> None:
    sparse = [
        make(tmp_path / f"s{s}", RANKS, pruned=[1, 1, 1, 1, 1, 1 + 10 * s], sparsify="readout", seed=s,
             result={"latency_ms": 1.5 + s})
        for s in range(2)
    ]  # fmt: skip
    found = compare([make(tmp_path / "dense"), *sparse], metrics=["hr@5"])
    assert [(line.label, line.pruned) for line in found.lines] == [
        ("srgnn, sparsify none", False),
        ("srgnn, sparsify readout", False),
        ("srgnn, sparsify readout, pruned", True),
    ]
    assert found.lines[2].values[:, 0].tolist() == pytest.approx([100, 500 / 6])
    cost = tables(found)[1]
    assert [row[2] for row in cost.rows] == ["none wrapped", "1,000 / 1,000", "300 / 1,000"]
    assert [row[4] for row in cost.rows] == ["not measured", "2.00", "not measured"]
    assert any("(attention) by log-alpha at 3; local noise" in note for note in cost.notes)
    pruned = compare(sparse, baseline="srgnn, pruned")
    assert pruned.baseline == 1
    assert compare([tmp_path / "dense", *sparse], baseline=sparse[1]).baseline == 1
    (tmp_path / "s0" / "ranks.npz").unlink()
    np.savez(tmp_path / "s0" / "ranks.npz", rank=RANKS, session=SESSIONS)
    with pytest.raises(DissectError, match=r"s0/ranks\.npz has no ranks of the pruned weights"):
        compare(sparse)


def test_the_table_names_its_denominators_and_what_it_covers(tmp_path: Path) -> None:
    drawn = {"dataset": {"max_train": 400}}
    base = three_seeds(tmp_path, "a", 0, result=drawn)
    other = three_seeds(tmp_path, "b", 2, lr=0.01, result={**drawn, "steps": 90})
    accuracy, cost = tables(compare([*base, *other], resamples=500))
    text = " ".join(render(accuracy).split())
    for part in (
        "Accuracy on toy: 6 test examples of 3 sessions, ranked among 50 items; protocol honest, no refit, ties half, "
        "400 training sessions drawn",
        "Trained on 900 examples; targets never seen in training are misses: 1.",
        "difference: to srgnn, lr 0.001, in points of percent",
        "the 3 test sessions drawn whole 500 times; it covers which sessions were tested, not seeds",
        "Power: with these 6 test examples of 3 sessions a difference to srgnn, lr 0.001 under",
        "Across seeds (3 or more a row) the t-test, before Holm's correction, would miss one under",
        "t-test across seeds, paired (the same seeds), corrected by Holm for the 2 tests of this table; it covers",
        "Controls without training, mean over the runs: last-item HR@20 12.35, MRR@20 4.50.",
        "Budgets differ: steps 70 (srgnn, lr 0.001), 90 (srgnn, lr 0.01). learning rate 0.001 (srgnn, lr 0.001), 0.01",
    ):
        assert part in text
    assert "Warning" not in text
    assert "OPTIMISTIC" not in text
    assert "training, on cpu" in render(cost)
    assert max(map(len, (render(accuracy) + render(cost)).split("\n"))) <= WIDTH


def test_power_is_that_of_the_errors_and_names_the_rows(tmp_path: Path) -> None:
    base, other, third = (
        three_seeds(tmp_path, n, shift, lr=shift + 0.1) for n, shift in (("a", 0), ("b", 2), ("c", 9))
    )
    found = compare([*base, *other, *third], metrics=["mrr@20"], resamples=500)
    _, b, c = found.lines
    assert b.difference is not None
    np.testing.assert_allclose(b.least_sessions, 2.8016 * b.difference.error, rtol=1e-4)
    lost = b.values[:, 0] - found.lines[0].values[:, 0]
    # Three pairs: noncentrality 5.653 at two degrees of freedom.
    np.testing.assert_allclose(b.least_seeds, 5.653 * lost.std(ddof=1) / 3**0.5, rtol=1e-3)
    ends = sorted((float(line.least_sessions[0]), line.label) for line in (b, c))
    shown = " to ".join(f"{value:.2g} ({label})" for value, label in ends)
    assert f"under {shown} points of MRR@20 can't be seen" in " ".join(tables(found)[0].notes)
    data = as_json(found)["lines"][1]["metrics"]["mrr@20"]["least_visible"]
    assert data["sessions"] == pytest.approx(b.least_sessions[0], abs=1e-5)
    assert data["seeds"] == pytest.approx(b.least_seeds[0], abs=1e-5)
    alone = compare([base[0], other[0]], resamples=500)
    assert np.isnan(alone.lines[1].least_seeds).all()
    assert "Across seeds" not in " ".join(tables(alone)[0].notes)
    assert "Power" not in " ".join(tables(compare(base))[0].notes)


def test_doubtful_records_are_named(tmp_path: Path) -> None:
    wrong = metrics(RANKS) | {"mrr@20": 60.0}
    a = make(tmp_path / "a", result={"test": wrong})
    text = " ".join(render(tables(compare([a]))[0]).split())
    assert "Warning: a: result.json can't be of one list of ranks: MRR@20 - MRR@10" in text
    mine = f"{gains(RANKS, 'mrr@20').mean():.2f}"
    assert f"which count here: mrr@20 60.00 (ranks: {mine}); a damaged record" in text
    b = make(tmp_path / "b", result={"test": wrong, "protocol": {"name": "paper-code", "optimistic": True}})
    text = " ".join(render(tables(compare([b]))[0]).split())
    assert "OPTIMISTIC" in text
    assert "each metric is of its own best epoch there" in text


def test_half_ranks_are_no_doubt(tmp_path: Path) -> None:
    assert not compare([make(tmp_path / "a", [5.5] * 6)]).warnings
    strict = {"protocol": {"ties": "optimistic"}}
    assert len(compare([make(tmp_path / "b", [5.5] * 6, result=strict)]).warnings) == 1


def test_narrow_intervals_have_more_decimals(tmp_path: Path) -> None:
    runs = [make(tmp_path / "a", [400] * 6), make(tmp_path / "b", [400, 401, 400, 400, 400, 420], lr=1.0)]
    narrow, wide = (tables(compare(runs, metrics=[m]))[0].rows[1][6] for m in ("mrr@999", "hr@400"))
    assert narrow.startswith("-0.002 [-0.012, ")
    assert wide.startswith("-33.33 [")


def test_several_devices_get_a_column(tmp_path: Path) -> None:
    runs = [make(tmp_path / "a"), make(tmp_path / "b", lr=1.0, result={"device": "H100"})]
    cost = tables(compare(runs))[1]
    assert cost.columns[-1] == "device"
    assert [row[-1] for row in cost.rows] == ["cpu", "H100"]
    assert "not comparable across devices" in cost.notes[0]


# --- the command


def call(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(a) for a in ("compare", *arguments)])
    except SystemExit as error:
        code = int(error.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_ends_with_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, other = three_seeds(tmp_path, "a", 0), three_seeds(tmp_path, "b", 2, lr=0.01)
    code, out, err = call(capsys, *base, *other, "--metrics", "hr@5,mrr@20", "--baseline", other[1], "--json")
    assert (code, err) == (0, "")
    data = json.loads(out.splitlines()[-1])
    assert data["baseline"] == "srgnn, lr 0.01"
    assert list(data["lines"][0]["metrics"]) == ["hr@5", "mrr@20"]
    assert data["lines"][1]["metrics"]["hr@5"]["interval"] is None
    assert data == json.loads(
        json.dumps(as_json(compare([*base, *other], other[1], ["hr@5", "mrr@20"])), allow_nan=False)
    )
    assert "HR@5" in out


@pytest.mark.parametrize(
    ("how", "parts"),
    [
        ("text", ["model", "HR@20"]),
        (
            "markdown",
            ["| model | metric | valid | mean |", "| --- | --- | ---: | ---: |", "| srgnn, lr 0.001 | HR@20 |"],
        ),
        ("latex", [r"\toprule", r"\begin{tabular}{llrrrrrrr}", r"srgnn, lr 0.001 & HR@20 & ", r"[95\% interval]"]),
    ],
)
def test_the_command_writes_each_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, parts: list[str]
) -> None:
    runs, out = [make(tmp_path / "a"), make(tmp_path / "b", lr=1.0)], tmp_path / "new" / "table"
    assert call(capsys, *runs, "--format", how, "--out", out) == (0, f"{out}\n", "")
    for part in parts:
        assert part in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--format", "html"], "no format 'html'; valid: text, markdown, latex"),
        (["--metrics", "hr"], "no metric 'hr'"),
        (["--resamples", "5"], "--resamples"),
        (["--out", "/proc/none/x"], "can't write /proc/none/x"),
    ],
)
def test_wrong_use_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    code, _, err = call(capsys, make(tmp_path / "a"), *arguments)
    assert code == 2
    assert text in err
    assert len(err.strip().splitlines()) == 1
