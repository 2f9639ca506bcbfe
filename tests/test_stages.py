"""Stages run sliced, masked, masked under `vmap` and as branches of `lax.switch`: always the same network."""

from functools import cache
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from tiny import CONFIG, architectures, close, images, scrambled

from nasjax.space import Gene
from nasjax.supernets.families.mobilenet_v3 import Head, InvertedBottleneck, MobileNetV3Config, SeparableBlock, Stem
from nasjax.supernets.stage import Stage, check_choice
from nasjax.supernets.supernet import SuperNet, check_arch

pytestmark = pytest.mark.usefixtures("strict")

IMAGES = jnp.asarray(images(4))


def answers(graph, weights, arch):
    """Logits and used statistics with the stored statistics, and with the batch's own."""
    net = nnx.merge(graph, weights)
    return net.forward(IMAGES, arch, net.stored()), net.forward(IMAGES, arch, None)


@pytest.fixture(scope="module")
def masked(tiny_net):
    """One architecture after the other, traced."""
    graph, weights = nnx.split(tiny_net)
    run = jax.jit(lambda weights, arch: answers(graph, weights, arch))
    return cache(lambda arch: jax.device_get(run(weights, jnp.asarray(arch, jnp.int32))))


@pytest.mark.parametrize("index", range(4))
def test_static_is_traced(tiny_net, masked, index):
    arch = architectures(tiny_net.space, 2)[index]
    graph, weights = nnx.split(tiny_net)
    stored, own = jax.jit(lambda weights: answers(graph, weights, arch))(weights)
    close(masked(arch), (stored, own))
    assert np.std(own[0], axis=0).max() > 0.01  # the images matter
    assert np.abs(stored[0] - own[0]).max() > 0.01  # and so do the statistics
    close(stored[1], tiny_net.stored(), 0)


def test_the_architectures_differ(tiny_net, masked):
    found = [masked(arch)[0][0] for arch in architectures(tiny_net.space, 4)]
    assert all(np.abs(a - b).max() > 0.01 for i, a in enumerate(found) for b in found[:i])


def test_vmap_is_a_loop(tiny_net, masked):
    archs = architectures(tiny_net.space, 4) + architectures(tiny_net.space, 6, seed=1)
    graph, weights = nnx.split(tiny_net)
    run = jax.jit(lambda weights, archs: jax.vmap(lambda arch: answers(graph, weights, arch))(archs))
    population = jax.device_get(run(weights, jnp.asarray(archs, jnp.int32)))
    for i, arch in enumerate(archs):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], population), masked(arch))


def test_calling_the_network(tiny_net, masked):
    """A vector or a matrix, of NumPy or JAX, images too; None where there is a choice."""
    archs = np.array(architectures(tiny_net.space, 1), np.int32)
    graph, weights = nnx.split(tiny_net)

    @jax.jit
    def call(weights, traced):
        net = nnx.merge(graph, weights)
        return net(np.asarray(IMAGES), archs), net(IMAGES, traced[2]), net(IMAGES, archs[2])

    logits, vector, numpy_vector = call(weights, archs)
    assert logits.shape == (3, 4, 3)
    close(logits[0], masked(tuple(map(int, archs[0])))[0][0])
    close((vector, numpy_vector), (logits[2], logits[2]))
    with pytest.raises(TypeError, match=f"the network has {tiny_net.space.size} sub-networks"):
        tiny_net(IMAGES)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 7, 7, 1), np.float32), r"float32 \(batch, height, width, 3\), not float32 \(2, 7, 7, 1\)"),
        (np.zeros((7, 7, 3), np.float32), r"not float32 \(7, 7, 3\)"),
        (np.zeros((2, 7, 7, 3), np.uint8), r"not uint8 \(2, 7, 7, 3\)"),
        (np.zeros((0, 7, 7, 3), np.float32), r"shape \(0, 7, 7, 3\) is empty"),
        ((np.zeros((2, 7, 7, 3), np.float32),), "the network reads inputs of structure .* not "),
    ],
)
def test_invalid_images_are_refused(tiny_net, images, words):
    with pytest.raises(ValueError, match=words) as refused:
        tiny_net(images, (0,) * 10)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ((0,) * 9, "tuple of 10 ints .* not a tuple of 9"),
        ([0] * 10, "not a list"),
        ((0.0,) * 10, "not a tuple of 10"),
        (np.zeros(10), r"not float64 \(10,\)"),
        (np.zeros((2, 9), np.int32), r"not int32 \(2, 9\)"),
        (np.zeros((1, 2, 10), np.int32), r"not int32 \(1, 2, 10\)"),
        (jnp.zeros(10), r"not float32 \(10,\)"),
        ((2, *(0,) * 9), "gene 'depth_1' has 2 options, from index 0: there is no index 2"),
        (np.eye(10, dtype=np.int32)[:2] * -1, "there is no index -1"),
        (jnp.full((1, 10), 7, jnp.int32), "there is no index 7"),
    ],
)
def test_a_wrong_architecture_is_refused(tiny_net, arch, words):
    with pytest.raises(ValueError, match=words) as refused:
        check_arch(arch, tiny_net.space)
    assert "\n" not in str(refused.value)
    if not isinstance(arch, list) and np.asarray(arch).dtype.kind == "i":
        with pytest.raises(ValueError, match=words):
            tiny_net(IMAGES, arch)


