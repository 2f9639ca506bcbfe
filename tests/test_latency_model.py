"""Latency tables and models: against sums over whole networks, and against known true latencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import architectures, tiny_network

from nasjax.hardware.costs import CostTable, cost_tables
from nasjax.hardware.latency_model import fit_latency
from nasjax.hardware.latency_table import _carry_sizes, branches, extracted
from nasjax.predictors import GaussianProcess, Inputs, Ridge
from nasjax.space import Gene, SearchSpace
from nasjax.supernets.extract import extract

SPACE = SearchSpace((Gene("depth", (1, 2, 3)), Gene("width", (2, 4, 6)), Gene("kernel", (3, 5, 7)), Gene("side", (8, 12))))


def truth(archs):
    """True milliseconds of architectures of `SPACE`; not additive, so that the sum of a table is not exact."""
    depth, width, kernel, side = (np.asarray(archs)[:, i] for i in range(4))
    return 1.5 + (depth + 1) * (width + 1.0) ** 1.5 * (1 + 0.3 * kernel) * (1 + side)


@pytest.fixture(scope="module")
def population():
    return np.asarray(SPACE.all_architectures())


def macs(archs):
    return jnp.asarray(jnp.stack([(archs[:, 0] + 1) * (archs[:, 1] + 1), archs[:, 2] + archs[:, 3] + 1], 1), jnp.float32)


INPUTS = Inputs(SPACE, macs)


# -- the table ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tiny_net):
    return branches(tiny_net, 2)


@pytest.mark.slow
def test_a_table_of_ones_counts_the_stages_of_the_extracted_network(tiny_net, found):
    sums = found.sums(dict.fromkeys(found.distinct, 1.0))
    archs = np.array(architectures(tiny_net.space, 8), np.int32)
    archs = np.asarray(tiny_net.space.canonical(archs))
    stages = [len(extract(tiny_net, tuple(map(int, arch))).stages) for arch in archs]
    np.testing.assert_allclose(sums(archs), np.stack([stages, stages], 1))
    np.testing.assert_allclose(np.asarray(sums.by_unit(archs)).sum(1), stages)


def test_the_branches_are_the_stages_of_the_extracted_network(tiny_net, found):
    """The weights of each branch, summed along an architecture, are those of the whole network."""
    params = {
        name: float(sum(leaf.size for leaf in jax.tree.leaves(nnx.state(branch.network, nnx.Param))))
        for name, branch in found.distinct.items()
    }
    sums = found.sums(params)
    archs = np.asarray(tiny_net.space.canonical(np.array(architectures(tiny_net.space, 8), np.int32)))
    np.testing.assert_array_equal(sums.table.exact(archs) / 1e6, cost_tables(tiny_net)["params"].exact(archs))


def test_equal_branches_are_listed_once(tiny_net, found):
    assert len(found.distinct) < sum(names.size for names in found.names)
    again = branches(tiny_network(seed=5), 2)
    assert again.distinct.keys() == found.distinct.keys()
    assert branches(tiny_net, 1).distinct.keys().isdisjoint(found.distinct)


def test_each_option_of_an_elastic_resolution_has_its_branches(tiny_net, found):
    both = branches(tiny_network(resolutions=(5, 7)), 2)
    assert found.distinct.keys() < both.distinct.keys()
    sums = both.sums({name: float(branch.carry.shape[1] if branch.carry.ndim == 4 else 0) for name, branch in
                      both.distinct.items()})  # fmt: skip
    arch = np.asarray(tiny_net.space.largest())[None]
    small, large = (np.asarray(sums(np.insert(arch, 0, i, 1)))[0, 0] for i in (0, 1))
    assert small < large


def test_of_many_resolutions_four_are_timed_and_the_others_interpolated():
    """Exact for costs that grow with the sizes of a stage's input and output, also after a stride of two."""
    sizes = tuple(range(5, 12))
    net = tiny_network(widths=(8,), strides=(2,), depths=((1, 2),), activations=("relu",), squeeze_excite=(False,),
                       kernels=(3,), expands=(1, 3), resolutions=sizes, image_size=11)  # fmt: skip
    made = branches(net, 2)
    assert {branch.carry.shape[1] for branch in made.distinct.values() if branch.carry.shape[3:] == (3,)} == {5, 7, 9, 11}
    sums = made.sums({name: float(_carry_sizes(branch.network, branch.carry)[0]) for name, branch in made.distinct.items()})
    arch = np.asarray(net.space.largest())[None].repeat(len(sizes), 0)
    arch[:, 0] = range(len(sizes))
    wanted = [sum(_carry_sizes(net, jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32))) for size in sizes]
    np.testing.assert_allclose(sums.table.exact(arch) / 1e6, wanted)
    ones = made.sums(dict.fromkeys(made.distinct, 1.0))
    assert all(set(np.unique(table)) <= {0, 1_000_000} for table in ones.table.tables)


