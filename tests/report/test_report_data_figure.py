from __future__ import annotations

import numpy as np
import pytest

from dissect.data import load
from dissect.data.summary import curves, stats
from dissect.errors import DissectError
from dissect.report.data_figure import LONGEST, stats_figure, write_stats_figure


@pytest.fixture(scope="module")
def made():
    demo = load("demo")
    return stats(demo), curves(demo)


def test_the_figure_shows_the_numbers(made):
    numbers, drawn = made
    lengths, popular, shared = stats_figure("demo", numbers, drawn).axes
    for line, part in zip(lengths.lines, ("train", "test"), strict=True):
        shares = np.asarray(line.get_ydata()).tolist()
        assert sum(shares) == pytest.approx(1)
        assert len(shares) == min(len(drawn[f"{part}_lengths"]), LONGEST)
    assert f"Gini {numbers['gini']:.2f}" in "".join(text.get_text() for text in popular.texts)
    counts = ["repeated_sessions", "test_sessions_in_training", "repeated_examples", "repeated_targets"]
    for text, name in zip(shared.texts[1:], counts, strict=False):
        assert f"({numbers[name]:,} / " in text.get_text()


def test_long_sessions_share_a_place(made):
    numbers, drawn = made
    long = {**drawn, "train_lengths": [0.0] * 30 + [1.0]}
    lengths = stats_figure("demo", numbers, long).axes[0]
    assert np.asarray(lengths.lines[0].get_ydata()).tolist() == [0.0] * (LONGEST - 1) + [1.0]
    assert lengths.get_xticklabels()[-1].get_text() == f"{LONGEST}+"


def test_both_files_are_written_and_the_same_each_time(made, tmp_path):
    numbers, drawn = made
    first = [path.read_bytes() for path in write_stats_figure("demo", numbers, drawn, tmp_path)]
    again = [path.read_bytes() for path in write_stats_figure("demo", numbers, drawn, tmp_path)]
    assert first == again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo_stats.png", "demo_stats.svg"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DissectError, match="can't write"):
        write_stats_figure("demo", numbers, drawn, tmp_path / "file")
