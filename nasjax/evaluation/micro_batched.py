"""Stages with known statistics take pictures few at a time on a CPU, which halves what full-size networks take."""

from collections.abc import Callable
from functools import partial

import jax
from flax import nnx
from jaxtyping import PyTree

from nasjax.supernets.cpu.micro_batches import in_parts, joined, together
from nasjax.supernets.stage import Choice, Stage, Statistics, SuperNet

STAGE_BYTES = 4e5
"""What a stage is given at a time: what it makes of that inside is a few times as much."""

WEIGHTS = 0.25
"""The share of its weights that it is given at least: they are read anew for every part."""


def few_at_a_time(run: Callable[[PyTree], PyTree], carry: PyTree, weights: PyTree) -> PyTree:
    """`run`, a stage with these weights, whose answer to a picture does not depend on the others."""
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(weights))
    few = together(carry, max(STAGE_BYTES, WEIGHTS * held))
    if few == jax.tree.leaves(carry)[0].shape[0]:
        return run(carry)
    return joined(in_parts(run, few, carry))


class Few:
    """A super-network whose stages do so."""

    def __init__(self, net: SuperNet):
        self.net = net

    def stored(self) -> tuple[Statistics, ...]:
        """The batch-norm statistics kept with the weights, stage by stage."""
        return self.net.stored()

    def forward(
        self, carry: PyTree, arch: Choice, statistics: tuple[Statistics, ...] | None
    ) -> tuple[PyTree, tuple[Statistics, ...]]:
        """As `SuperNet.forward`."""
        if statistics is None:
            return self.net.forward(carry, arch, None)
        for stage, choice, known in zip(self.net.stages, self.net.choices(arch), statistics, strict=True):
            run = partial(_scored, stage, choice, known)
            carry = few_at_a_time(run, carry, nnx.state(stage))
        return carry, statistics


def _scored(stage: Stage, choice: Choice, statistics: Statistics, carry: PyTree) -> PyTree:
    return stage(carry, choice, statistics)[0]