def test_shapes_of_an_extracted_network_are_those_of_the_network(tiny_net):
    arch = tuple(map(int, tiny_net.space.largest()))
    shapes = [leaf.shape for leaf in jax.tree.leaves(nnx.state(extracted(nnx.eval_shape(lambda: tiny_net), arch)))]
    assert shapes == [leaf.shape for leaf in jax.tree.leaves(nnx.state(extract(tiny_net, arch)))]


# -- the model ------------------------------------------------------------------------------------------------------------


def test_offset_and_scale_of_a_table_are_found_exactly(population):
    table = CostTable(((0, 1), (2, 3)), (np.arange(9).reshape(3, 3) * 1000 + 1, np.arange(6).reshape(3, 2) * 500))

    def known(archs):
        return table.estimate(archs)[:, None] / 1000

    milliseconds = 3 + 0.25 * table.exact(population) / 1000
    rows = np.random.default_rng(0).permutation(len(population))[:12]
    held_out = (population, milliseconds)
    model = fit_latency(GaussianProcess(), INPUTS, population[rows], milliseconds[rows], known, held_out)
    np.testing.assert_allclose(model.weights, [3, 0.25], rtol=1e-4)
    np.testing.assert_allclose(model.exact(population), milliseconds, rtol=1e-3)
    np.testing.assert_allclose(jax.jit(model.estimate)(jnp.asarray(population)), milliseconds, rtol=1e-3)
    assert model.errors.mape < 0.1 and model.errors.tau > 0.99 and model.errors.rows == len(population)
    assert model.maximum() == pytest.approx(1.1 * milliseconds.max(), rel=1e-2)


def test_a_predictor_learns_latencies_alone(population):
    rows = np.random.default_rng(1).permutation(len(population))
    few, rest = rows[:30], rows[30:]
    milliseconds = truth(population)
    model = fit_latency(GaussianProcess(), INPUTS, population[few], milliseconds[few],
                        held_out=(population[rest], milliseconds[rest]))  # fmt: skip
    assert model.errors.tau > 0.9 and model.errors.mape < 12 and model.rows == 30


@pytest.mark.slow
def test_another_device_s_model_helps_with_few_measured_networks(population):
    there = truth(population)
    here = 0.8 + 0.3 * there * np.where(population[:, 2] == 2, 1.3, 1.0)
    rows = np.random.default_rng(2).permutation(len(population))
    source = fit_latency(GaussianProcess(), INPUTS, population[rows[:45]], there[rows[:45]])
    few, rest = rows[:10], rows[10:]
    held_out = (population[rest], here[rest])
    alone = fit_latency(GaussianProcess(), INPUTS, population[few], here[few], None, held_out)
    moved = fit_latency(GaussianProcess(), INPUTS, population[few], here[few], source.as_prior, held_out)
    assert moved.errors.tau > alone.errors.tau and moved.errors.mape < 0.7 * alone.errors.mape


def test_a_prior_that_disagrees_with_the_measurements_is_ignored(population):
    milliseconds = truth(population)
    rows = np.random.default_rng(3).permutation(len(population))[:20]
    model = fit_latency(Ridge(), INPUTS, population[rows], milliseconds[rows], lambda archs: -macs(archs).sum(1)[:, None])
    assert model.weights[1] == 0 and model.residual_model is not None
    assert np.corrcoef(model.exact(population), milliseconds)[0, 1] > 0.8


def test_failed_measurements_are_left_out_and_too_few_are_refused(population):
    milliseconds = truth(population)[:10]
    holes = milliseconds.copy()
    holes[[2, 5]] = np.nan
    whole = fit_latency(Ridge(), INPUTS, np.delete(population[:10], [2, 5], 0), np.delete(milliseconds, [2, 5]))
    part = fit_latency(Ridge(), INPUTS, population[:10], holes)
    assert part.rows == 8
    np.testing.assert_allclose(part.exact(population), whole.exact(population), rtol=1e-5)
    with pytest.raises(ValueError, match="three measured networks"):
        fit_latency(Ridge(), INPUTS, population[:2], milliseconds[:2])
