"""Commands that test the claims of a run, and the instrument: intervene, validate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dissect.cli.group import main
from dissect.cli.options import names_given
from dissect.errors import DissectError


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--retrain",
    default="",
    metavar="all|NAME[,NAME]",
    help="Trainings to add: delete (each part), mask, random, swap; each is a run of its own.",
)
@click.option(
    "--alone",
    metavar="RULE",
    help="Instead, prune each part by itself at the thresholds of RUN/pruning.json, by its curve of RULE (magnitude).",
)
@click.option("--out", type=click.Path(path_type=Path), help="Directory for those [default: where RUN lies].")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data sets lie [default: as for RUN].")
@click.option("--resamples", type=click.IntRange(100), default=2000, show_default=True, help="Of the test sessions.")
@click.option("--json", "as_json", is_flag=True, help="End with the table as JSON on one line of stdout.")
@click.option("--quiet", is_flag=True, help="No progress.")
def intervene(run: Path, retrain: str, alone: str | None, out: Path | None, as_json: bool, **options: Any) -> None:
    """Zero, bypass or delete each part of RUN, and shuffle its graphs: is a part needed?"""
    if alone is not None:
        from dissect.controls.alone import alone_run, print_alone

        if retrain or out:
            raise DissectError("--alone goes with neither --retrain nor --out: it trains nothing")
        print_alone(alone_run(run, alone, **options), alone, run, as_json)
        return
    from dissect.controls.intervene import intervene_run

    intervene_run(run, retrain, out=out, as_json=as_json, **options)


@main.command()
@click.argument("what", default="worlds")
@click.option("--noise", default="weight", show_default=True, help="local, row or weight.  [worlds]")
@click.option("--kl-scale", type=float, default=1.0, show_default=True, help="Factor on the KL.  [worlds]")
@click.option("--steps", type=int, help="Optimiser steps of each dense model [default: 2000].  [worlds]")
@click.option("--sparse-steps", type=int, help="Of each wrapped model [default: 5000].  [worlds]")
@click.option("--world", "worlds", multiple=True, help="This world alone; may be given again.  [worlds]")
@click.option("--workers", type=click.IntRange(1), help="Processes [default: one a core].  [worlds]")
@click.option("--force", is_flag=True, help="Start over.  [worlds]")
@click.option("--recipe", default="published", show_default=True, help="published: 200 epochs; fast: 60.  [lenet]")
@click.option("--seed", "seeds", type=int, multiple=True, help="May be given again  [default: 0].")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data sets lie (else DISSECT_DATA, cache).")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="End with the result as JSON on one line.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def validate(context: click.Context, what: str, seeds: tuple[int, ...], **options: Any) -> None:
    """Show that the instrument can be trusted: on worlds with known answers, or by LeNet on MNIST.

    WHAT is `worlds` (the default; a few minutes) or `lenet`. The exit status is 1 where an answer is not the known one.
    """
    own = {
        "worlds": ("noise", "kl_scale", "steps", "sparse_steps", "worlds", "workers", "force"),
        "lenet": ("recipe", "data_dir"),
    }
    if what not in own:
        raise DissectError(f"unknown control {what!r}; choose from {', '.join(own)}")
    other = [name for names in own.values() for name in names if name not in own[what]]
    idle = sorted(set(names_given(context)) & set(other))
    if idle:
        flags = {"worlds": "--world"}
        names = ", ".join(flags.get(name, "--" + name.replace("_", "-")) for name in idle)
        raise DissectError(f"validate {what} has no use for {names}")
    for name in other:
        options.pop(name)
    if what == "lenet":
        from dissect.controls.lenet_table import validate_lenet

        right = all(result["in_band"] for result in validate_lenet(seeds or (0,), **options))
    else:
        if len(seeds) > 1:
            raise DissectError("validate worlds takes one --seed")
        from dissect.controls.validate import validate_worlds

        right = validate_worlds(seed=seeds[0] if seeds else 0, **options)["right"]
    if not right:
        sys.exit(1)
