"""What `dissect models`, `dissect data` and `dissect run --dry-run` print."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dissect.models import ENCODERS, READOUTS, RECIPES, SCORERS, Recipe, build, encoder_options_of, options_of
from dissect.models.counting import COUNTING, counting_options


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)


def _listed(modules: Sequence[str]) -> str:
    """Names, joined; those that differ in their numbers alone stand once, as ``blocks.*.conv1``."""
    return ", ".join(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in modules))


def _setting(recipe: Recipe) -> tuple[str, ...]:
    """What a recipe's authors published, but for options: those are listed further down."""
    r = recipe
    schedule = "constant" if r.lr_gamma == 1 else f"x{r.lr_gamma:g} every {r.lr_step} epochs"
    others = [f"sigma {r.sigma:g}"] if r.scorer != "dot" else []
    others += [f"item dropout {r.item_dropout:g}"] if r.item_dropout else []
    others += [f"last {r.window} clicks"] if r.window else []
    others += [f"start {r.start}"] if r.start != "uniform" else []
    others += [f"items' norm at most {r.max_norm:g}"] if r.max_norm else []
    return (
        str(r.dim), str(r.batch_size), f"{r.optimizer} {r.lr:g}", schedule, f"{r.weight_decay:g}", ", ".join(others),
    )  # fmt: skip


def show_models() -> None:
    """Print the recipes, then the halves that any recipe can be given."""
    from rich.markup import escape
    from rich.table import Table

    console = _console()
    table = Table(title="models", title_justify="left")
    for name in ("model", "encoder", "readout", "scorer", "what"):
        table.add_column(name)
    settings = Table(title="published settings (--setting paper: d 256, batch 100, Adam for all)", title_justify="left")
    for name in ("model", "d", "batch", "optimizer, rate", "schedule", "decay", "others"):
        settings.add_column(name)
    for name, r in RECIPES.items():
        table.add_row(name, r.encoder, r.readout, r.scorer, escape(r.about))
        settings.add_row(name, *_setting(r))
    console.print(table)
    console.print(settings)
    controls = Table(title="controls (they count, nothing is trained: nothing to wrap)", title_justify="left")
    for name in ("model", "options", "what"):
        controls.add_column(name)
    for name, kind in COUNTING.items():
        options = ", ".join(f"{option}={value}" for option, value in counting_options(name).items())
        controls.add_row(name, options, (kind.__doc__ or "").splitlines()[0])
    console.print(controls)
    parts = Table(title="parts (what --sparsify can name)", title_justify="left")
    for name in ("model", "part", "modules"):
        parts.add_column(name)
    for name in RECIPES:
        for part, modules in build(name, items=2).parts().items():
            parts.add_row(name, part, _listed(modules) or "no parameters")
    console.print(parts)
    console.print("a part without parameters can't be wrapped: a model of such parts alone takes --sparsify none")
    console.print("aliases: gnn = propagation, combination; readout = attention, transformation")
    for half, names, of in (("readout", READOUTS, options_of), ("encoder", ENCODERS, encoder_options_of)):
        for name in names:
            if options := of(name):
                listed = ", ".join(f"{option}={value}" for option, value in options.items())
                console.print(f"options of the {half} {name}: {listed}", highlight=False)
    for half, names in (("encoder", ENCODERS), ("readout", READOUTS)):
        console.print(f"--{half}: {', '.join(names)}")
    console.print("--scorer, of a query q and the item table's rows e:")
    for name, formula in SCORERS.items():
        console.print(f"  {name}: {escape(formula)}", highlight=False)


def show_data(data_dir: Path | None) -> None:
    """Print the known data sets and where each was found."""
    from rich.table import Table

    from dissect.data.sources import available

    rows = available(data_dir)
    table = Table(title="data sets", title_justify="left")
    for name in ("name", "what", "where", "items", "sessions"):
        table.add_column(name, overflow="fold")
    for row in rows:
        sizes = (f"{n:,}" if n is not None else "" for n in (row.items, row.sessions))
        table.add_row(row.name, row.description, str(row.where), *sizes)
    _console().print(table)


