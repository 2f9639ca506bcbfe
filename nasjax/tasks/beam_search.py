"""Beam search with a key-value cache, jitted: many sentences at once, until the last one is finished.

The algorithm is fairseq's: a step keeps the `beam` best unfinished continuations of each sentence. One that ends among the
`beam` best is finished, with its log probability divided by a power of its length; a sentence is done when it has `beam`
finished ones, and the best of them is its translation. Here a sentence is done, too, once no unfinished one can become
better than that.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from nasjax.supernets.transformer_layers import END, PAD, with_room
from nasjax.tasks.base import Runner

NEVER = -1e9
"""Score of what must not be chosen."""

AT_ONCE = 25
"""Sentences that a CPU translates at once: their logits stay in its caches. One that is done makes room for another."""

GROUP = 8
"""Entries of a group, of which `greatest` looks at the maximum first."""


class Best(NamedTuple):
    """The best finished translation of each sentence, its score, and how many were finished."""

    tokens: Int[Array, "batch time"]
    score: Float[Array, " batch"]
    number: Int[Array, " batch"]


class Beams(NamedTuple):
    """The unfinished translations of each sentence: their tokens, of which `length` are known, the last of these, their log
    probabilities, and the carry of their next step."""

    length: Int[Array, " batch"]
    tokens: Int[Array, "batch beam time"]
    last: Int[Array, "batch beam"]
    scores: Float[Array, "batch beam"]
    carry: PyTree
    best: Best


class Queue(NamedTuple):
    """Some sentences that are translated: their `row` among all, in whose order the `next` one follows; and all results."""

    beams: Beams
    row: Int[Array, " batch"]
    next: Int[Array, ""]
    found: Best


def beam_search(run: Runner, inputs: PyTree, beam: int, length_penalty: float, time: int) -> Best:
    """Translates every sentence of `inputs` into at most `time` tokens, END among them.

    Rows without END are no sentences, they fill a batch up: they are not translated, and nothing waits for them.

    `run.step` gets the last tokens of all beams, (batch, beam). The `cache` of its carry holds the keys and values of all
    earlier ones (`layers`), and which of their places each beam continues (`visible`): beams are exchanged by the latter.
    """
    sentence, length = jnp.any(inputs["source"] == END, axis=1), (inputs["source"] != PAD).sum(axis=1)
    waiting = _begun(run.encode(inputs), sentence, beam, time)
    advance, done = partial(_advanced, run.step, length_penalty), partial(_done, length_penalty)
    # A function that takes values only cannot be run in a loop within jit, one of a file may take no other batch.
    together = jax.config.jax_disable_jit or getattr(run, "fixed_batch", False)  # type: ignore[attr-defined]
    if together or jax.default_backend() != "cpu" or len(sentence) <= AT_ONCE:
        return lax.while_loop(lambda beams: ~jnp.all(done(beams)), advance, _with_room(waiting)).best
    return _in_turn(waiting, advance, done, jnp.argsort(-length))  # The longest first: few wait for the last one.


def _begun(carry: PyTree, sentence: Bool[Array, " batch"], beam: int, time: int) -> Beams:
    """All sentences before the first step, without room in their caches."""
    batch = len(sentence)
    empty = jnp.full((batch, beam, time), PAD, jnp.int32)
    only_first = jnp.where(jnp.arange(beam) == 0, 0.0, NEVER)  # All beams are equal at first.
    best = Best(empty[:, 0], jnp.full(batch, -jnp.inf), jnp.where(sentence, 0, beam))
    last, scores = jnp.full((batch, beam), END, jnp.int32), jnp.broadcast_to(only_first, (batch, beam))
    return Beams(jnp.zeros(batch, jnp.int32), empty, last, scores, carry, best)


def _with_room(beams: Beams) -> Beams:
    return beams._replace(carry=with_room(beams.carry, *beams.tokens.shape[1:]))


def _in_turn(
    waiting: Beams, advance: Callable[[Beams], Beams], done: Callable[[Beams], Array], order: Int[Array, " sentences"]
) -> Best:
    """The translations of all sentences, AT_ONCE at a time: one that is done makes room for the next.

    Caches are rings: what a sentence left there is not visible to the next one, and overwritten before it comes round.
    """
    sentences = len(order)

    def free(queue: Queue) -> Bool[Array, " batch"]:
        return done(queue.beams) & (queue.row < sentences)

    def replaced(queue: Queue) -> Queue:
        """One that is done is stored, and the next one, if there is one, takes its place."""
        place = free(queue).argmax()
        following = order[jnp.minimum(queue.next, sentences - 1)]
        found = jax.tree.map(lambda all, own: all.at[queue.row[place]].set(own[place]), queue.found, queue.beams.best)
        cache = queue.beams.carry["cache"]
        beams = jax.tree.map(
            lambda own, all: own.at[place].set(all[following]), _without_cache(queue.beams), _without_cache(waiting)
        )
        cache = cache | {"visible": cache["visible"].at[place].set(False)}
        row = queue.row.at[place].set(jnp.where(queue.next < sentences, following, sentences))
        return Queue(beams._replace(carry=beams.carry | {"cache": cache}), row, queue.next + 1, found)

    def step(queue: Queue) -> Queue:
        return lax.while_loop(lambda queue: jnp.any(free(queue)), replaced, queue._replace(beams=advance(queue.beams)))

    first = order[:AT_ONCE]
    beams = _with_room(jax.tree.map(lambda all: all[first], waiting))
    queue = Queue(beams, first, jnp.int32(AT_ONCE), waiting.best)
    return lax.while_loop(lambda queue: jnp.any(queue.row < sentences), step, queue).found


def _without_cache(beams: Beams) -> Beams:
    return beams._replace(carry={name: part for name, part in beams.carry.items() if name != "cache"})


def _advanced(run_step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], penalty: float, beams: Beams) -> Beams:
    """One more token of every sentence."""
    _, beam, time = beams.tokens.shape
    logits, carry = run_step(beams.last, beams.carry)
    first, last = beams.length == 0, beams.length == time - 1
    scores, parents, words = continuations(beams.scores, logits, 2 * beam, first, last)
    tokens = jnp.take_along_axis(beams.tokens, parents[..., None], axis=1)
    tokens = jnp.where(jnp.arange(time) == beams.length[:, None, None], words[..., None], tokens)
    length = beams.length + 1
    best = _finished(beams.best, tokens[:, :beam], scores[:, :beam], words[:, :beam], length, penalty)
    # The best that go on: those that end come last.
    scores, kept = lax.top_k(jnp.where(words == END, 2 * NEVER, scores), beam)
    parents, last_words = (jnp.take_along_axis(part, kept, axis=1) for part in (parents, words))
    visible = jnp.take_along_axis(carry["cache"]["visible"], parents[..., None], axis=1)
    carry = carry | {"cache": carry["cache"] | {"visible": visible}}
    return Beams(length, jnp.take_along_axis(tokens, kept[..., None], axis=1), last_words, scores, carry, best)


def _done(penalty: float, beams: Beams) -> Bool[Array, " batch"]:
    """Sentences of which enough translations are finished, or one that none of the others can surpass any more.

    Log probabilities only fall, while lengths grow up to the greatest.
    """
    _, beam, time = beams.tokens.shape
    score = beams.scores.max(axis=1)
    lengths = jnp.stack([beams.length + 1, jnp.full_like(beams.length, time)]).astype(score.dtype)
    surpassed = (score / lengths**penalty).max(axis=0) > beams.best.score
    return (beams.best.number >= beam) | (beams.length >= time) | ~surpassed


def continuations(
    scores: Float[Array, "batch beam"],
    logits: Float[Array, "batch beam words"],
    number: int,
    first: Bool[Array, " batch"],
    last: Bool[Array, " batch"],
) -> tuple[Float[Array, "batch number"], Int[Array, "batch number"], Int[Array, "batch number"]]:
    """The `number` best continuations of all beams of a sentence, descending: their scores, beams and words.

    PAD is never one, END none of a `first` token and the only one of a `last` one. All logits are read twice, and nothing of
    their size is written (but for a vocabulary that is no multiple of GROUP: they are padded).
    """
    batch, beam, words = logits.shape
    first, last = first[:, None, None], last[:, None, None]
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


def _finished(
    best: Best,
    tokens: Int[Array, "batch beam time"],
    scores: Float[Array, "batch beam"],
    words: Int[Array, "batch beam"],
    length: Int[Array, " batch"],
    penalty: float,
) -> Best:
    """The best with those of the `beam` best continuations that end; a sentence that is done takes no more."""
    beam = words.shape[1]
    ends = (words == END) & (scores > NEVER / 2) & (best.number < beam)[:, None]
    ends &= jnp.cumsum(ends, axis=1) <= (beam - best.number)[:, None]
    found = jnp.where(ends, scores / length[:, None].astype(scores.dtype) ** penalty, -jnp.inf)
    first = found.argmax(axis=1)
    score = jnp.take_along_axis(found, first[:, None], axis=1)[:, 0]
    better = score > best.score
    own = jnp.take_along_axis(tokens, first[:, None, None], axis=1)[:, 0]
    return Best(
        jnp.where(better[:, None], own, best.tokens),
        jnp.where(better, score, best.score),
        best.number + ends.sum(axis=1),
    )
