"""Figures of a comparison, as PNG and as SVG: hypervolume against evaluations, and the fronts of all groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from nasjax.objectives import Objective
from nasjax.report import svg
from nasjax.report.colours import COLOURS, group_colours
from nasjax.report.groups import RunGroup
from nasjax.report.plots import Point, Range, padded, staircase, ticks
from nasjax.words import plural

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_FAINT = 20
"""Fronts of single runs that a group shows: there may be a thousand seeds."""


MOST_INSIDE, LONGEST_INSIDE, LONGEST = 9, 50, 100
"""How many groups a legend inside the axes names, and with how many letters each: more covers the curves; and the most
letters of a name anywhere."""


@dataclass(frozen=True)
class FrontPanel:
    """The fronts of all groups in two objectives.

    `points` has the networks of each group's front; `stairs` its staircase, and `faint` those of its single runs, where
    there are several. Both are empty with more than two objectives.
    """

    x: Objective
    y: Objective
    x_range: Range
    y_range: Range
    points: tuple[tuple[Point, ...], ...]
    stairs: tuple[tuple[Point, ...], ...]
    faint: tuple[tuple[tuple[Point, ...], ...], ...]


def front_panels(groups: Sequence[RunGroup], objectives: Sequence[Objective]) -> tuple[FrontPanel, ...]:
    """One panel for two objectives, all pairs of the first three for more; none for one, and without any network."""
    if len(objectives) == 1 or not any(len(group.front) for group in groups):
        return ()
    # The vertical axis shows what is maximised, if anything is.
    shown = sorted(range(min(3, len(objectives))), key=lambda i: objectives[i].direction != "max")
    return tuple(_front_panel(groups, objectives, x, y) for y, x in combinations(shown, 2))


def _front_panel(groups: Sequence[RunGroup], objectives: Sequence[Objective], x: int, y: int) -> FrontPanel:
    single = [front for group in groups for front in group.fronts[:MOST_FAINT]] if len(objectives) == 2 else []
    every = np.concatenate([*(group.front for group in groups), *single])
    x_range, y_range = (padded(float(every[:, i].min()), float(every[:, i].max())) for i in (x, y))

    def points(front: Float[np.ndarray, "networks obj"]) -> tuple[Point, ...]:
        return tuple((float(row[x]), float(row[y])) for row in front)

    def stairs(front: Float[np.ndarray, "networks obj"]) -> tuple[Point, ...]:
        if len(objectives) != 2:
            return ()
        return tuple(staircase(points(front), objectives[x], objectives[y], x_range, y_range))

    return FrontPanel(
        objectives[x],
        objectives[y],
        x_range,
        y_range,
        tuple(points(group.front) for group in groups),
        tuple(stairs(group.front) for group in groups),
        tuple(tuple(map(stairs, group.fronts[:MOST_FAINT])) if len(group.fronts) > 1 else () for group in groups),
    )


def group_name(group: RunGroup) -> str:
    """The group as a legend names it: "random (3 runs)"."""
    runs = len(group.volumes)
    return f"{group.label} ({plural(runs, 'run')})"


def curves_figure(groups: Sequence[RunGroup], best: float, objectives: str) -> "Figure":
    """Median hypervolume with quartiles after each evaluation, in % of `best`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    keys: list[Artist] = []
    for place, group in zip(_places(groups), groups, strict=True):
        low, median, high = 100 * group.quartiles() / (best or 1.0)
        steps = np.arange(1, len(median) + 1)
        keys += axes.plot(steps, median, color=COLOURS[place], linewidth=1.8)
        axes.fill_between(steps, low, high, alpha=0.16, color=COLOURS[place], linewidth=0)
    _set_labels(axes, "evaluations", "hypervolume, % of best (median, quartiles)")
    axes.set_title(objectives, fontsize=10, parse_math=False)
    _add_legend(figure, groups, keys, "lower right")
    return figure


