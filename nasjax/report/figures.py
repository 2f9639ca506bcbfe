"""The SVG figures of a page: scatter plots of the measured networks, and the hypervolume curve."""

from html import escape

from nasjax.report.formatting import format_metric, format_number
from nasjax.report.plots import Panel, padded
from nasjax.report.svg import frame, path, scales
from nasjax.runs.reader import Network, Run


def scatter(run: Run, panel: Panel, count: int) -> str:
    """One scatter plot of `count` on the page. Every measured network is a circle with its index in `data-index`."""
    width, height = (620, 440) if count == 1 else (370, 330)
    front = {network.index: network for network in run.front}
    x_of, y_of = scales(width, height, panel.x_range, panel.y_range)
    background, foreground = [], []
    if panel.corners:
        background.append(f'<path class="stairs" d="{path(panel.corners, x_of, y_of)}"/>')
    circles = []
    for order, network in enumerate(run.evaluations):
        if network.index not in panel.places:
            continue
        x, y = panel.places[network.index]
        x, y = x_of(x), y_of(y)
        title = f"<title>{escape(_tooltip(run, front.get(network.index, network)))}</title>"
        if network.index in front:
            errors = front[network.index].errors
            dx = x_of(panel.places[network.index][0] + errors.get(panel.x.name, 0.0)) - x if panel.x else 0.0
            dy = y_of(panel.places[network.index][1] + errors.get(panel.y.name, 0.0)) - y
            bars = (f"M{x - dx:.1f} {y:.1f}h{2 * dx:.1f}" if dx else "") + (
                f"M{x:.1f} {y - dy:.1f}v{2 * dy:.1f}" if dy else ""
            )
            foreground.append(f'<path class="bars" d="{bars}"/>' if bars else "")
            foreground.append(
                f'<a href="#card-{network.index}" data-index="{network.index}" aria-label="network {network.index}">'
                f'<circle class="point front" data-index="{network.index}" '
                f'cx="{x:.1f}" cy="{y:.1f}" r="5.5">{title}</circle></a>'
            )
        else:
            opacity = 0.18 + 0.5 * order / max(1, len(run.evaluations) - 1)
            circles.append(
                f'<circle class="point dominated" data-index="{network.index}" cx="{x:.1f}" cy="{y:.1f}" r="3.5" '
                f'fill-opacity="{opacity:.2f}">{title}</circle>'
            )
    label = panel.x.label if panel.x else "evaluations"
    grid = frame(width, height, panel.x_range, panel.y_range, label, panel.y.label, panel.x is None)
    description = escape(
        f"{panel.y.name} against {panel.x.name if panel.x else 'evaluations'}, {len(panel.places)} networks"
    )
    inside = "\n".join([grid, *circles, *background, *foreground])
    return f'<svg class="scatter" viewBox="0 0 {width} {height}" role="img" aria-label="{description}">\n{inside}\n</svg>'


def hypervolume_chart(run: Run) -> str:
    """The hypervolume after each evaluation, as a curve."""
    width, height, count = 620, 330, len(run.hypervolume)
    x_range = padded(1, count)
    y_range = padded(min(run.hypervolume, default=0.0), max(run.hypervolume, default=1.0))
    x_of, y_of = scales(width, height, x_range, y_range)
    points = list(enumerate(run.hypervolume, 1))
    line = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
    circles = "\n".join(
        f'<circle class="validation{" last" if x == count else ""}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="4">'
        f"<title>after {x} evaluation{'s' * (x > 1)}: {format_number(y)}</title></circle>"
        for x, y in points
    )
    grid = frame(width, height, x_range, y_range, "evaluations", "hypervolume", True)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="hypervolume against evaluations">\n{grid}\n'
        f'<polyline class="curve" points="{line}"/>\n{circles}\n</svg>'
    )


def _tooltip(run: Run, network: Network) -> str:
    """The index of a network and its metrics, one a line."""
    units = {objective.name: objective.unit for objective in run.objectives}
    lines = [f"network {network.index}" + (" (from the archive)" if network.source == "archive" else "")]
    for name in network.metrics:
        lines.append(f"{name} {format_metric(network.metrics, network.errors, name)} {units.get(name, '')}".strip())
    return "\n".join(lines)
