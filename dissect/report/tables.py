"""A run's result as a table on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SHOWN = ("hr@5", "hr@10", "hr@20", "mrr@5", "mrr@10", "mrr@20", "ndcg@20")


def print_result(result: dict[str, Any], folder: Path, figure: Sequence[Path] | None = None) -> None:
    """Print metrics with their denominators, densities as kept / total, and where the record lies (to stderr
    when stdout is asked for JSON by another program: the table goes to stdout first, JSON is its last line).
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 110)
    data, protocol = result["dataset"], result["protocol"]
    # A wrapped run selects no epoch: see `dissect.experiment.callbacks.Selection`.
    wrapped = result["sparsify"] is not None
    how = (
        "evaluated on the test set after each epoch, the last counts" if wrapped else "epochs selected on the test set"
    )
    counted = result["steps"] == 0  # a model that counts
    how = "that of runs selected on the test set; nothing was selected here" if counted else how
    stamp = f" [bold]optimistic: {how}[/bold]" if protocol["optimistic"] else ""
    subset = f", {data['max_train']:,} training sessions drawn" if data.get("max_train") else ""
    table = Table(
        title=f"{result['model']} on {data['name']}, seed {result['seed']}, protocol {protocol['name']}"
        f"{', refit' if protocol['refit'] else ''}, ties {protocol['ties']}{subset}{stamp}",
        caption=f"percent, ranked among {data['items']:,} items; {data['train_examples']:,} training, "
        f"{data['valid_examples']:,} validation, {data['test_examples']:,} test examples; "
        + ("counted, not trained" if counted else f"epoch {result['epoch']}, {result['steps']:,} steps")
        + "; targets never seen in training are misses: "
        + ", ".join(f"{n:,} in {s}" for s, n in data["unseen_targets"].items()),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("split")
    table.add_column("model")
    for name in _SHOWN:
        table.add_column(name.upper(), justify="right")
    pruned = result["pruned"] or {}
    for split in ("valid", "test"):
        rows = [(result["model"], result.get(split))]
        if pruned:
            rows.append((f"pruned, {pruned['kept']:,} / {pruned['total']:,} kept", pruned.get(split)))
        rows += [(name, values.get(split)) for name, values in result["baselines"].items()]
        for name, values in rows:
            if values:
                table.add_row(split, name, *(f"{values[k]:.2f}" for k in _SHOWN))
        table.add_section()
    console.print(table)
    if result["density"]:
        _print_density(result, console)
    reach = result.get("reach")
    if reach and "coverage@20" in reach:  # fewer items than that have shorter lists
        console.print(
            f"coverage@20 {reach['coverage@20']:.1f}%: {reach['recommended']:,} of {reach['items']:,} items are in the "
            f"best 20 of a test example; those have {reach['popularity@20']:,.1f} training clicks on average, targets "
            f"{reach['target_popularity']:,.1f}",
            highlight=False,
        )
    took = f"{result['seconds_per_epoch']:.1f} s {'to count' if counted else 'an epoch'}"
    console.print(f"{result['parameters']:,} parameters, {took} on {result['device']}", highlight=False)
    if figure:
        console.print(f"figure: {figure[-1]}", highlight=False, soft_wrap=True)
    console.print(f"record: {folder}", highlight=False, soft_wrap=True)


def _print_density(result: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    how = result["sparsify"]
    table = Table(
        title=f"density by {how['rule']} at {how['threshold']:g}, {how['noise']} noise, {how['prior']} prior, "
        f"KL x{how['kl_scale']:g}, lr budget {result['lr_budget']:.1f} nats",
        title_justify="left",
    )
    shadows = any(row.get("shadow_total") for row in result["density"].values())
    for name in ("part", "kept", "total", "density", *(["shadow columns"] if shadows else []), ""):
        table.add_column(name, justify="left" if name in ("part", "") else "right")
    for part, row in result["density"].items():
        if row["total"]:
            note = "settled" if row["settled"] else "not settled"
            if row.get("moved") is not None:
                note += f", {row['moved']:+.3f} in the last quarter"
            cells = [
                f"{row['kept']:,}",
                f"{row['total']:,}",
                f"{row['density']:.3f}",
                *([_null(row)] if shadows else []),
            ]
            table.add_row(part, *cells, note)
        else:
            table.add_row(part, "", "0", "", *([""] if shadows else []), "no parameters")
    console.print(table)


def _null(row: dict[str, Any]) -> str:
    """Keep-rate of the shadow columns: what weights with nothing to say keep."""
    total = row.get("shadow_total")
    return f"{row['shadow_kept']:,} / {total:,} = {row['shadow_kept'] / total:.3f}" if total else ""
