"""Commands on data sets: list, stats, convert, fetch, prepare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from dissect.cli.group import main
from dissect.cli.options import names_given
from dissect.errors import DissectError


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
@click.argument("source")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data sets lie (else DISSECT_DATA, cache).")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Draw NAME_stats.svg and .png there.")
@click.option("--json", "as_json", is_flag=True, help="As JSON on one line.")
def data_stats(source: str, data_dir: Path | None, out: Path | None, as_json: bool) -> None:
    """Print what a data set holds: the paper's Table 1, repeats, popularity, what test shares with training.

    SOURCE is the name or the folder of a data set, as for convert.
    """
    from dissect.experiment.show import show_stats

    show_stats(source, data_dir, as_json, out)


@data.command("convert")
@click.argument("source")
@click.option("--to", required=True, help="text, srgnn, inter, inter-sequence or parquet.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="A new or empty folder.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where data sets lie (else DISSECT_DATA, cache).")
def data_convert(source: str, to: str, out: Path, data_dir: Path | None) -> None:
    """Write SOURCE, the name or the folder of a data set, in another format.

    A folder holds all_train_seq.txt and test.txt (SR-GNN's pickles), train.txt and test.txt (text or pickles),
    sessions.txt, NAME.train.inter and NAME.test.inter, NAME.inter, train.parquet and test.parquet, or sessions.parquet.
    Times are columns, or lie beside text and pickles: train_timestamps.txt and test_timestamps.txt, or timestamps.txt
    beside sessions.txt. One file is split by the time of each session's last click, in its own order where it has no
    times. A raw log is first made a data set by prepare.

    What a format cannot hold (SR-GNN's pickles: test sessions of one click) is left out, and said.
    """
    from dissect.data.convert import convert

    for line in convert(source, to, out, data_dir):
        click.echo(line)


@data.command("fetch")
@click.argument("name")
@click.option("--raw", is_flag=True, help="The raw file, where NAME is a data set too.")
def data_fetch(name: str, raw: bool) -> None:
    """Download a data set, or a raw file to prepare one from, into the cache and check it.

    NAME is one of those that `dissect data list` shows, or a preparation. Prints where it lies; of a raw file the
    commands to run next as well. A download that broke off is gone on with by the same command.
    """
    from dissect.data.raw import next_commands
    from dissect.data.sources import fetch

    path = fetch(name, raw=raw, say=lambda line: click.echo(line, err=True))
    click.echo(path)
    if path.is_file():
        unpack, prepare = next_commands(name, path)
        for title, lines in (("unpack it with", unpack), ("prepare it with", prepare)):
            if lines:
                click.echo(f"{title}{', one of' if len(lines) > 1 else ''}:")
            for line in lines:
                click.echo(f"  {line}")


@data.command("prepare")
@click.argument("name", required=False)
@click.option("--raw", required=True, type=click.Path(path_type=Path), help="The raw file, packed or not.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option(
    "--columns",
    help="For a table of your own: session=NAME,item=NAME,time=NAME, or user= for session=; a comma in a name as \\,",
)
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

    extra = sorted(
        "--" + o.replace("_", "-") for o in {"columns", "gap", "test", "item_clicks"} & set(names_given(context))
    )
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
