"""Cost tables against a walk over whole extracted networks, against formulas by hand, and against DyNAS-T's logs."""

import ast
import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from tiny import CONFIG, architectures, tiny_network

from nasjax.hardware.costs import CostTable, cost_tables
from nasjax.jaxprs import jaxpr_macs
from nasjax.space import Gene
from nasjax.supernets import elastic
from nasjax.supernets.cpu.convolution import library_convolution
from nasjax.supernets.elastic import Dense
from nasjax.supernets.extract import extract
from nasjax.supernets.families.mobilenet_v3 import MobileNetV3Config
from nasjax.supernets.stage import Stage
from nasjax.supernets.supernet import SuperNet

TRACES = Path(__file__).parents[2] / "shared" / "data" / "dynast-traces"


@pytest.fixture(scope="module")
def tables(tiny_net):
    return cost_tables(tiny_net)


@pytest.fixture(scope="module")
def once_for_all():
    """The abstract super-network of Once-for-All and its tables."""
    net = nnx.eval_shape(MobileNetV3Config().create)
    return net, cost_tables(net)


@pytest.fixture(scope="module")
def archs(tiny_net):
    return architectures(tiny_net.space, 10)


def parameters(net, arch):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(extract(net, arch), nnx.Param)))


def convolution_macs(jaxpr):
    """Only the plainest jaxpr is understood: dense products and convolutions, nothing inside branches or loops."""
    total = 0
    for equation in jaxpr.eqns:
        shapes = [variable.aval.shape for variable in equation.invars]
        out = equation.outvars[0].aval.shape
        match equation.primitive.name:
            case "conv_general_dilated":
                height, width, inputs, _ = shapes[1]
                total += int(np.prod(out)) * height * width * inputs
            case "dot_general":
                total += int(np.prod(out)) * shapes[0][-1]
            case "cond" | "scan" | "while":
                raise AssertionError(equation.primitive.name)
            case _:
                total += sum(convolution_macs(p.jaxpr) for p in equation.params.values() if hasattr(p, "jaxpr"))
    return total


def test_macs_are_those_of_whole_networks_of_library_convolutions(tiny_net, tables, archs, monkeypatch):
    def depthwise(x, weight, stride):
        return library_convolution(x, weight, stride, groups=x.shape[-1])

    monkeypatch.setattr(elastic, "depthwise", depthwise)
    monkeypatch.setattr(elastic, "convolve", lambda x, weight, stride, own: library_convolution(x, weight, stride))
    counted = []
    for arch in archs:
        small = extract(tiny_net, arch)
        graph, weights = nnx.split(small)
        jaxpr = jax.make_jaxpr(lambda weights, x, graph=graph: nnx.merge(graph, weights)(x))(weights, small.inputs(1))
        counted.append(convolution_macs(jaxpr.jaxpr))
    assert tables["macs"].exact(np.array(archs)).tolist() == counted
    assert len(set(counted)) > 5


