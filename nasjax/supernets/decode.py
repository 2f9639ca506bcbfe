"""Greedy decoding: the repeated stages run step by step on their own predictions."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import SuperNet


def decode(net: SuperNet, inputs: PyTree, arch: Choice, statistics: tuple[Statistics, ...], steps: int) -> PyTree:
    """The outputs of the last of `steps` decoding steps, for `net.beams`; the network's outputs if no stage is repeated.

    The first step's tokens are 0, those of every further step the argmax of the outputs before.
    """
    first = net.first_repeated
    carry, _ = net.forward(inputs, arch, statistics, stop=first)
    if first == len(net.stages):
        return carry
    batch, carry = jax.tree.leaves(inputs)[0].shape[0], net.begin(carry)
    tokens = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), net.tokens(batch))

    def step(tokens: Any, carry: Any) -> tuple[Any, Any]:
        (outputs, carry), _ = net.forward((tokens, carry), arch, statistics, start=first)
        return outputs, carry

    def next_step(_: Any, state: Any) -> Any:
        tokens, carry, _ = state
        outputs, carry = step(tokens, carry)
        chosen = jax.tree.map(lambda out, like: out.argmax(-1).reshape(like.shape).astype(like.dtype), outputs, tokens)
        return chosen, carry, outputs

    shapes = jax.eval_shape(step, tokens, carry)[0]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.fori_loop(0, steps, next_step, (tokens, carry, zeros))[2]
