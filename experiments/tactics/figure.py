"""Plots anytime curves: python experiments/tactics/figure.py OUT.png PROBLEMS RESULTS.csv [RESULTS.csv …]

One panel for each problem (names separated by commas, * for any letters): median and quartiles of the hypervolume with the
loose reference point, in % of the true front's or of the best known, by number of evaluations.
"""

import sys
from pathlib import Path

import numpy as np
import problems
import runs
from matplotlib.figure import Figure

LINES = {
    "nasjax:ehvi": ("nasjax (ehvi)", "#c2410c"),
    "nasjax:concurrent": ("nasjax (concurrent)", "#0369a1"),
    "nasjax:full": ("nasjax (full)", "#4d7c0f"),
    "linas": ("LINAS", "#1d4ed8"),
    "optuna_tpe": ("Optuna TPE", "#047857"),
    "optuna_nsga2": ("Optuna NSGA-II", "#0d9488"),
    "nsga2_20": ("pymoo NSGA-II", "#7c3aed"),
    "qnehvi": ("BoTorch qNEHVI", "#be185d"),
    "weaknas": ("WeakNAS", "#a16207"),
    "random": ("random", "#6b7280"),
}
"""Label and colour of each method."""

FIRST, LAST, WIDE = 10, 500, 4


def draw(axes, name, found):
    lowest, most = 100.0, FIRST
    for method, (label, colour) in LINES.items():
        seeds = [curves["loose"] for curves in found.get((method, name), {}).values()]
        if not seeds:
            continue
        # Numbers of validations that all seeds have.
        numbers = sorted(set.intersection(*(set(seed[0]) for seed in seeds)))
        numbers = np.array([k for k in numbers if FIRST <= k <= LAST])
        volumes = np.stack([seed[1][np.isin(seed[0], numbers)] for seed in seeds])
        low, median, high = np.quantile(volumes, (0.25, 0.5, 0.75), axis=0)
        axes.plot(numbers, median, color=colour, label=label, linewidth=1.6)
        axes.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
        lowest, most = min(lowest, median[numbers >= 2 * FIRST].min(initial=100)), max(most, numbers.max())
    axes.set(xscale="log", xlim=(FIRST, most), ylim=(lowest - 1, 100.2))
    ticks = [tick for tick in (10, 20, 50, 100, 200, 500) if tick <= most]
    axes.set_xticks(ticks, map(str, ticks))
    axes.set_title(name, fontsize=9)
    axes.grid(alpha=0.25)


def main():
    out, names = Path(sys.argv[1]), [name for pattern in sys.argv[2].split(",") for name in problems.matching(pattern)]
    curves = runs.joined(map(Path, sys.argv[3:]))
    wide = min(WIDE, len(names))
    high = -(-len(names) // wide)
    figure = Figure(figsize=(max(5.5, 3.3 * wide), 2.6 * high + 0.5), layout="constrained")
    panels = figure.subplots(high, wide, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        draw(axes, name, curves)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    figure.supxlabel("evaluations", fontsize=10)
    figure.supylabel("hypervolume, %", fontsize=10)
    found = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found, loc="outside upper center", ncols=len(found), frameon=False, fontsize=9)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main()
