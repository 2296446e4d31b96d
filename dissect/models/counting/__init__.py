"""Models that count and train nothing: the controls that every table of learnt models must carry."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dissect.errors import DissectError
from dissect.models.counting.model import CountingModel
from dissect.models.counting.neighbours import NearestSessions
from dissect.models.counting.popularity import SessionPopularity
from dissect.models.counting.rules import SequentialRules
from dissect.models.recipes import choose, fill_options

#: Name -> class, whose first line is what `dissect models` says and whose parameters are the model's options.
COUNTING: dict[str, type[CountingModel]] = {
    "spop": SessionPopularity,
    "sr": SequentialRules,
    "vsknn": NearestSessions,
}


def counting_options(model: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every option of a counting model, those in `given` with their values, of the defaults' types.

    Raises
    ------
    DissectError
        For an unknown model, an option that it does not take, and a value out of range.
    """
    kind = COUNTING[choose("model", model, COUNTING)]
    known = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    options = fill_options(known, given or {}, lambda _: (f"the model {model!r}", known))
    counting_model(model, options)
    return options


def counting_model(model: str, options: Mapping[str, Any] | None = None) -> CountingModel:
    """Make a counting model from its name and options; it has still to be fitted.

    Raises
    ------
    DissectError
        For an unknown model and an option that is out of range.

    Examples
    --------
    >>> counting_model("vsknn", {"k": 500}).k
    500
    """
    try:
        return COUNTING[choose("model", model, COUNTING)](**(options or {}))
    except ValueError as error:
        raise DissectError(f"model {model!r}: {error}") from None


__all__ = [
    "COUNTING", "CountingModel", "NearestSessions", "SequentialRules", "SessionPopularity", "counting_model",
    "counting_options",
]  # fmt: skip
