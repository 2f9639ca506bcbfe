"""Stages are not shaped by images: an encoder-decoder whose carry is a dict goes the same ways."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from tiny import architectures, close, scrambled
from toy_transformer import DECODER_WIDTH, HEAD, SOURCE, TARGET, WORDS, LayerNorm, ToyTransformer

from nasjax.hardware.costs import cost_tables
from nasjax.jaxprs import jaxpr_macs
from nasjax.supernets.extract import carry_after, extract

pytestmark = pytest.mark.usefixtures("strict")

RNG = np.random.default_rng(0)
SENTENCES = {
    "source": jnp.asarray(RNG.integers(0, WORDS, (3, SOURCE)), jnp.int32),
    "target": jnp.asarray(RNG.integers(0, WORDS, (3, TARGET)), jnp.int32),
}


@pytest.fixture(scope="module")
def net():
    return scrambled(nnx.eval_shape(lambda: ToyTransformer(rngs=nnx.Rngs(0))), 1)


@pytest.fixture(scope="module")
def archs(net):
    return architectures(net.space, 2)


def jitted(net, arch):
    graph, weights = nnx.split(net)
    return jax.jit(lambda weights: nnx.merge(graph, weights)(SENTENCES, arch))(weights)


def test_the_space(net):
    assert net.space.names[:3] == ("encoder_depth", "decoder_depth", "encoder_width")
    encoder, decoder = 2 * 3, 2 * 2
    assert net.space.size == 3 * (encoder + encoder**2) * (decoder + decoder**2)
    assert net.output(3).shape == (3, TARGET, WORDS)


def test_static_is_traced_is_a_population(net, archs):
    population = jitted(net, np.array(archs, np.int32))
    graph, weights = nnx.split(net)
    traced = jax.jit(lambda weights, arch: nnx.merge(graph, weights)(SENTENCES, arch))
    assert population.shape == (len(archs), 3, TARGET, WORDS)
    for i, arch in enumerate(archs):
        static = jitted(net, arch)
        assert all(np.abs(static - other).max() > 1e-3 for other in population[:i])
        close(traced(weights, jnp.asarray(arch, jnp.int32)), static)
        close(population[i], static)


def test_extracted_is_static_with_fewer_weights(net, archs):
    weights = [sum(leaf.size for leaf in jax.tree.leaves(nnx.state(extract(net, arch)))) for arch in archs]
    assert weights[0] == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net)))
    assert all(weights[1] < count < weights[0] for count in weights[2:])
    for arch in archs[1:3]:
        small = extract(net, arch)
        assert type(small) is ToyTransformer and small.space.size == 1
        close(jitted(small, None), jitted(net, arch), 0)


def test_an_extracted_encoder_layer_has_the_sizes_chosen(net):
    choices = dict.fromkeys(net.space.names)
    choices |= {"encoder_depth": 2, "decoder_depth": 1, "encoder_width": 6, "encoder_heads_1": 1, "encoder_hidden_1": 3}
    choices |= {"encoder_heads_2": 2, "encoder_hidden_2": 6, "decoder_heads_1": 1, "decoder_hidden_1": 7}
    arch = net.space.encode({name: value for name, value in choices.items() if value is not None})
    small = extract(net, tuple(map(int, arch)))
    assert len(small.stages) == 6
    first, second, decoder = small.stages[1], small.stages[2], small.stages[4]
    assert first.attention.query.kernel.shape == (6, HEAD) and second.attention.query.kernel.shape == (6, 2 * HEAD)
    assert first.feed.hidden.kernel.shape == (6, 3) and second.feed.output.kernel.shape == (6, 6)
    assert first.norms_after[0].scale.shape == (6,)
    assert decoder.cross.key.kernel.shape == (6, HEAD) and decoder.cross.query.kernel.shape == (DECODER_WIDTH, HEAD)


def kept(net, arch):
    """Which weights the sub-network has, found by extracting a network whose weights are their own indices."""
    graph, state = nnx.split(net)
    leaves, tree = jax.tree.flatten(state)
    numbered = [jnp.arange(leaf.size, dtype=jnp.float32).reshape(leaf.shape) for leaf in leaves]
    small = extract(nnx.merge(graph, jax.tree.unflatten(tree, numbered)), arch)
    present = jax.tree.map(lambda leaf: np.zeros(leaf.shape, bool), nnx.to_pure_dict(state))
    skipped = [stage.skipped(choice) for stage, choice in zip(net.stages, net.choices(arch), strict=True)]
    places = [i for i, skip in enumerate(skipped) if not skip]
    for path, leaf in jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(nnx.state(small)))[0]:
        keys = [entry.key for entry in path]
        keys[1] = places[keys[1]]
        part = present
        for key in keys:
            part = part[key]
        part.reshape(-1)[np.asarray(leaf).astype(int)] = True
    return present


@pytest.mark.slow
def test_gradients_of_what_is_masked_out_are_exactly_zero(net, archs):
    graph, weights = nnx.split(net)

    def score(weights, arch):
        logits = jax.nn.log_softmax(nnx.merge(graph, weights)(SENTENCES, arch))
        return -jnp.take_along_axis(logits, SENTENCES["target"][..., None], axis=-1).mean()

    traced = jax.jit(jax.grad(score))
    for arch in archs[1:3]:
        static = jax.jit(lambda weights, arch=arch: jax.grad(score)(weights, arch))(weights)
        masked = traced(weights, jnp.asarray(arch, jnp.int32))
        close(masked, static)
        present = kept(net, arch)
        assert not all(leaf.all() for leaf in jax.tree.leaves(present))
        for gradient, there in zip(jax.tree.leaves(nnx.to_pure_dict(masked)), jax.tree.leaves(present), strict=True):
            assert not np.asarray(gradient)[~there].any()
            assert there.any() == np.asarray(gradient).any()


def test_cost_tables_are_a_walk_over_the_extracted_network(net, archs):
    tables = cost_tables(net)
    for arch in archs:
        small = extract(net, arch)
        graph, weights = nnx.split(small)
        jaxpr = jax.make_jaxpr(lambda weights, x, graph=graph: nnx.merge(graph, weights)(x))(weights, small.inputs(1)).jaxpr
        assert tables["macs"].exact(np.array([arch])) == [jaxpr_macs(jaxpr)]
        assert tables["params"].exact(np.array([arch])) == [sum(leaf.size for leaf in jax.tree.leaves(weights))]
    macs = tables["macs"].exact(np.array(archs))
    assert macs[0] == macs.max() and macs[1] == macs.min() < macs[0]


def test_macs_of_one_encoder_layer_by_hand(net):
    """Four projections, two products over time, two feed-forward layers."""
    table = cost_tables(net)["macs"].tables[1]
    for (i, width), (j, heads), (k, hidden) in product(enumerate((4, 6, 8)), enumerate((1, 2)), enumerate((3, 6, 8))):
        projections = 4 * SOURCE * width * heads * HEAD
        attention = 2 * SOURCE * SOURCE * heads * HEAD
        assert table[i, j, k] == projections + attention + 2 * SOURCE * width * hidden


@pytest.mark.slow
def test_switch_over_static_branches(net):
    """The carry keeps its largest width; every branch slices it and pads it back."""
    largest = net.choices(tuple(map(int, net.space.largest())))
    carry, shapes = SENTENCES, net.inputs(3)
    for stage, full in zip(net.stages, largest, strict=True):
        after = carry_after(stage, full, shapes)
        choices = list(product(*(range(len(gene.options)) for gene in stage.reads)))
        widths = [choice for choice in choices if not stage.genes or choice[stage.gate is not None] == 1]
        choices = (widths if len(choices) > 6 else choices)[::2] + choices[-1:]
        graph, weights = nnx.split(stage)
        run = partial(answer, graph, after)
        branches = [partial(run, choice) for choice in choices]
        switched = jax.jit(partial(switch, branches))
        traced = jax.jit(run)
        for i, choice in enumerate(choices):
            narrow = narrowed(stage, carry, choice)
            found = switched(jnp.int32(i), weights, narrow)
            close(found, jax.jit(branches[i])(weights, narrow), 0)
            close(found, traced(jnp.asarray(choice, jnp.int32), weights, narrow))
        carry, shapes = traced(jnp.asarray(full, jnp.int32), weights, carry), after


def answer(graph, after, choice, weights, carry):
    """What a stage hands on, padded to the largest shapes."""
    out, _ = nnx.merge(graph, weights)(carry, choice, None)
    return jax.tree.map(
        lambda x, full: jnp.pad(x, [(0, b - a) for a, b in zip(x.shape, full.shape, strict=True)]), out, after
    )


def switch(branches, index, weights, carry):
    return lax.switch(index, branches, weights, carry)


def narrowed(stage, carry, choice):
    """The carry as a network of the choice's encoder width hands it on: zeros beyond."""
    if "encoded" not in carry or not stage.genes:
        return carry
    width = stage.genes[0].options[choice[stage.gate is not None]]
    return carry | {"encoded": tuple(part.at[..., width:].set(0) for part in carry["encoded"])}


