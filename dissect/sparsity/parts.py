"""Parts of a model as plain data: part -> names of its modules, resolved against a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from dissect.errors import DissectError

Parts = Mapping[str, Sequence[str]]
ALIASES: dict[str, tuple[str, ...]] = {
    "gnn": ("propagation", "combination"),
    "readout": ("attention", "transformation"),
}
HANDLED: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("weight",),
    nn.GRUCell: ("weight_ih", "weight_hh"),
    nn.Conv1d: ("weight",),
}
"""Type that can be wrapped -> names of its matrices."""
FUSED = (nn.GRU, nn.LSTM, nn.RNN, nn.MultiheadAttention)
"""Types whose matrices stay inside one kernel; `dissect.sparsity.unfuse` makes layers of them."""


def resolve_parts(
    model: nn.Module,
    parts: Parts,
    which: str | Iterable[str] = "all",
    aliases: Mapping[str, Sequence[str]] = ALIASES,
) -> dict[str, list[str]]:
    """The modules to wrap of each chosen part.

    Parameters
    ----------
    model : nn.Module
        Any model.
    parts : mapping of str to sequence of str
        Part -> dotted module names, where ``*``, ``?`` and ``[...]`` match as in a shell (a ``*`` crosses
        dots). A name of a container stands for the linear maps, GRU cells and convolutions inside it. The name of a
        parameter that no such layer owns stands for itself. A part may be empty.
    which : 'all', or a name, or several
        Parts or aliases.
    aliases : mapping of str to sequence of str
        Alias -> parts. A part of the same name goes first; parts of an alias that this model lacks are left
        out.

    Returns
    -------
    dict of str to list of str
        Chosen part -> names of modules of exactly a type in `HANDLED`, or of parameters, in the order of `parts`.

    Raises
    ------
    DissectError
        For an unknown part, a name that matches nothing, a module of a type that can't be wrapped, and a
        module or a weight that is in two parts.
    """
    chosen = choose_parts(parts, which, aliases)
    modules = dict(model.named_modules(remove_duplicate=False))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    every = [p for patterns in parts.values() for p in ([patterns] if isinstance(patterns, str) else patterns)]
    # Named by themselves: by a pattern that also matches modules it is these that are meant.
    alone = [p for p in every if not _matching(p, modules)]
    raw = {n for n in parameters for p in alone if fnmatchcase(n, p)}
    owner: dict[int, tuple[str, str]] = {}  # id of a module or a parameter -> its part and first name
    resolved: dict[str, list[str]] = {}
    for part, patterns in parts.items():
        names: list[str] = []
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            names += [n for n in _match(part, pattern, modules, parameters, raw) if n not in names]
        resolved[part] = []
        for name in names:
            thing = modules.get(name, parameters.get(name))
            other, known = owner.setdefault(id(thing), (part, name))
            if other != part:
                what = "module" if name in modules else "parameter"
                raise DissectError(f"{what} {name!r} is in two parts, {other!r} and {part!r}; it belongs to one")
            if known == name:  # a second name of one module is no second module
                resolved[part].append(name)
    _refuse_ties(resolved, modules, parameters)
    return {part: names for part, names in resolved.items() if part in chosen}


def matrices_of(name: str, modules: Mapping[str, nn.Module]) -> list[str]:
    """Full names of what is wrapped where `name` is; a raw parameter's own."""
    if name not in modules:
        return [name]
    held = next((held for handled, held in HANDLED.items() if isinstance(modules[name], handled)), ())
    return [f"{name}.{weight}" if name else weight for weight in held]


def _refuse_ties(
    resolved: Mapping[str, Sequence[str]], modules: Mapping[str, nn.Module], parameters: Mapping[str, nn.Parameter]
) -> None:
    """One weight in two parts would count in one of them and be missing from the other."""
    first: dict[int, tuple[str, str]] = {}
    for part, names in resolved.items():
        for full in [weight for name in names for weight in matrices_of(name, modules)]:
            other, known = first.setdefault(id(parameters[full]), (part, full))
            if other != part:
                raise DissectError(
                    f"{full!r} of part {part!r} and {known!r} of part {other!r} are one shared parameter; it belongs "
                    f"to one part: leave one of the two out"
                )


