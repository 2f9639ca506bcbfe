"""Translation of texts: pairs of text files, corpus BLEU of beam search, and the loss of given translations."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from nasjax.errors import ConfigError
from nasjax.objectives import Objective
from nasjax.supernets import SuperNet
from nasjax.supernets.families.transformer import Transformer
from nasjax.supernets.transformer_layers import END, PAD
from nasjax.tasks.base import SPLITS, Runner, Split, Task
from nasjax.tasks.beam_search import beam_search
from nasjax.tasks.divergences import Divergence, cross_entropy
from nasjax.tasks.image_augmentation import Augmentation
from nasjax.tasks.image_classification import LOSS
from nasjax.tasks.text_pairs import EMPTY, Pairs, exists, held_out, read_pairs
from nasjax.tasks.translation_scores import BLEU_STATISTICS, TranslationScores, bleu, chrf
from nasjax.tasks.vocabulary import UNKNOWN, Vocabulary, learn_pieces, read_vocabularies
from nasjax.types import PRNGKey
from nasjax.words import plural

BLEU = Objective("bleu", "max", range=(0.0, 100.0), about="corpus BLEU of translations, 0 to 100 (sacrebleu)")
CHRF = Objective("chrf", "max", range=(0.0, 100.0), about="corpus chrF of translations, 0 to 100 (sacrebleu)")

LIMITS = {"words": UNKNOWN + 2, "held_out": 1, "limit": 0, "longest": 0, "beam": 0}
"""The least value of each numeric setting."""

BUCKETS = sorted(part * 2**power for power in range(3, 16) for part in (2, 3))
"""Padded lengths: 16, 24, 32, 48, …; each is compiled once."""

TRANSLATION = "translation.json"
"""The file of a deployed network that says how it translates."""

MOST_UNKNOWN = 0.02
"""The share of unknown tokens from which a line asks whether the vocabulary fits the text."""

MARGIN, RATIO = 8, 1.25
"""A translation may have so many times the tokens of its bucket, and so many more."""


@dataclass(frozen=True)
class TranslationConfig:
    """Your own pairs of text files: `path/train.SOURCE` and `path/train.TARGET`, a sentence on each line, or `.gz` of them.

    Attributes:
      path: the folder.
      source, target: the languages: endings of the files' names.
      train, validation, test: names of the files without their endings. Where there are no files `val` or `test`, `held_out`
        random pairs of the training files are used, which is printed; other names must be there.
      held_out: how many.
      vocabulary: a SentencePiece model for both languages, or a folder with `vocabulary.model` (as `nasjax train` writes
        it), or with fairseq's `dict.SOURCE.txt` and `dict.TARGET.txt` (and `codes` of subword-nmt); None: one for both
        languages is learnt from the training pairs.
      words: the size of a vocabulary that is learnt, with four special tokens.
      empty: whether pairs with an empty side are left out (`drop`, which is printed), kept (`keep`) or an error (`refuse`).
      longest: training pairs with more tokens on a side are left out, which is printed; 0: none are.
      limit: the greatest number of pairs a split; 0: no limit.
      beam: beams of beam search; 0: nothing is translated, the only metric is the loss.
      length_penalty: the power of a translation's length by which its log probability is divided.
      label_smoothing: the share of the training loss that is spread over all words.
      tokenizer: sacrebleu's for BLEU: `13a`, `intl`, `zh`, `char`, …; `none` for texts that are tokenised already.
      seed: draws the pairs that are held out.
    """

    path: str | None = None
    source: str = "en"
    target: str = "de"
    train: str = "train"
    validation: str = "val"
    test: str = "test"
    held_out: int = 1000
    vocabulary: str | None = None
    words: int = 8000
    empty: str = "drop"
    longest: int = 100
    limit: int = 0
    beam: int = 5
    length_penalty: float = 0.6
    label_smoothing: float = 0.1
    tokenizer: str = "13a"
    seed: int = 0

    def create(self) -> "Translation":
        """Reads all pairs. Raises ConfigError for missing or damaged files, and for invalid settings."""
        self._check()
        folder, languages = Path(self.path), (self.source, self.target)  # type: ignore[arg-type]
        pairs = {"train": read_pairs(folder, self.train, languages, self.empty)}
        drawn = None
        defaults = {"validation": TranslationConfig.validation, "test": TranslationConfig.test}
        for i, (split, name) in enumerate((("test", self.test), ("validation", self.validation))):
            # A missing file of a name that was chosen is missed; read_pairs says so.
            if name != defaults[split] or exists(folder, name, self.source) or exists(folder, name, self.target):
                pairs[split] = read_pairs(folder, name, languages, self.empty)
            else:
                pairs["train"], pairs[split] = held_out(pairs["train"], self.held_out, self.seed + i)
                drawn = self.held_out, self.seed
                print(f"nasjax: {folder / name}.*: none, {len(pairs[split])} random training pairs serve", file=sys.stderr)
        if self.limit:
            pairs = {split: some.take(range(min(self.limit, len(some)))) for split, some in pairs.items()}
        if self.vocabulary is None:
            learnt: Vocabulary = learn_pieces((*pairs["train"].sources, *pairs["train"].targets), self.words)
            source, target = learnt, learnt
        else:
            source, target = read_vocabularies(self.vocabulary, *languages)
        splits: dict[str, Split] = {}
        references: list[str] = []
        for split in SPLITS:
            longest = self.longest if split == "train" else 0
            splits[split], kept = split_of(pairs[split], source, target, longest, len(references))
            references += kept.targets
        return Translation(
            splits["train"],
            splits["validation"],
            splits["test"],
            source,
            target,
            tuple(references),
            languages,
            self.beam,
            self.length_penalty,
            self.label_smoothing,
            TranslationScores(self.tokenizer),
            drawn,
            origin={"name": "translation", **asdict(self)},
        )

    def _check(self) -> None:
        """Raises ConfigError for settings that are not allowed."""
        if self.path is None:
            raise ConfigError("task=translation needs task.path=FOLDER, with files train.SOURCE and train.TARGET")
        if not Path(self.path).is_dir():
            raise ConfigError(f"task.path={self.path} is not a folder")
        if self.source == self.target:
            raise ConfigError(f"task.source={self.source} and task.target={self.target} must be two languages")
        if self.empty not in EMPTY:
            raise ConfigError(f"task.empty={self.empty} is unknown; allowed: {', '.join(EMPTY)}")
        for name, least in LIMITS.items():
            if not least <= getattr(self, name) <= 2**24:
                raise ConfigError(f"task.{name} must be {least} to {2**24}, not {getattr(self, name)}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"task.label_smoothing must be at least 0 and below 1, not {self.label_smoothing}")
        if not 0 <= self.length_penalty <= 10:
            raise ConfigError(f"task.length_penalty must be 0 to 10, not {self.length_penalty}")


@dataclass(eq=False)
class Translation(Task):
    """Sentences as tokens, padded to their bucket's length, and their references as text.

    Inputs are `source` and `target`, (n, time) int32, the target one token later than its own words; `targets` has the
    words that follow (`words`) and the number of each sentence in `references` (`row`). Metrics: `bleu` and `chrf` of beam
    search (0-100) unless `beam` is 0, and `loss`, the cross-entropy of a reference's token (nats). `drawn`: the number of
    training pairs held out for validation or test, and the seed that drew them; None if there are files for both.
    """

    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary
    references: tuple[str, ...]
    languages: tuple[str, str]
    beam: int
    length_penalty: float
    label_smoothing: float
    scores: TranslationScores
    drawn: tuple[int, int] | None = None

    on_host = True

    @property
    def source_words(self) -> int:
        """The size of the source's vocabulary."""
        return self.source_vocabulary.size

    def files(self) -> Mapping[str, bytes]:
        """The vocabularies, and how to translate: `nasjax.load_translator` reads them."""
        source, target = self.languages
        beam = self.beam or TranslationConfig.beam
        how = {"source": source, "target": target, "beam": beam, "length_penalty": self.length_penalty}
        vocabularies = self.source_vocabulary.files(source) | self.target_vocabulary.files(target)
        return {TRANSLATION: json.dumps(how, indent=1).encode(), **vocabularies}

    def facts(self) -> Mapping[str, Any]:
        vocabularies = [repr(self.source_vocabulary), repr(self.target_vocabulary)]
        drawn = {} if self.drawn is None else {"held_out": list(self.drawn)}
        return {"languages": list(self.languages), "vocabularies": vocabularies, **drawn}

    @property
    def signatures(self) -> Mapping[str, str]:
        return dict(zip(("bleu", "chrf"), self.scores.signature, strict=True)) if self.beam else {}

    def cheaper(self) -> "Translation | None":
        """The task whose metric is the loss."""
        return self.changed(beam=0) if self.beam else None

    @property
    def steps(self) -> int:  # type: ignore[override]
        """Tokens of a mean translation: so often repeated stages run for one sentence."""
        return int(np.ceil((self.validation.targets["words"] != PAD).sum(1).mean()))

    @property
    def most_steps(self) -> int:  # type: ignore[override]
        return room(int(max(self.validation.bucket.max(), self.test.bucket.max()))) if self.beam else 1  # type: ignore[union-attr]

    @property
    def beams(self) -> int:  # type: ignore[override]
        return max(1, self.beam)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        loss = replace(LOSS, range=(0.0, float(np.log(self.target_vocabulary.size))))
        return (BLEU, CHRF, loss) if self.beam else (loss,)

    def outputs(self, run: Runner, inputs: PyTree) -> PyTree:
        """A reference's cross-entropy, summed over its tokens, and the best translation that beam search finds."""
        following = shifted_back(inputs["target"])
        losses = optax.softmax_cross_entropy_with_integer_labels(run(inputs), following)
        loss = (losses * (following != PAD)).sum(1)
        if not self.beam:
            return {"loss": loss}
        most = room(inputs["target"].shape[1])
        return {"loss": loss, "tokens": beam_search(run, inputs, self.beam, self.length_penalty, most).tokens}

    def statistics(self, outputs: PyTree, targets: PyTree) -> Float[np.ndarray, "batch stats"]:
        """Tokens and their loss; with beam search the counts of BLEU and chrF."""
        number = (targets["words"] != PAD).sum(1)
        rows = np.stack([number, np.asarray(outputs["loss"], np.float64)], axis=1)
        if not self.beam:
            return rows
        texts = self.target_vocabulary.decode(outputs["tokens"].tolist())
        return np.concatenate(
            [rows, self.scores.statistics(texts, [self.references[row] for row in targets["row"]])], axis=1
        )

    def metrics(self, totals: Float[Array | np.ndarray, " stats"]) -> Mapping[str, Float[Array, ""] | float]:
        number, loss = totals[:2]
        found = {"loss": loss / number}
        if self.beam:
            found |= {"bleu": bleu(totals[2 : 2 + BLEU_STATISTICS]), "chrf": chrf(totals[2 + BLEU_STATISTICS :])}
        return found

    def loss(
        self, outputs: Any, targets: PyTree, teacher: Any = None, divergence: Divergence = cross_entropy
    ) -> Float[Array, " batch"]:
        """The loss of a sentence, a token's mean: (1 - e) of its word's and e of all words' mean, or against a teacher's.

        `divergence`: how far a token's scores are from the teacher's.
        A batch's loss is the mean over sentences; fairseq's is over tokens.
        """
        known = (targets["words"] != PAD).astype(outputs.dtype)
        if teacher is None:
            # Log probabilities are scores less this: written out, they would be read and written several times.
            total = jax.nn.logsumexp(outputs, axis=-1)
            own = jnp.take_along_axis(outputs, targets["words"][..., None], axis=-1)[..., 0]
            losses = total - (1 - self.label_smoothing) * own - self.label_smoothing * outputs.mean(-1)
        else:
            losses = divergence(outputs, teacher)
        return (losses * known).sum(1) / known.sum(1)

    def augment(self, key: PRNGKey, inputs: PyTree, targets: PyTree, settings: Augmentation) -> tuple[PyTree, PyTree]:
        """The inputs with a key, by which Transformers drop activations at random (`supernet.dropout`)."""
        return inputs | {"dropout": jax.random.key_data(key)}, targets

    @property
    def augments(self) -> bool:
        return False

    def check(self, net: SuperNet) -> None:
        """Raises ConfigError if the vocabularies or the sentences' lengths do not fit a super-network."""
        if isinstance(net, Transformer):
            config = net.config
            wanted = {"source_words": self.source_words, "target_words": self.target_vocabulary.size}
            given = {name: getattr(config, name) for name in wanted}
            if given != wanted:
                changes = " ".join(f"supernet.{name}={number}" for name, number in wanted.items())
                raise ConfigError(
                    f"the task's vocabularies have {' and '.join(map(str, wanted.values()))} words, the super-network's "
                    f"{' and '.join(map(str, given.values()))}: set {changes}, or task.vocabulary"
                )
            trained = net.facts.get("languages", list(self.languages))
            if trained != list(self.languages):
                raise ConfigError(
                    f"the weights were trained to translate {' to '.join(trained)}: set task.source={trained[0]} "
                    f"task.target={trained[1]}"
                )
            if net.facts.get("vocabularies") not in (None, self.facts()["vocabularies"]):
                raise ConfigError(
                    "the weights were trained with other vocabularies of the same size: set task.vocabulary to the folder "
                    "that nasjax train wrote, or task.path and task.words as they were then"
                )
            drawn = net.facts.get("held_out")
            if self.drawn and drawn and tuple(drawn) != self.drawn:
                print(
                    f"nasjax: the weights were trained with task.held_out={drawn[0]} task.seed={drawn[1]}: if the files are "
                    "the same, they have learnt pairs that are held out now",
                    file=sys.stderr,
                )
            padded = {name: int(getattr(self, name).bucket.max()) for name in SPLITS}
            needs = {name: room(n) if self.beam and name != "train" else n for name, n in padded.items()}
            name, needed = max(needs.items(), key=lambda pair: pair[1])
            if needed > config.positions:
                decoded = " with room to decode" if needed > padded[name] else ""
                raise ConfigError(
                    f"{name} sentences, padded to {padded[name]} tokens, need {needed} positions{decoded}, the network has "
                    f"{config.positions}: set supernet.positions={needed}, or leave longer sentences out"
                )
        super().check(net)


