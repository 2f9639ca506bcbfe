"""Processor pace: how fast the processors are at the moment, by a short reference workload.

Heat, other programs and neighbours on a shared machine slow processors down. The workload is timed between the repeats of a
measurement, so that latencies can be scaled to one reference pace. Linux is also asked how much processor time others take.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

MATRIX_SIZE, MATRIX_PRODUCTS = 64, 16
"""First part of the workload: products of square matrices, limited by arithmetic."""

VECTOR_SIZE, VECTOR_PASSES = 2**16, 12
"""Second part: passes over a vector in the L2 cache. Together the parts slow down as networks do; they take about 0.3 ms."""

WORK = f"{MATRIX_PRODUCTS} products of {MATRIX_SIZE}, {VECTOR_PASSES} passes over {VECTOR_SIZE}, numpy {np.__version__}"
"""Description of the workload, stored with latencies: paces of different workloads cannot be compared."""

MAX_OTHERS_SHARE = 0.2
"""Repeats during which others take a larger share of the processors' time count as disturbed."""

WINDOW = 0.2
"""Seconds over which that share is taken: Linux counts processor time in hundredths of a second."""

PROC_STAT = Path("/proc/stat")
"""Linux counts each processor's time here: https://docs.kernel.org/filesystems/proc.html, section 1.7."""

IDLE_COLUMNS = (3, 4)
"""Columns of idle time among the first eight, which together are all time, including what a hypervisor steals."""


class PaceSample(NamedTuple):
    """State of the processors at one moment.

    `time`: the clock, in seconds. `others`: processor seconds that others have taken so far, mean over the processors.
    `work`: seconds that the workload took, mean over the processors.
    """

    time: float
    others: float
    work: float


class Pace:
    """Samples the pace of all processors that this process may use; a higher `work` is a slower pace.

    Only Linux lets a process choose its processor. Elsewhere the workload runs wherever the process is, and what others take
    is unknown (0).
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        # Stacked small matrices keep each product on one thread of NumPy's library.
        self._matrices = np.ones((MATRIX_PRODUCTS, MATRIX_SIZE, MATRIX_SIZE), np.float32)
        self._vector = np.ones(VECTOR_SIZE, np.float32)
        self._products, self._squares = np.empty_like(self._matrices), np.empty_like(self._vector)

    def sample(self) -> PaceSample:
        """Times the workload on every processor, now."""
        work = self._work_on_each_processor() if hasattr(os, "sched_setaffinity") else [self._work_seconds()]
        return PaceSample(self._clock(), _others_seconds() / len(work), float(np.mean(work)))

    def _work_on_each_processor(self) -> list[float]:
        """Seconds of the workload by processor. Only this thread is moved; XLA's threads keep theirs."""
        allowed = os.sched_getaffinity(0)
        if len(allowed) == 1:
            return [self._work_seconds()]
        seconds = []
        try:
            for processor in sorted(allowed):
                os.sched_setaffinity(0, {processor})
                seconds.append(self._work_seconds())
        finally:
            os.sched_setaffinity(0, allowed)
        return seconds

    def _work_seconds(self) -> float:
        began = self._clock()
        np.matmul(self._matrices, self._matrices, out=self._products)
        for _ in range(VECTOR_PASSES):
            np.multiply(self._vector, self._vector, out=self._squares)
        return self._clock() - began


def work_between(samples: list[PaceSample]) -> Float[np.ndarray, " between"]:
    """Seconds of the workload between consecutive samples: the mean of the two around."""
    work = np.array([sample.work for sample in samples])
    return (work[:-1] + work[1:]) / 2


def undisturbed(samples: list[PaceSample]) -> Bool[np.ndarray, " between"]:
    """Whether, between consecutive samples, others took at most MAX_OTHERS_SHARE of the processors."""
    times, others = np.array([sample.time for sample in samples]), np.array([sample.others for sample in samples])
    middle = (times[:-1] + times[1:]) / 2
    begin, end = (np.clip(middle + side * WINDOW / 2, times[0], times[-1]) for side in (-1, 1))
    return np.interp(end, times, others) - np.interp(begin, times, others) <= MAX_OTHERS_SHARE * (end - begin)


def _others_seconds() -> float:
    """Seconds that others have taken so far of the processors that this process may use; 0 where this is not counted."""
    if not PROC_STAT.is_file():
        return 0.0
    allowed = {f"cpu{processor}" for processor in os.sched_getaffinity(0)}
    rows = [words for words in map(str.split, PROC_STAT.read_text(encoding="utf-8").splitlines()) if words[0] in allowed]
    ticks = sum(int(word) for row in rows for i, word in enumerate(row[1:9]) if i not in IDLE_COLUMNS)
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
