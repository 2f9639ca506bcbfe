"""Cells that compute the same function, and the bound of a search that knows every function's mean."""

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.stats import norm
from tactic_scripts import DATA, ROOT, load, scripts  # noqa: F401

from nasjax.pareto import hypervolume_exact, non_dominated_exact

ALL = np.stack(np.meshgrid(*[range(5)] * 6, indexing="ij"), -1).reshape(-1, 6)
"""All cells of NAS-Bench-201."""


# -- functions of cells ---------------------------------------------------------------------------------------------------


def outputs(archs, weights, constants):
    """Runs cells on numbers: each edge has a weight of its own, or all convolutions of one kind have the same."""
    rng = np.random.default_rng(0)
    own, x = rng.uniform(0.5, 2, 6), rng.uniform(0.5, 2)
    # In all orders: which edge has which weight is of no importance.
    orders = np.array(list(permutations(range(6)))) if weights else np.zeros((1, 6), int)
    shift = 0.3 if constants else 0.0
    values = [np.full((len(archs), len(orders)), x)]
    edge = 0
    for sources in ((0,), (0, 1), (0, 1, 2)):
        node = np.zeros_like(values[0])
        for source in sources:
            weight, read = own[orders[:, edge]], values[source]
            applied = (
                np.zeros_like(read),
                read,
                np.tanh(weight * read + shift * weight),
                np.sinh(0.2 * weight * read + shift * weight**2),
                0.7 * np.arctan(read),
            )
            node = node + np.choose(archs[:, edge, None], applied)
            edge += 1
        values.append(node)
    return np.exp(1.1 * values[3]).mean(1)


def partition(values):
    """Numbers equal values alike, up to rounding."""
    order = np.argsort(values)
    steps = np.diff(values[order])
    labels = np.zeros(len(values), int)
    labels[order[1:]] = np.cumsum(steps > 1e-11 * np.abs(values[order[1:]]))
    return labels


def same(one, other):
    """Whether two labellings are the same partition."""
    pairs = len(np.unique(np.stack([one, other]), axis=1).T)
    return pairs == len(np.unique(one)) == len(np.unique(other))


@pytest.mark.parametrize("constants", [True, False])
def test_cells_have_one_form_if_they_compute_the_same(constants):
    found = load("cells").functions(ALL, weights=False, constants=constants)
    assert same(found, partition(outputs(ALL, False, constants)))
    assert found.max() + 1 == (5545 if constants else 4930)


@pytest.mark.parametrize("constants", [True, False])
def test_cells_have_one_form_if_they_compute_the_same_whatever_the_weights(constants):
    archs = np.concatenate([ALL[np.random.default_rng(0).permutation(len(ALL))[:1200]], ALL[::40]])
    # The second and third node may change places where no edge joins them.
    free = archs[archs[:, 2] == 0]
    archs = np.concatenate([archs, free[:, [1, 0, 2, 3, 5, 4]]])
    cells = load("cells")
    assert same(cells.functions(archs, constants=constants), partition(outputs(archs, True, constants)))


def test_how_many_functions_there_are():
    cells = load("cells")
    assert cells.functions(ALL).max() + 1 == 5875
    assert cells.functions(ALL, constants=False).max() + 1 == 5260
    # The benchmark's own count, which keeps equal sums apart and does not see shared weights.
    strings = cells.labels(map(cells.benchmark_string, ALL))
    assert strings.max() + 1 == 6466
    once, own = [1, 3, 1, 3, 1, 3], [1, 3, 0, 1, 1, 1]
    assert len(set(cells.functions(np.array([once, own])))) == 2
    twice, two = [3, 0, 1, 0, 1, 1], [3, 3, 0, 0, 1, 1]
    assert len(set(cells.functions(np.array([twice, two])))) == 2
    assert len(set(cells.functions(np.array([twice, two]), weights=False))) == 1
    assert cells.benchmark_string(twice) == cells.benchmark_string(two)
    one, other = [3, 1, 4, 1, 3, 1], [3, 3, 0, 1, 3, 1]
    assert len(set(cells.functions(np.array([one, other])))) == 2


@pytest.mark.skipif(not (ROOT.parent / "shared" / "data" / "nb201-accuracy").is_dir(), reason="needs the tables")
def test_cells_of_one_string_are_those_of_the_source():
    problems, cells = load("problems"), load("cells")
    assert problems.OPERATIONS == cells.NAMES
    archs, _ = problems._nb201_cells()
    with (problems.DATA / "nb201-accuracy" / "nats_bench.csv").open() as file:
        source = [line.rstrip("\n").rpartition(",")[2] for line in file][1:]
    np.testing.assert_array_equal(cells.labels(map(cells.benchmark_string, archs)), cells.labels(source))


