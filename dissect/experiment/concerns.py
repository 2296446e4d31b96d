"""Which fields of a spec concern a model that counts: it is not trained, so most do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dissect.errors import DissectError
from dissect.models.counting import COUNTING, counting_options

#: The fields that do. The others keep their defaults, and are no part of its spec.json and its id.
COUNTED = (
    "model", "dataset", "data_dir", "max_train", "max_valid", "sparsify", "options", "seed", "protocol", "refit",
    "ties", "valid_fraction", "device",
)  # fmt: skip


def check_concerns(model: str, given: Mapping[str, Any], setting: str) -> None:
    """Raise a DissectError for fields given to a model that counts which it has no use for."""
    idle = ["--" + name.replace("_", "-") for name in sorted(given) if name not in COUNTED]
    if setting != "published":
        idle.append(f"--setting {setting}")
    if given.get("device", "auto") not in ("auto", "cpu"):
        idle.append(f"--device {given['device']}")
    if idle:
        raise DissectError(f"{model} counts, on the CPU, and is not trained: it has no use for {', '.join(idle)}")


def concerning(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some options, given for many models at once, that concern this one."""
    if model not in COUNTING:
        return dict(options)
    own = {*COUNTED, *counting_options(model)} - {"sparsify", "device"}
    return {name: value for name, value in options.items() if name in own}


def check_trained(model: str) -> None:
    """Raise a DissectError if a model counts: it has nothing that could be wrapped, loaded or timed."""
    if model in COUNTING:
        raise DissectError(f"{model} counts: it has no parts, no weights and no training step")
