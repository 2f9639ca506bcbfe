"""Beam search with a key-value cache, jitted: many sentences at once, until the last one is finished.

The algorithm is fairseq's: a step keeps the `beam` best unfinished continuations of each sentence. One that ends among the
`beam` best is finished, with its log probability divided by a power of its length; a sentence is done when it has `beam`
finished ones, and the best of them is its translation.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from nasjax.supernets.cpu.micro_batches import in_parts
from nasjax.supernets.transformer_layers import END, PAD, with_room
from nasjax.tasks.base import Runner

NEVER = -1e9
"""Score of what must not be chosen."""

AT_ONCE = 25
"""Sentences that a CPU translates at once: their logits stay in its caches, and few wait for the longest translation."""

GROUP = 8
"""Entries of a group, of which `greatest` looks at the maximum first."""


class Best(NamedTuple):
    """The best finished translation of each sentence, its score, and how many were finished."""

    tokens: Int[Array, "batch time"]
    score: Float[Array, " batch"]
    number: Int[Array, " batch"]


class Beams(NamedTuple):
    """The unfinished translations of each sentence, their log probabilities, and the carry of their next step."""

    step: Int[Array, ""]
    tokens: Int[Array, "batch beam time"]
    scores: Float[Array, "batch beam"]
    carry: PyTree
    best: Best


def beam_search(run: Runner, inputs: PyTree, beam: int, length_penalty: float, time: int) -> Best:
    """Translates every sentence of `inputs` into at most `time` tokens, END among them.

    Rows without END are no sentences, they fill a batch up: they are not translated, and nothing waits for them.

    `run.step` gets the last tokens of all beams, (batch, beam). The `cache` of its carry holds the keys and values of all
    earlier ones (`layers`), and which of their places each beam continues (`visible`): beams are exchanged by the latter.
    """
    parts = {"carry": run.encode(inputs), "sentence": jnp.any(inputs["source"] == END, axis=1)}
    return in_parts(partial(_search, run.step, beam, length_penalty, time), AT_ONCE, parts)


def _search(
    run_step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], beam: int, length_penalty: float, time: int, part: PyTree
) -> Best:
    """The translations of some sentences, from the carry of the encoder's last stage."""
    carry = with_room(part["carry"], beam, time)
    batch = len(part["sentence"])
    empty = jnp.full((batch, beam, time), PAD, jnp.int32)
    only_first = jnp.where(jnp.arange(beam) == 0, 0.0, NEVER)  # All beams are equal at first.
    best = Best(empty[:, 0], jnp.full(batch, -jnp.inf), jnp.where(part["sentence"], 0, beam))
    start = Beams(jnp.int32(0), empty, jnp.broadcast_to(only_first, (batch, beam)), carry, best)

    def unfinished(state: Beams) -> Any:
        return (state.step < time) & jnp.any(state.best.number < beam)

    def step(state: Beams) -> Beams:
        before = jnp.where(state.step == 0, END, _at(state.tokens, state.step - 1))
        logits, carry = run_step(before, state.carry)
        scores, parents, words = continuations(state.scores, logits, 2 * beam, state.step == 0, state.step == time - 1)
        tokens = _with(jnp.take_along_axis(state.tokens, parents[..., None], axis=1), state.step, words)
        best = _finished(state.best, tokens[:, :beam], scores[:, :beam], words[:, :beam], state.step + 1, length_penalty)
        # The best that go on: those that end come last.
        scores, kept = lax.top_k(jnp.where(words == END, 2 * NEVER, scores), beam)
        parents = jnp.take_along_axis(parents, kept, axis=1)
        visible = jnp.take_along_axis(carry["cache"]["visible"], parents[..., None], axis=1)
        carry = carry | {"cache": carry["cache"] | {"visible": visible}}
        return Beams(state.step + 1, jnp.take_along_axis(tokens, kept[..., None], axis=1), scores, carry, best)

    return lax.while_loop(unfinished, step, start).best


