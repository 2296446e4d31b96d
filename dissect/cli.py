"""The command line: parsing only. Heavy imports wait inside the commands, so that --help is instant."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dissect import __version__
from dissect.errors import DissectError

#: What click 8.2 and later raise where a command group is called bare: a usage error whose text is the whole help.
_BARE: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class _Main(click.Group):
    """Turns errors meant for the user into one line on stderr; --debug shows the traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        debug = "--debug" in sys.argv
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.Abort:
            click.echo("dissect: interrupted", err=True)
            sys.exit(130)
        except _BARE as error:
            click.echo(error.format_message())
            sys.exit(2)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "dissect"
            click.echo(f"{where}: {' '.join(error.format_message().split())} (see {where} --help)", err=True)
            sys.exit(2)
        except click.ClickException as error:
            click.echo(f"dissect: {error.format_message()}", err=True)
            sys.exit(2)
        except DissectError as error:
            if debug:
                raise
            # Of several processes each fails for the same wrong use: one says so. A failed run each says for itself.
            if error.status == 1 or os.environ.get("RANK", "0") == "0":
                click.echo(f"dissect: {' '.join(str(error).split())}", err=True)
            sys.exit(error.status)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            if debug:
                raise
            text = " ".join(str(error).split())
            click.echo(f"dissect: {type(error).__name__}: {text} (--debug shows where)", err=True)
            sys.exit(1)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dissect")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Which parts of a session-based recommender does its accuracy need?

    \b
    dissect run srgnn                          on a data set made on the spot
    dissect run srgnn --dataset diginetica     on real data
    dissect plot runs/RUN                      the density figure again
    """


def _options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


#: Options of the instrument, which a dense run has not.
_INSTRUMENT = ("prior", "noise", "rule", "threshold", "kl_scale", "warmup", "lr_sigma", "shadows")
#: Options that a sweep over sizes passes on.
_SWEPT = (
    "encoder", "readout", "scorer", "precision", "device", "sigma", "levels", "heads", "p", "more", "item_dropout",
)  # fmt: skip


def _given(context: click.Context) -> list[str]:
    """Parameters that stand on the command line."""
    source = click.core.ParameterSource.COMMANDLINE
    return [name for name in context.params if context.get_parameter_source(name) == source]


def _pairs(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """``NAME=VALUE`` pairs as a mapping."""
    pairs = [pair.partition("=") for pair in given]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise click.BadParameter(f"{name + equals + value!r} is not NAME=VALUE", context, parameter)
    return {name.replace("-", "_"): value for name, _, value in pairs}


def _model_options(sparsify: str, about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return _options(
    click.option("--dataset", default="demo", show_default=True, help="Name of a data set; see 'dissect data list'."),
    click.option("--data-dir", type=click.Path(path_type=Path), help="Where data sets lie (else DISSECT_DATA, cache)."),
    click.option("--encoder", help="Swap the recipe's encoder; see 'dissect models'."),
    click.option("--readout", help="Swap the recipe's readout."),
    click.option("--scorer", help="Swap the recipe's scorer: dot, cosine, centred or unit-items."),
    click.option("--dim", type=int, help="Width d [default: the recipe's]."),
    click.option("--sigma", type=float, help="Scale of a scorer of unit items [default: the recipe's]."),
    click.option("--levels", type=int, help="Atten-Mixer's L [default: the recipe's]."),
    click.option("--heads", type=int, help="Atten-Mixer's H, which divides d [default: the recipe's]."),
    click.option("--p", type=float, help="Atten-Mixer's exponent of the mixture [default: the recipe's]."),
    click.option("--option", "more", multiple=True, metavar="NAME=VALUE", callback=_pairs,
                 help="Another option of a half or control; 'dissect models' lists them. May be given again."),
    click.option("--item-dropout", type=float, help="Dropout of the item table [default: the recipe's]."),
    click.option("--setting", default="published", show_default=True,
                 help="published: each model's own; paper: d 256, batch 100 for all."),
    click.option("--batch-size", type=int, help="[default: the recipe's]"),
    click.option("--sparsify", default=sparsify, show_default=True, metavar="all|none|gnn|readout|PART[,PART]",
                 help=about),
    click.option("--noise", default="local", show_default=True,
                 help="local: per row; row: per session; weight: one draw a step."),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."),
)  # fmt: skip


@main.command()
@click.argument("model", required=False)
@_model_options("all", "Which parts to wrap in sparse variational dropout.")
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
@click.option("--epochs", type=int, default=10, show_default=True)
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps in all; outranks --epochs.")
@click.option("--lr", type=float, help="[default: the recipe's]")
@click.option("--lr-step", type=int, help="Epochs between decays of the rate [default: the recipe's].")
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
    given = _given(context)
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


@main.group()
def data() -> None:
    """List, describe, fetch and prepare data sets."""


@data.command("list")
@click.option("--data-dir", type=click.Path(path_type=Path))
def data_list(data_dir: Path | None) -> None:
    """List the data sets and where each is found."""
    from dissect.experiment.show import show_data

    show_data(data_dir)


@data.command("stats")
@click.argument("name")
@click.option("--data-dir", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Draw NAME_stats.svg and .png there.")
@click.option("--json", "as_json", is_flag=True, help="As JSON on one line.")
def data_stats(name: str, data_dir: Path | None, out: Path | None, as_json: bool) -> None:
    """Print what a data set holds: the paper's Table 1, repeats, popularity, what test shares with training."""
    from dissect.experiment.show import show_stats

    show_stats(name, data_dir, as_json, out)


