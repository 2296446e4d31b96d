"""The sweep of a step's cost over sizes, and its figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dissect.errors import DissectError
from dissect.experiment import scaling
from dissect.experiment.scaling import sessions_of, sweep_model
from dissect.report.scaling import write_scaling_figure


def test_sessions_have_the_length_asked_for() -> None:
    examples = sessions_of(4, 10, 7, torch.device("cpu"))
    batch = examples.batch(torch.arange(10))
    assert batch.lengths.tolist() == [4] * 10
    assert int(examples.clicks.max()) < 7


def test_a_sweep_writes_points_and_a_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scaling, "AXES", {"items": (50, 100), "length": (2, 3)})
    monkeypatch.setattr(scaling, "BASE", {"items": 60, "batch": 4, "dim": 8, "length": 3})
    found = sweep_model("srgnn", "all", out=tmp_path, device="cpu")
    assert json.loads((tmp_path / "scaling.json").read_text()) == json.loads(json.dumps(found))
    assert [p["items"] for p in found["axes"]["items"]] == [50, 100]
    assert all(p["low_ms"] <= p["step_ms"] <= p["high_ms"] and p["limit_ms"] > 0 for p in found["axes"]["length"])
    assert {p.name for p in tmp_path.iterdir()} == {"scaling.json", "scaling.svg", "scaling.png"}
    assert "share of the limit reached by items" in capsys.readouterr().out


def test_bad_input_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(DissectError, match="unknown --sweep axis 'width'; choose from: items, batch, dim, length"):
        sweep_model("srgnn", "items,width", out=tmp_path)
    (tmp_path / "scaling.json").write_text("{")
    with pytest.raises(DissectError, match="damaged"):
        write_scaling_figure(tmp_path / "scaling.json", tmp_path)
    with pytest.raises(DissectError, match="can't be read"):
        write_scaling_figure(tmp_path / "none.json", tmp_path)


def test_a_sweep_that_is_interrupted_keeps_what_it_has_and_what_was_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scaling, "AXES", {"items": (50,), "length": (2,)})
    monkeypatch.setattr(scaling, "BASE", {"items": 60, "batch": 4, "dim": 8, "length": 3})
    (tmp_path / "scaling.json").write_text("former")
    take = scaling.measure

    def interrupted(spec: Any, items: int, length: int, device: torch.device) -> dict[str, Any]:
        if length == 2:
            raise KeyboardInterrupt
        return take(spec, items, length, device)

    monkeypatch.setattr(scaling, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep_model("srgnn", "all", out=tmp_path, device="cpu")
    assert (tmp_path / "scaling.json").read_text() == "former"
    assert len(json.loads((tmp_path / "scaling.partial.json").read_text())["axes"]["items"]) == 1
