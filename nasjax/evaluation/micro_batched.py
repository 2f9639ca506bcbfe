"""Micro-batches of stages whose statistics are given: on a CPU full-size networks take half the time."""

from collections.abc import Callable
from functools import partial

import jax
from flax import nnx
from jaxtyping import PyTree

from nasjax.supernets import SuperNet
from nasjax.supernets.cpu.micro_batches import concatenate_micro_batches, map_micro_batches, micro_batch_size
from nasjax.supernets.elastic import Recalibrate
from nasjax.supernets.stage import Choice, Stage, Statistics
from nasjax.supernets.supernet import HostOptions

STAGE_BYTES = 4e5
"""Bytes of a stage's inputs in a micro-batch; the activations within the stage are a few times as much."""

WEIGHTS_SHARE = 0.25
"""The least size of those inputs, as a share of the stage's weights, which every micro-batch reads again."""


def micro_batched(run: Callable[[PyTree], PyTree], carry: PyTree, weights: PyTree) -> PyTree:
    """`run(carry)` in micro-batches, for a stage with these `weights` whose examples do not depend on each other."""
    weight_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(weights))
    size = micro_batch_size(carry, max(STAGE_BYTES, WEIGHTS_SHARE * weight_bytes))
    if size == jax.tree.leaves(carry)[0].shape[0]:
        return run(carry)
    return concatenate_micro_batches(map_micro_batches(run, size, carry))


class MicroBatched:
    """A super-network whose stages run in micro-batches if statistics are given; repeated stages do not."""

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
        start: int | None = None,
        stop: int | None = None,
    ) -> tuple[PyTree, tuple[Statistics, ...]]:
        """As `SuperNet.forward`."""
        if not isinstance(statistics, tuple) or start is not None:
            return self.net.forward(carry, arch, statistics, start, stop)
        choices = self.net.choices(arch)
        for i in range(len(choices))[:stop]:
            stage = self.net.stages[i]
            run = partial(_outputs, stage, choices[i], statistics[i])
            carry = micro_batched(run, carry, nnx.state(stage))
        return carry, statistics[:stop]


def _outputs(stage: Stage, choice: Choice, statistics: Statistics, carry: PyTree) -> PyTree:
    return stage(carry, choice, statistics)[0]
