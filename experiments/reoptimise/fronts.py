"""Fronts found for one target and measured on others: how they are written, read and compared.

    python experiments/reoptimise/fronts.py FRONTS.csv

prints a table of every ordered pair of targets: the hypervolume on the second of the front found for the first, in % of
that of the second's own (one reference for both, in the file), how many of its networks the second's own front leaves
non-dominated, and how much slower it is at an accuracy. Medians over seeds. Where there are several, "itself" compares
fronts that two seeds found for one target: what the luck of a search is worth.
"""

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasjax.pareto import hypervolume_exact

HEADER = ("space", "seed", "source", "target", "accuracy", "latency", "worst_accuracy", "worst_latency")
"""A row is a network of the front found for `source`: its accuracy (%), its latency (ms) on `target`, and the reference."""


@dataclass(frozen=True, eq=False)
class Moved:
    """A front found for one target, measured on another, beside that one's own."""

    share: float
    networks: int
    kept: int
    slower: float


def compare(moved, native, reference):
    """`moved` and `native` (networks, 2): accuracy and latency on one target. What `Moved` says of the first.

    `share`: % of the native hypervolume. `kept`: networks that no native one dominates. `slower`: the median over the native
    front of how many % more latency the moved front takes for at least that accuracy (where it has any such network).
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
    """(space, seed, source, target) -> points (networks, 2) and the reference (2,)."""
    rows = defaultdict(list)
    if Path(path).is_file():
        with Path(path).open(newline="") as file:
            for row in csv.DictReader(file):
                name = (row["space"], int(row["seed"]), row["source"], row["target"])
                rows[name].append([float(row[column]) for column in HEADER[4:]])
    return {name: (np.array(points)[:, :2], np.array(points)[0, 2:]) for name, points in rows.items()}


def pairs(path):
    """(space, source, target) -> what all seeds say of every two targets; a source "itself" is another seed's."""
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
