"""BLEU and chrF as functions of additive statistics: sacrebleu counts n-grams, sums over sentences make a corpus score."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nasjax.errors import ConfigError, one_line

ORDER, CHARACTERS = 4, 6
"""The longest n-grams: of words in BLEU (Papineni et al. 2002), of characters in chrF (Popović 2015)."""

BLEU_STATISTICS = 2 + 2 * ORDER
"""Numbers a sentence: lengths, matches and n-grams; n-grams of both and matches, for each order."""

BETA = 2
"""The weight of recall in chrF."""


def _sacrebleu() -> ModuleType:
    try:
        import sacrebleu.metrics
    except ImportError:
        raise ConfigError("BLEU needs sacrebleu: pip install 'nasjax[translation]'") from None
    return sacrebleu.metrics


class TranslationScores:
    """Counts of n-grams by sacrebleu, whose `tokenizer` is one of its own: `13a`, `none`, `intl`, `char`, `zh`…

    Raises ConfigError for a name that it does not know.
    """

    def __init__(self, tokenizer: str):
        metrics = _sacrebleu()
        allowed = sorted(name for name in metrics.BLEU.TOKENIZERS if name)
        if tokenizer not in allowed:
            raise ConfigError(f"task.tokenizer={tokenizer} is unknown; allowed: {', '.join(allowed)}")
        try:
            self.bleu, self.chrf = metrics.BLEU(tokenize=tokenizer, force=True), metrics.CHRF()
        except Exception as error:  # Some tokenizers need packages or models, and miss them in many ways.
            raise ConfigError(f"task.tokenizer={tokenizer} cannot be used: {one_line(error)}") from None
        self.signature = _signature(self.bleu), _signature(self.chrf)

    def __repr__(self) -> str:
        return f"TranslationScores{self.signature}"

    def statistics(self, translations: Sequence[str], references: Sequence[str]) -> Float[np.ndarray, "sentences stats"]:
        """A row for each sentence: BLEU's statistics, then chrF's."""
        rows = [
            metric._extract_corpus_statistics(list(translations), [list(references)]) for metric in (self.bleu, self.chrf)
        ]
        return np.concatenate([np.asarray(part, np.float64) for part in rows], axis=1)


def _signature(metric: Any) -> str:
    """sacrebleu's signature, for one reference a sentence."""
    metric.num_refs = 1
    return str(metric.get_signature())


def bleu(totals: Float[Array | np.ndarray, " stats"]) -> Float[Array, ""]:
    """Corpus BLEU, 0-100, of summed statistics, with sacrebleu's default smoothing (`exp`)."""
    length, reference = totals[0], totals[1]
    matches, number = jnp.asarray(totals[2 : 2 + ORDER]), jnp.asarray(totals[2 + ORDER : BLEU_STATISTICS])
    missed = (matches == 0) & (number > 0)
    smoothed = 1 / (2.0 ** jnp.cumsum(missed) * jnp.maximum(number, 1))
    precision = jnp.where(missed, smoothed, jnp.where(number > 0, matches, 1) / jnp.maximum(number, 1))
    brevity = jnp.exp(jnp.minimum(0, 1 - reference / jnp.maximum(length, 1)))
    counted = jnp.all(number > 0) & jnp.any(matches > 0)
    return jnp.where(counted, 100 * brevity * jnp.exp(jnp.log(precision).mean()), 0.0)


def chrf(totals: Float[Array | np.ndarray, " stats"]) -> Float[Array, ""]:
    """Corpus chrF, 0-100, of summed statistics."""
    ours, theirs, matches = (jnp.asarray(totals[i::3]) for i in range(3))
    counted = (ours > 0) & (theirs > 0)
    precision, recall = (jnp.where(counted, matches / jnp.maximum(number, 1), 0) for number in (ours, theirs))
    orders = jnp.maximum(counted.sum(), 1)
    precision, recall = precision.sum() / orders, recall.sum() / orders
    beta = BETA**2
    below = beta * precision + recall
    return jnp.where(below > 0, 100 * (1 + beta) * precision * recall / jnp.where(below > 0, below, 1), 0.0)
