"""Writes, reads and compares fronts that were found for one target and measured on others.

    python experiments/reoptimise/fronts.py FRONTS.csv

prints a table of every ordered pair of targets. The front found for the first target is measured on the second and compared
with the front found for that one (the native front): hypervolume in % of the native front's, with the same reference point;
number of networks that no native one dominates; how much slower it is at the same accuracy. Values are medians over seeds.
With several seeds, rows "itself" compare the fronts that two seeds found for one target: the variation between searches.
"""

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nasjax.pareto import hypervolume_exact

HEADER = ("space", "seed", "source", "target", "accuracy", "latency", "worst_accuracy", "worst_latency")
"""A row is a network of the front found for `source`: accuracy (%), latency (ms) on `target`, reference point."""


def retargeted(benchmark, values, costs, reference):
    """The benchmark of another target: `values` of architectures without noise, `costs` that are computed, the reference."""
    return replace(benchmark, true=values, noise=(0.0,) * len(costs), costs=costs, told=reference)


@dataclass(frozen=True, eq=False)
class Moved:
    """A front found for another target, compared with the native front: see `compare`."""

    share: float
    networks: int
    kept: int
    slower: float


def compare(moved, native, reference):
    """Compares two fronts by accuracy and latency on one target, both of shape (networks, 2).

    Returns `share`: hypervolume of `moved` in % of the native one's; `networks`: their number in `moved`; `kept`: how many
    of them no native network dominates; `slower`: median over the native networks of the additional latency, in %, that
    `moved` needs for at least the same accuracy (where it has such a network).
    """
    own, other = (np.stack([-points[:, 0], points[:, 1]], 1) for points in (native, moved))
    point = np.array([-reference[0], reference[1]])
    share = 100 * hypervolume_exact(other, point) / hypervolume_exact(own, point)
    dominated = ((own[:, None] <= other).all(2) & (own[:, None] < other).any(2)).any(0)
    least = np.where(other[:, 0] <= own[:, :1], other[:, 1], np.inf).min(1)
    ratios = (least / own[:, 1])[np.isfinite(least)]
    slower = 100 * (np.median(ratios) - 1) if len(ratios) else np.nan
    return Moved(share, len(other), int((~dominated).sum()), float(slower))


def write(path, space, seed, source, target, points, reference):
    """Appends the networks of a front."""
    path = Path(path)
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(HEADER)
        for accuracy, latency in points:
            numbers = (f"{accuracy:.4f}", f"{latency:.6g}", f"{reference[0]:.4f}", f"{reference[1]:.6g}")
            writer.writerow((space, seed, source, target, *numbers))


def read(path):
    """Reads {(space, seed, source, target): (points of shape (networks, 2), reference of shape (2,))}."""
    rows = defaultdict(list)
    if Path(path).is_file():
        with Path(path).open(newline="") as file:
            for row in csv.DictReader(file):
                name = (row["space"], int(row["seed"]), row["source"], row["target"])
                rows[name].append([float(row[column]) for column in HEADER[4:]])
    return {name: (np.array(points)[:, :2], np.array(points)[0, 2:]) for name, points in rows.items()}


def pairs(path):
    """Returns {(space, source, target): [comparison of each seed]}; the source "itself" is another seed of that target."""
    fronts = read(path)
    found = defaultdict(list)
    for (space, seed, source, target), (points, reference) in fronts.items():
        native = fronts[space, seed, target, target][0]
        if source != target:
            found[space, source, target].append(compare(points, native, reference))
        elif (space, seed + 1, target, target) in fronts:
            other = fronts[space, seed + 1, target, target][0]
            found[space, "itself", target].append(compare(other, native, reference))
    return dict(found)


def main(path):
    print("| space | found for | measured on | hypervolume, % of the native | non-dominated there | slower, % |")
    print("|---|---|---|---|---|---|")
    for (space, source, target), seeds in pairs(path).items():
        share, kept, networks, slower = (
            np.median([getattr(seed, name) for seed in seeds]) for name in ("share", "kept", "networks", "slower")
        )
        print(f"| {space} | {source} | {target} | {share:.1f} | {kept:.0f} of {networks:.0f} | {slower:+.0f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
