"""Plots the errors of predicted latencies by number of measured networks.

    python experiments/latency/figure.py RESULTS.csv OUT.png

Kendall's tau above, MAPE below, one column for each device; medians over the seeds. Dashed: with another device's model.
"""

import csv
import sys
from collections import defaultdict

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

COLOURS = {"gaussian_process": "#c2410c", "svr": "#1d4ed8", "ridge": "#6b7280"}
PANELS = (
    ("v100_64", "OFA MobileNetV3, V100, batch 64"),
    ("v100_1", "OFA MobileNetV3, V100, batch 1"),
    ("gold_6226", "NAS-Bench-201, Xeon Gold 6226"),
    ("wmt14ende_cpu_raspberrypi", "HAT en-de, Raspberry Pi 4"),
)
"""Device and title of each column."""

TRANSFER = {"v100_64": "2080ti_64", "v100_1": "2080ti_1", "gold_6226": "titan_rtx_256",
            "wmt14ende_cpu_raspberrypi": "wmt14ende_cpu_xeon"}  # fmt: skip


def lines(path):
    """Reads {(question, device, source, predictor): {samples: [(tau, mape) of each seed]}}."""
    found = defaultdict(lambda: defaultdict(list))
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            name = (row["question"], row["device"], row["source"], row["predictor"])
            found[name][int(row["samples"])].append((float(row["tau"]), float(row["mape"])))
    return found


def draw(axes, points, column, **style):
    samples = sorted(points)
    axes.plot(samples, [np.median([seed[column] for seed in points[n]]) for n in samples], marker="o", markersize=3, **style)


def main(path, out):
    found = lines(path)
    figure = Figure(figsize=(3.2 * len(PANELS), 5), layout="constrained")
    panels = figure.subplots(2, len(PANELS), sharex=True)
    for (device, title), pair in zip(PANELS, panels.T, strict=True):
        for column, axes in enumerate(pair):
            for predictor, colour in COLOURS.items():
                draw(axes, found["samples", device, "", predictor], column, color=colour, label=predictor)
            moved = found["transfer", device, TRANSFER[device], "gaussian_process"]
            draw(axes, moved, column, color="#c2410c", linestyle="--", label="gaussian_process, another device known")
            axes.set(xscale="log")
            axes.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.grid(alpha=0.25)
        pair[0].set_title(title, fontsize=9)
        pair[1].set_ylim(0, None)
        pair[1].set_xlabel("networks measured")
    panels[0, 0].set_ylabel("Kendall's tau (higher is better)")
    panels[1, 0].set_ylabel("MAPE, % (lower is better)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