@data.command("convert")
@click.argument("source")
@click.option("--to", required=True, help="text, srgnn, inter, inter-sequence or parquet.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="A new or empty folder.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data sets lie (else DISSECT_DATA, cache).")
def data_convert(source: str, to: str, out: Path, data_dir: Path | None) -> None:
    """Write SOURCE, the name or the folder of a data set, in another format.

    What a format cannot hold (SR-GNN's pickles: times) is left out, and said.
    """
    from dissect.data.convert import convert

    for line in convert(source, to, out, data_dir):
        click.echo(line)


@data.command("fetch")
@click.argument("name")
def data_fetch(name: str) -> None:
    """Download a data set into the cache and check it."""
    from dissect.data.sources import fetch

    click.echo(fetch(name))


@data.command("prepare")
@click.argument("name", required=False)
@click.option("--raw", required=True, type=click.Path(path_type=Path), help="The raw file, packed or not.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option("--columns", help="For a table of your own: session=NAME,item=NAME,time=NAME, or user= for session=.")
@click.option("--gap", help="With user=: the gap that ends a session, such as 30m, 8h, 1d.")
@click.option("--test", default="20%", show_default=True, help="With --columns: share or time (7d) for testing.")
@click.option("--item-clicks", type=int, default=5, show_default=True, help="With --columns: fewest clicks of an item.")
@click.option("--force", is_flag=True, help="Replace an earlier preparation in the folder.")
@click.option("--json", "as_json", is_flag=True, help="End with the account as JSON on one line.")
@click.pass_context
def data_prepare(
    context: click.Context,
    name: str | None,
    raw: Path,
    out: Path,
    columns: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a data set of a raw file: CSV, TSV or Parquet, plain or in gz, zip or tar.gz.

    NAME is one of diginetica, diginetica-lessr, gowalla, lastfm, yoochoose1_4, yoochoose1_64, retailrocket, tmall,
    nowplaying; any other table is described by --columns. Prints what every rule leaves, and keeps it with versions
    and hashes in preparation.json.
    """
    from dissect.data.prepare.own import own
    from dissect.data.prepare.prepare import prepare
    from dissect.data.prepare.recipes import recipe

    extra = sorted("--" + o.replace("_", "-") for o in {"columns", "gap", "test", "item_clicks"} & set(_given(context)))
    if name is not None and extra:
        raise DissectError(f"{', '.join(extra)}: for tables of your own; leave out the name {name}")
    if columns is None:
        rules = recipe(name or "")
    else:
        rules = own(columns, **options)
    report = prepare(rules, raw, out, click.echo, force)
    click.echo(f"{out}: run on it with --dataset {out.absolute().name} --data-dir {out.absolute().parent}")
    if as_json:
        click.echo(json.dumps(report))


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
    if idle := sorted(set(_given(context)) & set(other)):
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
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--baseline", type=click.Path(path_type=Path), metavar="RUN", help="One of RUNS [default: the first].")
@click.option("--metrics", default="hr@20,mrr@20", show_default=True, help="hr@K, mrr@K or ndcg@K, joined by commas.")
@click.option("--format", "how", default="text", show_default=True, help="text, markdown or latex.")
@click.option("--resamples", type=click.IntRange(100), default=2000, show_default=True, help="Of the test sessions.")
@click.option("--by", metavar="WHAT", help="Within groups of test examples: by length, popularity, repeat or day.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data sets lie, for --by on older records.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the tables there instead.")
@click.option("--json", "as_json", is_flag=True, help="End with the comparison as JSON on one line of stdout.")
def compare(
    runs: tuple[Path, ...], baseline: Path | None, metrics: str, how: str, resamples: int, out: Path | None,
    as_json: bool, by: str | None, data_dir: Path | None,
) -> None:  # fmt: skip
    """Compare finished RUNS on the same test examples; runs that differ in their seed alone are one row.

    The first row is the baseline. Differences to it have an interval over test sessions, and a p across seeds.
    """
    from dissect.report.layout import compare_command

    def lookup(run: Any, name: str) -> Any:
        from dissect.experiment.strata import look_up

        return look_up(run, name, data_dir)

    if by is None and data_dir is not None:
        raise DissectError("--data-dir is for --by; leave it out")
    for text in compare_command(runs, baseline, metrics, how, resamples, out, as_json, by, lookup):
        click.echo(text)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--variant", default="small", show_default=True, help="small: for a CPU; full: the paper's setting.")
@click.option("--budget", metavar="TIME", help="Stop after 90s, 8m or 2h; the same command goes on later.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Directory for run folders; the table goes to OUT/suites.",
)
@click.option(
    "--records", type=click.Path(path_type=Path), help="Where finished records lie too [default: ../records from FILE]."
)
@click.option("--keep", is_flag=True, help="Copy each finished run, without weights, into the records.")
@click.option("--seed", "seeds", type=int, multiple=True, help="Run only this seed; may be given again.")
@click.option("--precision", help="Of every run's matrix products, instead of FILE's: fp32 or bf16.")
@click.option("--dry-run", is_flag=True, help="List the runs, and which are recorded.")
@click.option("--format", "how", default="text", show_default=True, help="Of the table: text, markdown or latex.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data sets lie (else DISSECT_DATA, cache).")
@click.option("--device", help="auto, cpu, cuda or mps.")
@click.option("--quiet", is_flag=True, help="No progress.")
def suite(file: Path, data_dir: Path | None, **options: Any) -> None:
    """Run what FILE lists and is not recorded yet, most important first, and print one table."""
    from dissect.experiment.suite_run import suite_command

    left = suite_command(file, data_dir=str(data_dir.expanduser().resolve()) if data_dir else None, **options)
    if left:
        sys.exit(1)


@main.command()
@click.argument("model")
@_model_options("none", "Wrap these parts in each trial; its value is then that of its last epoch.")
@click.option("--epochs", type=int, default=10, show_default=True, help="Of a trial that is not pruned.")
@click.option("--max-train", type=int, help="Train on a random subset of that many training sessions.")
@click.option("--max-valid", type=int, help="Validate on a random subset of that many validation sessions.")
@click.option("--precision", default="fp32", show_default=True, help="Factors of matrix products: fp32 or bf16.")
@click.option(
    "--space",
    multiple=True,
    metavar="FIELD=LOW:HIGH[:log]|FIELD=A,B,...",
    help="Search this instead of the range by default; may be given again.",
)
@click.option(
    "--fix",
    multiple=True,
    metavar="FIELD=VALUE",
    callback=_pairs,
    help="Don't search this, as lr=0.001; may be given again. What has an option here is fixed by it too.",
)
@click.option(
    "--metric", default="mrr@20", show_default=True, help="To maximise on validation: hr@K, mrr@K, ndcg@K; K 5, 10, 20."
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Finished trials of the whole study, over all its workers.",
)
@click.option(
    "--startup",
    type=click.IntRange(1),
    help="Trials at random before TPE, and complete ones before one is pruned [default: a third, at most 10].",
)
@click.option(
    "--storage", metavar="ADDRESS", help="Any SQLAlchemy address, for many machines [default: a file in OUT/sweeps]."
)
@click.option(
    "--heartbeat",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    metavar="SECONDS",
    help="Between a worker's signs of life; after four without one its trial is given to another.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="The study's folder goes to OUT/sweeps.",
)
@click.option("--json", "as_json", is_flag=True, help="End with best.json's content on one line of stdout.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def sweep(
    context: click.Context, model: str, space: tuple[str, ...], fix: dict[str, str], metric: str, trials: int,
    startup: int | None, storage: str | None, heartbeat: int, out: Path, data_dir: Path | None, as_json: bool,
    quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Search MODEL's choices on validation by TPE, stopping trials below the median; the test set is not ranked.

    The same command, started again or several times at once, on one machine or many, goes on with the same study.
    """
    if options["sparsify"] == "none" and "noise" in _given(context):
        raise DissectError("--sparsify none wraps nothing; leave out --noise")
    from dissect.experiment.sweep import sweep_command

    given = {name: value for name, value in options.items() if value is not None}
    given |= {"options": given.pop("more"), "data_dir": str(data_dir) if data_dir else None}
    found = sweep_command(
        model, trials=trials, metric=metric, space=space, fix=fix, storage=storage, startup=startup,
        heartbeat=heartbeat, out=out, quiet=quiet, options=given,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--retrain",
    default="",
    metavar="all|NAME[,NAME]",
    help="Trainings to add: delete (each part), mask, random, swap; each is a run of its own.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Directory for those [default: where RUN lies].")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data sets lie [default: as for RUN].")
@click.option("--resamples", type=click.IntRange(100), default=2000, show_default=True, help="Of the test sessions.")
@click.option("--json", "as_json", is_flag=True, help="End with the table as JSON on one line of stdout.")
@click.option("--quiet", is_flag=True, help="No progress.")
def intervene(run: Path, retrain: str, **options: Any) -> None:
    """Zero, bypass or delete each part of RUN, and shuffle its graphs: is a part needed?"""
    from dissect.controls.intervene import intervene_run

    intervene_run(run, retrain, **options)


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
    idle = sorted(set(_given(context)) & set(other))
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


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("items", nargs=-1, required=True, type=int)
@click.option("-k", "--top", default=20, show_default=True, type=click.IntRange(1), help="How many items.")
@click.option("--pruned", is_flag=True, help="With the weights pruned by the run's own rule.")
def recommend(run: Path, items: tuple[int, ...], top: int, pruned: bool) -> None:
    """Recommend the next items after a session of ITEMS (the data set's own ids), as JSON."""
    from dissect.experiment.use import recommend_items

    click.echo(json.dumps(recommend_items(run, list(items), top, pruned)))


@main.command()
@click.argument("model", default="srgnn")
@_model_options("none", "Wrap these parts; the dense step is then timed too, alternating.")
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
        extra = set(_given(context)) - {"model", "sweep", "out", "as_json", *_SWEPT}
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
