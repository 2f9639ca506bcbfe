"""The encoder-decoder family of elastic super-networks (Hardware-aware Transformers, arXiv:2005.14187).

The stages of the super-network, in order: the encoder's embedding and layers; for each decoder layer the keys and values
that it reads of the encoder; then, run once for each decoded token, the decoder's embedding and layers, and the scores of
all words. Attention and feed-forward are stages of their own, since each has its own genes: with one stage a layer, tables
and programs would have a branch for every combination. Each ends with a layer norm of its sum with its input (post-norm).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree

from nasjax.space import Gene
from nasjax.supernets.elastic import cut
from nasjax.supernets.families.transformer_sizes import TransformerSizes
from nasjax.supernets.layer import Size
from nasjax.supernets.stage import Choice, Stage, Statistics, UsedStatistics
from nasjax.supernets.supernet import SuperNet
from nasjax.supernets.transformer_layers import (
    PAD,
    Attention,
    Embedding,
    FeedForward,
    KeysValues,
    KeyValue,
    LayerNorm,
    PlacedEmbedding,
    Scores,
    cached,
    causal,
    dropped,
    places,
    rooms,
    roomy,
    with_room,
)

Gate = tuple[Gene, float] | None
"""The depth gene, and the depth from which a stage runs (`Stage.gate`)."""


@dataclass(frozen=True)
class TransformerConfig(TransformerSizes):
    """Configuration of an encoder-decoder super-network.

    Attributes:
      checkpoint: a file of weights, nasjax's or HAT's; None: weights are initialised from a seed.
      untrained: says that untrained weights are meant: a search on them gives no warning.

    Raises ConfigError for invalid settings.
    """

    checkpoint: str | None = None
    untrained: bool = False

    def create(self, seed: int = 0) -> "Transformer":
        """Returns the super-network with weights initialised from `seed`."""
        return Transformer(self, rngs=nnx.Rngs(seed))


class Sublayer(Stage):
    """A part of a layer: its output is the layer norm of the sum of its input and what `forward` makes of that."""

    def __init__(self, config: TransformerSizes, place: int, gate: Gate, genes: tuple[Gene, ...]):
        self.place, self.gate, self.genes = place, gate, genes
        self.full: int = max(genes[0].options)  # type: ignore[assignment, type-var]
        self.dropout = config.dropout
        self.norm = LayerNorm(self.full)

    def added(self, carry: PyTree, x: Any, change: Any, width: Size) -> tuple[PyTree, Any]:
        """The carry, and the sublayer's output."""
        carry, change = dropped(carry, change, self.dropout, width, self.full)
        return carry, self.norm(x + change, width)


class EncoderEmbed(Stage):
    """Embedding and positions of the source. Its carry holds the last outputs of the encoder, the newest first."""

    def __init__(self, config: TransformerSizes, width: Gene, *, rngs: nnx.Rngs):
        self.genes = (width,)
        self.outputs, self.dropout = max(config.cross_layers), config.dropout
        self.embed = PlacedEmbedding(config.source_words, max(config.encoder_widths), config.positions, rngs=rngs)

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        source, width = carry["source"], self.option(choice, 0)
        x = self.embed(source, places(source), width)
        carry, x = dropped(carry, x, self.dropout, width, self.embed.full_width)
        kept = {name: carry[name] for name in carry if name != "source"}
        return kept | {"known": source != PAD, "encoded": (x,) * self.outputs}, {}


class EncoderAttention(Sublayer):
    """Self-attention of an encoder layer: its output is the newest of the carry, the oldest is dropped."""

    def __init__(self, config: TransformerSizes, place: int, width: Gene, heads: Gene, *, rngs: nnx.Rngs):
        super().__init__(config, place, None, (width, heads))
        self.key_value = KeyValue(self.full, config.inner_width, rngs=rngs)
        self.attention = Attention(self.full, config.inner_width, max(config.heads), rngs=rngs)

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        width, heads = (self.option(choice, gene) for gene in range(2))
        outputs = tuple(cut(x, -1, width) for x in carry["encoded"])
        x = outputs[0]
        mixed = self.attention(x, self.key_value(x), carry["known"][:, None], heads, width)
        carry, x = self.added(carry, x, mixed, width)
        return carry | {"encoded": (x, *outputs[:-1])}, {}