def fronts_figure(groups: Sequence[RunGroup], panels: Sequence[FrontPanel]) -> "Figure":
    """The fronts of all groups: the networks of all runs together, and the staircase of each run as a faint line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5) if len(panels) == 1 else (4.4 * len(panels), 4.4), layout="constrained")
    keys: list[Artist] = []
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for i, place in enumerate(_places(groups)):
            colour = COLOURS[place]
            for line in panel.faint[i]:
                axes.plot([x for x, _ in line], [y for _, y in line], color=colour, linewidth=0.8, alpha=0.3)
            axes.plot([x for x, _ in panel.stairs[i]], [y for _, y in panel.stairs[i]], color=colour, linewidth=1.8)
            dots = panel.points[i]
            keys += axes.plot([x for x, _ in dots], [y for _, y in dots], "o", color=colour, markersize=4)
        _set_labels(axes, panel.x.label, panel.y.label)
        for axis, span in ((axes.xaxis, panel.x_range), (axes.yaxis, panel.y_range)):
            marks = ticks(span)
            axis.set_ticks([value for value, _ in marks], labels=[text for _, text in marks])
        axes.set(xlim=panel.x_range, ylim=panel.y_range)
    _add_legend(figure, groups, keys[: len(groups)], "best")
    return figure


def _set_labels(axes: "Axes", x_label: str, y_label: str) -> None:
    # A "$" in a name is no formula.
    axes.set_xlabel(x_label, parse_math=False)
    axes.set_ylabel(y_label, parse_math=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def svg_curves(groups: Sequence[RunGroup], best: float, objectives: str) -> str:
    """The same as `curves_figure` as SVG, coloured by the style sheet."""
    width, height = 760, 440
    curves = [100 * group.quartiles() / (best or 1.0) for group in groups]
    x_range = padded(1, max(curve.shape[1] for curve in curves))
    y_range = padded(min(float(curve.min()) for curve in curves), max(float(curve.max()) for curve in curves))
    x_of, y_of = svg.scales(width, height, x_range, y_range)
    parts = [svg.frame(width, height, x_range, y_range, "evaluations", "hypervolume, % of best", True)]
    for place, group, curve in zip(_places(groups), groups, curves, strict=True):
        low, median, high = ([(float(x), float(y)) for x, y in enumerate(line, 1)] for line in curve)
        title = f"<title>{escape(group.label)}</title>"
        parts.append(f'<path class="band s{place}" d="{svg.path(low + high[::-1], x_of, y_of)}Z">{title}</path>')
        parts.append(f'<path class="line s{place}" d="{svg.path(median, x_of, y_of)}">{title}</path>')
    label = escape(f"hypervolume for {objectives} against evaluations: median and quartiles")
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def svg_fronts(groups: Sequence[RunGroup], panel: FrontPanel, count: int) -> str:
    """One of `count` panels of `fronts_figure` as SVG."""
    width, height = (760, 440) if count == 1 else (370, 330)
    x_of, y_of = svg.scales(width, height, panel.x_range, panel.y_range)
    faint, strong = [], []
    for i, (place, group) in enumerate(zip(_places(groups), groups, strict=True)):
        title = f"<title>{escape(group.label)}</title>"
        faint += [f'<path class="line faint s{place}" d="{svg.path(line, x_of, y_of)}"/>' for line in panel.faint[i] if line]
        line = [f'<path class="line" d="{svg.path(panel.stairs[i], x_of, y_of)}"/>'] if panel.stairs[i] else []
        dots = [f'<circle class="dot" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3.5"/>' for x, y in panel.points[i]]
        strong.append(f'<g class="s{place}">{title}{"".join(line + dots)}</g>')
    grid = svg.frame(width, height, panel.x_range, panel.y_range, panel.x.label, panel.y.label, False)
    label = escape(f"fronts of {len(groups)} groups: {panel.y.name} against {panel.x.name}")
    inside = "".join([grid, *faint, *strong])
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{inside}</svg>'


def _add_legend(
    figure: "Figure", groups: Sequence[RunGroup], keys: Sequence["Artist"], inside: Literal["best", "lower right"]
) -> None:
    """Names the groups `inside` the first axes; more or longer names than fit, beside them: the figure grows by these."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    names = [" ".join(group_name(group).split()) for group in groups]
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    if len(names) <= MOST_INSIDE and max(map(len, names)) <= LONGEST_INSIDE:
        legend = figure.axes[0].legend(keys, names, loc=inside, frameon=False)
    else:
        legend = figure.legend(keys, names, loc="outside right upper", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # A "$" in a label is no formula.
    if figure.legends:
        renderer = FigureCanvasAgg(figure).get_renderer()  # Knows how large the names are before anything is drawn.
        wide, high = (side / figure.dpi for side in legend.get_window_extent(renderer).size)
        width, height = figure.get_size_inches()
        figure.set_size_inches(width + wide, max(height, high + 0.3))


def legend(groups: Sequence[RunGroup]) -> str:
    """The colour of every group, as HTML."""
    keys = zip(_places(groups), groups, strict=True)
    return " &nbsp; ".join(f'<span class="key s{place}"></span> {escape(group_name(group))}' for place, group in keys)


def _places(groups: Sequence[RunGroup]) -> list[int]:
    return group_colours([group.label for group in groups])
