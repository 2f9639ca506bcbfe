"""Tables of a comparison: evaluations needed for a share of the best hypervolume, and significance of differences."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from nasjax.report.formatting import format_number
from nasjax.report.groups import RunGroup

SHARES = (0.90, 0.95, 0.99)
"""Shares of the best hypervolume: the table says how many evaluations reach each."""

LEAST_SEEDS = 6
"""The fewest seeds that two groups must have in common to be tested: with fewer no p-value is below .05."""


def comparison_table(groups: Sequence[RunGroup], best: float) -> list[list[str]]:
    """A header and a row for each group: runs, evaluations, final hypervolume in % of `best`, evaluations to each share.

    Values of several runs are "median [lower quartile, upper quartile]".
    """
    rows = [["settings", "runs", "evaluations", "hypervolume, % of best", *(f"to {share:.0%}" for share in SHARES)]]
    for group in groups:
        final = 100 * group.volumes[:, -1] / best if best else group.volumes[:, -1]
        needed = [_format_quartiles(group.evaluations_to_reach(share * best), "{:.4g}".format) for share in SHARES]
        runs, evaluations = group.volumes.shape
        rows.append([group.label, str(runs), str(evaluations), _format_quartiles(final), *needed])
    return rows


def comparison_numbers(groups: Sequence[RunGroup], best: float) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of the same table in numbers: median, lower and upper quartile in columns of their own.

    What was not reached is None.
    """
    names = ["hypervolume_percent", *(f"evaluations_to_{100 * share:.0f}_percent" for share in SHARES)]
    header = ["settings", "runs", "evaluations"]
    header += [f"{name}{part}" for name in names for part in ("", "_lower", "_upper")]
    rows = []
    for group in groups:
        columns = [100 * group.volumes[:, -1] / (best or 1.0)]
        columns += [group.evaluations_to_reach(share * best) for share in SHARES]
        with np.errstate(invalid="ignore"):  # NumPy interpolates two infinities as NaN.
            numbers = [float(np.quantile(column, q)) for column in columns for q in (0.5, 0.25, 0.75)]
        rows.append([group.label, *group.volumes.shape, *(n if np.isfinite(n) else None for n in numbers)])
    return header, rows


def significance_table(groups: Sequence[RunGroup], best: float) -> list[list[str]]:
    """A header and a row for every two groups with LEAST_SEEDS seeds in common: median difference and p-value.

    Wilcoxon's signed-rank test of the hypervolumes of equal seeds, after as many evaluations as both have; p-values are
    adjusted for the number of comparisons by Holm's method. Only the header where there are no such groups.
    """
    pairs = []
    for one, other in combinations(groups, 2):
        seeds = [seed for seed in one.seeds if seed in other.seeds]
        if len(seeds) < LEAST_SEEDS:
            continue
        last = min(one.volumes.shape[1], other.volumes.shape[1]) - 1
        first, second = (group.volumes[[group.seeds.index(seed) for seed in seeds], last] for group in (one, other))
        difference = 100 * (first - second) / (best or 1.0)
        pairs.append((one.label, other.label, len(seeds), last + 1, difference))
    tested = [_signed_rank(difference) for *_, difference in pairs]
    rows = [["first", "second", "seeds", "after evaluations", "median difference, % of best", "p (Holm)"]]
    for (one, other, seeds, after, difference), p in zip(pairs, holm(tested), strict=True):  # type: ignore[assignment]
        rows.append([one, other, str(seeds), str(after), f"{np.median(difference):+.3g}", f"{p:.3g}"])  # type: ignore[list-item]
    return rows


def most_common_seeds(groups: Sequence[RunGroup]) -> int:
    """The most seeds that two of the groups have in common."""
    return max((len(set(one.seeds) & set(other.seeds)) for one, other in combinations(groups, 2)), default=0)


def _signed_rank(differences: Float[np.ndarray, " seeds"]) -> float:
    """The p-value of Wilcoxon's signed-rank test, two-sided; 1 where nothing differs."""
    from scipy.stats import wilcoxon  # Takes a second.

    return float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """P-values adjusted for as many comparisons, in their order (Holm 1979)."""
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(np.argsort(values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = largest
    return adjusted


def _format_quartiles(values: Float[np.ndarray, " runs"], text: Callable[[float], str] = format_number) -> str:
    """Median [lower quartile, upper quartile], as text; a dash for what is not finite."""
    with np.errstate(invalid="ignore"):  # NumPy interpolates two infinities as NaN.
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    low, median, high = ("–" if not np.isfinite(value) else text(float(value)) for value in (low, median, high))
    return median if len(values) == 1 else f"{median} [{low}, {high}]"
