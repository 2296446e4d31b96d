"""Commands on many runs: compare, suite, sweep."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from dissect.cli.group import main
from dissect.cli.options import model_options, name_value_pairs, names_given
from dissect.errors import DissectError


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
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@model_options("none", "Wrap these parts in each trial; its value is then that of its last epoch.")
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
    callback=name_value_pairs,
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
    help="Finished trials of a whole study, over all its workers.",
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
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="End with best.json's content on one line of stdout; of several models a list.",
)
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def sweep(
    context: click.Context, models: tuple[str, ...], space: tuple[str, ...], fix: dict[str, str], metric: str,
    trials: int, startup: int | None, storage: str | None, heartbeat: int, out: Path, data_dir: Path | None,
    as_json: bool, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Search MODEL's choices on validation by TPE, stopping trials below the median; the test set is not ranked.

    Several models are searched one after the other, each in a study of its own, with as many trials each.
    The same command, started again or several times at once, on one machine or many, goes on with the same study.
    """
    if options["sparsify"] == "none" and "noise" in names_given(context):
        raise DissectError("--sparsify none wraps nothing; leave out --noise")
    from dissect.experiment.sweep import sweep_command

    given = {name: value for name, value in options.items() if value is not None}
    given |= {"options": given.pop("more"), "data_dir": str(data_dir) if data_dir else None}
    found = sweep_command(
        models, trials=trials, metric=metric, space=space, fix=fix, storage=storage, startup=startup,
        heartbeat=heartbeat, out=out, quiet=quiet, options=given,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found if len(models) > 1 else found[0]))
