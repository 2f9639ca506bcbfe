"""Peak activation memory and model size: by hand, and against what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import CONFIG, architectures

from nasjax.hardware.activation_memory import jaxpr_memory
from nasjax.hardware.costs import cost_tables
from nasjax.supernets.extract import extract


def peak(function, *shapes):
    """Bytes of a function of activations and, last, one weight."""
    arrays = [jnp.ones(shape, jnp.float32) for shape in shapes]
    return jaxpr_memory(jax.make_jaxpr(function)(*arrays).jaxpr, 1) // 4


def test_a_product_holds_what_it_reads_and_what_it_writes():
    assert peak(lambda x, w: x @ w, (2, 3), (3, 5)) == 2 * 3 + 2 * 5


def test_what_stands_between_products_takes_no_memory_of_its_own():
    def chain(x, w):
        return jax.nn.relu(jnp.exp(x) + 1) @ w * 3

    assert peak(chain, (2, 3), (3, 5)) == 6 + 10
    assert peak(lambda x, w: jax.jit(chain)(x, w), (2, 3), (3, 5)) == 16


def test_what_is_read_later_waits():
    x, w = (4, 8), (8, 8)
    assert peak(lambda x, w: (x @ w) @ w, x, w) == 64
    assert peak(lambda x, w: x + (x @ w) @ w, x, w) == 96
    # A long skip is no dearer than a short one.
    assert peak(lambda x, w: x + (((x @ w) @ w) @ w) @ w, x, w) == 96


def test_products_inside_branches_and_loops_count():
    w = jnp.ones((8, 8))

    def branch(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda x: (x @ w) @ w + x, lambda x: x, x)

    assert peak(branch, (4, 8), w.shape) == 96
    assert peak(lambda x, w: jax.lax.fori_loop(0, 3, lambda _, x: x @ w, x), (4, 8), w.shape) >= 64


def by_hand(net, arch):
    """The peak of one example's floats in a MobileNetV3, layer by layer."""
    found = net.space.decode(np.array(arch))
    size, width = CONFIG.image_size, CONFIG.stem_width
    pixels = size**2
    peaks = [pixels * (CONFIG.channels + width), pixels * 3 * width]
    for i, outputs in enumerate(CONFIG.widths):
        for block in range(found[f"depth_{i + 1}"]):
            middle = width * found[f"expand_{i + 1}_{block + 1}"]
            stride = CONFIG.strides[i] if block == 0 else 1
            size = -(-size // stride)
            after = size**2
            kept = pixels * width if stride == 1 and width == outputs else 0
            gate = middle if CONFIG.squeeze_excite[i] else 0
            peaks += [pixels * (width + middle), kept + (pixels + after) * middle, kept + after * (middle + outputs) + gate]
            pixels, width = after, outputs
    return max([*peaks, pixels * (width + CONFIG.final_expand), pixels * CONFIG.final_expand + CONFIG.final_width])


def test_the_peak_of_a_network_is_its_dearest_layer_by_hand(tiny_net):
    table = cost_tables(tiny_net)["memory"]
    archs = architectures(tiny_net.space, 10)
    archs = np.unique(np.asarray(tiny_net.space.canonical(np.array(archs, np.int32))), axis=0)
    expected = [4 * by_hand(tiny_net, arch) for arch in archs]
    assert len(set(expected)) > 3
    np.testing.assert_array_equal(table.exact(archs), expected)
    np.testing.assert_array_equal(table.estimate(archs), expected)
    assert table.maximum() == max(by_hand(tiny_net, tiny_net.space.largest()) * 4, *expected)


def test_model_size_is_what_the_extracted_network_keeps(tiny_net):
    table = cost_tables(tiny_net)["model_size"]
    for arch in architectures(tiny_net.space, 3):
        kept = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(extract(tiny_net, arch))))
        canonical = np.asarray(tiny_net.space.canonical(np.array([arch], np.int32)))
        assert table.exact(canonical) == [kept]


@pytest.mark.parametrize("name", ["memory", "model_size"])
def test_larger_networks_take_no_less(tiny_net, name):
    table = cost_tables(tiny_net)[name]
    smallest, largest = tiny_net.space.smallest(), tiny_net.space.largest()
    assert table.exact(smallest[None]) < table.exact(largest[None]) <= table.maximum()