def test_a_traced_architecture_of_a_wrong_shape_is_refused(tiny_net):
    with pytest.raises(ValueError, match=r"not int32 \(9,\)"):
        jax.eval_shape(lambda arch: tiny_net(IMAGES, arch), jnp.zeros(9, jnp.int32))


# -- single stages ---------------------------------------------------------------------------------------------------------

DEPTH = Gene("depth", (1, 2, 3))


def stage_of(make, *arguments, **settings):
    return scrambled(nnx.eval_shape(lambda: make(*arguments, **settings, rngs=nnx.Rngs(0))), 7)


def block(inputs=8, outputs=8, stride=1, gate=(DEPTH, 2), activation="h_swish", squeeze_excite=True, kernels=(3, 5)):
    genes = Gene("kernel", kernels), Gene("expand", (1, 3, 6))
    settings = {"activation": activation, "squeeze_excite": squeeze_excite, "epsilon": 1e-5}
    return stage_of(InvertedBottleneck, inputs, outputs, stride, *genes, gate, **settings)


STAGES = {
    "identity, skipped or not": (block, 8),
    "stride 2": (lambda: block(8, 12, 2, None, "relu", True), 8),
    "projection, no excitation": (lambda: block(8, 12, 1, None, "relu6", False), 8),
    "kernel 7, without activation": (lambda: block(8, 8, 1, None, "none", False, (3, 7)), 8),
    "first block": (lambda: stage_of(SeparableBlock, 8, 8, activation="relu", epsilon=1e-3), 8),
    "stem": (lambda: stage_of(Stem, CONFIG), 3),
    "head": (lambda: stage_of(Head, 12, CONFIG), 12),
    "short head": (lambda: stage_of(Head, 12, MobileNetV3Config(classes=3, final_expand=0, final_width=0)), 12),
}


