"""The instrument that a spec asks for, on a model."""

from __future__ import annotations

import sys

import torch

from dissect.data import Dataset
from dissect.errors import DissectError
from dissect.experiment.held import deleted
from dissect.experiment.spec import Spec
from dissect.experiment.splits import Splits
from dissect.models import SessionModel, build
from dissect.sparsity import Instrument, resolve_parts, wrap
from dissect.sparsity.parts import choose_parts
from dissect.training.plan import Plan


def check_parts(spec: Spec) -> None:
    """Raise a DissectError, before anything is written, unless the parts to wrap exist and have weights."""
    if spec.counts:  # it has no parts
        return
    model = build(spec.recipe, items=1, dim=spec.dim)  # refuses options that don't fit
    if spec.delete:
        deleted(model, spec.delete)  # refuses what can't be
        both = choose_parts(model.parts(), [p.strip() for p in spec.delete.split(",")])
        both &= choose_parts(model.parts(), spec.which) if spec.sparse else set()
        if both:
            raise DissectError(
                f"--delete {spec.delete}: {', '.join(sorted(both))} would be wrapped too; leave it out of --sparsify, "
                "or use --sparsify none"
            )
    if spec.sparse and not any(resolve_parts(model, model.parts(), spec.which).values()):
        raise DissectError(
            f"--sparsify {spec.sparsify}: these parts of {spec.model!r} have no weights; use --sparsify none"
        )


def check_data(spec: Spec, splits: Splits, data: Dataset) -> None:
    """Raise a DissectError, before anything is written, unless the model takes these sessions, wrapped as asked."""
    if spec.options.get("intents") == "subsets" and data.longest > spec.options["levels"]:
        raise DissectError(
            f"{spec.model} takes a query from every subset of a session's items, 2^n of them, so sessions of at "
            f"most {spec.options['levels']}; the longest of {spec.dataset!r} has {data.longest}"
        )
    if not spec.sparse or not (spec.shadows or spec.noise == "row"):
        return
    with torch.random.fork_rng(devices=[]):
        model = build(spec.recipe, data.items, spec.dim, spec.sigma, data.longest)
        instrument = wrap(model, model.parts(), spec.which, examples=1, steps=1, noise=spec.noise, shadows=spec.shadows)
        lengths = splits.train.host_lengths
        few = torch.stack([lengths.argmax(), lengths.argmin(), torch.tensor(len(lengths) // 2)])
        batch = splits.train.batch(few)
        try:
            with instrument.drawing(batch):
                model(batch)
        except DissectError as error:
            asked = [f"--shadows {spec.shadows}"] * bool(spec.shadows) + ["--noise row"] * (spec.noise == "row")
            instead = ["leave out --shadows"] * bool(spec.shadows)
            instead += ["use --noise local or weight"] * (spec.noise == "row")
            raise DissectError(
                f"{' '.join(asked)}: {error}; {' and '.join(instead)}, or leave that layer's part out of --sparsify"
            ) from None


def instrument_of(model: SessionModel, spec: Spec, plan: Plan, splits: Splits) -> Instrument:
    """Wrap the parts that the spec names; weights that no forward pass calls are left out."""
    instrument = wrap(
        model, model.parts(), spec.which, examples=plan.examples, steps=plan.steps, noise=spec.noise,
        prior=spec.prior, log_sigma2=spec.log_sigma2, kl_scale=spec.kl_scale, warmup=spec.warmup,
        rule=spec.rule, threshold=spec.threshold, shadows=spec.shadows,
    )  # fmt: skip
    # The longest session: a readout may call some of its maps for long ones alone.
    longest = splits.train.host_lengths.argmax().reshape(1)
    probe = splits.train.batch(longest.to(splits.train.clicks.device))
    dead = instrument.check_dead(lambda: model(probe))
    if dead:
        instrument.exclude(dead)
        print(f"left out, never called in a forward pass: {', '.join(dead)}", file=sys.stderr)
    return instrument
