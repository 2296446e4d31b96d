"""Options and their handling that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def _options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


def names_given(context: click.Context) -> list[str]:
    """Parameters that stand on the command line."""
    source = click.core.ParameterSource.COMMANDLINE
    return [name for name in context.params if context.get_parameter_source(name) == source]


def name_value_pairs(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """``NAME=VALUE`` pairs as a mapping."""
    pairs = [pair.partition("=") for pair in given]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise click.BadParameter(f"{name + equals + value!r} is not NAME=VALUE", context, parameter)
    return {name.replace("-", "_"): value for name, _, value in pairs}


def model_options(sparsify: str, about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options that choose data, model, parts and device.

    Parameters
    ----------
    sparsify : str
        What ``--sparsify`` is where it is not given.
    about : str
        Its help.
    """
    return _options(
    click.option("--dataset", default="demo", show_default=True, help="Name of a data set; see 'dissect data list'."),
    click.option("--data-dir", type=click.Path(path_type=Path), help="Where data sets lie (else DISSECT_DATA, cache)."),
    click.option("--encoder", help="Swap the recipe's encoder, not its way of training; see 'dissect models'."),
    click.option("--readout", help="Swap the recipe's readout, not its way of training."),
    click.option("--scorer", help="Swap the scorer: dot, cosine, centred or unit-items; see 'dissect models'."),
    click.option("--dim", type=int, help="Width d [default: the recipe's]."),
    click.option("--sigma", type=float, help="Scale of a scorer of unit items [default: the recipe's]."),
    click.option("--levels", type=int, help="Atten-Mixer's L [default: the recipe's]."),
    click.option("--heads", type=int, help="Atten-Mixer's H, which divides d [default: the recipe's]."),
    click.option("--p", type=float, help="Atten-Mixer's exponent of the mixture [default: the recipe's]."),
    click.option("--option", "more", multiple=True, metavar="NAME=VALUE", callback=name_value_pairs,
                 help="Another option of a half or control; 'dissect models' lists them. May be given again."),
    click.option("--item-dropout", type=float, help="Dropout of the item table [default: the recipe's]."),
    click.option("--setting", default="published", show_default=True,
                 help="published: each model's own; paper: d 256, batch 100, Adam for all."),
    click.option("--batch-size", type=int, help="[default: the recipe's]"),
    click.option("--sparsify", default=sparsify, show_default=True, metavar="all|none|gnn|readout|PART[,PART]",
                 help=about),
    click.option("--noise", default="local", show_default=True,
                 help="local: per row; row: per session; weight: one draw a step."),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."),
)  # fmt: skip
