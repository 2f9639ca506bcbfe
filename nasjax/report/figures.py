"""The SVG figures of a page: scatter plots of the measured networks, and the hypervolume curve."""

import json
from html import escape

from nasjax.report.formatting import format_metric, format_number, units_of
from nasjax.report.hypervolume import Curve
from nasjax.report.plots import Panel, padded
from nasjax.report.svg import BOTTOM, LEFT, RIGHT, TOP, Scale, axis_labels, frame, grid, path, scales
from nasjax.runs.reader import Network, Run
from nasjax.words import plural


def scatter(run: Run, panel: Panel, count: int) -> str:
    """One scatter plot of `count` on the page. Every measured network is a circle with its index in `data-index`.

    What the script needs to zoom: the axes' metrics, ranges and corners of the staircase as data attributes.
    """
    width, height = (620, 440) if count == 1 else (370, 330)
    front = {network.index: network for network in run.front}
    x_of, y_of = scales(width, height, panel.x_range, panel.y_range)
    circles, foreground = [], []
    for order, network in enumerate(run.evaluations):
        if network.index not in panel.places:
            continue
        x, y = panel.places[network.index]
        x, y = x_of(x), y_of(y)
        if network.index in front:
            foreground.append(_front_point(run, panel, front[network.index], x, y, x_of, y_of))
        else:
            opacity = 0.18 + 0.5 * order / max(1, len(run.evaluations) - 1)
            circles.append(
                f'<circle class="point dominated" data-index="{network.index}" cx="{x:.1f}" cy="{y:.1f}" r="3.5" '
                f'fill-opacity="{opacity:.2f}"/>'
            )
    stairs = f'<path class="stairs" d="{path(panel.corners, x_of, y_of)}"/>' if panel.corners else ""
    label = panel.x.label if panel.x else "evaluations"
    description = escape(
        f"{panel.y.name} against {panel.x.name if panel.x else 'evaluations'}, {plural(len(panel.places), 'network')}"
    )
    about = {
        "x": panel.x.name if panel.x else "",
        "y": panel.y.name,
        "view": json.dumps([*panel.x_range, *panel.y_range]),
        "all": json.dumps([*panel.x_all, *panel.y_all]),
        "corners": json.dumps(panel.corners),
    }
    attributes = " ".join(f'data-{name}="{escape(value)}"' for name, value in about.items())
    box = f'x="{LEFT}" y="{TOP}" width="{width - LEFT - RIGHT}" height="{height - TOP - BOTTOM}"'
    view = f'viewBox="{LEFT} {TOP} {width - LEFT - RIGHT} {height - TOP - BOTTOM}"'
    inside = "\n".join([*circles, stairs, *foreground])
    return (
        f'<svg class="scatter" viewBox="0 0 {width} {height}" role="group" aria-label="{description}" {attributes}>\n'
        f'<g class="axes">{grid(width, height, panel.x_range, panel.y_range, panel.x is None)}</g>\n'
        f"{axis_labels(width, height, label, panel.y.label)}\n"
        f'<svg class="marks" {box} {view}>\n{inside}\n</svg>\n</svg>'
    )


def _front_point(run: Run, panel: Panel, network: Network, x: float, y: float, x_of: Scale, y_of: Scale) -> str:
    """A network of the front with its error bars, as a link to its card."""
    place, errors = panel.places[network.index], network.errors
    dx = x_of(place[0] + errors.get(panel.x.name, 0.0)) - x if panel.x else 0.0
    dy = y - y_of(place[1] + errors.get(panel.y.name, 0.0))
    bars = (f"M{x - dx:.1f} {y:.1f}h{2 * dx:.1f}" if dx else "") + (f"M{x:.1f} {y - dy:.1f}v{2 * dy:.1f}" if dy else "")
    title = f"<title>{escape(_tooltip(run, network))}</title>"
    return (f'<path class="bars" data-index="{network.index}" d="{bars}"/>' if bars else "") + (
        f'<a href="#card-{network.index}" data-index="{network.index}" aria-label="network {network.index}">'
        f'<circle class="point front" data-index="{network.index}" cx="{x:.1f}" cy="{y:.1f}" r="5.5">{title}</circle></a>'
    )


def hypervolume_chart(run: Run, curve: Curve) -> str:
    """The hypervolume after each evaluation, as a curve."""
    width, height, count = 620, 330, len(curve.values)
    x_range = padded(1, count)
    y_range = padded(min(curve.values, default=0.0), max(curve.values, default=1.0))
    x_of, y_of = scales(width, height, x_range, y_range)
    points = list(enumerate(curve.values, 1))
    line = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
    circles = "\n".join(
        f'<circle class="validation{" last" if x == count else ""}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="4">'
        f"<title>after {plural(x, 'evaluation')}: {_share(y, curve)}{format_number(recorded)}</title></circle>"
        for (x, y), recorded in zip(points, run.hypervolume, strict=True)
    )
    axes = frame(width, height, x_range, y_range, "evaluations", curve.label, True)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="hypervolume against evaluations">\n{axes}\n'
        f'<polyline class="curve" points="{line}"/>\n{circles}\n</svg>'
    )


def _share(value: float, curve: Curve) -> str:
    return f"{value:.1f} % of the front's box, hypervolume " if "%" in curve.label else ""


def _tooltip(run: Run, network: Network) -> str:
    """The index of a network and its metrics, one a line."""
    units = units_of(run.objectives)
    lines = [f"network {network.index}" + (" (from the archive)" if network.source == "archive" else "")]
    for name in network.metrics:
        lines.append(f"{name} {format_metric(network.metrics, network.errors, name)} {units.get(name, '')}".strip())
    return "\n".join(lines)
