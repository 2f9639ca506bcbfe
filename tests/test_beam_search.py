"""Beam search: when it ends, in what order sentences take turns, and its choice of continuations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.supernets.transformer_layers import END, PAD, KeysValues
from nasjax.tasks import beam_search as beam_search_module
from nasjax.tasks.beam_search import beam_search, continuations, greatest


@pytest.mark.parametrize(("ends", "steps"), [((1, 3), 4), ((1, 99), 8)])
def test_beam_search_ends_when_all_beams_are_done(ends, steps):
    """The scores of a network that finds nothing but END likely after so many tokens of a sentence."""
    done = []

    class Run:
        def encode(self, inputs):
            return no_keys(2)

        def step(self, tokens, carry):
            likely = jnp.array([END if len(done) >= after else 5 for after in ends])
            done.append(tokens)
            return jnp.broadcast_to(9.0 * jax.nn.one_hot(likely, 9)[:, None], (*tokens.shape, 9)), carry

    source = jnp.full((2, 4), END)
    with jax.disable_jit():
        beam_search(Run(), {"source": source, "target": source}, 1, 0.6, 8)
    assert len(done) == steps


def no_keys(sentences):
    """The carry of a network without attention."""
    layers = (KeysValues(jnp.zeros((sentences, 1, 1)), jnp.zeros((sentences, 1, 1))),)
    return {"cache": {"layers": layers, "visible": jnp.zeros((sentences, 1, 1), bool)}}


@pytest.mark.slow
@pytest.mark.parametrize(("score", "steps"), [(9.0, 3), (1.0, 5)])
def test_a_sentence_is_done_once_nothing_can_surpass_its_best(score, steps):
    """After two tokens END has this `score`, all other words 0: with 1.0 the second best can win for two more steps."""
    done = []

    class Run:
        def encode(self, inputs):
            return no_keys(1)

        def step(self, tokens, carry):
            done.append(tokens)
            word = END if len(done) == 3 else 5
            return jnp.broadcast_to(score * jax.nn.one_hot(word, 9), (*tokens.shape, 9)), carry

    source = jnp.full((1, 4), END)
    with jax.disable_jit():
        found = beam_search(Run(), {"source": source, "target": source}, 4, 0.6, 8)
    assert len(done) == steps
    assert (found.tokens[0] == END).sum() == 1


def test_a_sentence_that_is_done_makes_room_for_the_next(monkeypatch, lengths=(1, 2, 8, 1, 0, 3)):
    """Two at a time, the longest sources first: 9 steps for 9 tokens and for 4, 3 and 2, then 2."""
    monkeypatch.setattr(beam_search_module, "AT_ONCE", 2)
    done = []

    class Run:
        def encode(self, inputs):
            return no_keys(len(lengths)) | {"own": jnp.array(lengths), "begun": jnp.zeros(len(lengths), jnp.int32)}

        def step(self, tokens, carry):
            jax.debug.callback(done.append, carry["own"])
            begun = carry["begun"] + 1
            words = jnp.where(begun == carry["own"] + 1, END, 3 + carry["own"] % 5)
            return 9.0 * jax.nn.one_hot(words, 9)[:, None], carry | {"begun": begun}

    source = np.full((len(lengths), 9), PAD)
    for row, length in zip(source, lengths, strict=True):
        row[: length + 1] = [5] * length + [END if length else PAD]
    found = jax.jit(lambda source: beam_search(Run(), {"source": source, "target": source}, 1, 0.6, 9))(jnp.asarray(source))
    jax.effects_barrier()
    for length, tokens in zip(lengths, found.tokens.tolist(), strict=True):
        words = [3 + length % 5] * length + [END] if length else []
        assert tokens == words + [PAD] * (9 - len(words))
    assert len(done) == 11


@pytest.mark.parametrize("entries", [3, 80, 81, 2000])
def test_the_greatest_entries_are_those_of_a_stable_sort(entries, number=3):
    """Of equal ones the first comes first, and nothing is too small to be found."""
    values = np.random.default_rng(0).integers(0, 40, (5, entries)).astype(np.float32) * 1e8 - 1e9
    values[0] = -np.inf
    order = np.argsort(-values, axis=1, kind="stable")[:, :number]
    found, places = greatest(jnp.asarray(values), number)
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(found, np.take_along_axis(values, order, axis=1))


@pytest.mark.parametrize("words", [5, 8, 21, 40])
@pytest.mark.parametrize(("first", "last"), [(False, False), (True, False), (False, True), (True, True)])
def test_continuations_are_the_best_of_all_words_of_all_beams(words, first, last, beam=3, number=6):
    """By brute force: PAD never continues, END does not begin, it alone ends what has no more room; also of equal scores."""
    rng = np.random.default_rng(words)
    logits = rng.integers(-3, 4, (4, beam, words)).astype(np.float32)
    logits[0] = rng.normal(size=(beam, words))
    scores = rng.integers(-2, 1, (4, beam)).astype(np.float32)
    found = continuations(jnp.asarray(scores), jnp.asarray(logits), number, jnp.full(4, first), jnp.full(4, last))
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    allowed = np.array([word != PAD and (word == END if last else not (first and word == END)) for word in range(words)])
    totals = np.where(allowed, scores[..., None] + logs, -np.inf).reshape(4, -1)
    real = min(number, beam * allowed.sum())
    best = np.argsort(-totals, axis=1, kind="stable")[:, :real]
    np.testing.assert_allclose(found[0][:, :real], np.take_along_axis(totals, best, 1), rtol=1e-5, atol=1e-5)
    chosen = np.asarray(found[1] * words + found[2])[:, :real]
    np.testing.assert_allclose(np.take_along_axis(totals, chosen, 1), found[0][:, :real], rtol=1e-5, atol=1e-5)
    assert all(len(set(row)) == real for row in chosen.tolist())
    assert (found[0][:, real:] < -1e8).all()