class EncoderFeedForward(Sublayer):
    """Feed-forward part of an encoder layer."""

    def __init__(self, config: TransformerSizes, place: int, width: Gene, hidden: Gene, *, rngs: nnx.Rngs):
        super().__init__(config, place, None, (width, hidden))
        self.feed = FeedForward(self.full, max(config.hidden), rngs=rngs)

    def sort_units(self, least: tuple[int, ...]) -> None:
        self.feed.sort_units(map(int, self.genes[1].options[least[1] :]))

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        width, hidden = (self.option(choice, gene) for gene in range(2))
        x, *older = (cut(x, -1, width) for x in carry["encoded"])
        carry, x = self.added(carry, x, self.feed(x, hidden, width), width)
        return carry | {"encoded": (x, *older)}, {}


class Start(Stage):
    """Room for the keys and values that each decoder layer will read of the encoder; none for layers that are left out."""

    def __init__(self, config: TransformerSizes, depth: Gene):
        self.genes = (depth,)
        self.layers, self.inner, self.outputs = max(config.decoder_depths), config.inner_width, max(config.cross_layers)

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        batch, time = carry["known"].shape
        return carry | {"memory": rooms(self.option(choice, 0), self.layers, (batch, self.inner, self.outputs * time))}, {}


class Memory(Stage):
    """The keys and values that one decoder layer reads of the last encoder layers, concatenated along time."""

    def __init__(self, config: TransformerSizes, place: int, gate: Gate, width: Gene, outputs: Gene, *, rngs: nnx.Rngs):
        self.place, self.gate = place, gate
        self.genes = (width, outputs)
        self.key_value = KeyValue(max(config.encoder_widths), config.inner_width, rngs=rngs)

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        width, number = self.option(choice, 0), self.option(choice, 1)
        encoded = carry["encoded"][: number if isinstance(number, int) else None]
        memory = list(carry["memory"])
        memory[self.place] = self.key_value(jnp.concatenate([cut(x, -1, width) for x in encoded], axis=1))
        return carry | {"memory": tuple(memory)}, {}


class Ready(Stage):
    """All that decoding needs: the encoder's keys and values, and an empty cache for the decoder's own.

    A step decodes one token each for several `rows` of a sentence (its beams; at first one), whose keys stand next to each
    other in the cache: row r of step s at place s * rows + r. `cache` has the layers' keys and values, the number of the
    step, from 0 again after the last place, and which places each row sees (`visible`): its own beginning, and thus how long
    that is. Rows are exchanged by exchanging those of `visible`; a sentence that sees none begins anew.
    """

    def __init__(self, config: TransformerSizes, depth: Gene):
        self.genes = (depth,)
        self.layers, self.inner = max(config.decoder_depths), config.inner_width

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        batch, time = carry["target"].shape
        layers = rooms(self.option(choice, 0), self.layers, (batch, self.inner, time))
        cache = {"layers": layers, "step": jnp.zeros(batch, jnp.int32), "visible": jnp.zeros((batch, 1, time), bool)}
        return {name: carry[name] for name in carry if name != "encoded"} | {"cache": cache}, {}


class DecoderEmbed(Stage):
    """Embedding and positions of one step's tokens (batch, rows), or of the whole target, which needs no cache."""

    repeated = True

    def __init__(self, config: TransformerSizes, width: Gene, *, rngs: nnx.Rngs):
        self.genes, self.dropout = (width,), config.dropout
        self.embed = PlacedEmbedding(config.target_words, max(config.decoder_widths), config.positions, rngs=rngs)

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        if isinstance(carry, tuple):  # one step
            tokens, carry = carry
            at = carry["cache"]["visible"].sum(axis=2) + 1
            carry = carry | {"new": roomy(carry["cache"]["layers"], tokens.shape[1])}
        else:
            tokens, at = carry["target"], places(carry["target"])
            carry = {name: carry[name] for name in carry if name != "cache"}
        width = self.option(choice, 0)
        carry, x = dropped(carry, self.embed(tokens, at, width), self.dropout, width, self.embed.full_width)
        return carry | {"decoded": x}, {}


