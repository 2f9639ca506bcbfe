"""Problems whose front is known, on genes of 33 levels or of bits; and a small space whose genes come and go."""

from functools import cache

import jax.numpy as jnp
import numpy as np

from nasjax.space import Gene, SearchSpace

LEVELS = 33


def zdt1(_, archs):
    x = jnp.asarray(archs).astype(jnp.float32) / (LEVELS - 1)
    g = 1 + 9 * x[:, 1:].mean(axis=1)
    return jnp.stack([x[:, 0], g - jnp.sqrt(x[:, 0] * g)], axis=1)


def zdt2(_, archs):
    x = jnp.asarray(archs).astype(jnp.float32) / (LEVELS - 1)
    g = 1 + 9 * x[:, 1:].mean(axis=1)
    return jnp.stack([x[:, 0], g - x[:, 0] ** 2 / g], axis=1)


def zdt3(_, archs):
    first, second = zdt1(None, archs).T
    return jnp.stack([first, second - first * jnp.sin(10 * jnp.pi * first)], axis=1)


def dtlz2(dimensions):
    def objective(_, archs):
        x = jnp.asarray(archs).astype(jnp.float32) / (LEVELS - 1)
        angles, g = x[:, : dimensions - 1] * jnp.pi / 2, ((x[:, dimensions - 1 :] - 0.5) ** 2).sum(axis=1)
        columns = []
        for k in range(dimensions):
            column = (1 + g) * jnp.cos(angles[:, : dimensions - 1 - k]).prod(axis=1)
            columns.append(column * jnp.sin(angles[:, dimensions - 1 - k]) if k else column)
        return jnp.stack(columns, axis=1)

    return objective


def zdt5(_, archs):
    """Binary and deceptive: away from all ones, every block of five is drawn to all zeros."""
    bits = jnp.asarray(archs).astype(jnp.float32)
    ones = bits[:, 30:].reshape(-1, 10, 5).sum(axis=2)
    first = 1 + bits[:, :30].sum(axis=1)
    return jnp.stack([first, jnp.where(ones == 5, 1, 2 + ones).sum(axis=1) / first], axis=1)


def grid_front(distance, angles):
    """Every combination of levels of the `angles` first variables, with the best level of all others."""
    levels = np.stack(np.meshgrid(*[np.arange(LEVELS)] * angles), axis=-1).reshape(-1, angles)
    return np.concatenate([levels, np.tile(distance, (len(levels), 1))], axis=1).astype(np.int32)


ZDT5_FRONT = np.array([[1] * k + [0] * (30 - k) + [1] * 50 for k in range(31)], np.int32)
PROBLEMS = {  # objective, options a gene, architectures on the true front, reference, least share of its hypervolume
    "zdt1": (zdt1, (LEVELS,) * 20, grid_front([0] * 19, 1), (1.1, 1.1), 0.96),
    "zdt2": (zdt2, (LEVELS,) * 20, grid_front([0] * 19, 1), (1.1, 1.1), 0.96),
    "zdt3": (zdt3, (LEVELS,) * 20, grid_front([0] * 19, 1), (1.1, 1.1), 0.95),
    "dtlz2 of two": (dtlz2(2), (LEVELS,) * 11, grid_front([16] * 10, 1), (1.1,) * 2, 0.94),
    # 40 survivors stand for a surface of 1,089 points here.
    "dtlz2 of three": (dtlz2(3), (LEVELS,) * 12, grid_front([16] * 10, 2), (1.1,) * 3, 0.58),
    "zdt5": (zdt5, (2,) * 80, ZDT5_FRONT, (32.0, 30.0), 0.90),
}


def plain(counts):
    return SearchSpace(tuple(Gene(f"x{i}", tuple(range(count))) for i, count in enumerate(counts)))


# A space with genes that come and go, small enough to enumerate, and two objectives that depend on all of them.
ELASTIC = SearchSpace(
    (
        Gene("depth", (1, 2, 3)),
        Gene("kind", ("a", "b", "c")),
        *(Gene(f"width{i}", (2, 4, 6, 8), ("depth", i + 1)) for i in range(3)),
    )
)


def trade(weights, archs):
    features = ELASTIC.features(archs)
    cost = features @ jnp.arange(1.0, 1.0 + features.shape[1])
    return jnp.stack([-(features @ weights), cost], axis=1)


@cache
def weights():
    # An array of NumPy's: kept between tests, it may be asked for first inside a trace.
    number = ELASTIC.features(ELASTIC.smallest()[None]).shape[1]
    # Whole numbers: their sums are exact, however XLA orders them.
    return np.random.default_rng(0).integers(1, 100, number).astype(np.float32)


def rows(archs):
    return set(map(tuple, np.asarray(archs).tolist()))
