"""Small tables with a known front, for tests of searches."""

import csv
import itertools

import numpy as np

GENES = ("d", "a", "b", "c", "e")


def write_table(path, bad=()):
    """A complete table: depth d of 1 to 3 switches c and e on; accuracy grows with everything, and is not additive.

    Rows whose number is in `bad` have an accuracy of nan.
    """
    rows = []
    for d in (1, 2, 3):
        for chosen in itertools.product((3, 5, 7), (2, 4, 6), (3, 5, 7), (2, 4, 6)):
            a, b, c, e = chosen[0], chosen[1], chosen[2] if d >= 2 else "", chosen[3] if d >= 3 else ""
            row = (d, a, b, c, e)
            if row not in [known[:5] for known in rows]:
                cost = d * 10 + a * b + (0 if c == "" else 3 * c) + (0 if e == "" else 5 * e)
                accuracy = 60 + 8 * np.log(cost) - (a - 5) ** 2 / 4 + (0 if e == "" else np.sin(e + b))
                rows.append((*row, round(float(accuracy), 6), cost, (a + b) ** 2 - d))
    for number in bad:
        rows[number] = (*rows[number][:5], "nan", *rows[number][6:])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([(*GENES, "acc", "cost", "width"), *rows])
    return str(path)


def brute_front(values):
    """Rows that no other row beats, all columns minimised, by comparing every pair."""
    beaten = [any((other <= row).all() and (other < row).any() for other in values) for row in values]
    return ~np.array(beaten)
