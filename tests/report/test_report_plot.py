"""The density figure says what the record says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dissect.errors import DissectError
from dissect.report import plot
from dissect.report.plot import density_figure, write_density_figure
from dissect.report.runs import read_run

PARTS = {
    "propagation": {"encoder.edge_in.weight": 100, "encoder.edge_out.weight": 100},
    "attention": {"readout.w1.weight": 100, "readout.w2.weight": 100},
    "empty": {},
}


def make_run(path: Path, *, settled: bool = True, finished: bool = True, **spec: Any) -> Path:
    """A run folder whose density falls from 1 to 0.25 in propagation and to 0.5 in attention."""
    path.mkdir()
    base = {
        "model": "srgnn", "dataset": "toy", "sparsify": "all", "noise": "local", "prior": "log-uniform",
        "rule": "log-alpha", "threshold": 3.0, "kl_scale": 1.0, "seed": 0, "dim": 10, "batch_size": 10,
        "protocol": "honest", "max_train": 0, "data_dir": str(path),
    }  # fmt: skip
    (path / "spec.json").write_text(json.dumps(base | spec))
    density, steps = [], []
    for step in range(0, 101, 10):
        for part, tensors in PARTS.items():
            share = 1 - (0.75 if part == "propagation" else 0.5) * step / 100
            rows: list[tuple[str | None, int]] = [*tensors.items(), (None, sum(tensors.values()))]
            for tensor, total in rows:
                kept = round(total * share)
                density.append({
                    "step": step, "epoch": step / 50, "part": part, "tensor": tensor, "rule": "log-alpha",
                    "threshold": 3.0, "kept": kept, "total": total, "density": kept / total if total else None,
                })  # fmt: skip
        steps.append({"kind": "step", "step": step, "kl_weight": min(1, step / 50), "lr_budget": step / 100})
    for name, rows_ in (("density", density), ("metrics", steps)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows_))
    if finished:
        state = {p: {"settled": settled} for p in PARTS}
        (path / "result.json").write_text(json.dumps({"dataset": {"train_examples": 1234}, "density": state}))
    return path


def legend_of(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_legend_gives_kept_and_total(tmp_path: Path) -> None:
    texts = legend_of(density_figure([read_run(make_run(tmp_path / "a"))]))
    assert "propagation  50 / 200 = 0.25" in texts
    assert "attention  100 / 200 = 0.50" in texts
    assert "   edge_in  25 / 100 = 0.25" in texts
    assert not any("empty" in t for t in texts)


def test_curves_are_the_records(tmp_path: Path) -> None:
    figure = density_figure([read_run(make_run(tmp_path / "a"))], tensors=False)
    line = figure.axes[0].get_lines()[0]
    assert np.asarray(line.get_xdata()).tolist() == list(range(0, 101, 10))
    assert np.asarray(line.get_ydata())[-1] == 0.25
    assert "N = 1,234" in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize(
    ("options", "text"), [({"settled": False}, "(not settled)"), ({"finished": False}, "(running)")]
)
def test_what_has_not_settled_says_so(tmp_path: Path, options: dict[str, bool], text: str) -> None:
    texts = legend_of(density_figure([read_run(make_run(tmp_path / "a", **options))], tensors=False))
    assert texts
    assert all(text in t for t in texts)


def test_overlay_names_what_differs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / n, sparsify=n) for n in ("gnn", "readout")]
    texts = legend_of(density_figure([read_run(r) for r in runs]))
    assert len(set(texts)) == len(texts) == 4
    assert sum("sparsify gnn" in t for t in texts) == 2


def test_files_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    first = [p.read_bytes() for p in write_density_figure([run], tmp_path / "x")]
    second = [p.read_bytes() for p in write_density_figure([run], tmp_path / "y")]
    assert first == second
    assert b"50 / 200" in first[0]  # text in the SVG is text
    assert (tmp_path / "x" / "density.png").exists()


def test_an_overlay_has_a_name_of_its_own(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / n, sparsify=n) for n in ("gnn", "readout")]
    one = write_density_figure(runs[:1])
    assert one == [runs[0] / "figures" / f"density.{kind}" for kind in ("svg", "png")]
    before = [p.read_bytes() for p in one]
    both = write_density_figure(runs)
    assert both == [runs[0] / "figures" / f"overlay.{kind}" for kind in ("svg", "png")]
    assert [p.read_bytes() for p in one] == before
    names = [[p.name for p in write_density_figure(r, tmp_path / "out")] for r in (runs[:1], runs)]
    assert names == [["density.svg", "density.png"], ["overlay.svg", "overlay.png"]]
    assert write_density_figure(runs, tmp_path / "out", "mine")[0].name == "mine.svg"


@pytest.mark.parametrize("rule", ["log-alpha", "magnitude"])
def test_only_densities_by_the_runs_own_rule_are_drawn(tmp_path: Path, rule: str) -> None:
    run = make_run(tmp_path / "a", rule=rule)
    rows = [json.loads(line) for line in (run / "density.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k != "rule"} if row["step"] == 0 else row | {"rule": rule} for row in rows]
    other = {"log-alpha": "magnitude", "magnitude": "log-alpha"}[rule]
    others = [row | {"rule": other, "threshold": 0.1, "kept": 0, "density": 0.0} for row in rows if row["total"]]
    (run / "density.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *others]))
    assert read_run(run).density == rows
    figure = density_figure([read_run(run)])
    assert "propagation  50 / 200 = 0.25" in legend_of(figure)
    assert np.asarray(figure.axes[0].get_lines()[0].get_xdata()).tolist() == list(range(0, 101, 10))


def test_a_run_that_is_going_can_be_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", finished=False)
    rows = len(read_run(run).density)
    with open(run / "density.jsonl", "a") as file:
        file.write('{"step": 110, "par')
    assert len(read_run(run).density) == rows


def test_errors_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(DissectError, match="no run folder at"):
        read_run(tmp_path / "none")
    run = make_run(tmp_path / "a", sparsify="none")
    (run / "density.jsonl").unlink()
    with pytest.raises(DissectError, match="nothing was wrapped"):
        density_figure([read_run(run)])
    for line in ("{", "[]", "1"):
        (run / "density.jsonl").write_text(f"{line}\n{{}}\n")
        with pytest.raises(DissectError, match=r"density.jsonl, line 1 is damaged: no JSON object"):
            read_run(run)


def test_labels_at_the_ends_keep_apart() -> None:
    taken: list[float] = []
    heights = [plot._free(h, taken) for h in (0.5, 0.5, 0.51, 0.9)]
    assert heights[0] == 0.5
    assert heights[3] == 0.9
    assert all(abs(a - b) >= 0.0296 for i, a in enumerate(heights) for b in heights[:i])
