"""A data set's splits, as examples on a device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dissect.batch import PackedExamples
from dissect.data import Dataset, Examples, Sessions, expand, split_validation, subset
from dissect.errors import DissectError
from dissect.experiment.spec import Spec


@dataclass
class Splits:
    """The three splits on a device, and what their targets' training saw."""

    train: PackedExamples
    valid: PackedExamples | None
    test: PackedExamples
    train_examples: Examples
    valid_examples: Examples | None
    test_examples: Examples
    train_sessions: Sessions
    seen: torch.Tensor
    """Items that occur in training, (items,) bool."""


def packed(examples: Examples, device: torch.device) -> PackedExamples:
    """Put a split on the device."""
    tensors = (torch.from_numpy(np.array(a)) for a in (examples.clicks, examples.start, examples.end))
    return PackedExamples(*tensors, device=device)


def make_splits(data: Dataset, spec: Spec, device: torch.device, refit: bool = False) -> Splits:
    """Split by session first, then expand into prefixes; no sibling of a prefix crosses a split."""
    train, valid = data.train, None
    if spec.protocol == "honest" and not refit:
        train, valid = split_validation(train, spec.valid_fraction)
        if spec.max_valid:
            valid = subset(valid, spec.max_valid, spec.seed)
    if spec.max_train:
        train = subset(train, spec.max_train, spec.seed)
    examples = expand(train, data.last_only)
    if not len(examples):
        raise DissectError(f"data set {data.name!r}: no training session has two clicks")
    valid_examples = None if valid is None else expand(valid, data.last_only)
    if valid is not None and valid_examples is not None and not len(valid_examples):
        raise DissectError(
            f"data set {data.name!r}: none of the last {len(valid)} sessions, which are to validate, has two clicks; "
            "put longer ones last or use --protocol paper-code"
        )
    if not len(data.test):
        raise DissectError(f"data set {data.name!r}: no test session has two clicks")
    seen = np.zeros(data.items, bool)
    seen[train.clicks] = True
    return Splits(
        packed(examples, device),
        None if valid_examples is None else packed(valid_examples, device),
        packed(data.test, device),
        examples,
        valid_examples,
        data.test,
        train,
        torch.from_numpy(seen).to(device),
    )
