"""One look for every figure: colours that the colour-blind and a grey printer can tell apart."""

from __future__ import annotations

from typing import Any

# Okabe & Ito's palette; each part also has a dash and a marker of its own.
PARTS: dict[str, tuple[str, Any, str]] = {
    "propagation": ("#0072B2", "-", "o"),
    "combination": ("#56B4E9", (0, (6, 2)), "s"),
    "attention": ("#D55E00", "-", "^"),
    "transformation": ("#E69F00", (0, (6, 2)), "D"),
}
OTHERS = (("#009E73", "-", "v"), ("#CC79A7", (0, (6, 2)), "P"), ("#000000", "-", "X"))
INK, MUTED, GRID = "#222222", "#666666", "#DDDDDD"

# Typed loosely: matplotlib's stubs know the keys of one version only.
RC: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: searchable, and set in the reader's font
    "svg.hashsalt": "dissect",  # the same figure is the same file
}


def of_part(part: str, index: int = 0) -> tuple[str, Any, str]:
    """Colour, dash and marker of a part; `index` tells apart parts of a user's own naming."""
    return PARTS.get(part) or OTHERS[index % len(OTHERS)]
