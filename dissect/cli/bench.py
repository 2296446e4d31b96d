"""The command that measures speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dissect.cli.group import main
from dissect.cli.options import model_options, names_given
from dissect.errors import DissectError

#: Options that a sweep over sizes passes on.
_SWEPT = (
    "encoder", "readout", "scorer", "precision", "device", "sigma", "levels", "heads", "p", "more", "item_dropout",
)  # fmt: skip


@main.command()
@click.argument("model", default="srgnn")
@model_options("none", "Wrap these parts; the dense step is then timed too, alternating.")
@click.option("--rounds", default=40, show_default=True, type=click.IntRange(3), help="Steps timed.")
@click.option(
    "--against",
    metavar="FILE:CALLABLE",
    multiple=True,
    help="Time another implementation's step on the same batches, alternating; may be given again.",
)
@click.option("--precision", default="fp32", show_default=True, help="Factors of matrix products: fp32 or bf16.")
@click.option(
    "--sweep",
    metavar="AXIS[,AXIS]",
    help="Time a step against items, batch, dim, length or all, on sessions drawn at random, and plot it.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/bench"),
    show_default=True,
    help="Directory for what --sweep writes.",
)
@click.option("--json", "as_json", is_flag=True, help="End with the figures as JSON on one line.")
@click.pass_context
def bench(
    context: click.Context, model: str, data_dir: Path | None, sweep: str | None, out: Path, **options: Any
) -> None:
    """Time a training step of MODEL by stage and hold it against this machine's limit."""
    if sweep is not None:
        extra = set(names_given(context)) - {"model", "sweep", "out", "as_json", *_SWEPT}
        if extra:
            names = ", ".join(sorted("--" + e.replace("_", "-") for e in extra))
            raise DissectError(f"--sweep sets sizes and data itself; leave out {names}")
        from dissect.experiment.scaling import sweep_model

        options["options"] = options.pop("more")
        sweep_model(model, sweep, out=out, **options)
        return
    from dissect.experiment.benchmark import bench_model

    options["options"] = options.pop("more")
    bench_model(model, data_dir=str(data_dir) if data_dir else None, **options)
