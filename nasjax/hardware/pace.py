"""How much of the processors this process has just now: a neighbour on the core, heat and other programs take of them."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

WORK = 1000
"""Additions of the little work: some 30 us, so that it can stand beside every repeat."""

SLOWED = 1.15
"""From so many times its quickest on, the little work says that a processor is slowed; a shared core takes 1.7 times."""

FEW = 0.1
"""The share of the processors that may be slowed: of less than ten none, of many there is always one."""

OTHERS = 0.2
"""The share of the processors' time that others may take."""

WINDOW = 0.2
"""Seconds over which that is judged: Linux counts it in hundredths."""

STAT = Path("/proc/stat")
"""Where Linux counts each processor's time: https://docs.kernel.org/filesystems/proc.html, section 1.7."""

IDLE = (3, 4)
"""The columns of time in which a processor has nothing to do; the first eight are all of it, what a host steals included."""


class Look(NamedTuple):
    """When this was, seconds that others have taken of the processors so far, and what the work took on each of them."""

    at: float
    others: float
    work: dict[int, float]


class Pace:
    """A fixed little work, timed on each of the processors; the quickest each ever took is what it is judged by.

    Where a process cannot choose its processor (all but Linux), the work runs wherever the process is, and nobody says what
    others take.
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._quickest: dict[int, float] = {}

    def look(self) -> Look:
        """How it is now."""
        work = self._by_processor() if hasattr(os, "sched_setaffinity") else {0: self._seconds()}
        for processor, seconds in work.items():
            self._quickest[processor] = min(seconds, self._quickest.get(processor, seconds))
        return Look(self._clock(), _others(), work)

    def undisturbed(self, looks: list[Look]) -> Bool[np.ndarray, " between"]:
        """Between which looks the processors ran at their full speed, and for this process."""
        full = np.array([self._full(look) for look in looks])
        at, others = np.array([look.at for look in looks]), np.array([look.others for look in looks])
        middle = (at[:-1] + at[1:]) / 2
        begin, end = (np.clip(middle + side * WINDOW / 2, at[0], at[-1]) for side in (-1, 1))
        taken = np.interp(end, at, others) - np.interp(begin, at, others)
        return full[:-1] & full[1:] & (taken <= OTHERS * len(looks[0].work) * (end - begin))

    def _full(self, look: Look) -> bool:
        slowed = sum(seconds > SLOWED * self._quickest[processor] for processor, seconds in look.work.items())
        return slowed <= FEW * len(look.work)

    def _by_processor(self) -> dict[int, float]:
        """Only this thread moves: those of XLA have processors of their own choice."""
        allowed = os.sched_getaffinity(0)
        if len(allowed) == 1:
            return dict.fromkeys(allowed, self._seconds())
        found = {}
        try:
            for one in sorted(allowed):
                os.sched_setaffinity(0, {one})
                found[one] = self._seconds()
        finally:
            os.sched_setaffinity(0, allowed)
        return found

    def _seconds(self) -> float:
        began, number = self._clock(), 0
        for i in range(WORK):
            number += i
        return self._clock() - began


def _others() -> float:
    """Seconds that others have taken of this process's processors so far; 0 where nobody counts."""
    if not STAT.is_file():
        return 0.0
    allowed = {f"cpu{one}" for one in os.sched_getaffinity(0)}
    rows = [words for words in map(str.split, STAT.read_text().splitlines()) if words[0] in allowed]
    ticks = sum(int(word) for row in rows for i, word in enumerate(row[1:9]) if i not in IDLE)
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