def choose_parts(parts: Parts, which: str | Iterable[str], aliases: Mapping[str, Sequence[str]] = ALIASES) -> set[str]:
    """Names of the parts that `which` stands for; see `resolve_parts`."""
    if which == "all":
        return set(parts)
    chosen: set[str] = set()
    for name in [which] if isinstance(which, str) else which:
        found = [name] if name in parts else [p for p in aliases.get(name, ()) if p in parts]
        if not found:
            raise DissectError(
                f"unknown part {name!r}; parts: {', '.join(parts) or 'none'}; aliases: "
                + (", ".join(f"{alias} = {'+'.join(names)}" for alias, names in aliases.items()) or "none")
            )
        chosen.update(found)
    return chosen


def _match(
    part: str,
    pattern: str,
    modules: Mapping[str, nn.Module],
    parameters: Mapping[str, nn.Parameter],
    raw: Collection[str],
) -> list[str]:
    matched = _matching(pattern, modules)
    if not matched:
        named = [pattern] if pattern in parameters else [n for n in parameters if fnmatchcase(n, pattern)]
        if named:
            return [_raw(part, name, modules) for name in named]
        raise DissectError(
            f"part {part!r}: {pattern!r} matches no module and no parameter; modules: "
            f"{', '.join(n for n in modules if n)}"
        )
    names: list[str] = []
    for name in matched:
        names += [n for n in _wrappable(part, name, modules, raw) if n not in names]
    # A matrix beside the matched modules, of the module that holds them: left out it would falsify the density.
    for name in () if pattern in modules else (n for n, p in parameters.items() if p.dim() > 1):
        owner = name.rpartition(".")[0]
        beside = owner not in matched and not isinstance(modules[owner], (*HANDLED, *FUSED))
        if beside and fnmatchcase(name, pattern) and name not in names:
            names.append(name)
    if not names:
        raise DissectError(
            f"part {part!r}: {pattern!r} matches {type(modules[matched[0]]).__name__}: nothing to wrap; "
            f"valid types: {_valid()}"
        )
    return names


def _matching(pattern: str, modules: Mapping[str, nn.Module]) -> list[str]:
    """Names of the modules that a pattern stands for."""
    return [pattern] if pattern in modules else [n for n in modules if n and fnmatchcase(n, pattern)]


def _raw(part: str, name: str, modules: Mapping[str, nn.Module]) -> str:
    """The name of a parameter that its module reads itself; a layer's matrix goes by the layer's name."""
    prefix = name.rpartition(".")[0]
    owner = modules[prefix]
    if isinstance(owner, (*HANDLED, *FUSED)):
        raise DissectError(
            f"part {part!r}: {name!r} belongs to a layer, nn.{type(owner).__name__}; name the layer, {prefix!r}"
        )
    return name


def _wrappable(part: str, name: str, modules: Mapping[str, nn.Module], raw: Collection[str]) -> list[str]:
    module = modules[name]
    kind = type(module).__name__
    if isinstance(module, FUSED):
        raise DissectError(
            f"part {part!r}: {name!r} is a fused {kind}, whose single weights noise can't reach; call "
            f"dissect.sparsity.unfuse(model, [{name!r}]) first, which makes linear layers of it"
        )
    for handled, weights in HANDLED.items():
        if isinstance(module, handled):
            # A wrapped layer changes class, and back on export: a subclass would come back without what it adds.
            if type(module) is not handled:
                raise DissectError(
                    f"part {part!r}: {name!r} is {kind}, a subclass of nn.{handled.__name__}: already wrapped, "
                    f"parametrized, or with code of its own; valid types: {_valid()}"
                )
            held = dict(module.named_parameters(recurse=False, remove_duplicate=False))
            computed = [weight for weight in weights if weight not in held]
            if computed:
                raise DissectError(
                    f"part {part!r}: {computed[0]!r} of {name!r} is computed from other tensors (weight_norm, "
                    f"spectral_norm, prune) and can't have a variance; make it a plain parameter first"
                )
            return [name]
    # Vectors (a layer norm's scale) stay deterministic as biases do; a matrix left out would falsify the
    # density.
    prefix = f"{name}." if name else ""
    matrices = [n for n, p in module.named_parameters(recurse=False) if p.dim() > 1 and prefix + n not in raw]
    if matrices:
        raise DissectError(
            f"part {part!r}: {name!r} is {kind} with the weight {matrices[0]!r}, which is no layer's; name it as the "
            f"parameter {prefix + matrices[0]!r} (under 'weight' noise); valid types: {_valid()}"
        )
    return [n for child, _ in module.named_children() for n in _wrappable(part, prefix + child, modules, raw)]


def _valid() -> str:
    return ", ".join(f"nn.{t.__name__}" for t in HANDLED) + ", or a container of these"
