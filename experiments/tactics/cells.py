"""Which cells of NAS-Bench-201 compute the same function: canonical forms of a cell.

A cell has four nodes, the first of which is its input and the last its output. Every edge applies an operation to an earlier
node; a node is the sum of its edges. `functions` labels cells by their computation: the sum that reaches the output, however
nodes are numbered. Edges that pass nothing on (`none`), and all that leads to such edges only, are left out, and identities
(`skip_connect`) are replaced by what they pass on. Two convolutions of the same input have weights of their own, and differ
from one that is used twice. A convolution of nothing adds the shift of its batch normalisation, a constant; a pooling of
nothing adds nothing.

Coarser forms, and the one that the benchmark's 6,466 functions come from:

- `weights=False`: a convolution used twice equals two of the same input.
- `constants=False`: a convolution of nothing is nothing.
- `benchmark_string`: the benchmark's own (`to_unique_str` in github.com/D-X-Y/AutoDL-Projects, zeros considered). It keeps
  apart some equal functions, since it orders the terms of a sum by node and not by term, and since a sum of two zeros is not
  recognised as zero; and it does not see shared weights.

`cd experiments/tactics && NASJAX_DATA=... python cells.py` counts functions, and tests on accuracies which of these
differences are more than training noise.
"""

from collections import Counter
from itertools import permutations, product

import numpy as np

NAMES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
ZERO, IDENTITY, POOL = 0, 1, 4
"""Options of an edge, as in problems.OPERATIONS; those that pass on nothing, the input itself, or have no weights."""

SOURCES = ((0,), (0, 1), (0, 1, 2))
"""The inputs of the second, third and fourth node, in the order of problems.EDGES."""

INPUT = -1


def computation(cell, weights=True, constants=True):
    """Returns the canonical form of one cell: applied operations with their summands, and the summands of the output.

    Summands are pairs of a number (of an applied operation, or INPUT) and how often it is added.
    """
    applied, nodes, operations = [], [Counter([INPUT])], iter(map(int, cell))
    for sources in SOURCES:
        node = Counter()
        for source in sources:
            operation, read = next(operations), nodes[source]
            if operation == ZERO or (not read and (operation == POOL or not constants)):
                continue
            if operation == IDENTITY:
                node.update(read)
                continue
            new = operation, frozenset(read.items())
            if new not in applied or (weights and operation != POOL):
                applied.append(new)
                node[len(applied) - 1] += 1
            else:
                node[applied.index(new)] += 1
        nodes.append(node)
    output = nodes[-1].items()

    def shape(number):
        """What an applied operation computes, whether or not others use it too."""
        if number == INPUT:
            return ()
        operation, read = applied[number]
        return operation, tuple(sorted((shape(other), times) for other, times in read))

    groups: dict = {}
    for number in _reached(applied, output):
        groups.setdefault(shape(number), []).append(number)
    # Operations of one shape can be numbered in any order: the least result is the canonical one.
    orders = product(*(permutations(groups[key]) for key in sorted(groups)))
    return min(_renumbered(applied, output, [number for group in order for number in group]) for order in orders)


def _reached(applied, output):
    """Returns the numbers of the applied operations that the output depends on."""
    found, left = set(), [number for number, _ in output]
    while left:
        number = left.pop()
        if number != INPUT and number not in found:
            found.add(number)
            left += [other for other, _ in applied[number][1]]
    return found


def _renumbered(applied, output, order):
    place = {INPUT: INPUT, **{number: i for i, number in enumerate(order)}}

    def summands(read):
        return tuple(sorted((place[number], times) for number, times in read))

    return (*((applied[number][0], summands(applied[number][1])) for number in order), (IDENTITY, summands(output)))


def benchmark_string(cell):
    """Returns the benchmark's string of a cell, by which it counts 6,466 functions."""
    nodes, operations = ["0"], iter(map(int, cell))
    for sources in SOURCES:
        words = []
        for source in sources:
            operation, read = next(operations), nodes[source]
            if operation == ZERO or read == "#":
                words.append("#")
            else:
                words.append(read if operation == IDENTITY else f"({read})@{NAMES[operation]}")
        nodes.append("+".join(sorted(words)))
    return nodes[-1]


def labels(forms):
    """Returns a number for each form, the same for equal forms."""
    found: dict = {}
    return np.array([found.setdefault(form, len(found)) for form in forms])


def functions(archs, **rules):
    """Returns the function of each cell, as a number from 0 on."""
    return labels(computation(cell, **rules) for cell in archs)


def separation(values, fine, coarse, draws=200):
    """Returns how far values differ between finer classes of one coarser class, in standard deviations of chance.

    The variance between finer classes, as a share of that within the coarser class, is summed over these, and compared with
    random permutations of the values inside each of them.
    """
    fine = labels(zip(fine.tolist(), coarse.tolist(), strict=True))
    number = np.bincount(coarse)
    centred = values - (np.bincount(coarse, values) / number)[coarse]
    squares = np.bincount(coarse, centred**2)[coarse]
    scaled = np.where(squares > 1e-9, centred / np.sqrt(np.maximum(squares, 1e-9)), 0)
    rng, places = np.random.default_rng(0), np.argsort(coarse, kind="stable")
    found = []
    for draw in range(draws + 1):
        order = np.lexsort((rng.random(len(coarse)), coarse)) if draw else places
        moved = np.empty_like(scaled)
        moved[places] = scaled[order]
        found.append((np.bincount(fine, moved) ** 2 / np.bincount(fine)).sum())
    return (found[0] - np.mean(found[1:])) / np.std(found[1:])


def within(values, functions):
    """Returns the standard deviation within functions, pooled over the better half of them by mean."""
    number = np.bincount(functions)
    mean = np.bincount(functions, values) / number
    squares = np.bincount(functions, (values - mean[functions]) ** 2)
    better = mean >= np.median(mean)
    return np.sqrt(squares[better].sum() / (number[better] - 1).sum())


def main():
    import problems

    archs, accuracies = problems._nb201_cells()
    classes = {
        "strings of the benchmark": labels(map(benchmark_string, archs)),
        "neither weights nor constants": functions(archs, weights=False, constants=False),
        "constants": functions(archs, weights=False),
        "weights": functions(archs, constants=False),
        "weights and constants": functions(archs),
    }
    for name, found in classes.items():
        print(f"{name}: {found.max() + 1} functions")
    for data, values in accuracies.items():
        print(f"{data}: standard deviation {within(values, classes['weights and constants']):.3f}")
        for fine, coarse in (("weights", "neither weights nor constants"), ("weights and constants", "weights"),
                             ("weights and constants", "strings of the benchmark"),
                             ("strings of the benchmark", "weights and constants")):  # fmt: skip
            print(f"{data}: {fine}, within {coarse}: {separation(values, classes[fine], classes[coarse]):.1f}")


if __name__ == "__main__":
    main()
