"""A toy encoder-decoder that is decoded step by step, and its translation task, as a user would write them.

It translates word by word into other words, the other way round; sentences have three or five words. The encoder's stages
run once for a sentence, those of the decoder once for a word, on the keys and values of the words before.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from nasjax.objectives import Objective
from nasjax.space import Gene
from nasjax.supernets import Stage, SuperNet
from nasjax.supernets.elastic import Dense, cut
from nasjax.tasks import Split, Task

WORDS, LENGTH, HEAD, WIDTH = 9, 5, 4, 8
"""Vocabulary (0: the beginning, and padding), words of a sentence, width of an attention head, width of the decoder."""

ENCODER_WIDTH = Gene("encoder_width", (4, 8))
DEPTH = Gene("decoder_depth", (1, 2))


def attend(query, key, value, visible):
    """Attention of (batch, queries, heads x HEAD) to (batch, keys, heads x HEAD), where `visible` (batch, queries, keys)."""
    query, key, value = (part.reshape(*part.shape[:2], -1, HEAD) for part in (query, key, value))
    scores = jnp.einsum("bqhc,bkhc->bhqk", query, key) / HEAD**0.5
    weights = jax.nn.softmax(jnp.where(visible[:, None], scores, -1e9))
    mixed = jnp.einsum("bhqk,bkhc->bqhc", weights, value)
    return mixed.reshape(*mixed.shape[:2], -1)


class Encoder(Stage):
    """Words with their places, one hidden layer."""

    genes = (ENCODER_WIDTH,)

    def __init__(self, *, rngs):
        self.words, self.places = (Dense(size, ENCODER_WIDTH.options[-1], rngs=rngs) for size in (WORDS, LENGTH))
        self.hidden = Dense(ENCODER_WIDTH.options[-1], ENCODER_WIDTH.options[-1], rngs=rngs)

    def forward(self, carry, choice, statistics):
        width, source = self.option(choice, 0), carry["source"]
        places = jax.nn.one_hot(jnp.arange(source.shape[1]), LENGTH)
        x = self.words(jax.nn.one_hot(source, WORDS), width) + self.places(places, width)[None]
        return carry | {"memory": x + self.hidden(jnp.tanh(x), width), "known": source > 0}, {}


class Start(Stage):
    """Room for the decoder's keys and values, which all are still empty."""

    def forward(self, carry, choice, statistics):
        batch = carry["source"].shape[0]
        room = jnp.zeros((batch, LENGTH, 2 * HEAD))
        cache = {"keys": [room, room], "values": [room, room], "place": jnp.zeros(batch, jnp.int32)}
        return carry | {"cache": cache}, {}


class Embed(Stage):
    """Of a step's (tokens, carry) the word; else all words that the target begins with."""

    repeated = True

    def __init__(self, *, rngs):
        self.words, self.places = (Dense(size, WIDTH, rngs=rngs) for size in (WORDS, LENGTH))

    def forward(self, carry, choice, statistics):
        stepping = isinstance(carry, tuple)
        tokens, carry = carry if stepping else (carry["target"], carry)
        words = jax.nn.one_hot(tokens[:, None] if stepping else tokens, WORDS)
        places = carry["cache"]["place"][:, None] if stepping else jnp.arange(tokens.shape[1])[None]
        x = self.words(words) + self.places(jax.nn.one_hot(places, LENGTH))
        return carry | {"decoded": x}, {}


class Layer(Stage):
    """Attention to the words before, and to the source, with an elastic number of heads."""

    repeated = True

    def __init__(self, number, *, rngs):
        self.number = number
        self.gate = (DEPTH, number + 1) if number else None
        self.genes = (ENCODER_WIDTH, Gene(f"heads_{number}", (1, 2), (DEPTH.name, number + 1) if number else None))
        self.query, self.key, self.value = (Dense(WIDTH, 2 * HEAD, rngs=rngs) for _ in range(3))
        self.source_key, self.source_value = (Dense(ENCODER_WIDTH.options[-1], 2 * HEAD, rngs=rngs) for _ in range(2))
        self.output = Dense(2 * HEAD, WIDTH, rngs=rngs)

    def forward(self, carry, choice, statistics):
        x, cache = carry["decoded"], carry["cache"]
        width, heads = (self.option(choice, gene) * unit for gene, unit in ((0, 1), (1, HEAD)))
        memory = cut(carry["memory"], -1, width)
        query, key, value = (dense(x, heads) for dense in (self.query, self.key, self.value))
        steps = jnp.arange(LENGTH)
        if x.shape[1] == 1:
            here = jax.nn.one_hot(cache["place"], LENGTH)[:, :, None]
            full = [jnp.pad(part, ((0, 0), (0, 0), (0, 2 * HEAD - part.shape[2]))) for part in (key, value)]
            keys, values = (
                cache[name][self.number] + here * part for name, part in zip(("keys", "values"), full, strict=True)
            )
            cache = cache | {"keys": list(cache["keys"]), "values": list(cache["values"])}
            cache["keys"][self.number], cache["values"][self.number] = keys, values
            key, value = cut(keys, -1, heads), cut(values, -1, heads)
            visible = (steps[None] <= cache["place"][:, None])[:, None]
        else:
            visible = jnp.broadcast_to((steps[:, None] >= steps[None])[None], (x.shape[0], LENGTH, LENGTH))
            visible = visible[:, : x.shape[1], : x.shape[1]]
        source = attend(query, self.source_key(memory, heads), self.source_value(memory, heads), carry["known"][:, None])
        x = x + self.output(jnp.tanh(attend(query, key, value, visible) + source))
        return carry | {"decoded": x, "cache": cache}, {}


