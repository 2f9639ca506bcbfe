"""Sizes of encoder-decoder super-networks, checked."""

from dataclasses import dataclass

from nasjax.errors import ConfigError
from nasjax.supernets.families.limits import POSITIVE_INTEGER, check_limits

LIMITS = dict.fromkeys(
    ("source_words", "target_words", "length", "positions", "encoder_layers", "decoder_depths", "encoder_widths",
     "decoder_widths", "inner_width", "heads", "hidden", "cross_layers"), POSITIVE_INTEGER,
)  # fmt: skip
"""The allowed range of each numeric setting."""


@dataclass(frozen=True)
class TransformerSizes:
    """Sizes of an encoder-decoder super-network; the defaults are HAT's for WMT'14 English to German.

    Attributes:
      source_words, target_words: sizes of the two vocabularies, with the special tokens.
      shared_embeddings: whether both embeddings and the output projection are one tensor.
      length: tokens of source and target for which costs and latencies are stated.
      positions: the most tokens that a padded sentence, or a translation on its way, may have.
      encoder_layers: number of encoder layers.
      decoder_depths: options of the number of decoder layers.
      encoder_widths, decoder_widths: options of the width of embeddings and layers.
      inner_width: width of all heads' queries, keys and values together.
      heads, hidden: options of each layer's number of attention heads and feed-forward width.
      cross_layers: options of the number of last encoder layers whose outputs a decoder layer attends to.
      dropout: share of embeddings and of sublayers' outputs that training drops at the greatest width; less at smaller ones.

    Raises ConfigError for invalid settings.
    """

    source_words: int = 32768
    target_words: int = 32768
    shared_embeddings: bool = True
    length: int = 30
    positions: int = 1024
    encoder_layers: int = 6
    decoder_depths: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    encoder_widths: tuple[int, ...] = (512, 640)
    decoder_widths: tuple[int, ...] = (512, 640)
    inner_width: int = 512
    heads: tuple[int, ...] = (4, 8)
    hidden: tuple[int, ...] = (1024, 2048, 3072)
    cross_layers: tuple[int, ...] = (1, 2, 3)
    dropout: float = 0.3

    def __post_init__(self):
        check_limits(self, LIMITS)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"supernet.dropout must be at least 0 and below 1, not {self.dropout}")
        if self.length > self.positions:
            raise ConfigError(f"supernet.length={self.length} tokens need as many supernet.positions, not {self.positions}")
        most = max(self.heads)
        for heads in self.heads:
            if self.inner_width % heads or most % heads:
                raise ConfigError(
                    f"supernet.heads={list(self.heads)}: each must divide the greatest, and inner_width={self.inner_width}"
                )
        if max(self.cross_layers) > self.encoder_layers:
            raise ConfigError(
                f"supernet.cross_layers={list(self.cross_layers)}: there are only {self.encoder_layers} encoder layers"
            )
        if self.shared_embeddings:
            source = self.source_words, max(self.encoder_widths)
            target = self.target_words, max(self.decoder_widths)
            if source != target:
                raise ConfigError(
                    f"supernet.shared_embeddings=true: encoder and decoder must be equal in words and greatest width, "
                    f"not {source} and {target}"
                )
