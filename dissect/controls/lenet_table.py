"""`dissect validate lenet`: the seeds one after another, and their figures beside the published ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dissect.controls.lenet import BAND, PARTS, PUBLISHED, RECIPES, run_lenet
from dissect.data.mnist import PUBLISHED_SHA256


def validate_lenet(
    seeds: Iterable[int],
    recipe: str = "published",
    out: Path | str = "runs",
    data_dir: Path | str | None = None,
    quiet: bool = False,
    as_json: bool = False,
) -> list[dict[str, Any]]:
    """Run the seeds one after another, and print their figures beside the published ones.

    Parameters
    ----------
    seeds : iterable of int
    recipe, out, data_dir, quiet
        See `run_lenet`.
    as_json : bool
        End with the results as JSON on one line of stdout.

    Returns
    -------
    list of dict
        The results, in the order of the seeds.
    """
    results = [run_lenet(seed, recipe, out=out, data_dir=data_dir, quiet=quiet) for seed in seeds]
    _print(results, recipe)
    if as_json:
        print(json.dumps(results))
    return results


def _print(results: list[dict[str, Any]], recipe: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 110)
    table = Table(
        title=f"LeNet-300-100 on MNIST, recipe {recipe}, {RECIPES[recipe].epochs} epochs",
        caption="error: percent of the test images, pruned weights; compression: weights / kept (log alpha < 3); "
        "fc1 to fc3: percent of the layer dropped; published: arXiv 1701.05369, Table 1",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("")
    for name in ("error", "unpruned", "compression", *PARTS, "kept / total"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    (_, worst), (low, high) = BAND["error"], BAND["compression"]
    sparsity = [f"{value:.1f}" for value in PUBLISHED["sparsity"].values()]
    table.add_row("published", f"{PUBLISHED['error']:.2f}", "", f"{PUBLISHED['compression']:.0f}", *sparsity, "", "")
    table.add_row("band", f"up to {worst:g}", "", f"{low:g} to {high:g}", *("" for _ in PARTS), "", "")
    table.add_section()
    for result in results:
        compression = result["compression"]
        verdict = "in band" if result["in_band"] else "OUT OF BAND"
        table.add_row(
            f"seed {result['seed']}",
            f"{result['error']:.2f}",
            f"{result['error_unpruned']:.2f}",
            "-" if compression is None else f"{compression:.1f}",
            *(f"{value:.1f}" for value in result["sparsity"].values()),
            f"{result['kept']:,} / {result['total']:,}",
            verdict if result["sha256"] == PUBLISHED_SHA256 else "other digits",
        )
    console.print(table)