@pytest.mark.parametrize(("name", "own"), [(name, True) for name in STAGES] + [("stride 2", False)])
def test_switch_over_static_branches(name, own):
    """Each branch of `lax.switch` is exactly the static stage, with the batch's own statistics or the stored ones."""
    make, channels = STAGES[name]
    stage = make()
    carry = jnp.asarray(images(2, 5, channels))
    choices = list(product(*(range(len(gene.options)) for gene in stage.reads)))
    choices = choices[:: -(-len(choices) // 3)] + choices[-1:]
    graph, weights = nnx.split(stage)

    def branch(choice):
        def run(weights, carry):
            stage = nnx.merge(graph, weights)
            return stage(carry, choice, None if own else stage.stored())

        return run

    switched = jax.jit(lambda i, weights, carry: lax.switch(i, list(map(branch, choices)), weights, carry))
    for i, choice in enumerate(choices):
        close(switched(jnp.int32(i), weights, carry), jax.jit(branch(choice))(weights, carry), 0)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_a_block(stride):
    """Static and traced agree; what the static stage does not read has a gradient of exactly zero in the traced one."""
    stage = block(8, 8 if stride == 1 else 12, stride, (DEPTH, 2) if stride == 1 else None)
    graph, weights, rest = nnx.split(stage, nnx.Param, ...)
    carry = jnp.asarray(images(2, 5, 8))
    slope = jnp.sin(jnp.arange(1000, dtype=jnp.float32))

    def score(weights, choice):
        out, _ = nnx.merge(graph, weights, rest)(carry, choice, None)
        return jnp.vdot(out.reshape(-1), slope[: out.size])

    traced = jax.jit(jax.grad(score))
    for choice in [(2, 0, 1), (0, 1, 2)] if stride == 1 else [(1, 0)]:
        static = jax.jit(lambda weights, choice=choice: jax.grad(score)(weights, choice))(weights)
        masked = traced(weights, jnp.asarray(choice, jnp.int32))
        close(masked, static, 2e-5)
        for a, b in zip(jax.tree.leaves(masked), jax.tree.leaves(static), strict=True):
            assert not np.asarray(a)[np.asarray(b) == 0].any()
        skipped = choice[0] == 0 and stride == 1
        assert skipped != any(np.asarray(leaf).any() for leaf in jax.tree.leaves(masked))


def test_a_skipped_block_passes_carry_and_statistics():
    stage = block()
    carry = jnp.asarray(images(2, 5, 8))
    traced = jax.jit(lambda choice, given: stage(carry, choice, given))
    given = jax.tree.map(lambda leaf: leaf + 1, stage.stored())
    for run in (stage.__call__, lambda x, choice, given: traced(jnp.asarray(choice, jnp.int32), given)):
        for statistics, wanted in ((None, stage.stored()), (given, given)):
            out, used = run(carry, (0, 1, 2), statistics)
            assert (out == carry).all()
            close(used, wanted, 0)
    for level, skipped in ((0, True), (1, False), (2, False)):  # depths 1, 2, 3; the block needs 2
        assert stage.skipped((level, 0, 0)) is skipped
        assert bool(stage.skipped(jnp.array([level, 0, 0], jnp.int32))) is skipped
        assert (traced(jnp.array([level, 1, 1], jnp.int32), None)[0] == carry).all() == skipped


def test_statistics_are_named_stored_and_kept():
    stage = block()
    assert set(stage.stored()) == {"expand", "depthwise", "project"}
    given = jax.tree.map(lambda leaf: leaf * 2 + 1, stage.stored())
    stage.keep(given)
    close(stage.stored(), given, 0)
    close(stage.depthwise.norm.variance[...], given["depthwise"].variance, 0)
    assert set(Stem(CONFIG, rngs=nnx.Rngs(0)).stored()) == {"conv"}


# -- what is refused -------------------------------------------------------------------------------------------------------

WRONG = {
    "list": [0, 1, 2],
    "float": (0, 1.0, 2),
    "bool": (True, 1, 2),
    "short": (0, 1),
    "long": (0, 1, 2, 0),
    "numpy ints": (np.int32(0), np.int32(1), np.int32(2)),
    "numpy array": np.array([0, 1, 2], np.int32),
    "float array": jnp.array([0.0, 1.0, 2.0]),
    "uint8 array": jnp.array([0, 1, 2], jnp.uint8),
    "matrix": jnp.array([[0, 1, 2]], jnp.int32),
    "short array": jnp.array([0, 1], jnp.int32),
    "number": 0,
    "nothing": None,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_choice_is_refused(name):
    with pytest.raises(TypeError, match=r"a choice must be a tuple of 3 ints \(static\) or an int32 array of shape \(3,\)"):
        check_choice(WRONG[name], 3)
    with pytest.raises(TypeError):
        block()(jnp.asarray(images(1, 5, 8)), WRONG[name], None)


def test_a_choice_of_64_bits_is_refused():
    with jax.enable_x64(True), pytest.raises(TypeError, match="int32 array of shape"):
        check_choice(jnp.array([0, 1, 2], jnp.int64), 3)


def test_a_network_refuses_the_wrong_number_of_genes(tiny_net):
    with pytest.raises(TypeError, match="a choice must be a tuple of 10 ints"):
        tiny_net.choices((0,) * 9)


class Reader(Stage):
    def __init__(self, *genes, gate=None):
        self.genes, self.gate = genes, gate


def test_stages_that_disagree_about_a_gene_are_refused():
    same = SuperNet([Reader(Gene("a", (1, 2))), Reader(Gene("a", (1, 2)), Gene("b", (3,)))])
    assert same.space.names == ("a", "b")
    with pytest.raises(ValueError, match="two stages define gene 'a' differently"):
        _ = SuperNet([Reader(Gene("a", (1, 2))), Reader(Gene("a", (1, 3)))]).space
    with pytest.raises(ValueError, match="two stages define gene 'a' differently"):
        _ = SuperNet([Reader(Gene("a", (1, 2))), Reader(gate=(Gene("a", (1, 2, 3)), 2))]).space


def test_a_stage_without_arithmetic_says_so():
    with pytest.raises(TypeError, match="Reader does not define forward"):
        Reader()(jnp.zeros(1), (), None)


# -- the family ------------------------------------------------------------------------------------------------------------


def test_the_space_of_once_for_all():
    space = nnx.eval_shape(lambda: MobileNetV3Config().create(0)).space
    blocks = [sum(9**depth for depth in (2, 3, 4))] * 5
    assert space.size == np.prod(np.array(blocks, object)) and abs(space.size / 2.1759e19 - 1) < 1e-4
    assert len(space.genes) == 5 + 2 * 20
    assert space.names[:5] == tuple(f"depth_{i}" for i in range(1, 6))


def test_columns_are_the_genes_that_stages_read(tiny_net):
    names = tiny_net.space.names
    read = [[names[column] for column in columns] for columns in tiny_net.columns()]
    wanted = [[], []]
    for i in (1, 2):
        wanted += [[f"kernel_{i}_1", f"expand_{i}_1"], [f"depth_{i}", f"kernel_{i}_2", f"expand_{i}_2"]]
    assert read == [*wanted, []]
    arch = tuple(range(10))
    for static, traced, columns in zip(
        tiny_net.choices(arch), tiny_net.choices(jnp.arange(10, dtype=jnp.int32)), tiny_net.columns(), strict=True
    ):
        assert static == columns == tuple(traced.tolist())


def test_shapes(tiny_net):
    assert tiny_net.inputs(5).shape == (5, 7, 7, 3)
    assert tiny_net.output(5).shape == (5, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strides": (1,)}, "strides has 1 entries, widths 5"),
        ({"activations": ("relu",) * 6}, "activations has 6 entries, widths 5"),
        ({"stem_activation": "gelu"}, "unknown activation 'gelu'; allowed: none, relu"),
        ({"activations": ("relu",) * 4 + ("swish",)}, "unknown activation 'swish'"),
    ],
)
def test_a_wrong_configuration_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        MobileNetV3Config(**change)
