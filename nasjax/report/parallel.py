"""Parallel coordinates: one axis an objective, one line a network, for fronts of three and more objectives."""

from html import escape

from nasjax.objectives import Objective
from nasjax.report.formatting import column_heading
from nasjax.report.plots import Range, front_range, ticks
from nasjax.report.svg import BOTTOM, TOP
from nasjax.runs.reader import Network, Run
from nasjax.words import plural

MOST_BEHIND = 500
"""Lines of dominated networks; of more, as many are drawn, evenly spread over the search."""

HEIGHT, SIDE, BETWEEN = 330, 90, 190
"""Pixels: the height, from the edges to the first and the last axis, and between axes."""


def parallel_coordinates(run: Run) -> str:
    """The figure as HTML, better values up on every axis; "" with fewer than three objectives, or without a front.

    The axes fit the front; lines that leave them go to networks far away. The index of a network is its `data-index`.
    """
    if len(run.objectives) < 3 or not run.front:
        return ""
    front = {network.index for network in run.front}
    networks = [network for network in run.evaluations if not network.failed]
    behind = [network for network in networks if network.index not in front]
    drawn = behind[:: -(-len(behind) // MOST_BEHIND)] if behind else []
    axes = [(objective, front_range(networks, run.front, objective)) for objective in run.objectives]
    x = [SIDE + BETWEEN * i for i in range(len(axes))]
    width, height = x[-1] + SIDE, HEIGHT - TOP - BOTTOM
    lines = [_line(network, "dominated", axes, x) for network in drawn] + [_line(n, "front", axes, x) for n in run.front]
    inside = "\n".join(lines)
    box = f'x="0" y="{TOP}" width="{width}" height="{height}" viewBox="0 {TOP} {width} {height}"'
    left_out = f"; {len(drawn)} of {plural(len(behind), 'dominated network')} are drawn" if len(drawn) < len(behind) else ""
    return (
        f'<figure id="parallel" style="max-width:{width + 90}px">\n<svg viewBox="0 0 {width} {HEIGHT}" role="group" '
        f'aria-label="parallel coordinates, {plural(len(drawn) + len(front), "network")}">\n'
        f'<svg class="marks" {box}>\n{inside}\n</svg>\n'
        + "\n".join(_axis(objective, span, place) for (objective, span), place in zip(axes, x, strict=True))
        + "</svg>\n"
        f"<figcaption>All objectives, better is up; a line is a network, those of the front before all others{left_out}. "
        "The axes fit the front.</figcaption></figure>"
    )


def _line(network: Network, kind: str, axes: list[tuple[Objective, Range]], x: list[int]) -> str:
    points = (
        f"{place} {_height(objective, span, network.metrics[objective.name]):.1f}"
        for (objective, span), place in zip(axes, x, strict=True)
    )
    return f'<path class="across {kind}" data-index="{network.index}" d="M{"L".join(points)}"/>'


def _height(objective: Objective, span: Range, value: float) -> float:
    """The pixel of a value: the better, the higher."""
    share = (value - span[0]) / (span[1] - span[0])
    share = share if objective.direction == "max" else 1 - share
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _axis(objective: Objective, span: Range, x: int) -> str:
    heading = escape(column_heading(objective.name, {objective.name: objective.unit}))
    marks = "".join(
        f'<text x="{x - 6}" y="{_height(objective, span, value) + 4:.1f}" text-anchor="end">{label}</text>'
        for value, label in ticks(span)
    )
    return (
        f'<path class="grid" d="M{x} {TOP}V{HEIGHT - BOTTOM}"/>{marks}'
        f'<text x="{x}" y="{HEIGHT - BOTTOM + 24}" text-anchor="middle">{heading}</text>'
    )
