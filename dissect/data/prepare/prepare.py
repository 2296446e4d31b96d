"""The whole way: raw file, clicks, rules, split, files, and the account of it."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from dissect import __version__
from dissect.data.download import record_of, recorded_sha256
from dissect.data.prepare.archive import size_and_sha256, unpacked
from dissect.data.prepare.read import Raw, read
from dissect.data.prepare.recipes import Recipe
from dissect.data.prepare.split import LastShare, divide, in_time_order, known, numbers, renumber, tail
from dissect.data.prepare.steps import Counts, Items, Repeat, Sessions, Sort
from dissect.data.prepare.write import PREPARATION, common_files, new_folder, srgnn_files, text_files, write_files
from dissect.errors import DissectError

#: 2: `columns` are those that were used; rules that are repeated have their passes; versions of Python and pyarrow.
SCHEMA = 2


class _Account:
    """What has been done so far: told line by line, kept for the record."""

    def __init__(self, shown: str, say: Callable[[str], None]) -> None:
        self.shown, self.say = shown, say
        self.steps: list[dict[str, Any]] = []

    def add(
        self,
        text: str,
        before: Counts | None,
        after: Counts,
        more: Mapping[str, int] | None = None,
        advice: str = "",
        taken: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """Note a step's effect.

        Parameters
        ----------
        text : str
            The rule.
        before, after : Counts
            What there was and is.
        more : mapping, optional
            Other numbers.
        advice : str
            What to add to the error where nothing is left.
        taken : mapping, optional
            What each of several rules took.

        Raises
        ------
        DissectError
            If it has left nothing.
        """
        if not after.clicks:
            had = f", of {before.clicks:,} clicks" if before else ""
            raise DissectError(f"{self.shown}: nothing is left after the rule '{text}'{had}{advice}")
        then, now = (before.as_dict() if before else {}), after.as_dict()
        self.steps.append({"step": text, **({"before": then} if before else {}), "after": now, **(more or {})})
        if taken:
            self.steps[-1]["taken"] = taken
        changes = [
            f"{name} {then[name]:,} -> {count:,}" if then.get(name, count) != count else f"{name} {count:,}"
            for name, count in now.items()
        ]
        notes = "".join(f"; {name.replace('_', ' ')} {value:,}" for name, value in (more or {}).items())
        self.say(f"  {text}: {', '.join(changes)}{notes}")
        for rule, sums in (taken or {}).items():
            self.say(f"    taken by {rule}: " + ", ".join(f"{name} {count:,}" for name, count in sums.items()))


def prepare(
    recipe: Recipe, raw: Path, out: Path, say: Callable[[str], None], force: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Make a data set of a raw file.

    The same file gives the same bytes. `out` is there as a whole at the end, or not at all.

    Parameters
    ----------
    recipe : Recipe
        The rules.
    raw : Path
        Text, Parquet, or an archive with one in it.
    out : Path
        The folder to make.
    say : callable
        Told every step's effect, in a line.
    force : bool, default False
        Replace an earlier preparation.
    quiet : bool, default False
        Show no progress on stderr.

    Returns
    -------
    dict
        What is kept in ``preparation.json``.

    Raises
    ------
    DissectError
        If the raw file is not as it should be, a rule leaves nothing, or the disk is too small.
    """
    size, sha256 = size_and_sha256(raw, quiet)
    first = recorded_sha256(raw)
    if first and first != sha256:
        raise DissectError(
            f"{raw}: SHA-256 {sha256[:12]}…, but {record_of(raw).name} beside it says {first[:12]}…: the file has "
            "changed since it was downloaded; fetch it again, or remove that record"
        )
    say(f"{recipe.name} from {raw} ({size:,} bytes, SHA-256 {sha256[:16]})")
    with new_folder(out, force) as scratch:
        with unpacked(raw, recipe.table.member, scratch, quiet) as (path, shown):
            data = read(path, shown, recipe.table, quiet)
        account = _Account(shown, say)
        clicks = _filtered(recipe, data, account)
        train, test, numbers = _split(recipe, clicks, account)
        files, parts = _files(recipe, train, test, numbers, data.items, account)
        report = {
            "schema": SCHEMA,
            "name": recipe.name,
            "input": {
                "file": raw.name,
                "bytes": size,
                "sha256": sha256,
                "columns": data.columns,
                "times": data.times,
            },
            "steps": account.steps,
            **parts,
            "versions": {
                "dissect": __version__,
                "python": platform.python_version(),
                "polars": pl.__version__,
                "pyarrow": pa.__version__,
                "numpy": np.__version__,
            },
            "output": write_files(scratch / "result", files, out),
        }
        write_files(scratch / "result", {PREPARATION: (json.dumps(report, indent=1) + "\n").encode()}, out)
    return report


