"""Measures the architectures that an archive lacks, in chunks, while other runs may measure into the same archive."""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from nasjax.runs.archive import Archive
from nasjax.searches.problem import Evaluator
from nasjax.searches.time_spent import TimeSpent
from nasjax.types import Population

POLL = (0.05, 2.0)
"""Seconds between checks of what another run is measuring: the first pause, which doubles, and the longest."""


def measuring(
    evaluator: Evaluator,
    archive: Archive,
    context: str,
    archs: Population,
    spent: TimeSpent,
    positions: Sequence[int] = (),
    step: int = 0,
    part: str = "evaluation",
) -> Iterator[int]:
    """Measures and stores every architecture that the archive lacks; with `positions`, all are logged as evaluations there.

    Yields after each chunk, and repeatedly while it waits for other runs: the number of networks that these are measuring.
    `spent` counts the time, that of the evaluator as `part`. Which process measures a network depends on timing, the order
    of evaluations does not.
    """
    archs = np.asarray(archs)
    pending = sorted(np.unique(archs, axis=0, return_index=True)[1].tolist())
    measured: set[int] = set()
    pause = POLL[0]
    while pending:
        claimed, others = archive.claim(context, archs[pending], evaluator.chunk)
        rows, pending = [pending[i] for i in claimed], [pending[i] for i in others]
        if rows:
            began = time.monotonic()
            with spent.on(part):
                metrics = evaluator(archs[rows])
            seconds = time.monotonic() - began
            with spent.on("archive"):
                places = [positions[i] for i in rows if positions]
                archive.add_measurements(context, archs[rows], metrics, seconds, places, step)
            measured.update(rows)
            pause = POLL[0]
            yield 0
        elif pending:
            yield len(pending)
            time.sleep(pause)
            pause = min(2 * pause, POLL[1])
    reused = [i for i in range(len(archs)) if i not in measured]
    if positions and reused:
        archive.add_reused(context, archs[reused], [positions[i] for i in reused], step)
        yield 0
