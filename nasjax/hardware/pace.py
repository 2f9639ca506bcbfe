"""How fast the processors are just now: a neighbour on the core, heat and other programs take of them."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

SIDE, PRODUCTS = 64, 16
"""The little work: so many products of square matrices, …"""

NUMBERS, PASSES = 2**16, 12
"""… and so many passes over numbers in the second cache: together slowed as networks are; some 0.3 ms."""

WORK = f"{PRODUCTS} products of {SIDE}, {PASSES} passes over {NUMBERS}, numpy {np.__version__}"
"""All that the work is: what one work says of the pace is no measure for another's."""

OTHERS = 0.2
"""The share of the processors' time that others may take."""

WINDOW = 0.2
"""Seconds over which that is judged: Linux counts it in hundredths."""

STAT = Path("/proc/stat")
"""Where Linux counts each processor's time: https://docs.kernel.org/filesystems/proc.html, section 1.7."""

IDLE = (3, 4)
"""The columns of time in which a processor has nothing to do; the first eight are all of it, what a host steals included."""


class Look(NamedTuple):
    """When this was, seconds that others have taken so far, and those of the little work: the processors' mean."""

    at: float
    others: float
    work: float


class Pace:
    """A fixed little work, timed on each of the processors: the longer it takes, the longer takes all else.

    Where a process cannot choose its processor (all but Linux), the work runs wherever the process is, and nobody says what
    others take.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        # Stacked, each product stays on one thread of numpy's library.
        self._matrices, self._numbers = np.ones((PRODUCTS, SIDE, SIDE), np.float32), np.ones(NUMBERS, np.float32)
        self._products, self._squares = np.empty_like(self._matrices), np.empty_like(self._numbers)

    def look(self) -> Look:
        """How it is now."""
        work = self._everywhere() if hasattr(os, "sched_setaffinity") else [self._seconds()]
        return Look(self._clock(), _others() / len(work), float(np.mean(work)))

    def _everywhere(self) -> list[float]:
        """Seconds of the work, processor by processor; only this thread moves, those of XLA go where they choose."""
        allowed = os.sched_getaffinity(0)
        if len(allowed) == 1:
            return [self._seconds()]
        found = []
        try:
            for one in sorted(allowed):
                os.sched_setaffinity(0, {one})
                found.append(self._seconds())
        finally:
            os.sched_setaffinity(0, allowed)
        return found

    def _seconds(self) -> float:
        began = self._clock()
        np.matmul(self._matrices, self._matrices, out=self._products)
        for _ in range(PASSES):
            np.multiply(self._numbers, self._numbers, out=self._squares)
        return self._clock() - began


def work_between(looks: list[Look]) -> Float[np.ndarray, " between"]:
    """Seconds that the work took between looks: the mean of those before and after."""
    work = np.array([look.work for look in looks])
    return (work[:-1] + work[1:]) / 2


def undisturbed(looks: list[Look]) -> Bool[np.ndarray, " between"]:
    """Between which looks others left the processors to this process."""
    at, others = np.array([look.at for look in looks]), np.array([look.others for look in looks])
    middle = (at[:-1] + at[1:]) / 2
    begin, end = (np.clip(middle + side * WINDOW / 2, at[0], at[-1]) for side in (-1, 1))
    return np.interp(end, at, others) - np.interp(begin, at, others) <= OTHERS * (end - begin)


def _others() -> float:
    """Seconds that others have taken of this process's processors so far; 0 where nobody counts."""
    if not STAT.is_file():
        return 0.0
    allowed = {f"cpu{one}" for one in os.sched_getaffinity(0)}
    rows = [words for words in map(str.split, STAT.read_text().splitlines()) if words[0] in allowed]
    ticks = sum(int(word) for row in rows for i, word in enumerate(row[1:9]) if i not in IDLE)
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
