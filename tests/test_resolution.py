"""Elastic resolution: a gene that no stage reads, by which a population is grouped and images are scaled."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import CONFIG as NETWORK
from tiny import architectures, close, tiny_network

import nasjax
from nasjax import supernets
from nasjax.evaluation import EVALUATORS, MaskedConfig
from nasjax.evaluation.host_genes import by_host
from nasjax.hardware.costs import cost_tables
from nasjax.hardware.latency_table import branches
from nasjax.space import Gene, SearchSpace
from nasjax.supernets import Stage, SuperNet
from nasjax.supernets.elastic import Dense, cut
from nasjax.supernets.extract import extract
from nasjax.supernets.families.resnet import ResNetConfig
from nasjax.supernets.folders import load, save_network
from nasjax.supernets.resolution import resized
from nasjax.tasks import Split

RESOLUTIONS = (5, 7)
SETTINGS = {"batch": 16, "calibration_examples": 32, "chunk": 3}
CONFIG = MaskedConfig(**SETTINGS)


@pytest.fixture(scope="module")
def net():
    return tiny_network(resolutions=RESOLUTIONS)


@pytest.fixture(scope="module")
def archs(net):
    """Three architectures at either resolution, mixed."""
    drawn = np.array(architectures(net.space, 1), np.int32)
    drawn = np.concatenate([drawn, drawn])
    drawn[:, 0] = (0, 1, 0, 1, 0, 1)
    return drawn


def at(resolution, task):
    """The task with its images scaled."""
    parts = {name: getattr(task, name) for name in ("train", "validation", "test")}
    return replace(task, **{n: Split(np.asarray(resized(s.inputs, resolution)), s.targets) for n, s in parts.items()})


def test_the_gene_comes_first_and_says_that_it_is_the_host_s(net, tiny_net):
    gene = net.space.genes[0]
    assert (gene.name, gene.options, gene.host) == ("resolution", RESOLUTIONS, True)
    assert net.space.size == 2 * tiny_net.space.size
    assert net.host(net.space.smallest()) == (5,)
    assert tiny_net.host(tiny_net.space.smallest()) == ()


def test_a_population_is_grouped_by_it(net, tiny_net, archs):
    assert [(host, rows.tolist()) for host, rows in by_host(net, archs)] == [((5,), [0, 2, 4]), ((7,), [1, 3, 5])]
    assert [(host, len(rows)) for host, rows in by_host(tiny_net, archs[:, 1:])] == [((), 6)]


@pytest.mark.slow
def test_scores_are_those_of_a_network_on_images_of_that_size(net, tiny_net, archs, tiny_task):
    evaluator = CONFIG.bind(net, tiny_task)
    rows = dict(by_host(net, archs))
    found = {name: np.zeros(len(archs)) for name in evaluator.metrics}
    for start in (0, 3):
        for name in found:
            found[name][start : start + 3] = evaluator(archs[start : start + 3])[name]
    assert evaluator._strategy.score._cache_size() == evaluator._strategy.calibrate._cache_size() == len(RESOLUTIONS)
    for size in RESOLUTIONS:
        alone = CONFIG.bind(tiny_net, at(size, tiny_task))(archs[rows[size,], 1:])
        for name in found:
            np.testing.assert_allclose(found[name][rows[size,]], alone[name], rtol=1e-5)
    assert abs(found["loss"][rows[5,]] - found["loss"][rows[7,]]).max() > 1e-2


@pytest.fixture(scope="module")
def tables(net):
    return cost_tables(net)


@pytest.mark.slow
def test_costs_have_one_slice_a_resolution(net, archs, tables):
    for (size,), rows in by_host(net, archs):
        alone = cost_tables(nnx.eval_shape(replace(NETWORK, image_size=size).create))
        for name in ("macs", "params", "memory"):
            np.testing.assert_array_equal(tables[name].exact(archs[rows]), alone[name].exact(archs[rows, 1:]))
            np.testing.assert_allclose(tables[name].estimate(archs[rows]), alone[name].exact(archs[rows, 1:]), rtol=1e-6)
    assert all(0 not in columns for columns in tables["params"].columns)


@pytest.mark.slow
def test_an_extracted_network_has_one_resolution(net, archs, tables, tmp_path, tiny_task):
    arch = tuple(map(int, archs[0]))
    small = extract(net, arch)
    assert small.input_shape == (5, 5, 3)
    assert small.space.genes[0].options == (5,)
    images = resized(tiny_task.test.inputs[:4], 5)
    answer = jax.jit(lambda images: small(images))(images)
    close(answer, jax.jit(lambda images: net(images, archs[0]))(images))
    table = cost_tables(small)["macs"]
    assert table.exact(np.zeros((1, len(small.space.genes)), np.int32)) == tables["macs"].exact(archs[:1])
    nothing = replace(NETWORK, resolutions=RESOLUTIONS)
    origin = {"name": "ofa_mbv3_d234_e346_k357_w1.0", **vars(nothing)}
    save_network(small, origin, arch, tmp_path)
    again = load(tmp_path)
    close(jax.jit(lambda images: again(images))(images), answer)


@pytest.mark.slow
def test_a_search_finds_resolutions_too(net, tiny_task):
    front = nasjax.search(net, tiny_task, evaluator=CONFIG, evaluations=12, tactic="random")
    assert {network["resolution"] for network in front.networks()} <= set(RESOLUTIONS)
    assert len(front)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ofa_mbv3_d234_e346_k357_w1.0", "ofa_resnet50"])
def test_the_resolution_may_be_switched_on(name):
    assert "resolution" not in supernets.abstract(name).space.names
    gene = supernets.abstract(name, elastic_resolution=True).space.genes[0]
    assert gene.name == "resolution" and gene.options == (160, 192, 224) and gene.host
    assert supernets.abstract(name, resolutions=(128, 192)).space.genes[0].options == (128, 192)


def test_a_resolution_above_the_images_or_of_nothing_is_refused():
    for config in (NETWORK, ResNetConfig(image_size=7)):
        with pytest.raises(ValueError, match="resolutions has 9, which is above image_size=7"):
            replace(config, resolutions=(7, 9))
        with pytest.raises(ValueError, match="must be at least 1, not 0"):
            replace(config, resolutions=(0, 7))


def test_a_resolution_that_is_not_in_the_list_is_named(net):
    named = net.space.decode(net.space.largest())
    with pytest.raises(ValueError, match=r"resolution.*6.*5, 7"):
        net.space.encode(named | {"resolution": 6})


class Hidden(Stage):
    """Pixels of any size, added up, and a layer of elastic width."""

    genes = (Gene("width", (2, 4)),)

    def __init__(self, *, rngs):
        self.dense = Dense(3, 4, rngs=rngs)

    def forward(self, carry, choice, statistics):
        rows = jnp.arange(carry.shape[1], dtype=carry.dtype)[None, :, None, None]
        return jnp.tanh(self.dense((carry * rows).sum((1, 2)), self.option(choice, 0))), {}


class Classifier(Stage):
    genes = (Gene("width", (2, 4)),)

    def __init__(self, *, rngs):
        self.classify = Dense(4, 3, rngs=rngs)

    def forward(self, carry, choice, statistics):
        return self.classify(cut(carry, -1, self.option(choice, 0))), {}


class Turned(SuperNet):
    """Another host gene beside the resolution, both at the end of the vector: images are turned upside down or not."""

    turns: tuple[int, ...] = (0, 1)

    def __init__(self, *, rngs):
        super().__init__([Hidden(rngs=rngs), Classifier(rngs=rngs)], (7, 7, 3), RESOLUTIONS)

    @property
    def host_genes(self):
        return (*super().host_genes, Gene("turned", self.turns, host=True))

    @property
    def space(self):
        genes = super().space.genes
        return SearchSpace((*genes[2:], *genes[:2]))

    def prepare(self, inputs, host):
        images = super().prepare(inputs, host[:1])
        return images[..., ::-1, :, :] if host[1] else images

    def fix_host(self, host):
        super().fix_host(host[:1])
        self.turns = host[1:]


def test_host_genes_are_any_genes_wherever_they_stand(tiny_task):
    net = Turned(rngs=nnx.Rngs(0))
    assert net.space.names == ("width", "resolution", "turned")
    archs = net.space.all_architectures()
    assert [net.host(arch) for arch in archs[:4]] == [(5, 0), (5, 1), (7, 0), (7, 1)]
    found = [EVALUATORS[name](batch=16, chunk=8).bind(net, tiny_task)(archs) for name in ("masked", "switch", "prefix")]
    held = tiny_task.validation
    for row, arch in enumerate(archs):
        small = extract(net, tuple(map(int, arch)))
        assert small.space.size == 1 and small.host((0, 0, 0)) == net.host(arch)
        images = resized(jnp.asarray(held.inputs), net.host(arch)[0])
        logits = np.asarray(small(images[:, ::-1] if net.host(arch)[1] else images), np.float64)
        loss = (np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(held)), held.targets]).mean()
        np.testing.assert_allclose([one["loss"][row] for one in found], loss, rtol=1e-4)
        for name in ("macs", "memory"):
            alone = cost_tables(small)[name].exact(np.zeros((1, 3), np.int32))
            np.testing.assert_array_equal(cost_tables(net)[name].exact(arch[None]), alone)
    assert len(np.unique(np.round(found[0]["loss"], 6))) == len(archs)
    made = branches(net, batch=2)
    assert made.names[0].shape == (2, 2, 2) and len(made.distinct) == 2 * 2 + 2
