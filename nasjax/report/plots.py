"""The plots of a run: what each panel shows, and drawing them as PNG."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from nasjax.host import replace_file
from nasjax.objectives import Objective
from nasjax.report.formatting import scale_and_suffix
from nasjax.report.hypervolume import hypervolume_curve
from nasjax.runs.reader import Network, Run

# Imported where it is used: matplotlib takes longer to import than all of nasjax.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]
Range = tuple[float, float]

TEXT, GRID, FRONT = "#24292f", "#d8dee4", "#c2410c"
EARLY, LATE = "#d3e3f3", "#4a86c0"


@dataclass(frozen=True)
class Panel:
    """One scatter plot of the evaluated networks; `x` is None where the horizontal axis counts evaluations.

    `places` has the point of each measured network by index, `corners` the staircase of the front or of the best so far
    (empty with more than two objectives), `x_range` and `y_range` what the axes span: the front with a margin. All networks
    are within `x_all` and `y_all`.
    """

    x: Objective | None
    y: Objective
    places: dict[int, Point]
    corners: tuple[Point, ...]
    x_range: Range
    y_range: Range
    x_all: Range
    y_all: Range


def panels(run: Run) -> tuple[Panel, ...]:
    """The scatter plots of a run: progress for one objective, the front for two, all pairs of the first three for more."""
    if len(run.objectives) == 1:
        return (_progress_panel(run, run.objectives[0]),)
    # The vertical axis shows what is maximised, if anything is.
    shown = sorted(run.objectives[:3], key=lambda objective: objective.direction != "max")
    return tuple(_scatter_panel(run, x, y) for y, x in combinations(shown, 2))


def _scatter_panel(run: Run, x: Objective, y: Objective) -> Panel:
    networks = [network for network in run.evaluations if not network.failed]
    places = {n.index: (n.metrics[x.name], n.metrics[y.name]) for n in networks}
    x_all, y_all = _full_range(networks, run.front, x), _full_range(networks, run.front, y)
    corners: list[Point] = []
    if len(run.objectives) == 2:
        # Up to the worst network of all.
        corners = staircase([(n.metrics[x.name], n.metrics[y.name]) for n in run.front], x, y, x_all, y_all)
    x_range, y_range = (front_range(networks, run.front, objective) for objective in (x, y))
    return Panel(x, y, places, tuple(corners), x_range, y_range, x_all, y_all)


def staircase(points: Iterable[Point], x: Objective, y: Objective, x_range: Range, y_range: Range) -> list[Point]:
    """The corners of the line that bounds what a front of two objectives dominates, to the axes' worse ends; none without
    points."""
    ordered = sorted(set(points), reverse=x.direction == "max")
    if not ordered:
        return []
    worst_x = x_range[1] if x.direction == "min" else x_range[0]
    height = y_range[0] if y.direction == "max" else y_range[1]
    corners = []
    for across, up in ordered:
        corners += [(across, height), (across, up)]
        height = up
    return [*corners, (worst_x, height)]


def _progress_panel(run: Run, y: Objective) -> Panel:
    networks = [network for network in run.evaluations if not network.failed]
    order = {network.index: position for position, network in enumerate(run.evaluations, 1)}
    places = {n.index: (float(order[n.index]), n.metrics[y.name]) for n in networks}
    corners: list[Point] = []
    for position, value in places.values():
        if not corners:
            corners = [(position, value)]
        elif y.beats(value, corners[-1][1]):
            corners += [(position, corners[-1][1]), (position, value)]
    if corners:
        corners.append((float(len(order)), corners[-1][1]))
    steps, y_range = padded(1, len(order)), front_range(networks, run.front, y)
    return Panel(None, y, places, tuple(corners), steps, y_range, steps, _full_range(networks, run.front, y))


def front_range(networks: list[Network], front: tuple[Network, ...], objective: Objective) -> Range:
    """The range of an axis that shows the front and what is near it: a few bad networks far away do not stretch it.

    It reaches half the front's range beyond the front, or as far as there are networks. Of a front without a range (one
    network) the better half of all networks takes its place.
    """
    name = objective.name
    low, high = _extremes(front, name)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        best_first = sorted(networks, key=lambda network: objective.sign * network.metrics[name])
        low, high = _extremes(best_first[: len(best_first) // 2 + 1], name)
    margin = (high - low) / 2
    near = [min(max(network.metrics[name], low - margin), high + margin) for network in networks]
    ends = (*near, *_with_errors(front, name))
    return padded(min(ends, default=0.0), max(ends, default=1.0))


def _full_range(networks: list[Network], front: tuple[Network, ...], objective: Objective) -> Range:
    """The range of all networks and the error bars of the front, with a margin."""
    values = [*(network.metrics[objective.name] for network in networks), *_with_errors(front, objective.name)]
    return padded(min(values, default=0.0), max(values, default=1.0))


def _extremes(networks: Sequence[Network], name: str) -> Range:
    values = [network.metrics[name] for network in networks]
    return min(values, default=0.0), max(values, default=0.0)


def _with_errors(front: Sequence[Network], name: str) -> list[float]:
    """Both ends of the error bars of the front."""
    return [n.metrics[name] + side * n.errors.get(name, 0.0) for n in front for side in (-1, 1)]


def padded(low: float, high: float) -> Range:
    """A range with a margin of 5 % on both sides; never empty."""
    largest = max(abs(low), abs(high))
    # Values that differ by rounding only count as equal.
    margin = 0.05 * (high - low if high - low > 1e-9 * largest else largest) or 1.0
    return low - margin, high + margin


def ticks(span: Range, whole: bool = False) -> list[tuple[float, str]]:
    """Round values within a range, with their labels; with `whole`, whole numbers only."""
    low, high = span
    rough = (high - low) / 6
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = magnitude * next(nice for nice in (1, 2, 5, 10) if nice * magnitude >= rough * 0.999)
    step = max(step, 1.0) if whole else step
    values = [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
    largest = max(map(abs, values), default=0.0)
    scale, suffix = scale_and_suffix(largest)
    decimals = max(0, -math.floor(math.log10(step / scale) + 1e-9))
    if decimals > 6 or largest >= 1e18:
        return [(value, f"{value:.4g}") for value in values]
    return [(value, f"{value / scale:.{decimals}f}{suffix}" if value else "0") for value in values]


def front_figure(run: Run) -> "Figure":
    """The panels of a run: the front before the dominated networks, these coloured by order of evaluation."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure

    plots = panels(run)
    colours = LinearSegmentedColormap.from_list("order", [EARLY, LATE])
    order = {network.index: position for position, network in enumerate(run.evaluations, 1)}
    scale = Normalize(1, max(2, len(order)))
    front = {network.index: network for network in run.front}
    figure = Figure(figsize=(7.2, 4.6) if len(plots) == 1 else (4.4 * len(plots), 4.2), dpi=160, layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(plots), squeeze=False)[0], plots, strict=True):
        _set_axes(
            axes, panel.x_range, panel.y_range, panel.x.label if panel.x else "evaluations", panel.y.label, not panel.x
        )
        dominated = [index for index in panel.places if index not in front]
        axes.scatter(
            *_coordinates([panel.places[index] for index in dominated]),
            c=[order[index] for index in dominated],
            cmap=colours,
            norm=scale,
            s=18,
            linewidths=0,
            label="dominated" if panel.x else "not the best",
        )
        axes.plot(
            *_coordinates(panel.corners), color=FRONT, linewidth=1.3, alpha=0.75, label=None if panel.x else "best so far"
        )
        axes.errorbar(
            *_coordinates([panel.places[index] for index in front]),
            xerr=[front[i].errors.get(panel.x.name, 0.0) for i in front] if panel.x else None,
            yerr=[front[i].errors.get(panel.y.name, 0.0) for i in front],
            fmt="o",
            markersize=4.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            color=FRONT,
            elinewidth=0.9,
            zorder=4,
            label="front ± standard error" if any(n.errors for n in front.values()) else "front",
        )
        if not panel.places:
            axes.text(0.5, 0.5, "no network could be measured", transform=axes.transAxes, ha="center", color=TEXT)
    figure.axes[0].legend(loc="lower right", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none", labelcolor=TEXT)
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=figure.axes, pad=0.015, aspect=40)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("order of evaluation", fontsize=8, color=TEXT)
    bar.ax.tick_params(labelsize=7, length=0, labelcolor=TEXT)
    _set_title(figure, run)
    return figure


