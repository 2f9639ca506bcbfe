"""A two-layer encoder-decoder, written as a user would outside the package: of `Stage`, `SuperNet`, `Layer` and `Dense`.

Elastic are the encoder's width, every layer's heads and hidden width, and both depths. The carry is a dict; the decoder
reads the encoder's last two outputs, concatenated along time.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from nasjax.space import Gene
from nasjax.supernets.elastic import Dense, cut, mask
from nasjax.supernets.layer import Layer
from nasjax.supernets.stage import Stage
from nasjax.supernets.supernet import SuperNet

WORDS, SOURCE, TARGET, HEAD = 11, 5, 4, 4
"""Vocabulary, lengths of source and target, width of one attention head."""

WIDTH = Gene("encoder_width", (4, 6, 8))
DECODER_WIDTH = 6
ENCODER_DEPTH, DECODER_DEPTH = Gene("encoder_depth", (1, 2)), Gene("decoder_depth", (1, 2))


class LayerNorm(Layer):
    """Normalises over the first `width` entries of the last axis."""

    def __init__(self, width):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x, width):
        self.note(width=x.shape[-1])
        ones = (1,) * (x.ndim - 1)
        count = jnp.asarray(width, x.dtype)
        mean = x.sum(-1, keepdims=True) / count  # zeros beyond the width
        centred = mask(x - mean, width)
        variance = jnp.square(centred).sum(-1, keepdims=True) / count
        scale, bias = (mask(cut(part[...], 0, x.shape[-1]), width).reshape(*ones, -1) for part in (self.scale, self.bias))
        return centred * lax.rsqrt(variance + 1e-5) * scale + bias

    def narrow(self, *, width):
        for name in ("scale", "bias"):
            setattr(self, name, nnx.Param(cut(getattr(self, name)[...], 0, width)))


class Attention(nnx.Module):
    """Attention whose number of heads is elastic: heads are cut from the end."""

    def __init__(self, width, memory, heads, *, rngs):
        self.query = Dense(width, heads * HEAD, rngs=rngs)
        self.key = Dense(memory, heads * HEAD, rngs=rngs)
        self.value = Dense(memory, heads * HEAD, rngs=rngs)
        self.output = Dense(heads * HEAD, width, rngs=rngs)

    def __call__(self, x, memory, heads, width, causal=False):
        def split(projected):
            return projected.reshape(*projected.shape[:2], -1, HEAD)

        query, key = split(self.query(x, heads * HEAD)), split(self.key(memory, heads * HEAD))
        value = split(self.value(memory, heads * HEAD))
        scores = jnp.einsum("bqhc,bkhc->bhqk", query, key) / HEAD**0.5
        if causal:
            scores = jnp.where(jnp.tril(jnp.ones(scores.shape[2:], bool))[None, None], scores, -1e9)
        mixed = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores), value)
        return self.output(mixed.reshape(*mixed.shape[:2], -1), width)


class FeedForward(nnx.Module):
    """Hidden layer of elastic width."""

    def __init__(self, width, hidden, *, rngs):
        self.hidden = Dense(width, hidden, rngs=rngs)
        self.output = Dense(hidden, width, rngs=rngs)

    def __call__(self, x, hidden, width):
        return self.output(jax.nn.relu(self.hidden(x, hidden)), width)


class Embed(nnx.Module):
    """Words and places."""

    def __init__(self, length, width, *, rngs):
        self.words = Dense(WORDS, width, rngs=rngs)
        self.places = Dense(length, width, rngs=rngs)

    def __call__(self, tokens, width):
        words = self.words(jax.nn.one_hot(tokens, WORDS), width)
        return words + self.places(jax.nn.one_hot(jnp.arange(tokens.shape[1]), tokens.shape[1]), width)[None]


class EncoderEmbed(Stage):
    genes = (WIDTH,)

    def __init__(self, *, rngs):
        self.embed = Embed(SOURCE, WIDTH.options[-1], rngs=rngs)

    def forward(self, carry, choice, statistics):
        x = self.embed(carry["source"], self.option(choice, 0))
        return {"target": carry["target"], "encoded": (x, x)}, {}


class EncoderLayer(Stage):
    """Post-norm; hands on its output and its input."""

    def __init__(self, number, *, rngs):
        self.gate = (ENCODER_DEPTH, number) if number > 1 else None
        needs = (ENCODER_DEPTH.name, number) if number > 1 else None
        heads, hidden = (
            Gene(f"encoder_heads_{number}", (1, 2), needs),
            Gene(f"encoder_hidden_{number}", (3, 6, 8), needs),
        )
        self.genes = (WIDTH, heads, hidden)
        width = WIDTH.options[-1]
        self.attention = Attention(width, width, heads.options[-1], rngs=rngs)
        self.feed = FeedForward(width, hidden.options[-1], rngs=rngs)
        self.norms_after = nnx.List([LayerNorm(width), LayerNorm(width)])

    def forward(self, carry, choice, statistics):
        width, heads, hidden = (self.option(choice, gene) for gene in range(3))
        x = last = cut(carry["encoded"][-1], -1, width)
        x = self.norms_after[0](x + self.attention(x, x, heads, width), width)
        x = self.norms_after[1](x + self.feed(x, hidden, width), width)
        return carry | {"encoded": (last, x)}, {}


class DecoderEmbed(Stage):
    def __init__(self, *, rngs):
        self.embed = Embed(TARGET, DECODER_WIDTH, rngs=rngs)

    def forward(self, carry, choice, statistics):
        return carry | {"decoded": self.embed(carry["target"], DECODER_WIDTH)}, {}


class DecoderLayer(Stage):
    """Reads the encoder's width too, its neighbour's: its attention is as wide as that on one side."""

    def __init__(self, number, *, rngs):
        self.gate = (DECODER_DEPTH, number) if number > 1 else None
        needs = (DECODER_DEPTH.name, number) if number > 1 else None
        heads, hidden = (
            Gene(f"decoder_heads_{number}", (1, 2), needs),
            Gene(f"decoder_hidden_{number}", (4, 7), needs),
        )
        self.genes = (WIDTH, heads, hidden)
        self.own = Attention(DECODER_WIDTH, DECODER_WIDTH, heads.options[-1], rngs=rngs)
        self.cross = Attention(DECODER_WIDTH, WIDTH.options[-1], heads.options[-1], rngs=rngs)
        self.feed = FeedForward(DECODER_WIDTH, hidden.options[-1], rngs=rngs)
        self.norms_after = nnx.List([LayerNorm(DECODER_WIDTH) for _ in range(3)])

    def forward(self, carry, choice, statistics):
        width, heads, hidden = (self.option(choice, gene) for gene in range(3))
        memory = jnp.concatenate([cut(part, -1, width) for part in carry["encoded"]], axis=1)
        x = carry["decoded"]
        x = self.norms_after[0](x + self.own(x, x, heads, DECODER_WIDTH, causal=True), DECODER_WIDTH)
        x = self.norms_after[1](x + self.cross(x, memory, heads, DECODER_WIDTH), DECODER_WIDTH)
        x = self.norms_after[2](x + self.feed(x, hidden, DECODER_WIDTH), DECODER_WIDTH)
        return carry | {"decoded": x}, {}


class Output(Stage):
    def __init__(self, *, rngs):
        self.words = Dense(DECODER_WIDTH, WORDS, rngs=rngs)

    def forward(self, carry, choice, statistics):
        return self.words(carry["decoded"]), {}


class ToyTransformer(SuperNet):
    """`net({"source": …, "target": …}, arch)`: logits (batch, target, words) of every place's next word."""

    def __init__(self, *, rngs):
        stages = [EncoderEmbed(rngs=rngs), EncoderLayer(1, rngs=rngs), EncoderLayer(2, rngs=rngs)]
        stages += [DecoderEmbed(rngs=rngs), DecoderLayer(1, rngs=rngs), DecoderLayer(2, rngs=rngs), Output(rngs=rngs)]
        super().__init__(stages)

    def inputs(self, batch):
        return {
            "source": jax.ShapeDtypeStruct((batch, SOURCE), jnp.int32),
            "target": jax.ShapeDtypeStruct((batch, TARGET), jnp.int32),
        }
