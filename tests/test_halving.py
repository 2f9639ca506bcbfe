"""Successive halving against a brute-force replay of it on the scores of every network on every image."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import architectures, easy_task, tiny_network

from nasjax.evaluation import EVALUATORS, Halving
from nasjax.evaluation.halving import better
from nasjax.searches.problem import search_problem

FIRST = {"batch": 16, "calibration_examples": 32, "chunk": 7, "first_examples": 20}


@pytest.fixture(scope="module")
def net():
    return tiny_network(depths=((1, 2), (1,)), kernels=(3,), expands=(1, 2))


@pytest.fixture(scope="module")
def task():
    return easy_task(sizes=(96, 90, 30))


@pytest.fixture(scope="module")
def archs(net):
    drawn = np.array(architectures(net.space, 30), np.int32)
    return np.unique(np.asarray(net.space.canonical(drawn)), axis=0)[[0, 2, 5, 7, 9, 3, 1]]


@pytest.fixture(scope="module")
def scores(net, task, archs):
    """(networks, images, metrics), every network with its own statistics, in the images' own order."""
    whole = EVALUATORS["masked"](**{**FIRST, "first_examples": 0}).bind(net, task)
    graph, weights = nnx.split(net)
    images = jnp.asarray(task.validation.inputs)
    run = jax.jit(lambda weights, arch, used: nnx.merge(graph, weights).forward(images, arch, used)[0])
    logits = [run(weights, jnp.asarray(arch), whole.statistics(tuple(map(int, arch)))) for arch in archs]
    statistics = [np.asarray(task.statistics(one, task.validation.targets), np.float64) for one in logits]
    return np.stack(statistics)[..., 1:] * (100, 1)


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


def fronts(values):
    """The rows, front by front."""
    left = list(range(len(values)))
    while left:
        front = [i for i in left if not any(dominates(values[j], values[i]) for j in left)]
        yield front
        left = [i for i in left if i not in front]


def test_values_are_those_of_the_images_of_each_round(net, task, archs, scores):
    """Rounds of 20, 40, 80 and 90 images, 7, 4, 2 and 1 networks; an image is scored once."""
    problem = search_problem(net, task, {"name": "masked", **FIRST})
    order = np.random.default_rng(0).permutation(90)
    found = problem.evaluator(archs)
    macs = problem.compute(archs)["macs"].astype(float)
    rows, number = np.arange(7), np.zeros(7, int)
    for images, keep in ((20, 4), (40, 2), (80, 1), (90, 0)):
        number[rows] = images
        means = scores[rows][:, order[:images], 0].mean(1)
        ranked = list(fronts(np.stack([-means, macs[rows]], axis=1)))
        # Which of a front that does not fit whole go on is crowding's choice; no earlier front may lose a network to it.
        if keep:
            ends = np.cumsum([len(front) for front in ranked])
            last = int(np.searchsorted(ends, keep))
            sure = {i for front in ranked[:last] for i in front}
            chosen = better(np.stack([-means, macs[rows]], axis=1), keep, 7)
            assert len(chosen) == keep and sure <= set(chosen.tolist()) <= sure | set(ranked[last])
            rows = rows[chosen]
    assert sorted(number) == [20, 20, 20, 40, 40, 80, 90]
    assert (problem.evaluator.scored, problem.evaluator.asked) == (number.sum(), 7 * 90)
    for i, images in enumerate(number):
        mine = scores[i, order[:images]]
        for j, name in enumerate(objective.name for objective in task.objectives):
            assert found[name][i] == pytest.approx(mine[:, j].mean(), rel=1e-5), (i, name)
            assert found[f"{name}_se"][i] == pytest.approx(mine[:, j].std(ddof=1) / np.sqrt(images), rel=1e-4), (i, name)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["switch", "prefix"])
def test_every_way_halves_alike(net, task, archs, way):
    found, wanted = (search_problem(net, task, {"name": name, **FIRST}).evaluator(archs) for name in (way, "masked"))
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-4)


def test_a_network_alone_and_images_fewer_than_the_first_round_are_scored_whole(net, task, archs, scores):
    config = EVALUATORS["masked"](**FIRST)
    for first, rows in ((20, [3]), (500, [0, 1, 2])):
        halving = Halving(
            replace(config, first_examples=first).bind(net, task), lambda archs, found: np.zeros((len(archs), 1))
        )
        found = halving(archs[rows])
        assert halving.scored == halving.asked == 90 * len(rows)
        np.testing.assert_allclose(found["loss"], scores[rows, :, 1].mean(1), rtol=1e-5)


def test_better_takes_fronts_in_turn_then_the_least_crowded():
    front = np.array([[0.0, 9], [1, 8], [1.2, 7.9], [9, 0]])
    values = np.concatenate([front + 10, front, [[np.nan, 0]]])
    assert better(values, 4, 9).tolist() == [4, 5, 6, 7]
    assert set(better(values, 2, 9).tolist()) == {4, 7}
    assert set(better(values, 6, 9).tolist()) == {4, 5, 6, 7, 0, 3}
    assert better(values[:1], 1, 9).tolist() == [0]


def test_the_key_names_it_and_other_splits_are_scored_whole(net, task):
    halved, plain = (search_problem(net, task, {"name": "masked", **FIRST, "first_examples": n}) for n in (20, 0))
    assert "first_examples" not in plain.evaluator.context["evaluator"]
    assert halved.evaluator.context["evaluator"]["first_examples"] == 20
    assert isinstance(halved.evaluator, Halving) and not isinstance(halved.test(), Halving)
    assert halved.evaluator.chunk == 7
    with pytest.raises(ValueError, match="at most 7 architectures at once, not 8"):
        halved.evaluator(np.zeros((8, 2), np.int32))
    with pytest.raises(ValueError, match=r"evaluator\.first_examples must be at least 0, not -1"):
        EVALUATORS["masked"](first_examples=-1)
