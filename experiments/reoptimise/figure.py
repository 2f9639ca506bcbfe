"""Plots fronts found for another target against native ones.

    python experiments/reoptimise/figure.py OUT.png FRONTS.csv…

One panel for each pair of targets, like Figures 5 and 6 of arXiv:2202.12954: the fronts found for either, measured on the
second (seed 0).
"""

import sys

import numpy as np
from fronts import compare, read
from matplotlib.figure import Figure

PANELS = (
    ("ofa", "v100_1", "v100_64", "OFA MobileNetV3: V100, batch 1 → batch 64"),
    ("ofa", "v100_64", "v100_1", "OFA MobileNetV3: V100, batch 64 → batch 1"),
    ("ofa_96px", "1-thread_batch-1", "2-thread_batch-32", "This machine: 1 thread, batch 1 → 2 threads, batch 32"),
    ("nb201:cifar100", "1080ti_1", "raspi4", "NAS-Bench-201: GTX 1080 Ti → Raspberry Pi 4"),
    ("nb201:cifar100", "gold_6226", "pixel3", "NAS-Bench-201: Xeon Gold 6226 → Pixel 3"),
    ("ofa_96px", "2-thread_batch-32", "1-thread_batch-1", "This machine: 2 threads, batch 32 → 1 thread, batch 1"),
)
"""Space, target that the front was found for, target that it is measured on, title."""

FLOOR = {"ofa": 71.0, "ofa_96px": 71.0, "nb201:cifar100": 50.0}
"""The least accuracy that is drawn, in %."""


def main(out, *paths):
    fronts = {name: front for path in paths for name, front in read(path).items()}
    figure = Figure(figsize=(10.5, 6), layout="constrained")
    for axes, (space, source, target, title) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        native, reference = fronts[space, 0, target, target]
        moved, _ = fronts[space, 0, source, target]
        for points, marker, colour, label in (
            (native, "o", "#1d4ed8", "found for this target"),
            (moved, "x", "#c2410c", "found for the other"),
        ):
            points = points[np.argsort(points[:, 1])]
            axes.plot(points[:, 1], points[:, 0], marker, color=colour, markersize=4, label=label)
        axes.set_ylim(FLOOR[space], None)
        seen = np.concatenate([native, moved])
        seen = seen[seen[:, 0] >= FLOOR[space]]
        axes.set_xlim(0.95 * seen[:, 1].min(), 1.03 * seen[:, 1].max())
        share = compare(moved, native, reference).share
        axes.set_title(f"{title}\n{share:.1f} % of the native hypervolume", fontsize=8)
        axes.set_xlabel("latency on the second, ms")
        axes.grid(alpha=0.25)
    for axes in figure.axes[::3]:
        axes.set_ylabel("accuracy, %")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
