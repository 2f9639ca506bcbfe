"""How fast the processors run just now: a neighbour on the same core, another program or heat slow them, by turns."""

import os
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

WORK = 1000
"""Additions of the little work: some 30 us, so that it can stand beside every repeat."""

SLOWED = 1.15
"""From so many times its quickest on, the little work says that a processor is slowed; a shared core takes 1.7 times."""


class Pace:
    """A fixed little work, timed on each of the processors; the quickest each ever took is what it is judged by.

    Where a process cannot choose its processor (all but Linux), the work runs wherever the process is.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._quickest: Float[np.ndarray, " processors"] | None = None

    def __call__(self) -> Float[np.ndarray, " processors"]:
        """Seconds that the work takes now."""
        found = np.array(self._by_processor() if hasattr(os, "sched_setaffinity") else [self._seconds()])
        self._quickest = found if self._quickest is None else np.minimum(self._quickest, found)
        return found

    def full(self, paces: Float[np.ndarray, "times processors"]) -> Bool[np.ndarray, " times"]:
        """When all processors ran at their full speed."""
        assert self._quickest is not None
        return (paces <= SLOWED * self._quickest).all(axis=1)

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
