"""Translates text by an extracted network: its vocabularies lie beside its weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int

from nasjax.errors import ConfigError, naming_damage
from nasjax.host import parse_json, read_text
from nasjax.jax_defaults import with_jax_defaults
from nasjax.supernets import SuperNet
from nasjax.supernets.folders import load
from nasjax.supernets.runner import Subnet
from nasjax.supernets.transformer_layers import PAD
from nasjax.tasks.beam_search import beam_search
from nasjax.tasks.translation import BUCKETS, TRANSLATION, room
from nasjax.tasks.vocabulary import Vocabulary, read_vocabularies

BATCH = 64
"""Sentences that are translated at once."""


@dataclass(frozen=True, eq=False)
class Translator:
    """An extracted network with its vocabularies: `translator(sentences)` returns their translations, by beam search."""

    network: SuperNet
    source: Vocabulary
    target: Vocabulary
    beam: int
    length_penalty: float

    @with_jax_defaults
    def __call__(self, sentences: Sequence[str], progress: Callable[[int], None] = lambda done: None) -> list[str]:
        """The translation of every sentence; empty ones stay empty. `progress(number done)` is called after each batch.

        Raises ConfigError for a sentence that is longer than the network's positions.
        """
        tokens = self.source.encode(list(sentences))
        wanted = [i for i, sentence in enumerate(sentences) if sentence.strip()]
        wanted.sort(key=lambda i: len(tokens[i]))  # Sentences of a batch then end together.
        buckets = np.array([self._bucket(i + 1, len(tokens[i])) for i in wanted], np.int32)
        translations, done = [""] * len(tokens), len(tokens) - len(wanted)
        for bucket in np.unique(buckets):
            rows = [wanted[i] for i in np.flatnonzero(buckets == bucket)]
            for part in (rows[i : i + BATCH] for i in range(0, len(rows), BATCH)):
                source = np.full((min(BATCH, len(rows)), bucket), PAD, np.int32)
                for row, i in zip(source, part, strict=False):
                    row[: len(tokens[i])] = tokens[i]
                words = np.asarray(self._run(source))
                found = self.target.decode(words[: len(part)].tolist())
                for i, text in zip(part, found, strict=True):
                    translations[i] = text
                done += len(part)
                progress(done)
        return translations

    @cached_property
    def _run(self) -> Callable[[Int[np.ndarray, "batch time"]], Int[Array, "batch longest"]]:
        """Translates tokens; compiled once for each shape."""
        graph, weights = nnx.split(self.network)
        return partial(jax.jit(partial(_translate, graph, self.beam, self.length_penalty)), weights)

    def _bucket(self, number: int, length: int) -> int:
        """The padded length of a sentence. Raises ConfigError where the network has too few positions."""
        positions = self.network.config.positions  # type: ignore[attr-defined]
        bucket = next((bucket for bucket in BUCKETS if length <= bucket), BUCKETS[-1])
        if length > bucket or room(bucket) > positions:
            longest = max((bucket for bucket in BUCKETS if room(bucket) <= positions), default=0)
            raise ConfigError(f"sentence {number} has {length} tokens; this network translates up to {longest}: split it")
        return bucket


def _translate(
    graph: nnx.GraphDef, beam: int, length_penalty: float, weights: nnx.State, source: Int[Array, "batch time"]
) -> Int[Array, "batch longest"]:
    network = nnx.merge(graph, weights)
    run = Subnet(network, (0,) * len(network.space.genes), network.stored())
    inputs = {"source": source, "target": jnp.full((len(source), 1), PAD, jnp.int32)}
    return beam_search(run, inputs, beam, length_penalty, room(source.shape[1])).tokens


@with_jax_defaults
def load_translator(folder: str | Path) -> Translator:
    """Loads a translation network that `nasjax extract` wrote: `load_translator(folder)(["A dog runs."])` translates.

    Raises ConfigError if the folder holds no such network, or not its vocabularies.
    """
    network, file = load(folder), Path(folder) / TRANSLATION
    if not file.exists():
        raise ConfigError(f"{folder} holds no network for translation: it has no {TRANSLATION}")
    with naming_damage(file, "nasjax extract writes it anew, into another folder"):
        how = parse_json(read_text(file))
        languages = how["source"], how["target"]
        beam, penalty = how["beam"], float(how["length_penalty"])
        if not isinstance(beam, int) or not 1 <= beam <= 2**10 or not all(isinstance(one, str) for one in languages):
            raise ValueError(f"its settings are {how!r:.100}")
    source, target = read_vocabularies(str(folder), *languages)
    sizes = network.config.source_words, network.config.target_words  # type: ignore[attr-defined]
    if (source.size, target.size) != sizes:
        raise ConfigError(f"{folder}: its vocabularies have {source.size} and {target.size} words, its network {sizes}")
    return Translator(network, source, target, beam, penalty)
