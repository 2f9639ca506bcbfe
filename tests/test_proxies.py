"""Zero-cost scores: by masks as by slices, what they are made to see, and the tactic that searches them."""

import csv
from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx
from tiny import architectures, easy_task, images, tiny_network

import nasjax
from nasjax.evaluation.memory import gradient_bytes
from nasjax.evaluation.proxies import PROXIES, proxies

IMAGES = images(8)


@cache
def network():
    """Every gene there is, of one block that may be skipped."""
    return tiny_network(widths=(8,), strides=(2,), depths=((1, 2),), activations=("h_swish",), squeeze_excite=(True,),
                        kernels=(3, 5), expands=(1, 3))  # fmt: skip


@cache
def scores(name):
    archs = np.array(architectures(network().space, 5), np.int32)
    return archs, proxies(network(), IMAGES, 4, 4.0)[name](archs)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROXIES)
def test_a_population_by_masks_scores_as_one_network_by_slices(name):
    archs, found = scores(name)
    graph, weights = nnx.split(network())
    one = PROXIES[name](IMAGES)
    for row in (0, 3):
        arch = tuple(map(int, archs[row]))
        alone = jax.jit(lambda weights, arch=arch: one(graph, weights, arch))
        assert found[row] == pytest.approx(float(alone(weights)), rel=2e-3)
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


@pytest.mark.slow
def test_the_jacobian_s_score_is_numpy_s():
    archs, found = scores("jacobian")
    net = network()
    arch = tuple(map(int, archs[1]))
    slopes = np.asarray(jax.grad(lambda x: net.forward(x, arch, None)[0].sum())(IMAGES), np.float64).reshape(len(IMAGES), -1)
    values = np.maximum(np.linalg.eigvalsh(np.corrcoef(slopes)), 0) + 1e-5
    assert found[1] == pytest.approx(-(np.log(values) + 1 / values).sum(), rel=2e-3)


def test_fewer_networks_are_scored_at_once_where_memory_does_not_hold_their_gradients(monkeypatch):
    """Three: in one call, two, or three; every one is scored once, in order, by whatever score."""
    net = network()
    archs = np.array(architectures(net.space, 1), np.int32)
    sizes = []

    def cheap(images):
        return lambda graph, weights, arch: jax.pure_callback(counted, jax.ShapeDtypeStruct((), "float32"), arch,
                                                              vmap_method="expand_dims")  # fmt: skip

    def counted(archs):
        sizes.append(len(archs))
        return np.asarray(archs).sum(-1).astype(np.float32)

    monkeypatch.setitem(PROXIES, "synflow", cheap)
    one = len(IMAGES) * gradient_bytes(net) / 1e9
    for memory, wanted in ((4.0, [4]), (2.5 * one, [2, 2]), (1e-9, [1, 1, 1])):
        np.testing.assert_array_equal(proxies(net, IMAGES, 4, memory)["synflow"](archs), archs.sum(1))
        assert sizes == wanted
        sizes.clear()


def test_what_xla_reserves_for_a_gradient_stays_within_the_estimate():
    net = tiny_network(image_size=24)
    images = np.zeros((8, *net.input_shape), np.float32)
    graph, weights = nnx.split(net)
    archs = np.array(architectures(net.space, 0), np.int32)
    run = jax.jit(jax.vmap(lambda weights, arch: PROXIES["jacobian"](images)(graph, weights, arch), in_axes=(None, 0)))
    reserved = run.lower(weights, archs).compile().memory_analysis().temp_size_in_bytes
    estimated = len(archs) * len(images) * gradient_bytes(net)
    assert 0.2 * estimated < reserved < estimated


@pytest.mark.slow
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
    with pytest.raises(
        ValueError, match=r"proxy=depth is unknown for this super-network; allowed: synflow, jacobian, macs, params, model"
    ):
        nasjax.search(net, task, tactic={"name": "proxy", "proxy": "depth"})
