"""BLEU on all sentences of validation and test_2016_flickr: of networks of a front, and of networks trained alone.

    python experiments/translation/tested.py WEIGHTS.safetensors MULTI30K FRONT.csv INDEX,… [FOLDER …]

INDEX: rows of FRONT.csv (`pareto.csv` of a search), cut out of the super-network in WEIGHTS. FOLDER: networks that `nasjax
train subnet=…` wrote. Ten CPU seconds a network, and as many of compiling for each padded length.
"""

import csv
import sys
from pathlib import Path

import multi30k
import numpy as np

from nasjax.evaluation import EVALUATORS, measure
from nasjax.hardware.costs import cost_tables
from nasjax.supernets.folders import load

SPLITS = ("validation", "test")


def scores(net, task, archs):
    """A line for each architecture: million multiply-accumulates, BLEU and its standard error by split."""
    task.check(net)
    bound = EVALUATORS["switch"](calibration_examples=0, chunk=len(archs)).bind(net, task)
    found = {split: measure(bound.on(split), archs) for split in SPLITS}
    macs = cost_tables(net.shapes(task.steps))["macs"].exact(archs)
    for i in range(len(archs)):
        cells = [f"{split} {found[split]['bleu'][i]:.2f} ({found[split]['bleu_se'][i]:.2f})" for split in SPLITS]
        yield f"{macs[i] / 1e6:.1f} million multiply-accumulates, BLEU {', '.join(cells)}"


def main(weights, folder, front, indices, *alone):
    net, task = multi30k.network(weights), multi30k.task(folder)
    with Path(front).open(newline="") as file:
        rows = {row["index"]: row for row in csv.DictReader(file)}
    wanted = indices.split(",")
    archs = [net.space.encode({gene: int(rows[i][gene]) for gene in net.space.names if rows[i][gene]}) for i in wanted]
    for index, line in zip(wanted, scores(net, task, np.array(archs, np.int32)), strict=True):
        print(f"{index}: {line}", flush=True)
    for place in alone:
        small = load(place)
        print(f"{place}: {next(scores(small, task, small.space.largest()[None]))}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
