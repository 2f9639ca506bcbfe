"""The hypervolume over a search, as a share of the box that its front spans."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nasjax.boxes import spread_points
from nasjax.runs.reader import Run

BEYOND = 0.1
"""How far the box reaches beyond the worst values of the front, relative to the front's range: its ends count, too."""

SAMPLES = 2**15
"""Points spread over the box that measure the share: correct to about 0.1 %, with any number of objectives."""


@dataclass(frozen=True)
class Curve:
    """One value an evaluation, what the values are in two words, and in a sentence."""

    values: tuple[float, ...]
    label: str
    explanation: str


def hypervolume_curve(run: Run) -> Curve:
    """The share of the front's box that is dominated after each evaluation, in %.

    Where the front spans no box (one objective, one network), the hypervolume that the run recorded.
    """
    values = np.array([_minimised(run, n.metrics) for n in run.front]).reshape(len(run.front), len(run.objectives))
    ideal, worst = (values.min(0), values.max(0)) if len(values) else (np.zeros(0), np.zeros(0))
    spans = np.where(worst - ideal > 1e-9 * np.abs(worst), worst - ideal, 0.0)
    if np.count_nonzero(spans) < 2:
        return Curve(run.hypervolume, "hypervolume", "After each evaluation.")
    # An objective in which the front does not differ keeps a box that only equal values reach.
    spans = np.where(spans > 0, spans, np.maximum(1e-9 * np.abs(ideal), 1e-12))
    points = spread_points(SAMPLES, len(ideal))
    best, shares = np.ones((1, len(ideal))), []
    for network in run.evaluations:
        if not network.failed:
            place = (np.array(_minimised(run, network.metrics)) - ideal) / (spans * (1 + BEYOND))
            # Most networks change nothing: they are beyond the box, or no better than an earlier one.
            if (place < 1).all() and not (best <= place).all(1).any():
                points = points[(points < place).any(1)]
                best = np.concatenate([best, place[None]])
        shares.append(100 * (1 - len(points) / SAMPLES))
    explanation = (
        "Share of the final front's box that is dominated after each evaluation: in every objective, the box reaches from "
        f"the front's best value to {100 * BEYOND:.0f} % of the front's range beyond its worst. No front fills its box."
    )
    return Curve(tuple(shares), "hypervolume, % of the front's box", explanation)


def _minimised(run: Run, metrics: Mapping[str, float]) -> list[float]:
    return [objective.sign * metrics[objective.name] for objective in run.objectives]