class Output(Stage):
    """Logits; of a step those of its word, with the carry for the next."""

    repeated = True

    def __init__(self, *, rngs):
        self.words = Dense(WIDTH, WORDS, rngs=rngs)

    def forward(self, carry, choice, statistics):
        logits, cache = self.words(carry["decoded"]), carry["cache"]
        if logits.shape[1] > 1:
            return logits, {}
        following = cache | {"place": jnp.minimum(cache["place"] + 1, LENGTH - 1)}
        return (logits[:, 0], {name: carry[name] for name in carry if name != "decoded"} | {"cache": following}), {}


class ToyTranslator(SuperNet):
    """`net({"source": …, "target": …}, arch)`: logits (batch, target, words) of every place's next word."""

    def __init__(self, *, rngs):
        layers = [Layer(number, rngs=rngs) for number in range(2)]
        super().__init__([Encoder(rngs=rngs), Start(), Embed(rngs=rngs), *layers, Output(rngs=rngs)])

    def inputs(self, batch):
        return dict.fromkeys(("source", "target"), jax.ShapeDtypeStruct((batch, LENGTH), jnp.int32))


class ToyTranslation(Task):
    """Greedy decoding: the share of words that are right, and sentences; perplexity from the target's own words."""

    steps = LENGTH
    objectives = (
        Objective("words", "max", "%", range=(0.0, 100.0)),
        Objective("sentences", "max", "%", range=(0.0, 100.0)),
        Objective("perplexity", "min", range=(1.0, float(WORDS))),
    )

    def outputs(self, run, inputs):
        def step(state, _):
            logits, carry = run.step(*state)
            tokens = logits.argmax(-1).astype(jnp.int32)
            return (tokens, carry), tokens

        batch, length = inputs["source"].shape
        _, decoded = lax.scan(step, (jnp.zeros(batch, jnp.int32), run.encode(inputs)), None, length)
        return {"decoded": decoded.T, "logits": run(inputs)}

    def statistics(self, outputs, targets):
        counted = (targets > 0).astype(jnp.float32)
        right = counted * (outputs["decoded"] == targets)
        whole = (right.sum(1) == counted.sum(1)).astype(jnp.float32)
        return jnp.stack(
            [jnp.ones_like(whole), whole, right.sum(1), counted.sum(1), self.loss(outputs["logits"], targets)], 1
        )

    def metrics(self, totals):
        number, whole, right, words, loss = totals
        return {"words": 100 * right / words, "sentences": 100 * whole / number, "perplexity": jnp.exp(loss / words)}

    def loss(self, outputs, targets, teacher=None):
        counted = targets > 0
        if teacher is None:
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        else:
            losses = optax.softmax_cross_entropy(outputs, jax.nn.softmax(teacher))
        return (losses * counted).sum(1)


class OnHost(ToyTranslation):
    """The same, its statistics by NumPy."""

    on_host = True

    def statistics(self, outputs, targets):
        assert isinstance(outputs["decoded"], np.ndarray)
        return np.asarray(super().statistics(outputs, jnp.asarray(targets)))


def sentences(rng, number):
    """Sentences of three and of five words, each in its bucket."""
    length = rng.choice([3, LENGTH], number).astype(np.int32)
    source = rng.integers(1, WORDS, (number, LENGTH)) * (np.arange(LENGTH) < length[:, None])
    words = np.array([0, *np.roll(np.arange(1, WORDS), 3)])
    target = np.array([[*words[row[:n]][::-1], *[0] * (LENGTH - n)] for row, n in zip(source, length, strict=True)])
    shifted = np.concatenate([np.zeros((number, 1)), target[:, :-1]], axis=1)
    inputs = {"source": source.astype(np.int32), "target": shifted.astype(np.int32)}
    return Split(inputs, target.astype(np.int32), length)


def translation(train=120, validation=37, test=20, seed=0, on_host=False):
    """The task with so many sentences."""
    rng = np.random.default_rng(seed)
    return (OnHost if on_host else ToyTranslation)(*(sentences(rng, number) for number in (train, validation, test)))


def translator(seed=0):
    """The super-network with weights drawn from `seed`."""
    return ToyTranslator(rngs=nnx.Rngs(seed))
