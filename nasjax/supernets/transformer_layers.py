"""Elastic Transformer layers: embeddings, positions, layer norm, attention with a key-value cache, feed-forward.

Widths and numbers of heads are static (weights are sliced) or traced (weights are masked), as in `elastic`. Sequences are
(batch, time, width); beyond a traced width they are zero. Whether a layer is bidirectional or causal is a matter of the
`visible` mask it is called with, pre- or post-norm a matter of where its stage calls `LayerNorm`.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from nasjax.supernets.elastic import Dense, by_importance, cut, mask, matmul
from nasjax.supernets.initial import full, normal
from nasjax.supernets.layer import Layer, Size

Sequence = Float[Array, "batch time width"]
Tokens = Int[Array, "batch time"]

PAD, END = 1, 2
"""Tokens that fill sentences up, and that end them; END also begins every target. (fairseq's dictionaries have them so.)"""

HIDDEN_SCORE = -1e9
"""Attention score of a key that must not be seen: its weight is exactly 0, and no row is ever NaN."""


class Embedding(Layer):
    """Vectors of tokens, of elastic width. Weights: `table` (words, width)."""

    def __init__(self, words: int, width: int, *, rngs: nnx.Rngs):
        self.table = nnx.Param(normal(rngs.params(), (words, width), width**-0.5))

    def __call__(self, tokens: Int[Array, "*shape"], width: Size) -> Float[Array, "*shape width"]:
        self.note(width=width)
        return mask(cut(self.table[...], 1, width)[tokens], width)

    def narrow(self, *, width: int) -> None:  # type: ignore[override]
        self.table = nnx.Param(cut(self.table[...], 1, width))


class Scores(Layer):
    """Scores of all words: products with the `table` (words, width) of their vectors, which may be an embedding's own."""

    def __init__(self, table: nnx.Param):
        self.table = table

    def __call__(self, x: Float[Array, "*shape width"]) -> Float[Array, "*shape words"]:
        self.note(width=x.shape[-1])
        return matmul(x, cut(self.table[...], 1, x.shape[-1]).T)

    def narrow(self, *, width: int) -> None:  # type: ignore[override]
        self.table = nnx.Param(cut(self.table[...], 1, width))


def sinusoids(positions: int, width: int) -> Float[np.ndarray, "positions width"]:
    """Vectors of positions 0, 1, …: half sines, then half cosines, of wavelengths from 2 pi to 20,000 pi.

    Source: tensor2tensor and fairseq; arXiv:1706.03762 (3.5) interleaves sines and cosines.
    """
    rates = np.exp(np.arange(width // 2, dtype=np.float32) * np.float32(-math.log(10_000) / max(1, width // 2 - 1)))
    angles = np.arange(positions, dtype=np.float32)[:, None] * rates
    return np.pad(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), ((0, 0), (0, width % 2)))


class PlacedEmbedding(nnx.Module):
    """Token vectors, scaled by the root of their width, plus the vectors of their places.

    The vectors of places are those of the greatest width, cut: 320 sines and 192 cosines are left of 640 for a width of 512.
    """

    def __init__(self, words: int, width: int, positions: int, *, rngs: nnx.Rngs):
        self.full_width, self.positions = width, positions
        self.embed = Embedding(words, width, rngs=rngs)

    def __call__(self, tokens: Tokens, at: Tokens, width: Size) -> Float[Array, "batch time width"]:
        vectors = sinusoids(PAD + self.positions + 1, self.full_width)
        vectors[PAD] = 0
        embedded = self.embed(tokens, width)
        placed = mask(jnp.asarray(vectors[:, : embedded.shape[-1]])[PAD + at], width)
        return jnp.sqrt(jnp.asarray(width, jnp.float32)) * embedded + placed


def places(tokens: Tokens) -> Tokens:
    """The place of each token, counted from 1 without padding; 0 for padding."""
    known = tokens != PAD
    return jnp.cumsum(known, axis=1) * known


def dropped(carry: PyTree, x: Any, share: float, width: Size, full: int) -> tuple[PyTree, Any]:
    """The carry with its next key, and `x` with a random part set to zero: `share` at the `full` width.

    Only training's carries have a key (`dropout`, uint32); without one nothing is dropped.
    """
    if "dropout" not in carry or not share:
        return carry, x
    key, following = jax.random.split(jax.random.wrap_key_data(carry["dropout"]))
    kept = jnp.round(256 * (1 - share * jnp.asarray(width, jnp.float32) / full))  # Bytes are quicker to draw than floats.
    chosen = jax.random.bits(key, x.shape, jnp.uint8) < kept
    return carry | {"dropout": jax.random.key_data(following)}, jnp.where(chosen, x * (256 / kept), 0)


class LayerNorm(Layer):
    """Normalises over the first `width` entries of the last axis. Weights: `scale` and `bias` (width,)."""

    def __init__(self, width: int, *, epsilon: float = 1e-5):
        self.epsilon = epsilon
        self.scale = nnx.Param(full(width, 1))
        self.bias = nnx.Param(full(width, 0))

    def __call__(self, x: Sequence, width: Size) -> Sequence:
        self.note(width=x.shape[-1])
        count = jnp.asarray(width, x.dtype)
        centred = mask(x - x.sum(-1, keepdims=True) / count, width)
        variance = jnp.square(centred).sum(-1, keepdims=True) / count
        scale, bias = (mask(cut(part[...], 0, x.shape[-1]), width)[None, None] for part in (self.scale, self.bias))
        return centred * lax.rsqrt(variance + self.epsilon) * scale + bias

    def narrow(self, *, width: int) -> None:  # type: ignore[override]
        self.scale, self.bias = (nnx.Param(cut(part[...], 0, width)) for part in (self.scale, self.bias))


class FeedForward(nnx.Module):
    """Two dense layers with a ReLU between them; the hidden width is elastic."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.hidden = Dense(width, hidden, rngs=rngs)
        self.output = Dense(hidden, width, rngs=rngs)

    def __call__(self, x: Sequence, hidden: Size, width: Size) -> Sequence:
        return self.output(jax.nn.relu(self.hidden(x, hidden)), width)

    def sort_units(self, widths: Iterable[int]) -> None:
        """Sorts hidden units by importance, within those for `widths`; in place."""
        order = by_importance(self.output.importance(), tuple(widths))
        self.hidden.reorder(outputs=order)
        self.output.reorder(inputs=order)


class KeysValues(NamedTuple):
    """Keys and values of all heads one above the other, time last: attention then multiplies them as they are."""

    keys: Float[Array, "batch inner keys"]
    values: Float[Array, "batch inner keys"]


class KeyValue(nnx.Module):
    """Keys and values of a sequence, `inner` wide."""

    def __init__(self, width: int, inner: int, *, rngs: nnx.Rngs):
        self.key = Dense(width, inner, rngs=rngs)
        self.value = Dense(width, inner, rngs=rngs)

    def __call__(self, x: Sequence) -> KeysValues:
        return KeysValues(*(jnp.swapaxes(layer(x), 1, 2) for layer in (self.key, self.value)))


class Attention(nnx.Module):
    """Multi-head attention to given keys and values: queries, heads and output projection.

    Queries, keys and values are `inner` wide whatever the width of the sequence; the number of heads is elastic, and divides
    them anew: `inner` / 4 columns a head for four heads, `inner` / 8 for eight. `heads` is the greatest number, a multiple
    of every other.
    """

    def __init__(self, width: int, inner: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.query = Dense(width, inner, rngs=rngs)
        self.output = Dense(inner, width, rngs=rngs)

    def __call__(
        self,
        x: Sequence,
        memory: KeysValues,
        visible: Bool[Array, "#batch #time keys"],
        heads: Size,
        width: Size,
        own: KeysValues | None = None,
    ) -> Sequence:
        """Attends from `x` to the `visible` keys of `memory`, and to each place's `own`; returns `width` columns."""
        return self.output(attend(self.query(x), memory, visible, heads, self.heads, own), width)


def attend(
    query: Float[Array, "batch time inner"],
    memory: KeysValues,
    visible: Bool[Array, "#batch #time keys"],
    heads: Size,
    most: int,
    own: KeysValues | None = None,
) -> Float[Array, "batch time inner"]:
    """Scaled dot-product attention of `heads` heads, of at most `most`.

    With a traced number the scores of `most` narrow heads are summed over those that make up one wider head. `own` is one
    more key and value for each place of the query, which only that place sees: (batch, inner, time).
    """
    split = heads if isinstance(heads, int) else most
    batch, time, inner = query.shape
    q = query.reshape(batch, time, split, -1)
    k, v = (part.reshape(batch, split, inner // split, -1) for part in memory)

    def scaled(scores: Array) -> Array:
        if not isinstance(heads, int):
            head = jnp.arange(most) // (most // heads)
            scores = jnp.einsum("hg,bgts->bhts", (head[:, None] == head[None]).astype(scores.dtype), scores)
        return scores * lax.rsqrt(inner / jnp.asarray(heads, scores.dtype))

    scores = jnp.where(visible[:, None], scaled(jnp.einsum("bthc,bhcs->bhts", q, k)), HIDDEN_SCORE)
    if own is None:
        return jnp.einsum("bhts,bhcs->bthc", jax.nn.softmax(scores, axis=-1), v).reshape(query.shape)
    own_k, own_v = (jnp.transpose(part.reshape(batch, split, inner // split, time), (0, 3, 1, 2)) for part in own)
    own_scores = scaled(jnp.swapaxes((q * own_k).sum(3, keepdims=True), 1, 2))
    greatest = jnp.maximum(scores.max(axis=-1, keepdims=True, initial=HIDDEN_SCORE), own_scores)
    weights, own_weights = jnp.exp(scores - greatest), jnp.exp(own_scores - greatest)
    total = weights.sum(axis=-1, keepdims=True) + own_weights
    mixed = jnp.einsum("bhts,bhcs->bthc", weights / total, v) + own_v * jnp.swapaxes(own_weights / total, 1, 2)
    return mixed.reshape(query.shape)


def causal(time: int) -> Bool[Array, "1 time time"]:
    """The keys that each position sees: its own and those before it."""
    steps = jnp.arange(time)
    return (steps[:, None] >= steps[None])[None]


def cached(cache: KeysValues, new: KeysValues, place: Int[Array, ""]) -> KeysValues:
    """The cache with new keys and values from `place` on."""
    if not cache.keys.shape[2]:  # The layer is left out.
        return cache
    return KeysValues(*(lax.dynamic_update_slice_in_dim(old, one, place, 2) for old, one in zip(cache, new, strict=True)))


def rooms(depth: Size, layers: int, shape: tuple[Any, int, Any]) -> tuple[KeysValues, ...]:
    """Empty keys and values (batch, inner, time) of every layer; of those beyond a static depth of no time at all."""
    *batch_inner, time = shape
    sizes = [time if not isinstance(depth, int) or layer < depth else 0 for layer in range(layers)]
    return tuple(KeysValues(*(jnp.zeros((*batch_inner, size)) for _ in range(2))) for size in sizes)


def roomy(layers: PyTree, time: Any) -> PyTree:
    """Empty keys and values of another `time`; of layers that are left out, which have none, of no time again."""
    return jax.tree.map(lambda leaf: jnp.zeros((*leaf.shape[:2], time if leaf.shape[2] else 0), leaf.dtype), layers)


def with_room(carry: PyTree, beams: int, time: int) -> PyTree:
    """The carry before the first step, with an empty cache for `time` tokens of `beams` rows a sentence."""
    visible = jnp.zeros((len(carry["cache"]["visible"]), beams, beams * time), bool)
    return carry | {"cache": carry["cache"] | {"layers": roomy(carry["cache"]["layers"], beams * time), "visible": visible}}
