"""Once-for-All's super-networks with the weights that the golden values of tests/golden/ were made with."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from nasjax import supernets
from nasjax.evaluation.calibration import calibrate
from nasjax.supernets.checkpoints import fill
from nasjax.supernets.ofa.lists import from_ofa
from nasjax.supernets.ofa.weights import published_names

FOLDER = Path(__file__).parent / "golden"
sys.path.insert(0, str(FOLDER))

import seeded  # noqa: E402

NAMES = tuple(seeded.FIRST_BLOCKS)
SIZES = (80, 96)


@cache
def golden(name):
    """The original's values, by name."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def lists(name, row):
    """The row-th architecture as OFA writes it."""
    values = golden(name)
    return {key: values[key][row].tolist() for key in ("ks", "d", "e", "w") if key in values}


@cache
def published(name):
    """A seeded state dict in PyTorch's layout, under (short) published names."""
    net = nnx.eval_shape(supernets.SUPERNETS[name].create)
    shapes = {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(net))}
    places = published_names(net)
    return {there.name: seeded.tensor(name, there.name, there.shape(shapes[ours])) for ours, there in places.items()}


def network(name, size, **changes):
    """The super-network for images of that size, with those weights."""
    return fill(replace(supernets.SUPERNETS[name], image_size=size, **changes).create, published(name), "seeded")


def archs(name, net):
    """All golden architectures as vectors (14, genes)."""
    return np.stack([net.space.encode(from_ofa(net, lists(name, row))) for row in range(len(golden(name)["params"]))])


UNOPTIMISED = {"xla_backend_optimization_level": 0}
"""For programs that run once: what the compiler's optimisation takes is not earned back."""


def images(name, size):
    """The original's images in the batches that re-calibrated it (batches, batch, size, size, 3)."""
    number, batches = int(golden(name)["images"]), int(golden(name)["batches"])
    return seeded.images(number, size).reshape(batches, number // batches, size, size, 3)


def answers(net, arch, batches):
    """Logits of the first batch with stored and with re-calibrated statistics, and the latter statistics."""
    statistics = calibrate(net, arch, batches)
    both = jax.tree.map(lambda *pair: jnp.stack(pair), net.stored(), statistics)
    logits = lax.map(lambda used: net.forward(batches[0], arch, used)[0], both)
    return dict(zip(("stored", "calibrated"), logits, strict=True)), statistics


def masked(net, population, batches):
    """`answers` for every architecture, by masks: logits alone."""
    graph, weights = nnx.split(net)

    def run(weights, population, batches):
        net = nnx.merge(graph, weights)
        return lax.map(lambda arch: answers(net, arch, batches)[0], population)

    return jax.jit(run)(weights, population, batches)


def static(net, arch, batches):
    """`answers` for one architecture (a tuple), by slices."""
    graph, weights = nnx.split(net)
    run = jax.jit(lambda weights, batches: answers(nnx.merge(graph, weights), arch, batches), compiler_options=UNOPTIMISED)
    return run(weights, batches)


def deviation(name, size, kind, rows, logits):
    """The largest difference from the original, of the scale of each architecture's logits."""
    values = golden(name)
    expected = values[f"{kind}_{size}"][rows]
    found = np.asarray(logits)[..., :: int(values["class_step"])]
    axes = tuple(range(1, expected.ndim))
    return (np.abs(found - expected).max(axes) / np.abs(expected).max(axes)).max()