def hypervolume_figure(run: Run) -> "Figure":
    """The hypervolume after each evaluation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), dpi=160, layout="constrained")
    axes = figure.subplots()
    curve = hypervolume_curve(run)
    count = len(curve.values)
    span = padded(min(curve.values, default=0.0), max(curve.values, default=1.0))
    _set_axes(axes, padded(1, count), span, "evaluations", curve.label, True)
    axes.plot(range(1, count + 1), curve.values, color=LATE, linewidth=1.6, drawstyle="steps-post")
    axes.plot([count], curve.values[-1:] or [math.nan], "o", color=LATE, markersize=4.5)
    _set_title(figure, run)
    return figure


def write_plots(run: Run, folder: Path) -> None:
    """Writes front.png and hypervolume.png into a folder."""
    for name, figure in (("front.png", front_figure(run)), ("hypervolume.png", hypervolume_figure(run))):
        content = io.BytesIO()
        figure.savefig(content, format="png")
        replace_file(Path(folder) / name, content.getvalue())


def _coordinates(points: "list[Point] | tuple[Point, ...]") -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _set_axes(axes: "Axes", x_range: Range, y_range: Range, x_label: str, y_label: str, counts: bool) -> None:
    for axis, span, label, whole in ((axes.xaxis, x_range, x_label, counts), (axes.yaxis, y_range, y_label, False)):
        marks = ticks(span, whole)
        axis.set_ticks([value for value, _ in marks], labels=[text for _, text in marks])
        # A "$" in a name is no formula.
        axis.set_label_text(label, fontsize=9, color=TEXT, parse_math=False)
    axes.set(xlim=x_range, ylim=y_range)
    axes.grid(color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, length=0, labelcolor=TEXT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#afb8c1")


def _set_title(figure: "Figure", run: Run) -> None:
    parts = [run.summary["supernet"], run.summary["task"], run.summary["tactic"], f"seed {run.summary['seed']}"]
    figure.suptitle(" · ".join(part for part in parts if part), fontsize=9.5, color=TEXT, parse_math=False)
