"""What each line of a comparison costs: weights, training time, time for one session."""

from __future__ import annotations

from collections.abc import Sequence

from dissect.report.compare import Comparison, Line
from dissect.report.formats import Table, span


def cost_table(found: Comparison) -> Table:
    """Parameters, kept weights, seconds of an epoch and milliseconds of a session, for each line."""
    devices = list(dict.fromkeys(result["device"] for group in found.groups for result in group.results))
    several = len(devices) > 1
    rows = []
    for line in found.lines:
        results = line.group.results
        time, own = latency(line), dict.fromkeys(result["device"] for result in results)
        rows.append([
            line.label,
            span(result["parameters"] for result in results),
            _kept(line),
            f"{_mean([result['seconds_per_epoch'] for result in results]):,.1f}",
            "not measured" if time is None else f"{time:.2f}",
            *([", ".join(own)] if several else []),
        ])  # fmt: skip
    every = [result for group in found.groups for result in group.results]
    counted = dict.fromkeys(result["model"] for result in every if not result["steps"])
    but = f" (of {', '.join(counted)}: to count, in all)" if counted else ""
    columns = ["model", "parameters", "kept / total weights", "s an epoch", "ms a session"]
    where = "not comparable across devices" if several else f"on {devices[0]}"
    notes = [
        f"s an epoch: training, {where}{but}; ms a session: from one session's clicks to its best items; both are "
        "means over seeds. parameters: all, the item table too.",
        *_rules(found),
    ]
    title = f"Size and speed on {found.lines[0].group.results[0]['dataset']['name']}"
    return Table(title, columns + ["device"] * several, rows, notes)


def latency(line: Line) -> float | None:
    """Mean milliseconds for one session over the seeds that measured it; those of pruned weights are their own."""
    sources = [result["pruned"] if line.pruned else result for result in line.group.results]
    times = [source["latency_ms"] for source in sources if source.get("latency_ms") is not None]
    return _mean(times) if times else None


def counts(line: Line) -> tuple[float, int] | None:
    """Kept weights (mean over seeds) and total in the wrapped parts; None where none was wrapped."""
    pruned = [result["pruned"] for result in line.group.results if result.get("pruned")]
    if not pruned:
        return None
    total = int(pruned[0]["total"])
    return (_mean([one["kept"] for one in pruned]) if line.pruned else total), total


def _kept(line: Line) -> str:
    weights = counts(line)
    return f"{weights[0]:,.0f} / {weights[1]:,}" if weights else "none wrapped"


def _rules(found: Comparison) -> list[str]:
    """What kept / total counts: which parts, by which rule and threshold."""
    out = []
    for group in found.groups:
        how = group.results[0].get("sparsify")
        if how:
            parts = ", ".join(part for part, row in group.results[0]["density"].items() if row["total"])
            out.append(
                f"kept / total of {group.label}: weights of the wrapped parts ({parts}) by {how['rule']} at "
                f"{how['threshold']:g}; {how['noise']} noise, {how['prior']} prior, KL x{how['kl_scale']:g}."
            )
    return out


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
