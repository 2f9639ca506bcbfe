"""Measures what the archive does not know, chunk by chunk, beside other runs that may do the same."""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from nasjax.evaluation import Evaluator
from nasjax.runs.archive import Archive
from nasjax.types import Population

POLL = (0.05, 2.0)
"""Seconds between looks at what another run is measuring: at first, and at most."""


def measuring(
    evaluator: Evaluator, store: Archive, context: str, archs: Population, positions: Sequence[int] = (), step: int = 0
) -> Iterator[int]:
    """Measures and stores every architecture that is not known; with `positions`, all become the run's evaluations there.

    Yields after each chunk, and while only other runs' chunks are waited for: how many networks that is. Which process
    measures what depends on time; the order of evaluations does not.
    """
    archs = np.asarray(archs)
    left = sorted(np.unique(archs, axis=0, return_index=True)[1].tolist())
    made: set[int] = set()
    pause = POLL[0]
    while left:
        mine, rest = store.claim(context, archs[left], evaluator.chunk)
        rows, left = [left[i] for i in mine], [left[i] for i in rest]
        if rows:
            began = time.monotonic()
            metrics = evaluator(archs[rows])
            store.add_measurements(
                context, archs[rows], metrics, time.monotonic() - began, [positions[i] for i in rows if positions], step
            )
            made.update(rows)
            pause = POLL[0]
            yield 0
        elif left:
            yield len(left)
            time.sleep(pause)
            pause = min(2 * pause, POLL[1])
    again = [i for i in range(len(archs)) if i not in made]
    if positions and again:
        store.add_reused(context, archs[again], [positions[i] for i in again], step)
        yield 0