def test_separation_is_chance_where_finer_classes_are_drawn_at_random():
    cells, rng = load("cells"), np.random.default_rng(0)
    coarse = rng.integers(0, 100, 2000)
    fine = rng.integers(0, 3, 2000)
    level = rng.normal(0, 1, 100)[coarse]
    assert abs(cells.separation(level + rng.normal(0, 0.1, 2000), fine, coarse)) < 3
    assert cells.separation(level + 0.1 * fine + rng.normal(0, 0.1, 2000), fine, coarse) > 10


# -- the bound ------------------------------------------------------------------------------------------------------------


def test_the_noise_is_that_within_functions_of_similar_mean():
    bound, rng = load("bound"), np.random.default_rng(0)
    functions = np.repeat(np.arange(2000), rng.integers(1, 5, 2000))
    level = np.sort(rng.uniform(0, 10, 2000))
    values = level[functions] + rng.normal(0, 0.1 + 0.05 * level[functions])
    mean, deviation = bound.noise(values, functions)
    for function in (0, 7, 1999):
        assert mean[function] == pytest.approx(values[functions == function].mean())
    np.testing.assert_allclose(deviation[100:-100:50], (0.1 + 0.05 * level)[100:-100:50], rtol=0.25)


def test_the_expected_improvement_is_that_of_samples():
    bound, rng = load("bound"), np.random.default_rng(0)
    reference = np.array([1.0, 1.0])
    for points in (0, 1, 6):
        front = rng.random((points, 2))
        front = front[non_dominated_exact(front)] if points else front
        mean, deviation, latency = rng.random(5), np.array([0.0, 0.05, 0.1, 0.3, 0.2]), rng.uniform(0.1, 1.2, 5)
        found = bound.improvement(mean, deviation, latency, front, reference)
        # Stratified samples of the accuracy.
        draws = norm.ppf((np.arange(400) + 0.5) / 400)
        for i in range(5):
            made = [np.append(front, [[mean[i] + deviation[i] * draw, latency[i]]], axis=0) for draw in draws]
            volumes = [load("yardstick").volume(each, reference) for each in made]
            before = load("yardstick").volume(front, reference)
            assert found[i] == pytest.approx(np.mean(volumes) - before, rel=0.02, abs=1e-4)


def test_the_searcher_validates_the_greatest_expected_improvement_each_time(monkeypatch):
    bound, rng = load("bound"), np.random.default_rng(1)
    reference = np.array([0.9, 0.9])
    mean, deviation = rng.random(60), rng.uniform(0.01, 0.2, 60)
    values = np.stack([rng.normal(mean, deviation), rng.random(60)], 1)
    monkeypatch.setattr(bound, "AHEAD", 5)
    found = bound.validated(values, mean, deviation, reference, 30)
    done: list[int] = []
    for row in found:
        inside = values[done][(values[done] < reference).all(1)]
        front = inside[non_dominated_exact(inside)] if len(inside) else inside
        gains = bound.improvement(mean, deviation, values[:, 1], front, reference)
        gains[done] = -np.inf
        assert gains[row] == pytest.approx(gains.max(), abs=1e-12)
        done.append(row)
    assert len(set(done)) == 30


def test_a_searcher_without_noise_takes_points_of_the_front_only():
    bound, rng = load("bound"), np.random.default_rng(2)
    values, reference = rng.random((50, 2)), np.array([1.0, 1.0])
    front = np.flatnonzero(non_dominated_exact(values))
    found = bound.validated(values, values[:, 0], np.zeros(50), reference, len(front))
    assert set(found) <= set(front)


def test_the_fewest_points_are_those_of_all_subsets():
    bound, rng = load("bound"), np.random.default_rng(3)
    reference = np.array([0.9, 0.8])
    for _ in range(10):
        values = rng.random((40, 2))
        front = values[non_dominated_exact(values)]
        whole = hypervolume_exact(front, reference)
        for share in (0.5, 0.9, 0.99, 1.0):
            expected = next(
                k for k in range(1, len(front) + 1)
                if any(hypervolume_exact(np.array(part), reference) >= share * whole * (1 - 1e-9)
                       for part in combinations(front, k))
            )  # fmt: skip
            assert bound.fewest(front, reference, share) == expected