def divisible(value):
    new = max(8, int(value + 4) // 8 * 8)
    return new + 8 if new < 0.9 * value else new


def by_hand(config, words):
    """Multiply-accumulates and weights (macs, params) of an OFA MobileNetV3, layer by layer."""
    counts = np.zeros(2, int)

    def convolution(size, inputs, outputs, kernel, groups=1, norm=True):
        weights = kernel * kernel * (inputs // groups) * outputs
        counts[:] += size * size * weights, weights + (2 if norm else 0) * outputs

    size = -(-config.image_size // config.stem_stride)
    convolution(size, config.channels, config.stem_width, 3)
    width = config.stem_width
    if config.first_width:
        convolution(size, width, width, 3, groups=width)
        convolution(size, width, config.first_width, 1)
        width = config.first_width
    for i, outputs in enumerate(config.widths, 1):
        for block in range(1, words.get(f"depth_{i}", config.depths[i - 1][0]) + 1):
            middle = divisible(round(width * words[f"expand_{i}_{block}"]))
            convolution(size, width, middle, 1)
            size = -(-size // (config.strides[i - 1] if block == 1 else 1))
            convolution(size, middle, middle, words[f"kernel_{i}_{block}"], groups=middle)
            if config.squeeze_excite[i - 1]:
                squeezed = divisible(middle // 4)
                convolution(1, middle, squeezed, 1, norm=False)
                convolution(1, squeezed, middle, 1, norm=False)
                counts[1] += squeezed + middle  # biases
            convolution(size, middle, outputs, 1)
            width = outputs
    if config.final_expand:
        convolution(size, width, config.final_expand, 1)
        width = config.final_expand
    if config.final_width:
        convolution(1, width, config.final_width, 1, norm=False)
        width = config.final_width
    counts += np.array([width * config.classes, (width + 1) * config.classes])
    return tuple(counts.tolist())


VARIANTS = [
    {},
    {"stem_stride": 2, "first_width": 0, "final_expand": 0, "final_width": 0, "image_size": 10},
    {"first_width": 4, "final_width": 0, "squeeze_excite": (False, True), "kernels": (3,)},
    {"final_expand": 0, "expands": (2, 4), "depths": ((1, 3), (2,)), "strides": (1, 2), "channels": 1},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_costs_by_hand(variant):
    net = tiny_network(**variant)
    tables = cost_tables(net)
    archs = np.array(architectures(net.space, 30))
    found = list(zip(tables["macs"].exact(archs).tolist(), tables["params"].exact(archs).tolist(), strict=True))
    assert found == [by_hand(net.config, net.space.decode(arch)) for arch in archs]


def test_params_are_those_of_the_extracted_network(tiny_net, tables, archs):
    assert tables["params"].exact(np.array(archs)).tolist() == [parameters(tiny_net, arch) for arch in archs]


def test_an_abstract_network_will_do(tiny_net, tables):
    abstract = cost_tables(nnx.eval_shape(CONFIG.create))
    for name, table in tables.items():
        assert abstract[name].columns == table.columns
        for a, b in zip(abstract[name].tables, table.tables, strict=True):
            np.testing.assert_array_equal(a, b)


def test_tables_span_what_stages_read(tiny_net, tables):
    for table in tables.values():
        for stage, costs, columns in zip(tiny_net.stages, table.tables, table.columns, strict=True):
            assert costs.dtype == np.int64
            assert costs.shape == tuple(len(gene.options) for gene in stage.reads)
            assert columns == tiny_net.space.columns(tuple(gene.name for gene in stage.reads))
            if stage.gate is not None:
                assert not costs[0].any() and costs[1].all()  # skipped, the stage costs nothing
        assert len(table.tables) == len(tiny_net.stages)


def test_maximum_and_minimum(tiny_net, tables):
    for table in tables.values():
        everything = table.exact(np.asarray(tiny_net.space.sample(jax.random.key(0), 2000)))
        largest, smallest = (table.exact(arch[None])[0] for arch in (tiny_net.space.largest(), tiny_net.space.smallest()))
        assert largest == table.maximum() >= everything.max()
        assert smallest <= everything.min()


@pytest.mark.slow
def test_estimates_rank(once_for_all):
    """float32 sums lie within a millionth of the exact ones, in jit."""
    net, tables = once_for_all
    archs = np.asarray(net.space.sample(jax.random.key(0), 200))
    for table in tables.values():
        exact, estimate = table.exact(archs), jax.jit(table.estimate)(archs)
        assert estimate.dtype == jnp.float32 and exact.dtype == np.int64
        np.testing.assert_allclose(np.asarray(estimate, np.float64), exact, rtol=1e-6)


def test_sums_beyond_32_bits_are_exact():
    table = CostTable(((0,), (1,)), (np.array([0, 2**40 + 1]), np.array([3, 2**33])))
    assert table.exact(np.array([[1, 0], [0, 1], [1, 1]])).tolist() == [2**40 + 4, 2**33, 2**40 + 2**33 + 1]
    assert table.maximum() == 2**40 + 2**33 + 1


class Repeat(Stage):
    """A product done as often as a setting says that no weight shows."""

    genes = (Gene("width", (2, 4)),)

    def __init__(self, times, *, rngs):
        self.settings = {"times": times}
        self.dense = Dense(4, 4, rngs=rngs)

    def forward(self, carry, choice, statistics):
        for _ in range(self.settings["times"]):
            carry = jnp.pad(self.dense(carry, width := self.option(choice, 0)), ((0, 0), (0, 4 - width)))
        return carry, {}


def test_stages_that_differ_in_a_setting_alone_are_counted_apart():
    net = SuperNet([Repeat(1, rngs=nnx.Rngs(0)), Repeat(3, rngs=nnx.Rngs(0)), Repeat(1, rngs=nnx.Rngs(0))], (4,))
    assert [table.tolist() for table in cost_tables(net)["macs"].tables] == [[8, 16], [24, 48], [8, 16]]


def test_products_inside_loops_and_branches():
    x, weight = jnp.ones((2, 3)), jnp.ones((3, 3))
    one = 2 * 3 * 3

    def count(function):
        return jaxpr_macs(jax.make_jaxpr(function)(x, weight).jaxpr)

    assert count(lambda x, w: lax.scan(lambda x, _: (x @ w, None), x, None, length=5)[0]) == 5 * one
    assert count(jax.jit(lambda x, w: jax.checkpoint(lambda x: x @ w)(x) @ w)) == 2 * one
    assert count(lambda x, w: lax.platform_dependent(x, w, cpu=lambda x, w: x, default=lambda x, w: x @ w)) == one
    assert count(lambda x, w: jax.vmap(lambda row: row @ w)(x)) == one
    assert count(lambda x, w: jnp.einsum("ij,kj->ik", x, w)) == one


@pytest.mark.slow
@pytest.mark.skipif(not TRACES.is_dir(), reason="the logs are not here")
def test_every_network_of_dynast_logs(once_for_all):
    """2,373 rows of OFA MobileNetV3 at 224 pixels: macs and parameters, exactly."""
    net, tables = once_for_all
    archs, wanted = [], []
    for file in sorted(TRACES.glob("mbnv3w10_*.csv")):
        for row in csv.DictReader(file.open()):
            words = ast.literal_eval(row["Sub-network"])
            choices = {f"depth_{i + 1}": depth for i, depth in enumerate(words["d"])}
            for stage in range(5):
                for block in range(words["d"][stage]):
                    choices[f"kernel_{stage + 1}_{block + 1}"] = words["ks"][4 * stage + block]
                    choices[f"expand_{stage + 1}_{block + 1}"] = words["e"][4 * stage + block]
            archs.append(net.space.encode(choices))
            wanted.append((int(row["MACs"]), int(row["Model Parameters"])))
    assert len(archs) == 2373
    found = [tables[name].exact(np.array(archs)) for name in ("macs", "params")]
    np.testing.assert_array_equal(np.stack(found, axis=1), wanted)


def test_units_are_runs_of_stages_of_one_shape_and_share_out_the_whole(tiny_net, tables, archs):
    """Stem, first block, two units of two blocks (the first of each strided or wider), the final convolution, the head."""
    assert tables["macs"].units == (0, 0, 1, 1, 2, 2, 3)
    by_unit = np.asarray(tables["macs"].by_unit(np.array(archs)), np.float64)
    np.testing.assert_allclose(by_unit.sum(1), tables["macs"].exact(np.array(archs)), rtol=1e-6)
    words = [tiny_net.space.decode(np.array(arch)) for arch in archs]
    for unit in (1, 2):
        for i, one in enumerate(words):
            for j, other in enumerate(words):
                alike = all(one.get(g) == other.get(g) for g in tiny_net.space.names if g.split("_")[1] == str(unit))
                if alike:
                    assert by_unit[i, unit] == by_unit[j, unit]
