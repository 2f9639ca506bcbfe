"""LaMOO (arXiv:2110.03173): the space is split by what was measured, and the most promising part is sampled.

As in the authors' code for NAS-Bench-201 (github.com/aoiang/LaMOO, `nasbench/MCTS.py`): START networks, then BATCH at once.
For each batch a tree is built. A node with more than LEAF networks is split by the number of networks that dominate each:
the better half and the others, by a support vector machine (polynomial, degree 4) on the options' positions. The leaf with
the greatest upper confidence bound of its hypervolume is taken; the exploration factor is a tenth of the hypervolume of all
networks, their rule where the greatest is not known. In the leaf's part of the space the batch is chosen by BoTorch's
expected hypervolume improvement.

Three things differ: networks are drawn from the part and chosen among, as here there is no gradient by which points of a
cube are optimised; the acquisition is the newer one of rival_botorch.py, with its reference point; and networks that were
measured are not asked for again.
"""

from math import log, sqrt

import numpy as np
import torch
import yardstick
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from rival_botorch import POOL, begun, leading, proposed
from sklearn.svm import SVC

from benchmarks import draw

START, BATCH, LEAF, NODES, TRIES = 10, 5, 15, 50, 40


def positions(space, archs):
    """Options as positions from 0 to 1, the input of support vector machines."""
    return (archs + 0.5) / np.array(space.counts)


def split(inputs, values):
    """Returns a machine that tells the better half of the rows (1) from the others (0), else None; and the halves."""
    dominating = [((values <= row).all(1) & (values < row).any(1)).sum() for row in values]
    better = np.zeros(len(values), int)
    better[np.argsort(dominating, kind="stable")[: len(values) // 2 + 1]] = 1
    machine = SVC(kernel="poly", degree=4, gamma="scale").fit(inputs, better)
    return (machine if len(set(machine.predict(inputs))) > 1 else None), better


def leaves(inputs, values):
    """Yields each leaf of the tree: its rows, how many its parent has, and the machines and answers that lead to it."""
    nodes, made = [(np.arange(len(values)), len(values), ())], 1
    while nodes:
        rows, above, path = nodes.pop(0)
        machine = None
        if len(rows) > LEAF and made < NODES:
            machine, better = split(inputs[rows], values[rows])
        if machine is None:
            yield rows, above, path
            continue
        made += 2
        for answer in (1, 0):
            nodes.append((rows[better == answer], len(rows), (*path, (machine, answer))))


def promising(inputs, values):
    """Returns the machines and answers of the leaf with the greatest upper confidence bound of its hypervolume."""
    nadir = -infer_reference_point(torch.tensor(-values[leading(values)])).numpy()
    factor = 0.1 * yardstick.volume(values, nadir)

    def bound(leaf):
        rows, above, _ = leaf
        return yardstick.volume(values[rows], nadir) + 2 * factor * sqrt(2 * log(above) / len(rows))

    return max(leaves(inputs, values), key=bound)[2]


def drawn(meter, rng, path):
    """Returns up to POOL networks that were not measured, of the part of the space that a path leads to."""
    space, pool = meter.problem.space, np.zeros((0, len(meter.problem.space.genes)), np.int32)
    for _ in range(TRIES):
        more = space.canonical(draw(rng, space, 10 * POOL))
        for machine, answer in path:
            if len(more):
                more = more[machine.predict(positions(space, more)) == answer]
        more = more[[arch.tobytes() not in meter.known for arch in more]] if len(more) else more
        pool = np.unique(np.concatenate([pool, more]), axis=0)
        if len(pool) >= POOL:
            break
    return pool[rng.permutation(len(pool))[:POOL]]


def search(meter, rng):
    """Searches until the budget of `meter` is spent."""
    problem = begun(meter, rng, START)
    while not meter.spent:
        archs, values = meter.result()
        path = promising(positions(problem.space, archs), values)
        pool = drawn(meter, rng, path)
        while not len(pool):  # All of the part is measured: the part above it.
            path = path[:-1]
            pool = drawn(meter, rng, path)
        meter(pool[proposed(problem, archs, values, pool, BATCH)])
