"""Zero-cost scores: by masks as by slices, what they are made to see, and the tactic that searches them."""

import csv
from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx
from tiny import architectures, easy_task, pictures, tiny_network

import nasjax
from nasjax.evaluation.proxies import PROXIES, proxies

IMAGES = pictures(8)


@cache
def network():
    return tiny_network()


@cache
def scores(name):
    archs = np.array(architectures(network().space, 5), np.int32)
    return archs, proxies(network(), IMAGES, 4)[name](archs)


@pytest.mark.parametrize("name", PROXIES)
def test_a_population_by_masks_scores_as_one_network_by_slices(name):
    archs, found = scores(name)
    graph, weights = nnx.split(network())
    one = PROXIES[name](IMAGES)
    for row in (0, 3):
        assert found[row] == pytest.approx(float(one(graph, weights, tuple(map(int, archs[row])))), rel=2e-3)
    assert len(found) == len(archs) and np.isfinite(found).all() and np.ptp(found) > 0


def test_synflow_is_the_derivative_along_the_weights_and_ignores_signs():
    """Larger networks let more through; a sign turned round in any weight changes nothing."""
    archs, found = scores("synflow")
    assert found[0] > found[1]
    graph, weights = nnx.split(network())
    turned = jax.tree.map(lambda leaf: -leaf, weights)
    one = PROXIES["synflow"](IMAGES)
    row = tuple(map(int, archs[1]))
    # Transforms of kernels enter by their absolute values as well.
    assert float(one(graph, turned, row)) == pytest.approx(float(one(graph, weights, row)), rel=1e-4)


def test_the_jacobian_s_score_is_numpy_s():
    archs, found = scores("jacobian")
    net = network()
    arch = tuple(map(int, archs[1]))
    slopes = np.asarray(jax.grad(lambda x: net.forward(x, arch, None)[0].sum())(IMAGES), np.float64).reshape(len(IMAGES), -1)
    values = np.maximum(np.linalg.eigvalsh(np.corrcoef(slopes)), 0) + 1e-5
    assert found[1] == pytest.approx(-(np.log(values) + 1 / values).sum(), rel=2e-3)


def test_a_search_on_params_measures_the_largest_within_the_constraint(tmp_path):
    task = easy_task()
    net = network()
    front = nasjax.search(net, task, objectives=["accuracy_top1", "macs"], constraints=["params<=9000"], predictor="ridge",
                          tactic={"name": "proxy", "proxy": "params"}, evaluations=6, run=tmp_path / "run")  # fmt: skip
    assert len(front)
    with (tmp_path / "run" / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert sum(float(row["params"]) <= 9000 for row in rows) >= 5
    with pytest.raises(ValueError, match=r"tactic\.proxy=depth is not known here; allowed: synflow, jacobian, macs, params"):
        nasjax.search(net, task, tactic={"name": "proxy", "proxy": "depth"})