def continuations(
    scores: Float[Array, "batch beam"],
    logits: Float[Array, "batch beam words"],
    number: int,
    first: Bool[Array, ""],
    last: Bool[Array, ""],
) -> tuple[Float[Array, "batch number"], Int[Array, "batch number"], Int[Array, "batch number"]]:
    """The `number` best continuations of all beams of a sentence, descending: their scores, beams and words.

    PAD is never one, END none of the `first` token and the only one of the `last`. All logits are read twice, and nothing of
    their size is written (but for a vocabulary that is no multiple of GROUP: they are padded).
    """
    batch, beam, words = logits.shape
    logits = jnp.pad(logits, ((0, 0), (0, 0), (0, -words % GROUP)), constant_values=-jnp.inf)
    groups = logits.reshape(batch, beam, -1, GROUP)
    maxima = groups.max(axis=3)
    most = maxima.max(axis=2)
    total = jnp.log(jnp.exp(logits - most[..., None]).sum(axis=2))

    def allowed(logits: Array, word: Array) -> Array:
        refused = jnp.where(word == END, first & ~last, last | (word == PAD))
        return jnp.where(refused, NEVER, logits)

    # Both are words of the first group.
    special = allowed(groups[:, :, 0], jnp.arange(GROUP)).max(axis=2)
    maxima = jnp.where(jnp.arange(maxima.shape[2]) == 0, special[..., None], jnp.where(last, NEVER, maxima))
    values = scores[..., None] + ((maxima - most[..., None]) - total[..., None])
    values = values.reshape(batch, -1)
    chosen = jnp.sort(greatest(values, min(number, values.shape[1]))[1], axis=1)
    beams, place = chosen // maxima.shape[2], chosen % maxima.shape[2]
    word = place[..., None] * GROUP + jnp.arange(GROUP)
    candidates = allowed(jnp.take_along_axis(groups.reshape(batch, -1, GROUP), chosen[..., None], axis=1), word)
    most, total, scores = (jnp.take_along_axis(part, beams, axis=1)[..., None] for part in (most, total, scores))
    values = scores + ((candidates - most) - total)
    found, best = lax.top_k(values.reshape(batch, -1), number)
    parents, words_found = (
        jnp.take_along_axis(jnp.broadcast_to(part, word.shape).reshape(batch, -1), best, axis=1).astype(jnp.int32)
        for part in (beams[..., None], word)
    )
    return found, parents, words_found


def greatest(
    values: Float[Array, "batch entries"], number: int
) -> tuple[Float[Array, "batch number"], Int[Array, "batch number"]]:
    """The `number` greatest entries of each row and their indices, descending; of equal entries the first comes first.

    As `lax.top_k`, which on a CPU sorts whole rows when it is in a loop: here at most GROUP * `number` entries are sorted.
    """
    batch, entries = values.shape
    if entries <= GROUP * number:
        return lax.top_k(values, number)
    filled = jnp.pad(values, ((0, 0), (0, -entries % GROUP)), constant_values=-jnp.inf)
    groups = filled.reshape(batch, -1, GROUP)
    # The greatest entries are in the groups of the greatest maxima.
    chosen = jnp.sort(greatest(groups.max(axis=2), number)[1], axis=1)
    found, place = lax.top_k(jnp.take_along_axis(groups, chosen[..., None], axis=1).reshape(batch, -1), number)
    return found, jnp.take_along_axis(chosen, place // GROUP, axis=1) * GROUP + place % GROUP


def _at(tokens: Int[Array, "batch beam time"], step: Int[Array, ""]) -> Int[Array, "batch beam"]:
    return lax.dynamic_index_in_dim(tokens, jnp.maximum(step, 0), axis=2, keepdims=False)


def _with(
    tokens: Int[Array, "batch beams time"], step: Int[Array, ""], words: Int[Array, "batch beams"]
) -> Int[Array, "batch beams time"]:
    return lax.dynamic_update_index_in_dim(tokens, words, step, axis=2)


def _finished(
    best: Best,
    tokens: Int[Array, "batch beam time"],
    scores: Float[Array, "batch beam"],
    words: Int[Array, "batch beam"],
    length: Int[Array, ""],
    penalty: float,
) -> Best:
    """The best with those of the `beam` best continuations that end; a sentence that is done takes no more."""
    beam = words.shape[1]
    ends = (words == END) & (scores > NEVER / 2) & (best.number < beam)[:, None]
    ends &= jnp.cumsum(ends, axis=1) <= (beam - best.number)[:, None]
    found = jnp.where(ends, scores / length.astype(scores.dtype) ** penalty, -jnp.inf)
    first = found.argmax(axis=1)
    score = jnp.take_along_axis(found, first[:, None], axis=1)[:, 0]
    better = score > best.score
    own = jnp.take_along_axis(tokens, first[:, None, None], axis=1)[:, 0]
    return Best(
        jnp.where(better[:, None], own, best.tokens),
        jnp.where(better, score, best.score),
        best.number + ends.sum(axis=1),
    )