def _filtered(recipe: Recipe, data: Raw, account: _Account) -> pl.DataFrame:
    """The clicks that the recipe's rules leave."""
    clicks = data.clicks
    left_out = {f"rows_without_{role}": count for role, count in data.dropped.items()}
    blank = {"blank_lines": data.blank} if data.blank else {}
    before = Counts.of(clicks)
    account.add(f"{data.rows:,} rows read", None, before, {**left_out, **blank})
    for step in recipe.steps:
        if isinstance(step, Repeat):
            clicks, before = _repeated(recipe, step, clicks, before, account)
            continue
        more = {"clicks_out_of_order": step.out_of_order(clicks)} if isinstance(step, Sort) else {}
        clicks = step.apply(clicks)
        after = Counts.of(clicks)
        account.add(step.text, before, after, more)
        before = after
    return clicks


def _repeated(
    recipe: Recipe, step: Repeat, clicks: pl.DataFrame, before: Counts, account: _Account
) -> tuple[pl.DataFrame, Counts]:
    """The clicks that repeated rules leave, and what they amount to; the account tells what each rule took."""
    passes = step.run(clicks)
    taken = {rule.text: sums for rule, sums in zip(step.steps, passes.taken, strict=True)}
    advice = ""
    if passes.emptied is not None:
        advice = f": in pass {passes.number} '{passes.emptied.text}' took the last"
        by_items = any(taken[rule.text]["clicks"] for rule in step.steps if isinstance(rule, Items))
        if recipe.name == "own" and by_items:
            advice += "; choose a smaller --item-clicks"
    after = Counts.of(passes.clicks)
    account.add(step.text, before, after, {"passes": passes.number}, advice, taken)
    return passes.clicks, after


def _split(recipe: Recipe, clicks: pl.DataFrame, account: _Account) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Training and test clicks in their final order with the numbers of their items, and these numbers."""
    train, test = divide(clicks, recipe.split)
    whole, first, last = Counts.of(clicks), Counts.of(train), Counts.of(test)
    own = recipe.name == "own"
    if isinstance(recipe.split, LastShare) and not last.clicks:
        number, share = whole.sessions or 0, f"{recipe.split.share * 100:g}%"
        least = f"choose {math.ceil(100 / number)}% or more" if number > 1 else "there must be 2 or more"
        where, remedy = (f"--test {share}", f"; {least}") if own else ("test part", "")
        raise DissectError(
            f"{account.shown}: {where}: {share} of {number:,} session{'s' * (number != 1)} round down to 0{remedy}"
        )
    advice = "; choose a shorter --test" if own else ""
    account.add(f"training part ({recipe.split.text})", whole, first, advice=advice)
    account.add("test part", whole, last)
    for text, left in (
        ("test clicks on items that training shows", known(test, train)),
        ("of these, sessions of 2 clicks or more", Sessions(2).apply(known(test, train))),
    ):
        now = Counts.of(left)
        account.add(text, last, now)
        test, last = left, now
    if recipe.number == "rows":
        items = numbers(train)
        train = in_time_order(train, recipe.split)
    else:
        train = in_time_order(train, recipe.split)
        items = numbers(train)
    return renumber(train, items), renumber(in_time_order(test, recipe.split), items), items


def _files(
    recipe: Recipe,
    train: pl.DataFrame,
    test: pl.DataFrame,
    items: pl.DataFrame,
    names: pl.Series,
    account: _Account,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files' content, and what the two parts amount to."""
    before = Counts.of(train)
    train, prefixes = tail(train, recipe.part)
    if not prefixes:
        raise DissectError(
            f"{account.shown}: the last 1/{recipe.part} of {before.clicks:,} training clicks is no prefix"
        )
    if recipe.part > 1:
        targets = test.filter(pl.int_range(pl.len()).over("session") > 0)
        new = len(targets) - len(known(targets, train))
        text = f"sessions of the last 1/{recipe.part} of the training prefixes"
        account.add(text, before, Counts.of(train), {"test_targets_new_to_it": new})
    if recipe.layout == "srgnn":
        files = srgnn_files(train, test, len(items), prefixes)
    else:
        files = text_files(train, test, len(items))
    parts: dict[str, Any] = {"items": len(items)}
    for name, part in (("train", train), ("test", test)):
        counts = Counts.of(part).as_dict()
        counts["prefixes"] = prefixes if part is train else counts["clicks"] - counts["sessions"]
        parts[name] = counts
        account.say(f"{name}: " + ", ".join(f"{key} {count:,}" for key, count in counts.items()))
    parts["clicks"] = parts["train"]["clicks"] + parts["test"]["clicks"]
    account.say(f"together: items {parts['items']:,}, clicks {parts['clicks']:,}")
    return {**files, **common_files(train, test, names.gather(items["item"]))}, parts
