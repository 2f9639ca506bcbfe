"""Vocabularies of subwords: learnt from text or given, by SentencePiece, or as fairseq's dictionaries with BPE codes."""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Protocol

from nasjax.errors import ConfigError, one_line
from nasjax.host import read_text, regular_file
from nasjax.supernets.transformer_layers import END, PAD
from nasjax.tasks.text_pairs import split_lines

BEGIN, UNKNOWN = 0, 3
"""The other special tokens; fairseq's dictionaries have all four in this order: 0 to 3."""

CONTINUED = "@@ "
"""What subword-nmt puts between the parts of a word."""


PIECES = "vocabulary.model"
"""The name of a SentencePiece model in a folder of files."""


class Vocabulary(Protocol):
    """Turns sentences into tokens, and back; `size` counts the special tokens. Its `repr` is a digest of its content."""

    @property
    def size(self) -> int: ...

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """The tokens of every sentence, END last."""

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Every sentence as text, without special tokens; what follows END is left out."""

    def files(self, language: str) -> dict[str, bytes]:
        """The files by name that `read_vocabularies` reads it from, as that of a `language`."""


def before_end(tokens: Iterable[int]) -> list[int]:
    """The tokens before the first END, without padding."""
    found: list[int] = []
    for token in tokens:
        if token == END:
            break
        if token != PAD:
            found.append(int(token))
    return found


def _sentencepiece() -> ModuleType:
    try:
        import sentencepiece
    except ImportError:
        raise ConfigError("subword vocabularies need SentencePiece: pip install 'nasjax[translation]'") from None
    return sentencepiece


class SentencePieces:
    """A SentencePiece model, from the bytes of its file. Raises ConfigError if its special tokens are others than ours.

    `name` says in messages which file it is.
    """

    def __init__(self, model: bytes, name: str = "the vocabulary"):
        self.model = model
        make = _sentencepiece().SentencePieceProcessor
        try:
            self._processor = make(model_proto=model)
        except RuntimeError:
            raise ConfigError(f"{name} is not a SentencePiece model") from None
        special = {"pad": self._processor.pad_id(), "end": self._processor.eos_id(), "unknown": self._processor.unk_id()}
        wanted = {"pad": PAD, "end": END, "unknown": UNKNOWN}
        for token, index in special.items():
            if index < 0:
                raise ConfigError(f"{name} has no {token} token: train it with {TRAINING_FLAGS}")
        if special != wanted:
            raise ConfigError(f"{name} has special tokens {special}, not {wanted}: train it with {TRAINING_FLAGS}")

    def __repr__(self) -> str:
        return f"SentencePieces({sha256(self.model).hexdigest()})"

    @property
    def size(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        return [[*tokens, END] for tokens in self._processor.encode(list(sentences))]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        return self._processor.decode([[token for token in before_end(row) if token > UNKNOWN] for row in tokens])

    def files(self, language: str) -> dict[str, bytes]:
        return {PIECES: self.model}


TRAINING_FLAGS = "--bos_id=0 --pad_id=1 --eos_id=2 --unk_id=3"
"""Flags of `spm_train` for the special tokens that we need."""


def learn_pieces(sentences: Iterable[str], size: int) -> SentencePieces:
    """Learns a vocabulary of `size` byte-pair pieces (SentencePiece's BPE). Raises ConfigError if the text is too short."""
    file = io.BytesIO()
    trainer = _sentencepiece().SentencePieceTrainer
    try:
        trainer.train(
            sentence_iterator=iter(sentences), model_writer=file, vocab_size=size, model_type="bpe", character_coverage=1.0,
            bos_id=BEGIN, pad_id=PAD, eos_id=END, unk_id=UNKNOWN, minloglevel=2, num_threads=1,
            input_sentence_size=0, shuffle_input_sentence=False,
        )  # fmt: skip
    except RuntimeError as error:
        most = re.search(r"value <= (\d+)", str(error))
        advice = f"it has words for at most {most[1]}" if most else one_line(error)
        raise ConfigError(f"no vocabulary of task.words={size} can be learnt from this text: {advice}") from error
    return SentencePieces(file.getvalue())


class Dictionary:
    """One language's words in the order of fairseq's `dict.txt`, without special tokens, and BPE codes if there are any."""

    def __init__(self, words: Sequence[str], codes: str | None = None):
        self.words, self.codes = tuple(words), codes
        self._index = {word: UNKNOWN + 1 + i for i, word in enumerate(words)}
        self._split: Callable[[str], str] = _byte_pairs(codes) if codes else str

    def __repr__(self) -> str:
        return f"Dictionary({sha256(repr((self.words, self.codes)).encode()).hexdigest()})"

    @property
    def size(self) -> int:
        return UNKNOWN + 1 + len(self.words)

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        return [[*(self._index.get(word, UNKNOWN) for word in self._split(one).split()), END] for one in sentences]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        def word(token: int) -> str:
            return self.words[token - UNKNOWN - 1] if token > UNKNOWN else "<unk>"

        return [" ".join(map(word, before_end(row))).replace(CONTINUED, "").removesuffix("@@") for row in tokens]

    def files(self, language: str) -> dict[str, bytes]:
        codes = {"codes": self.codes.encode()} if self.codes else {}
        return {f"dict.{language}.txt": "".join(f"{word} 1\n" for word in self.words).encode(), **codes}


def _byte_pairs(codes: str) -> Callable[[str], str]:
    """The function that splits the words of a tokenised sentence by subword-nmt's codes."""
    try:
        from subword_nmt.apply_bpe import BPE
    except ImportError:
        raise ConfigError("BPE codes need subword-nmt: pip install 'nasjax[translation]'") from None
    return BPE(io.StringIO(codes)).process_line


def read_codes(path: Path) -> str:
    """Reads subword-nmt's codes: a pair of parts on each line, the first may be their version.

    Raises ConfigError for another file, at which subword-nmt would end the process.
    """
    text = read_text(path)
    for number, line in enumerate(split_lines(text), 1):
        version = number == 1 and re.fullmatch(r"#version: *[0-9]+([.][0-9]+)*", line.strip())
        if not version and len(line.strip(" ").split(" ")) != 2:
            raise ConfigError(f"{path}, line {number}: codes of subword-nmt are two parts on each line, not {line[:40]!r}")
    return text


def read_dictionary(path: Path, codes: Path | None) -> Dictionary:
    """Reads fairseq's dictionary: a word and its count on each line. Raises ConfigError for another file."""
    words = []
    for number, line in enumerate(split_lines(read_text(path)), 1):
        word, _, count = line.rpartition(" ")
        if not word or not count.isdecimal():
            raise ConfigError(
                f"{path}, line {number}: a dictionary has a word and its count on each line, not {line[:40]!r}"
            )
        words.append(word)
    if not words:
        raise ConfigError(f"{path} has no words")
    return Dictionary(words, read_codes(codes) if codes else None)


def read_vocabularies(given: str, source: str, target: str) -> tuple[Vocabulary, Vocabulary]:
    """Vocabularies of both languages: a SentencePiece model for both, or a folder with either that or fairseq's.

    A folder holds `vocabulary.model`, or `dict.SOURCE.txt` and `dict.TARGET.txt`, and `codes` where words are to be split.
    Raises ConfigError for anything else.
    """
    path = Path(given)
    if (path / PIECES).exists():
        path /= PIECES
    if path.is_dir():
        missing = [name for name in (f"dict.{source}.txt", f"dict.{target}.txt") if not (path / name).exists()]
        if missing:
            raise ConfigError(f"{given} holds no vocabulary: there is neither {PIECES} nor {' and '.join(missing)}")
        codes = path / "codes" if (path / "codes").exists() else None
        both = [read_dictionary(path / f"dict.{language}.txt", codes) for language in (source, target)]
        return both[0], both[1]
    model = SentencePieces(regular_file(f"task.vocabulary={given}", path).read_bytes(), f"task.vocabulary={given}")
    return model, model