#: What `dissect data stats` prints: a heading, then each number's name and its label.
STATS = {
    "as in the paper's Table 1 (training and test)": {
        "all_clicks": "clicks",
        "all_prefixes": "sessions, each prefix counted as one",
        "items": "items",
        "average_length": "average length",
    },
    "training": {
        "sessions": "sessions",
        "clicks": "clicks",
        "train_prefixes": "prefixes",
        "items_in_training": "items",
        "mean_length": "mean length",
        "median_length": "median length",
        "max_length": "longest",
        "repeated_sessions": "sessions that repeat an earlier one",
    },
    "repeats within a session": {
        "share_distinct": "share of sessions whose items are all distinct",
        "share_with_repeats": "share of sessions with a repeat",
        "repeat_rate": "repeat rate: share of clicks after the first on an item seen before",
        "repeated_targets": "test examples whose target stands in their prefix",
    },
    "popularity in training": {
        "gini": "Gini coefficient",
        "most_popular_share": "share of clicks on the most popular item",
        "top_1_percent_share": "share of clicks on the top 1% of items",
        "top_10_percent_share": "share of clicks on the top 10% of items",
    },
    "test, and what it shares with training": {
        "test_sessions": "sessions",
        "test_prefixes": "examples",
        "repeated_examples": "examples that are training examples too",
        "test_sessions_in_training": "sessions that are training sessions too",
        "test_items": "items",
        "test_items_unseen": "items that training never shows (kept)",
        "unseen_targets": "examples whose target training never shows (kept: each is a miss)",
        "unseen_items_dropped": "dropped in preparation: items that training never shows",
        "unseen_clicks_dropped": "dropped in preparation: clicks on these items",
        "test_sessions_dropped": "dropped in preparation: sessions left with fewer than 2 clicks",
    },
}


def show_stats(source: str, data_dir: Path | None, as_json: bool, out: Path | None = None) -> None:
    """Print what a data set holds, given by its name or its folder; with `out` also draw it there."""
    from dissect.data import load
    from dissect.data.convert import named_folder
    from dissect.data.layouts import read, split_rule
    from dissect.data.summary import curves, dropped, stats

    layout = named_folder(source, data_dir)
    if layout is None:
        dataset = load(source, data_dir=data_dir)
    else:
        dataset = read(layout, layout.train.parent.resolve().name, layout.sha256())
    found = stats(dataset) | dropped(Path(dataset.source))
    rule = split_rule(dataset.source)
    written = []
    if out is not None:
        from dissect.report.data_figure import write_stats_figure

        written = write_stats_figure(dataset.name, found, curves(dataset), out)
    if as_json:
        print(json.dumps(found if rule is None else {**found, "test_part": rule}))
        return
    width = max(len(label) for labels in STATS.values() for label in labels.values())
    for heading, labels in STATS.items():
        print(heading)
        for key, label in labels.items():
            if (value := found.get(key)) is not None:  # what was dropped is known of a prepared data set alone
                number = f"{value:>12,}" if isinstance(value, int) else f"{value:>12,.4g}"
                print(f"  {label:{width}}  {number}")
    if rule is not None:
        print(f"the test part is {rule}")
    for path in written:
        print(path)


def show_plan(model: str, options: dict[str, Any]) -> None:
    """Print what a run would wrap: calls, shapes and dead weights of every part, and how long it would train."""
    import math

    import torch

    from dissect.data import load
    from dissect.experiment.instrument import check_data, check_parts
    from dissect.experiment.machine import pick_device
    from dissect.experiment.spec import Spec
    from dissect.experiment.splits import make_splits
    from dissect.sparsity import dry_run

    spec = Spec.create(model, **options)
    check_parts(spec)
    pick_device(spec.device)  # refuses what is not there
    data = load(spec.dataset, data_dir=spec.data_dir or None)
    splits = make_splits(data, spec, torch.device("cpu"))
    check_data(spec, splits, data)
    net = build(spec.recipe, data.items, spec.dim, spec.sigma, data.longest)
    longest = splits.train.batch(splits.train.host_lengths.argmax().reshape(1))
    print(f"one forward pass of a session of {int(longest.lengths[0])} clicks:")
    which = spec.which if spec.sparse else "all"
    print(dry_run(net, net.parts(), which, lambda: net(longest)))
    if not spec.sparse:
        print("--sparsify none: nothing would be wrapped")
    if spec.delete:
        print(f"--delete: the weights of {spec.delete} would be held at zero")
    per_epoch = math.ceil(len(splits.train) / spec.batch_size)
    print(
        f"{len(splits.train):,} training examples, {per_epoch:,} steps an epoch, "
        f"{spec.steps or spec.epochs * per_epoch:,} steps; run id {spec.run_id(data.sha256)}"
    )
