"""The rivals: `RIVALS[name](problem, evaluations, seed)` gives architectures and measured values, in order of measurement.

All have the same noise and the same budget. An architecture that a rival asks for again costs it nothing: what would be
looked up by anyone who uses it so (LINAS alone is charged, as DyNAS-T charges it; `linas_free` is not).
"""

import numpy as np
from linas import linas

from nasjax.space import SearchSpace


class Meter:
    """Measures, remembers, and counts what was not measured before."""

    def __init__(self, problem, evaluations, seed):
        self.problem, self.evaluations, self.seed = problem, evaluations, seed
        self.known: dict[bytes, np.ndarray] = {}
        self.archs: list[np.ndarray] = []

    @property
    def spent(self):
        return len(self.archs) >= self.evaluations

    def __call__(self, raw):
        """Values of raw vectors; those beyond the budget are NaN."""
        archs = self.problem.space.canonical(np.asarray(raw, np.int32))
        new = list({arch.tobytes(): arch for arch in archs if arch.tobytes() not in self.known}.values())
        new = new[: self.evaluations - len(self.archs)]
        if new:
            self.archs += new
            found = self.problem.measure(np.stack(new), self.seed)
            self.known |= {arch.tobytes(): values for arch, values in zip(new, found, strict=True)}
        unknown = np.full(len(self.problem.objectives), np.nan)
        return np.stack([self.known.get(arch.tobytes(), unknown) for arch in archs])

    def result(self):
        archs = np.stack(self.archs)
        return archs, np.stack([self.known[arch.tobytes()] for arch in archs])


def draw(rng, space: SearchSpace, number):
    """Raw vectors, every gene uniform over its options."""
    return np.stack([rng.integers(0, count, number) for count in space.counts], 1).astype(np.int32)


def random(problem, evaluations, seed):
    """Distinct architectures, gene by gene."""
    rng, meter = np.random.default_rng(seed), Meter(problem, evaluations, seed)
    while not meter.spent:
        meter(draw(rng, problem.space, evaluations))
    return meter.result()


RIVALS = {"random": random, "linas": linas}
"""Every rival by name."""
