"""What the script of a page knows of its run: all evaluations by column, and how networks are drawn, as compact JSON."""

import json
from typing import Any

from nasjax.report.cards import command, largest_metrics, shown_metrics
from nasjax.report.drawings import DrawingStyle, height_genes, undrawn_genes
from nasjax.report.formatting import column_heading, units_of
from nasjax.runs.reader import Network, Run

DIGITS = 9
"""Significant digits of the values: more than any page shows."""


def page_data(run: Run, style: DrawingStyle) -> str:
    """The run as JSON. Columns have one entry an evaluation, null where there is none; genes are positions of options."""
    front = {network.index: network for network in run.front}
    networks = [front.get(network.index, network) for network in run.evaluations]
    content = {
        "index": [network.index for network in networks],
        "step": [network.step for network in networks],
        "status": [_status(run, network, network.index in front) for network in networks],
        "archive": [int(network.source == "archive") for network in networks],
        "metrics": _metrics(run, networks),
        "genes": [
            {
                "name": name,
                "options": options,
                "values": [options.index(n.genes[name]) if name in n.genes else None for n in networks],
            }
            for name, options in run.space.options.items()
        ],
        "blocks": [
            {
                "kind": block.kind,
                "unit": block.unit,
                "genes": block.genes,
                "gate": block.gate,
                "heights": height_genes(run.space, style, block),
                "colouring": style.colouring_genes.get(block),
            }
            for block in run.space.blocks
        ],
        "colours": dict(style.colours),
        "undrawn": undrawn_genes(run.space),
        "has_largest": run.space.largest is not None,
        "command": command(run),
    }
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def _status(run: Run, network: Network, on_front: bool) -> str:
    if not network.failed:
        return "front" if on_front else "dominated" if len(run.objectives) > 1 else "not the best"
    # What has all its objectives was measured, and breaks a constraint.
    measured = all(objective.name in network.metrics for objective in run.objectives)
    return "outside the constraints" if measured else "failed"


def _metrics(run: Run, networks: list[Network]) -> list[dict[str, Any]]:
    """The objectives, all other metrics, and those on test data."""
    goals = {objective.name: objective for objective in run.objectives}
    units = units_of(run.objectives)
    largest, shown = largest_metrics(run), shown_metrics(run)
    columns = []
    for name in dict.fromkeys([*goals, *run.summary["metrics"], *run.tests]):
        errors = [_rounded(network.errors.get(name)) for network in networks]
        columns.append(
            {
                "name": name,
                "heading": column_heading(name, units),
                "unit": units.get(name, ""),
                "direction": goals[name].direction if name in goals else None,
                "cost": name in (run.space.costs or {}) or (name in goals and goals[name].direction == "min"),
                "shown": name in shown,
                "largest": _rounded(largest.get(name)),
                "values": [_rounded(network.metrics.get(name)) for network in networks],
                "errors": errors if any(error is not None for error in errors) else None,
            }
        )
    return columns


def _rounded(value: float | None) -> float | int | None:
    if value is None:
        return None
    value = float(f"{value:.{DIGITS}g}")
    return int(value) if value.is_integer() and abs(value) < 1e15 else value
