"""What several tests share: a tiny super-network whose weights would show a mistake, and a tiny task."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nasjax.supernets.families.mobilenet_v3 import MobileNetV3Config
from nasjax.tasks import ImageClassification, Split
from nasjax.training.base import Step

CONFIG = MobileNetV3Config(
    image_size=7,
    channels=3,
    classes=3,
    stem_width=8,
    stem_stride=1,
    first_width=8,
    first_activation="relu6",
    widths=(8, 12),
    strides=(2, 1),
    depths=((1, 2), (1, 2)),
    kernels=(3, 5, 7),
    expands=(1, 3, 6),
    activations=("relu", "h_swish"),
    squeeze_excite=(True, False),
    final_expand=24,
    final_width=16,
)


def scrambled(net, seed):
    """A network or stage (abstract will do) with random weights: no gain is 1, no bias 0, no transform an identity."""
    rng = np.random.default_rng(seed)
    graph, state = nnx.split(net)

    def draw(path, variable):
        name, shape = path[-1], variable.shape
        noise = rng.normal(size=shape)
        if "transforms" in path:
            value = np.eye(shape[0]) + noise * 0.15
        elif name == "kernel" and len(shape) == 4:
            value = noise * 1.4 / np.sqrt(np.prod(shape[:3]))
        elif name == "kernel":
            value = noise * 1.4 / np.sqrt(shape[0])
        elif name in ("scale", "variance"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = noise * 0.3
        return variable.replace(jnp.asarray(value, jnp.float32))

    drawn = [(path, draw(path, variable)) for path, variable in nnx.to_flat_state(state)]
    return nnx.merge(graph, nnx.from_flat_state(drawn))


def tiny_network(seed=1, **changes):
    """A super-network of `CONFIG` with changes, its weights random."""
    return scrambled(nnx.eval_shape(replace(CONFIG, **changes).create), seed)


def images(number, size=CONFIG.image_size, channels=CONFIG.channels, seed=0):
    """Random 4 x 4 grids with noise."""
    rng = np.random.default_rng(seed)
    grid = rng.normal(size=(number, 4, 4, channels)).repeat(2, 1).repeat(2, 2)[:, :size, :size]
    return (grid + 0.3 * rng.normal(size=grid.shape)).astype(np.float32)


def easy_task(sizes=(96, 41, 30), noise=0.6, seed=0):
    """Three images, noisy, randomly brightened; training, validation and test of `sizes`."""
    rng = np.random.default_rng(seed)
    patterns = images(CONFIG.classes, seed=seed + 1)

    def split(number):
        labels = rng.integers(0, CONFIG.classes, number).astype(np.int32)
        images = patterns[labels] * rng.uniform(0.5, 1.5, (number, 1, 1, 1))
        return Split((images + noise * rng.normal(size=images.shape)).astype(np.float32), labels)

    train, validation, test = (split(number) for number in sizes)
    return ImageClassification(train, validation, test, CONFIG.classes)


def architectures(space, number, seed=0):
    """The largest, the smallest and `number` random architectures, as tuples of ints."""
    drawn = np.asarray(space.sample_raw(jax.random.key(seed), number))
    return [tuple(map(int, arch)) for arch in (space.largest(), space.smallest(), *drawn)]


def close(found, wanted, tolerance=5e-6):
    """Asserts that two trees of arrays are alike, each leaf to `tolerance` of its own largest value (at least of 1)."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0)))


def step_of(net, key, taught=False, kind=0):
    """A training step of a network, all of whose options are trained, for methods that look at no losses."""
    return Step(net.space, key, jnp.zeros(len(net.space.genes), jnp.int32), kind, None, None, taught)
