"""The figure of a front: all evaluated networks and the front, in the first two objectives."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from nasjax.objectives import Objective


class FrontFigure(Figure):
    """A matplotlib figure that notebooks show as a picture, without pyplot or `%matplotlib`."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png")
        return content.getvalue()


def front_figure(
    objectives: Sequence[Objective], evaluations: Mapping[str, Sequence[Any]], front: Mapping[str, Sequence[Any]]
) -> FrontFigure:
    """Draws the first objective upwards, the second across; of one objective the order of evaluation across.

    `evaluations` and `front` are columns by name, `front` with the best of the first objective first. Of two objectives a
    staircase bounds what the front dominates.
    """
    figure = FrontFigure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    up = objectives[0].name
    across = objectives[1].name if len(objectives) > 1 else "index"
    axes.plot(evaluations[across], evaluations[up], "o", color="0.75", markersize=4, label="evaluated")
    # The networks are in the order of the first objective: a step is level from the one before it to its own place.
    line: dict[str, Any] = {"linestyle": "none"}
    if len(objectives) == 2:
        line = {"drawstyle": "steps-pre"}
    axes.plot(front[across], front[up], marker="o", markersize=5, label="front" if across != "index" else "best", **line)
    axes.set_xlabel(objectives[1].label if across != "index" else "evaluation")
    axes.set_ylabel(objectives[0].label)
    axes.legend()
    return figure
