"""How much of the processors this process has just now: a neighbour on the core, heat and other programs take of them."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

WORK = 1000
"""Additions of the little work: some 30 us, so that it can stand beside every repeat."""

SLOWED = 1.15
"""From so many times its quickest on, the little work says that a processor is slowed; a shared core takes 1.7 times."""

WAITED = 0.2
"""Seconds in a second that threads may wait for a processor: waking takes a little, another program half of the time."""

THREADS = Path("/proc/self/task")
"""Where Linux has a folder for each thread, with how long it waited: https://docs.kernel.org/scheduler/sched-stats.html."""


class Pace:
    """A fixed little work, timed on each of the processors; the quickest each ever took is what it is judged by.

    Where a process cannot choose its processor (all but Linux), the work runs wherever the process is, and nobody says how
    long threads waited.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._quickest: Float[np.ndarray, " processors"] | None = None

    def look(self) -> Float[np.ndarray, " columns"]:
        """When this is, seconds that all threads have waited so far, and what the work takes now on each processor."""
        found = np.array(self._by_processor() if hasattr(os, "sched_setaffinity") else [self._seconds()])
        self._quickest = found if self._quickest is None else np.minimum(self._quickest, found)
        return np.concatenate([[self._clock(), _waited()], found])

    def undisturbed(self, looks: Float[np.ndarray, "looks columns"]) -> Bool[np.ndarray, " between"]:
        """Between which looks all processors ran at their full speed, and for this process."""
        assert self._quickest is not None
        full = np.all(looks[:, 2:] <= SLOWED * self._quickest, axis=1)
        at, waited = np.diff(looks[:, :2], axis=0).T
        return full[:-1] & full[1:] & (waited <= WAITED * at)

    def _by_processor(self) -> list[float]:
        """Only this thread moves: those of XLA have processors of their own choice."""
        allowed = os.sched_getaffinity(0)
        if len(allowed) == 1:
            return [self._seconds()]
        found = []
        for one in sorted(allowed):
            os.sched_setaffinity(0, {one})
            found.append(self._seconds())
        os.sched_setaffinity(0, allowed)
        return found

    def _seconds(self) -> float:
        began, number = self._clock(), 0
        for i in range(WORK):
            number += i
        return self._clock() - began


def _waited() -> float:
    """Seconds that this process's threads have waited for a processor so far; 0 where nobody counts."""
    nanoseconds = 0
    for thread in THREADS.iterdir() if THREADS.is_dir() else ():
        with suppress(OSError):  # It has ended, or this Linux does not count.
            nanoseconds += int((thread / "schedstat").read_bytes().split()[1])
    return 1e-9 * nanoseconds
