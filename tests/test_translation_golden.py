"""Greedy decoding and beam search equal PyTorch's, token by token (tests/golden/make_translation.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_transformer as tiny
from flax import nnx

from nasjax.supernets.runner import Subnet
from nasjax.supernets.transformer_layers import END, PAD
from nasjax.tasks.beam_search import beam_search

FILE = Path(__file__).parent / "golden" / "translation.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(FILE) as file:
        return dict(file)


@pytest.mark.parametrize("beam", [1, 5])
def test_translations_equal_those_of_pytorch(golden, beam):
    net, arch, source = tiny.translator()
    graph, weights = nnx.split(net)

    @jax.jit
    def translated(weights, source):
        net = nnx.merge(graph, weights)
        inputs = {"source": source, "target": jnp.full_like(source, PAD)}
        return beam_search(Subnet(net, tuple(map(int, arch)), net.stored()), inputs, beam, 0.6, tiny.TIME)

    found = translated(weights, source)
    np.testing.assert_array_equal(found.tokens, golden[f"tokens_{beam}"])
    np.testing.assert_allclose(found.score, golden[f"scores_{beam}"], rtol=1e-5)


def test_the_golden_translations_see_mistakes(golden):
    """Beams matter, sentences differ, and end at several lengths, before there is no more room."""
    greedy, best = golden["tokens_1"], golden["tokens_5"]
    assert (greedy != best).any(axis=1).sum() >= 3
    for tokens in (greedy, best):
        lengths = (tokens != PAD).sum(1)
        assert len(np.unique(lengths)) >= 4
        assert (lengths < tiny.TIME).sum() >= 4
        assert len(np.unique(tokens, axis=0)) >= 6
        assert (tokens[np.arange(len(tokens)), lengths - 1] == END).all()