def test_layer_norm_is_over_the_sampled_width():
    layer = scrambled(LayerNorm(8), 1)
    x = RNG.normal(size=(2, 3, 5))
    scale, bias = np.asarray(layer.scale[...])[:5], np.asarray(layer.bias[...])[:5]
    wanted = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias
    close(layer(jnp.asarray(x, jnp.float32), 5), wanted)
    padded = jnp.pad(jnp.asarray(x, jnp.float32), ((0, 0), (0, 0), (0, 3)))
    found = jax.jit(layer.__call__)(padded, jnp.int32(5))
    close(found[..., :5], wanted)
    assert not np.asarray(found)[..., 5:].any()


def test_the_decoder_reads_two_encoder_outputs_and_no_later_words(net, archs):
    arch = archs[0]
    graph, weights = nnx.split(net)
    run = jax.jit(lambda weights, x: nnx.merge(graph, weights)(x, arch))
    logits = run(weights, SENTENCES)
    other = run(weights, SENTENCES | {"target": SENTENCES["target"].at[:, 2].set(0).at[:, 3].set(1)})
    assert np.abs(logits[:, :2] - other[:, :2]).max() < 1e-6 < np.abs(logits[:, 2:] - other[:, 2:]).max()
    decoder = net.stages[4]
    carry = SENTENCES
    for stage, choice in zip(list(net.stages)[:4], net.choices(arch)[:4], strict=True):
        carry, _ = stage(carry, choice, None)
    outputs = [
        decoder(carry | {"encoded": pair}, net.choices(arch)[4], None)[0]["decoded"] for pair in swaps(carry["encoded"])
    ]
    assert all(np.abs(outputs[0] - changed).max() > 1e-3 for changed in outputs[1:])


def swaps(encoded):
    before, last = encoded
    return (before, last), (before, before), (last, last)
