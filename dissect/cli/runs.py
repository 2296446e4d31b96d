"""Commands that make a run or use one: run, models, plot, prune, recommend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from dissect.cli.group import main
from dissect.cli.options import model_options, names_given
from dissect.errors import DissectError

#: Options of the instrument, which a dense run has not.
_INSTRUMENT = ("prior", "noise", "rule", "threshold", "kl_scale", "warmup", "lr_sigma", "log_sigma2", "shadows")


@main.command()
@click.argument("model", required=False)
@model_options("all", "Which parts to wrap in sparse variational dropout.")
@click.option("--prior", default="log-uniform", show_default=True, help="log-uniform, ard or normal.")
@click.option(
    "--rule",
    default="log-alpha",
    show_default=True,
    help="What counts as kept: log-alpha, magnitude, signed or snr.",
)
@click.option("--threshold", type=float, help="Threshold of the rule [default: the rule's own].")
@click.option("--kl-scale", type=float, default=1.0, show_default=True, help="Factor on the KL; 1 is the bound's.")
@click.option(
    "--warmup",
    type=float,
    nargs=2,
    default=(0.1, 0.4),
    show_default=True,
    metavar="START END",
    help="Shares of the steps at which the KL weight leaves 0 and is full.",
)
@click.option(
    "--shadows",
    type=int,
    default=0,
    show_default=True,
    help="Columns of noise beside each wrapped matrix's inputs: the null for its density.",
)
@click.option("--lr-sigma", type=float, default=1e-2, show_default=True, help="Learning rate of log sigma^2, constant.")
@click.option(
    "--log-sigma2", type=float, default=-8.0, show_default=True, help="log sigma^2 of every weight to begin with."
)
@click.option("--epochs", type=int, default=10, show_default=True)
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps in all; outranks --epochs.")
@click.option("--lr", type=float, help="[default: the recipe's]")
@click.option("--lr-step", type=int, help="Epochs between decays of the rate [default: the recipe's].")
@click.option("--lr-gamma", type=float, help="Factor of a decay; 1 keeps the rate [default: the recipe's].")
@click.option("--weight-decay", type=float, help="L2 of unwrapped weights [default: the recipe's].")
@click.option(
    "--patience", type=int, default=3, show_default=True, help="Epochs without gain before a dense run stops."
)
@click.option(
    "--protocol",
    default="honest",
    show_default=True,
    help="honest: select on validation; paper-code: select on test, stamped optimistic.",
)
@click.option("--refit", is_flag=True, help="After selection, train on training + validation, then test.")
@click.option("--ties", default="half", show_default=True, help="half, optimistic or pessimistic.")
@click.option("--max-train", type=int, help="Train on a random subset of that many training sessions.")
@click.option("--max-valid", type=int, help="Validate on a random subset of that many validation sessions.")
@click.option("--precision", default="fp32", show_default=True, help="Factors of matrix products: fp32 or bf16.")
@click.option("--loss", default="tiled", show_default=True, help="Form of the loss over items: tiled, or plain.")
@click.option("--deterministic", is_flag=True, help="The same bits each time on a GPU too, at some cost in speed.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Directory for run folders.",
)
@click.option("--init", type=click.Path(path_type=Path), metavar="RUN", help="Start from that run's weights.")
@click.option(
    "--delete", metavar="PART[,PART]", help="Hold these parts' weights at zero; with --sparsify none or others."
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Hold weights at zero by the masks in FILE, as 'dissect prune --masks' writes; with --sparsify none.",
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Continue RUN with its own spec.")
@click.option("--force", is_flag=True, help="Run again where a finished run of the same id is there.")
@click.option("--dry-run", is_flag=True, help="Only show what would be wrapped: calls, shapes, dead weights.")
@click.option("--json", "as_json", is_flag=True, help="End with the result as JSON on one line of stdout.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--debug", is_flag=True, expose_value=False, hidden=True)
@click.pass_context
def run(
    context: click.Context,
    model: str | None,
    out: Path,
    init: Path | None,
    mask: Path | None,
    resume: Path | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    data_dir: Path | None,
    **options: Any,
) -> None:  # fmt: skip
    """Train MODEL with every part wrapped, track densities, prune, evaluate before and after.

    A control that counts (spop, sr, vsknn) is tested and recorded alike; there is nothing to train or wrap.
    """
    given = names_given(context)
    idle = sorted(set(given) & set(_INSTRUMENT)) if options["sparsify"] == "none" else []
    if idle:
        names = ", ".join("--" + name.replace("_", "-") for name in idle)
        raise DissectError(f"--sparsify none wraps nothing; leave out {names}")
    if resume is not None:
        extra = set(given) - {"resume", "data_dir", "as_json", "quiet"}
        if extra:
            names = ", ".join(sorted("--" + e.replace("_", "-") if e != "model" else "MODEL" for e in extra))
            raise DissectError(f"--resume continues a run with its own spec; leave out {names}")
    elif model is None:
        raise DissectError("run needs a MODEL (see 'dissect models') or --resume RUN")
    from dissect.experiment.main import end_process, resume_run, start_run

    if resume is not None:
        start = resume_run(resume, str(data_dir.expanduser().resolve()) if data_dir else None, quiet)
    else:
        assert model is not None
        # Those that were given: the defaults shown are the spec's own, and not every model has a use for all.
        options = {k: v for k, v in options.items() if k in given}
        options["options"] = options.pop("more", {})
        options["data_dir"] = str(data_dir) if data_dir else None
        if dry_run:
            other = sorted({"init", "as_json", "force", "mask"} & set(given))
            if other:
                names = ", ".join("--" + name.removeprefix("as_") for name in other)
                raise DissectError(f"--dry-run only shows what would be wrapped; leave out {names}")
            from dissect.experiment.show import show_plan

            show_plan(model, options)
            return
        start = start_run(model, options, out=out, init=init, force=force, quiet=quiet, mask=mask)
    end_process()
    if as_json:
        click.echo(json.dumps(start))


@main.command()
def models() -> None:
    """List the models, their halves, parts and settings."""
    from dissect.experiment.show import show_models

    show_models()


@main.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Directory for the figure [default: figures/ of the first run]."
)
@click.option("--tensors/--no-tensors", default=True, help="Draw each tensor beside its part.")
def plot(runs: tuple[Path, ...], out: Path | None, tensors: bool) -> None:
    """Draw the densities of RUNS against training steps.

    One run is written as density.svg and .png; several are overlaid, as overlay.svg and .png.
    """
    from dissect.report.plot import write_density_figure

    for path in write_density_figure(list(runs), out, tensors=tensors):
        click.echo(path)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--rule", help="log-alpha, magnitude, signed or snr [default: the run's].")
@click.option("--threshold", type=float, help="[default: the run's, or the rule's own]")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Where data sets lie [default: as when RUN was made]."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File for the weights [default: RUN/pruned.safetensors by the run's own rule and threshold, which "
    "'recommend --pruned' uses; RUN/pruned-RULE-T.safetensors by others].",
)
@click.option(
    "--method",
    default="",
    help="As many weights of each part by another way: magnitude, magnitude-global, "
    "random, snr, log-alpha; or, training anew, l0 or imp.",
)
@click.option("--masks", type=click.Path(path_type=Path), metavar="FILE", help="Write the masks, for 'run --mask'.")
@click.option("--shrink", "shrunk", is_flag=True, help="Remove empty rows and columns, and measure what it saves.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds of imp.")
@click.option("--l0-lambda", "lam", type=float, default=1.0, show_default=True, help="Price of an open gate of l0.")
@click.option("--json", "as_json", is_flag=True, help="End with the counts and metrics as JSON on one line.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def prune(
    context: click.Context, run: Path, rule: str | None, threshold: float | None, data_dir: Path | None,
    out: Path | None, as_json: bool, method: str, masks: Path | None, shrunk: bool, rounds: int, lam: float,
    quiet: bool,
) -> None:  # fmt: skip
    """Prune RUN to a plain dense model, by its own rule or another, and test it."""
    trained = {"l0": ("rounds",), "imp": ("lam",)}
    other = ("rule", "threshold", "shrunk", *trained[method]) if method in trained else ("rounds", "lam")
    if idle := sorted(set(names_given(context)) & set(other)):
        names = ", ".join({"lam": "--l0-lambda", "shrunk": "--shrink"}.get(name, "--" + name) for name in idle)
        raise DissectError(f"prune --method {method or '(the rule)'} has no use for {names}")
    if method in trained:
        from dissect.controls.trained_masks import prune_by_training

        prune_by_training(
            run, method, rounds=rounds, lam=lam, out=out, data_dir=data_dir, masks=masks, quiet=quiet, as_json=as_json
        )
        return
    from dissect.experiment.prune import prune_run

    prune_run(run, rule, threshold, out, as_json, data_dir, method=method, masks=masks, shrunk=shrunk)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("items", nargs=-1, required=True)
@click.option("-k", "--top", default=20, show_default=True, type=click.IntRange(1), help="How many items.")
@click.option("--pruned", is_flag=True, help="With the weights pruned by the run's own rule.")
@click.option("--names", is_flag=True, help="ITEMS are names, those of the raw data; so are the items that come out.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Where data sets lie [default: as when RUN was made]."
)
def recommend(run: Path, items: tuple[str, ...], top: int, pruned: bool, names: bool, data_dir: Path | None) -> None:
    """Recommend the next items after a session of ITEMS, the oldest click first, as JSON.

    ITEMS are the data set's own ids. Of a prepared data set these are lines of its items.txt, counted from 0, or from 1
    where it is in SR-GNN's pickles; --names takes what stands there.
    """
    from dissect.experiment.use import recommend_items, recommend_names

    if names:
        found = recommend_names(run, list(items), top, pruned, data_dir=data_dir)
    else:
        given = [click.INT(item) for item in items]
        found = recommend_items(run, given, top, pruned, data_dir=data_dir)
    click.echo(json.dumps(found, ensure_ascii=False))
