"""The yardsticks of a search: hypervolume with a loose and a tight reference point, and the additive epsilon indicator.

- `loose`: hypervolume in % of the true front's; the reference point is the problem's own, for a table its worst values.
- `tight`: the same with the 95th percentile of each objective over the whole table as reference point, counted from the best
  value. Networks beyond it in either objective earn nothing.
- `epsilon`: the additive epsilon indicator (Zitzler et al. 2003), in % of the true front's range in each objective: the
  least shift of all objectives that makes every network of the true front weakly dominated. 0 is perfect.

A front is selected by measured values, noise included, and scored by its true values, so luck with noise earns nothing. Of
rows that measured alike only the first counts. All objectives are minimised.
"""

import numpy as np

from nasjax.pareto import hypervolume_exact

TIGHT = 0.95


def tight(values):
    """Returns the tight reference point of all values of a table, one row a network; rows of NaN do not count."""
    return np.nanquantile(values, TIGHT, axis=0)


def measured_fronts(measured):
    """Yields (number of validations, rows of the front) after each validation that changes the front of measured values."""
    rows = np.zeros(0, int)
    for i, row in enumerate(measured):
        if not np.isnan(row).any() and not (measured[rows] <= row).all(1).any():
            rows = np.append(rows[~(row <= measured[rows]).all(1)], i)
            yield i + 1, rows


def curve(score, measured, true, empty):
    """Returns the score of the true values of the measured front after every validation; `empty` before there is one."""
    values, last = np.empty(len(measured)), len(measured)
    for k, rows in reversed(list(measured_fronts(measured))):
        values[k - 1 : last] = score(true[rows])
        last = k - 1
    values[:last] = empty
    return values


def volume(points, reference):
    """Returns the hypervolume of points; any of them may be dominated or beyond the reference point."""
    if points.shape[1] > 2:
        return hypervolume_exact(points, reference)
    points = points[(points < reference).all(1)]
    points = points[np.lexsort(points.T[::-1])]
    heights = np.minimum.accumulate(np.append(reference[1], points[:, 1]))
    return float(((reference[0] - points[:, 0]) * (heights[:-1] - heights[1:])).sum())


def epsilon(points, front):
    """Returns the additive epsilon indicator of points against the true front, as a share of the front's range."""
    spread = np.ptp(front, axis=0)
    shifts = (points[:, None] - front) / np.where(spread > 0, spread, 1)
    return float(shifts.max(2).min(0).max())


def curves(problem, measured, true):
    """Returns {yardstick: score in % after every validation}, of those yardsticks for which the problem's best is known."""
    found = {
        name: 100 * curve(lambda points, at=problem.references[name]: volume(points, at), measured, true, 0.0) / best
        for name, best in problem.best.items()
    }
    if len(problem.front):
        found["epsilon"] = curve(lambda points: 100 * epsilon(points, problem.front), measured, true, np.inf)
    return found


def in_band(measured, true, band):
    """Returns, after every validation, the true accuracy of the network with the best measured one inside a band of costs.

    Accuracy is the first objective, the cost the second. NaN while there is no such network.
    """
    inside = (true[:, 1] >= band[0]) & (true[:, 1] <= band[1])
    scores = np.where(inside, measured[:, 0], np.inf)
    best = np.minimum.accumulate(scores)
    # The first row of each best score: all later ones are no better.
    rows = np.maximum.accumulate(np.where(np.append(True, best[1:] < best[:-1]), np.arange(len(best)), 0))
    return np.where(np.isfinite(best), -true[rows, 0], np.nan)


def first(numbers, values, wanted, name="loose"):
    """Returns the first number of validations whose value is as good as `wanted`, infinity if there is none."""
    good = values <= wanted if name == "epsilon" else values >= wanted
    return float(numbers[good][0]) if good.any() else np.inf
