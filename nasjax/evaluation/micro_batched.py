"""On a CPU, stages with known statistics take micro-batches that stay in its caches: half the time for
full-size networks."""

from collections.abc import Callable
from functools import partial

import jax
from flax import nnx
from jaxtyping import PyTree

from nasjax.supernets import SuperNet
from nasjax.supernets.cpu.micro_batches import in_parts, joined, together
from nasjax.supernets.elastic import Recalibrate
from nasjax.supernets.stage import Choice, Stage, Statistics
from nasjax.supernets.supernet import HostOptions

STAGE_BYTES = 4e5
"""Inputs of a stage at a time, in bytes: its activations inside are a few times as much."""

WEIGHTS_SHARE = 0.25
"""Inputs are at least this share of the stage's weights, which are read anew for every micro-batch."""


def micro_batched(run: Callable[[PyTree], PyTree], carry: PyTree, weights: PyTree) -> PyTree:
    """`run(carry)`, a stage with these weights whose outputs for an example do not depend on the others, in
    micro-batches."""
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(weights))
    size = together(carry, max(STAGE_BYTES, WEIGHTS_SHARE * held))
    if size == jax.tree.leaves(carry)[0].shape[0]:
        return run(carry)
    return joined(in_parts(run, size, carry))


class MicroBatched:
    """A super-network whose stages run in micro-batches where statistics are known and a stage runs once an example."""

    def __init__(self, net: SuperNet):
        self.net = net
        self.first_repeated = net.first_repeated

    def prepare(self, inputs: PyTree, host: HostOptions) -> PyTree:
        """As `SuperNet.prepare`."""
        return self.net.prepare(inputs, host)

    def forward(
        self,
        carry: PyTree,
        arch: Choice,
        statistics: tuple[Statistics, ...] | Recalibrate | None,
        start: int = 0,
        stop: int | None = None,
    ) -> tuple[PyTree, tuple[Statistics, ...]]:
        """As `SuperNet.forward`."""
        if not isinstance(statistics, tuple) or start:
            return self.net.forward(carry, arch, statistics, start, stop)
        choices = self.net.choices(arch)
        for i in range(len(choices))[:stop]:
            stage = self.net.stages[i]
            run = partial(_outputs, stage, choices[i], statistics[i])
            carry = micro_batched(run, carry, nnx.state(stage))
        return carry, statistics[:stop]


def _outputs(stage: Stage, choice: Choice, statistics: Statistics, carry: PyTree) -> PyTree:
    return stage(carry, choice, statistics)[0]
