"""A small Transformer super-network, and sentences for it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nasjax.supernets.families.transformer import TransformerConfig
from nasjax.supernets.transformer_layers import END, PAD

WORDS = 20
CONFIG = TransformerConfig(
    source_words=WORDS, target_words=WORDS, length=7, positions=30, encoder_layers=3, decoder_depths=(1, 2, 3),
    encoder_widths=(6, 8), decoder_widths=(5, 8), inner_width=8, heads=(2, 4), hidden=(5, 7, 9),
)  # fmt: skip


def sentences(rng, lengths, time, side="right", first=None):
    """Tokens (sentences, time), filled up at the side."""
    tokens = np.full((len(lengths), time), PAD, np.int32)
    for row, length in zip(tokens, lengths, strict=True):
        own = slice(0, length) if side == "right" else slice(time - length, time)
        row[own] = rng.integers(4, WORDS, length)
        row[own][0 if first else -1] = END
    return jnp.asarray(tokens)


def inputs(seed=0, side="right"):
    """Four sources of up to seven tokens, and targets of six."""
    rng = np.random.default_rng(seed)
    return {"source": sentences(rng, (7, 5, 4, 2), 7, side), "target": sentences(rng, (6, 6, 6, 6), 6, first=END)}


def stepped(run, inputs):
    """Logits of a target that is fed token by token."""

    def step(carry, tokens):
        logits, carry = run.step(tokens[:, None], carry)
        return carry, logits[:, 0]

    return jnp.swapaxes(jax.lax.scan(step, run.encode(inputs), inputs["target"].T)[1], 0, 1)


TIME = 16
"""The most tokens of a golden translation."""


def translator():
    """A network with large weights, one of its architectures, and sources: translations differ, and end at many lengths."""
    settings = {"encoder_layers": 2, "cross_layers": (1, 2), "decoder_depths": (1, 2), "shared_embeddings": False}
    net = replace(CONFIG, **settings).create(0)
    graph, weights = nnx.split(net)
    rng = np.random.default_rng(149)
    large = jax.tree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32), weights)
    net = nnx.merge(graph, large)
    arch = np.array([1, 1, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1], np.int32)
    return net, arch, sentences(rng, (12, 11, 10, 9, 8, 7, 6, 6, 5, 4, 3, 2), 12)
