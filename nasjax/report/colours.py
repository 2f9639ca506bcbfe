"""The colours of curves, and which of them a group of a comparison has: that of its name, in every comparison."""

from collections.abc import Sequence
from hashlib import sha256

from nasjax.algorithms import ALGORITHMS
from nasjax.predictors import PREDICTORS
from nasjax.tactics import TACTICS

COLOURS = (
    *("#2f74b5", "#c2410c", "#2a8c6e", "#8250c4", "#b8860b", "#c2397a", "#59636e", "#1b9aaa"),
    *("#7a4a21", "#6b8e23", "#1f3a8a", "#e0776b"),
)
"""Colours of curves, s0 to s11 of the style sheet; a thirteenth curve shares one."""

NAMES = {name: i for table in (PREDICTORS, ALGORITHMS, TACTICS) for i, name in enumerate(table)}
"""The colour of every tactic, algorithm and predictor: different ones within each table."""


def group_colours(labels: Sequence[str]) -> list[int]:
    """The index in COLOURS for each label, different ones as long as there are enough.

    A label that is a tactic's, algorithm's or predictor's name has the colour of that name. Others prefer the colour of the
    name that they begin with, or one that follows from the label itself, and take the next that is free.
    """
    chosen: dict[str, int] = {}
    for label in sorted(labels, key=lambda label: (label not in NAMES, label)):
        first = label.split(", ")[0]
        preferred = NAMES.get(first, int.from_bytes(sha256(label.encode()).digest()[:4], "big"))
        places = [(preferred + step) % len(COLOURS) for step in range(len(COLOURS))]
        chosen[label] = next((place for place in places if place not in chosen.values()), places[0])
    return [chosen[label] for label in labels]