class DecoderAttention(Sublayer):
    """Causal self-attention of a decoder layer; one step reads the layer's cache, and leaves what is `new` in the carry."""

    repeated = True

    def __init__(self, config: TransformerSizes, place: int, gate: Gate, width: Gene, heads: Gene, *, rngs: nnx.Rngs):
        super().__init__(config, place, gate, (width, heads))
        self.key_value = KeyValue(self.full, config.inner_width, rngs=rngs)
        self.attention = Attention(self.full, config.inner_width, max(config.heads), rngs=rngs)

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        width, heads = (self.option(choice, gene) for gene in range(2))
        x = cut(carry["decoded"], -1, width)
        own = self.key_value(x)
        if "cache" in carry:  # one step
            cache, new = carry["cache"], list(carry["new"])
            new[self.place] = own
            mixed = self.attention(x, cache["layers"][self.place], cache["visible"], heads, width, own)
            carry = carry | {"new": tuple(new)}
        else:
            mixed = self.attention(x, own, causal(x.shape[1]), heads, width)
        carry, x = self.added(carry, x, mixed, width)
        return carry | {"decoded": x}, {}


class CrossAttention(Sublayer):
    """Attention of a decoder layer to the encoder."""

    repeated = True

    def __init__(self, config: TransformerSizes, place: int, gate: Gate, genes: tuple[Gene, ...], *, rngs: nnx.Rngs):
        super().__init__(config, place, gate, genes)
        self.attention = Attention(self.full, config.inner_width, max(config.heads), rngs=rngs)

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        width, heads, outputs = (self.option(choice, gene) for gene in range(3))
        x, known = cut(carry["decoded"], -1, width), carry["known"]
        time = outputs * known.shape[1]
        memory = KeysValues(*(cut(part, 2, time) for part in carry["memory"][self.place]))
        visible = jnp.tile(known, (1, memory.keys.shape[2] // known.shape[1]))
        visible = (visible & (jnp.arange(visible.shape[1]) < time)[None])[:, None]
        carry, x = self.added(carry, x, self.attention(x, memory, visible, heads, width), width)
        return carry | {"decoded": x}, {}


class DecoderFeedForward(Sublayer):
    """Feed-forward part of a decoder layer."""

    repeated = True

    def __init__(self, config: TransformerSizes, place: int, gate: Gate, width: Gene, hidden: Gene, *, rngs: nnx.Rngs):
        super().__init__(config, place, gate, (width, hidden))
        self.feed = FeedForward(self.full, max(config.hidden), rngs=rngs)

    def sort_units(self, least: tuple[int, ...]) -> None:
        self.feed.sort_units(map(int, self.genes[1].options[least[1] :]))

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        width, hidden = (self.option(choice, gene) for gene in range(2))
        x = cut(carry["decoded"], -1, width)
        carry, x = self.added(carry, x, self.feed(x, hidden, width), width)
        return carry | {"decoded": x}, {}


class Remember(Stage):
    """Extends all layers' caches by what is new in a step: a stage with choices would have to copy its cache."""

    repeated = True

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        if "cache" not in carry:
            return carry, {}
        cache, rows = carry["cache"], carry["decoded"].shape[1]
        # The place depends on the last layer's output (it is no NaN): else XLA copies all caches, since layers might read
        # them after they are written to.
        last = carry["decoded"][0, 0, 0]
        first = cache["step"][0] * rows + (last != last).astype(jnp.int32)
        layers = tuple(cached(old, new, first) for old, new in zip(cache["layers"], carry["new"], strict=True))
        own = jnp.arange(cache["visible"].shape[2]) == first + jnp.arange(rows)[:, None]
        following = cache["step"] + 1
        following = jnp.where(following * rows < own.shape[1], following, 0)
        cache = {"layers": layers, "step": following, "visible": cache["visible"] | own}
        return {name: carry[name] for name in carry if name != "new"} | {"cache": cache}, {}


class WordScores(Stage):
    """Logits of the next word: of one step (batch, rows, words) with the next one's carry, else (batch, time, words)."""

    repeated = True

    def __init__(self, table: nnx.Param, width: Gene, shared: bool):
        self.genes = (width,)
        self.borrowed = ("scores.table",) if shared else ()
        self.scores = Scores(table)

    def forward(self, carry: PyTree, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        logits = self.scores(cut(carry["decoded"], -1, self.option(choice, 0)))
        if "cache" not in carry:
            return logits, {}
        return (logits, {name: carry[name] for name in carry if name != "decoded"}), {}


class Transformer(SuperNet):
    """An encoder-decoder super-network.

    `net({"source": …, "target": …}, arch)` returns logits (batch, time, words) of the word that follows each of the target;
    both inputs are int32 tokens (batch, time), filled up with PAD on either side; a target begins with END.

    Genes, layers counted from 1: `encoder_width`, `decoder_width`, `decoder_depth`; `encoder_heads_1`…,
    `encoder_hidden_1`…; `decoder_heads_1`…, `cross_heads_1`…, `cross_layers_1`… (how many of the last encoder layers),
    `decoder_hidden_1`….
    """

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        width, depth = Gene("encoder_width", config.encoder_widths), Gene("decoder_depth", config.decoder_depths)
        stages: list[Stage] = [EncoderEmbed(config, width, rngs=rngs)]
        for i in range(config.encoder_layers):
            stages.append(EncoderAttention(config, i, width, Gene(f"encoder_heads_{i + 1}", config.heads), rngs=rngs))
            stages.append(EncoderFeedForward(config, i, width, Gene(f"encoder_hidden_{i + 1}", config.hidden), rngs=rngs))
        decoder_width = Gene("decoder_width", config.decoder_widths)
        memories: list[Stage] = []
        layers: list[Stage] = []
        for i in range(max(config.decoder_depths)):
            gate = (depth, i + 1) if i + 1 > min(config.decoder_depths) else None
            needs = gate and (depth.name, i + 1)
            heads, cross = (Gene(f"{name}_heads_{i + 1}", config.heads, needs) for name in ("decoder", "cross"))
            outputs = Gene(f"cross_layers_{i + 1}", config.cross_layers, needs)
            hidden = Gene(f"decoder_hidden_{i + 1}", config.hidden, needs)
            memories.append(Memory(config, i, gate, width, outputs, rngs=rngs))
            layers.append(DecoderAttention(config, i, gate, decoder_width, heads, rngs=rngs))
            layers.append(CrossAttention(config, i, gate, (decoder_width, cross, outputs), rngs=rngs))
            layers.append(DecoderFeedForward(config, i, gate, decoder_width, hidden, rngs=rngs))
        embed = DecoderEmbed(config, decoder_width, rngs=rngs)
        table = embed.embed.embed.table
        if not config.shared_embeddings:
            table = Embedding(config.target_words, max(config.decoder_widths), rngs=rngs).table
        scores = WordScores(table, decoder_width, config.shared_embeddings)
        super().__init__(
            [*stages, Start(config, depth), *memories, Ready(config, depth), embed, *layers, Remember(), scores]
        )
        if config.shared_embeddings:
            embed.embed.embed.table = stages[0].embed.embed.table  # type: ignore[attr-defined]
        self.tie()

    def tie(self) -> None:
        """Makes the output projection the decoder's embedding again, where it is one tensor with it."""
        if self.config.shared_embeddings:
            (embed,) = (stage for stage in self.stages if isinstance(stage, DecoderEmbed))
            self.stages[-1].scores.table = embed.embed.embed.table  # type: ignore[attr-defined]

    def inputs(self, batch: int) -> PyTree[jax.ShapeDtypeStruct]:
        return dict.fromkeys(("source", "target"), jax.ShapeDtypeStruct((batch, self.config.length), jnp.int32))

    def tokens(self, batch: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, self.beams), jnp.int32)

    def begin(self, carry: PyTree) -> PyTree:
        return with_room(carry, self.beams, max(self.steps, self.config.length))
