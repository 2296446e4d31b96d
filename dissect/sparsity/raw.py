"""Parameters that a module's own code reads (a position table, an attention vector): noise on the weights themselves.

No layer stands between such a parameter and its use, so its noise can only be that of ``weight``. The owner's class
becomes a subclass whose attribute of that name is the noisy value; the parameter keeps its name and its place.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dissect.errors import DissectError
from dissect.sparsity.variational import Variational


class RawParameters(Variational):
    """A module some of whose own parameters have variances; made by `to_variational_parameter`.

    Every read of such a parameter is a draw, or the same one inside `shared_noise`.
    """

    PAIRS = ()
    _read: set[str] | None = None
    """Names read so far, where somebody wants to know."""


def to_variational_parameter(
    owner: nn.Module, name: str, noise: str = "weight", log_sigma2: float = -8.0
) -> Variational:
    """Give the parameter `name` of `owner` a log variance per weight, `<name>_log_sigma2`, in place.

    Raises
    ------
    DissectError
        For another noise than ``weight``, a parameter that has a variance already, and a layer that is wrapped whole.
    """
    if noise != "weight":
        raise DissectError(
            f"parameter {name!r} of {type(owner).__name__} is read by code of its own, where {noise!r} noise can't "
            f"reach it; wrap it under noise 'weight', or leave it out"
        )
    if isinstance(owner, Variational) and (not isinstance(owner, RawParameters) or name in dict(owner.PAIRS)):
        raise DissectError(f"parameter {name!r} of {type(owner).__name__} is wrapped already, or its bias")
    held = owner.PAIRS if isinstance(owner, RawParameters) else ()
    dense = owner.DENSE if isinstance(owner, RawParameters) else type(owner)
    owner.__class__ = _class_for(dense, (*held, (name, f"{name}_log_sigma2")))
    assert isinstance(owner, RawParameters)
    owner._add_variances(noise, log_sigma2)
    return owner


def to_dense_parameter(owner: RawParameters, name: str) -> None:
    """Take the variance of one parameter away again; the last one gives the owner its class back."""
    log_variance = dict(owner.PAIRS)[name]
    dense: Any = owner.DENSE
    left = tuple(pair for pair in owner.PAIRS if pair[0] != name)
    delattr(owner, log_variance)
    any_owner: Any = owner
    any_owner.__class__ = _class_for(dense, left) if left else dense
    if not left:
        for attribute in ("noise", "frozen", "_shared", "_masks", "_batch", "_read"):
            owner.__dict__.pop(attribute, None)


def _class_for(dense: type[nn.Module], pairs: tuple[tuple[str, str], ...]) -> type[RawParameters]:
    def reader(name: str) -> property:
        def read(self: RawParameters) -> Tensor:
            if self._read is not None:
                self._read.add(name)
            return self._weight(name)

        return property(read)

    members: dict[str, Any] = {name: reader(name) for name, _ in pairs}
    members |= {"PAIRS": pairs, "DENSE": dense, "__doc__": dense.__doc__, "__module__": dense.__module__}
    return type(f"Variational{dense.__name__}", (RawParameters, dense), members)