def room(bucket: int) -> int:
    """The greatest number of tokens of a translation in a bucket."""
    return int(RATIO * bucket) + MARGIN


def shifted_back(target: Int[Array, "batch time"]) -> Int[Array, "batch time"]:
    """The words that follow those of a target: END after the last, then PAD."""
    known = target != PAD
    following = jnp.concatenate([target[:, 1:], jnp.full((len(target), 1), PAD, target.dtype)], axis=1)
    return jnp.where(known & (following == PAD), END, following)


def split_of(pairs: Pairs, source: Vocabulary, target: Vocabulary, longest: int, first_row: int) -> tuple[Split, Pairs]:
    """Examples of sentence pairs, and their pairs, without those of more than `longest` tokens on a side (0: all).

    They are sorted by the source's tokens: those of a batch then end after about as many steps of beam search.
    """
    encoded = {"source": source.encode(pairs.sources), "target": target.encode(pairs.targets)}
    for side, sentences in encoded.items():
        unknown = np.concatenate([np.asarray(one) for one in sentences]) == UNKNOWN
        if unknown.mean() > MOST_UNKNOWN:
            print(
                f"nasjax: {pairs.name}: {100 * unknown.mean():.0f} % of the {side}'s tokens are not in the vocabulary: "
                "is the text tokenised as the vocabulary's was?",
                file=sys.stderr,
            )
    tokens = list(zip(*encoded.values(), strict=True))
    kept = [i for i, pair in enumerate(tokens) if not longest or max(map(len, pair)) <= longest]
    if not kept:
        raise ConfigError(f"{pairs.name}: all {len(tokens)} pairs have more than task.longest={longest} tokens")
    if len(kept) < len(tokens):
        left = len(tokens) - len(kept)
        print(
            f"nasjax: {pairs.name}: left out {left} of {plural(len(tokens), 'pair')}: more than {longest} tokens",
            file=sys.stderr,
        )
    kept.sort(key=lambda i: len(tokens[i][0]))
    tokens = [tokens[i] for i in kept]
    needed = [max(map(len, pair)) for pair in tokens]
    if max(needed) > BUCKETS[-1]:
        raise ConfigError(f"{pairs.name} has a sentence of {max(needed)} tokens; the most are {BUCKETS[-1]}")
    bucket = np.asarray(BUCKETS, np.int32)[np.searchsorted(BUCKETS, needed)]
    shape = len(tokens), int(bucket.max())
    inputs = {name: np.full(shape, PAD, np.int32) for name in ("source", "target")}
    words = np.full(shape, PAD, np.int32)
    for i, (ours, theirs) in enumerate(tokens):
        inputs["source"][i, : len(ours)] = ours
        inputs["target"][i, : len(theirs)] = [END, *theirs[:-1]]
        words[i, : len(theirs)] = theirs
    rows = first_row + np.arange(len(tokens), dtype=np.int32)
    return Split(inputs, {"words": words, "row": rows}, bucket), pairs.take(kept)
