"""Vocabularies: subword-nmt's codes and fairseq's dictionaries, SentencePiece models that do not fit."""

import io
import itertools

import pytest
import sentencepiece

from nasjax.errors import ConfigError
from nasjax.supernets.transformer_layers import END
from nasjax.tasks.vocabulary import SentencePieces, learn_pieces, read_vocabularies


def split_by_plain_loop(word, codes):
    """The parts of a word: the pair whose code comes first is joined, until no pair has a code."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while pairs := [pair for pair in itertools.pairwise(parts) if pair in codes]:
        first = min(pairs, key=codes.index)
        joined = []
        for part in parts:
            ahead = (*joined[-1:], part)
            joined = [*joined[:-1], "".join(ahead)] if ahead == first else [*joined, part]
        parts = joined
    return [*(f"{part}@@" for part in parts[:-1]), parts[-1].removesuffix("</w>")]


def test_codes_of_subword_nmt_split_words_as_a_plain_loop_does(tmp_path):
    codes = [("e", "r"), ("t", "h"), ("th", "e</w>"), ("o", "r"), ("h", "or"), ("s", "e</w>"), ("er", "t</w>")]
    sentences = ["the horse", "otherthe tototoer"]
    parts = [[part for word in one.split(" ") for part in split_by_plain_loop(word, codes)] for one in sentences]
    assert parts[0] == ["the", "hor@@", "se"]
    words = ["a\u2028b", *sorted({part for row in parts for part in row})]
    for language in ("en", "de"):
        (tmp_path / f"dict.{language}.txt").write_text("".join(f"{word} 1\n" for word in words), encoding="utf-8")
    (tmp_path / "codes").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in codes))
    vocabulary = read_vocabularies(str(tmp_path), "en", "de")[0]
    tokens = vocabulary.encode(sentences)
    assert tokens == [[*(4 + words.index(part) for part in row), END] for row in parts]
    assert vocabulary.decode(tokens) == sentences
    for line in ("th e r", "the", ""):
        (tmp_path / "codes").write_text(f"#version: 0.2\nt h\n{line}\n")
        with pytest.raises(ConfigError, match="codes, line 3: codes of subword-nmt are two parts on each line"):
            read_vocabularies(str(tmp_path), "en", "de")


def test_vocabularies_with_other_special_tokens_are_refused(tmp_path):
    lines = ["the dog sees the cat"] * 9
    for flags, message in (
        ({}, "has no pad token: train it with --bos_id=0 --pad_id=1"),
        ({"pad_id": 3}, "special tokens {'pad': 3"),
    ):
        file = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=file, vocab_size=20, model_type="bpe", minloglevel=2, **flags
        )
        with pytest.raises(ConfigError, match=message):
            SentencePieces(file.getvalue(), "task.vocabulary=x.model")
    with pytest.raises(ConfigError, match=r"task.vocabulary=x.model is not a SentencePiece model"):
        SentencePieces(b"nothing", "task.vocabulary=x.model")
    assert learn_pieces(lines, 20).decode([[END]]) == [""]
