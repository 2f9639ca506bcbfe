"""Pairs of text files: a sentence on each line, the same line of the other file its translation."""

import gzip
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasjax.errors import ConfigError
from nasjax.host import regular_file
from nasjax.words import plural

EMPTY = ("drop", "keep", "refuse")
"""What is done with pairs of which a side is empty."""


@dataclass(frozen=True)
class Pairs:
    """Sentences and their translations; `name` says in messages where they are from."""

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, rows: Sequence[int]) -> "Pairs":
        """The pairs of these rows."""
        return Pairs(self.name, tuple(self.sources[i] for i in rows), tuple(self.targets[i] for i in rows))


def read_pairs(folder: Path, name: str, languages: tuple[str, str], empty: str) -> Pairs:
    """Reads `folder/name.LANGUAGE` (or `.LANGUAGE.gz`) of both languages.

    Raises ConfigError for files that are missing, no UTF-8, of different length or, if `empty` is refused, with empty lines.
    """
    files = [_found(folder, name, language) for language in languages]
    sources, targets = (_lines(file) for file in files)
    if len(sources) != len(targets):
        raise ConfigError(
            f"{files[0]} has {len(sources)} lines, {files[1]} {len(targets)}: line by line, one must translate the other"
        )
    full = [i for i, pair in enumerate(zip(sources, targets, strict=True)) if all(pair)]
    if not full:
        raise ConfigError(f"{files[0]} and {files[1]} have no pair of sentences")
    pairs = Pairs(f"{folder / name}.*", tuple(sources), tuple(targets))
    left = len(pairs) - len(full)
    if not left or empty == "keep":
        return pairs
    if empty == "refuse":
        first = next(i for i in range(len(pairs)) if i not in set(full))
        raise ConfigError(
            f"{pairs.name}: line {first + 1} is empty in one file or both, as are {left} of {len(pairs)} lines "
            f"(task.empty=drop leaves them out)"
        )
    print(f"nasjax: {pairs.name}: left out {left} of {plural(len(pairs), 'pair')}: a side is empty", file=sys.stderr)
    return pairs.take(full)


def held_out(pairs: Pairs, number: int, seed: int) -> tuple[Pairs, Pairs]:
    """The pairs without `number` random ones, and these."""
    if number >= len(pairs):
        raise ConfigError(
            f"{pairs.name}: task.held_out={number} leaves none of {len(pairs)} pairs for training: set a lower number"
        )
    order = np.random.default_rng(seed).permutation(len(pairs))
    return pairs.take(sorted(order[number:])), pairs.take(sorted(order[:number]))


def exists(folder: Path, name: str, language: str) -> bool:
    """Whether there is such a file, compressed or not."""
    return any((folder / f"{name}.{language}{ending}").exists() for ending in ("", ".gz"))


def _found(folder: Path, name: str, language: str) -> Path:
    for ending in ("", ".gz"):
        file = folder / f"{name}.{language}{ending}"
        if file.exists():
            return regular_file(str(file), file)
    raise ConfigError(f"{folder / f'{name}.{language}'} is missing: task.path needs a file of each language, or its .gz")


def _lines(file: Path) -> list[str]:
    """The lines of a text, without spaces at their ends."""
    try:
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{file} cannot be read ({error})") from None
    return lines_of(content, str(file))


def lines_of(content: bytes, name: str) -> list[str]:
    """The lines of a text in UTF-8, without spaces at their ends; `name` names it in messages.

    Raises ConfigError for other bytes.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not text in UTF-8 ({error.reason} at byte {error.start})") from None
    return [line.strip() for line in split_lines(text)]


def split_lines(text: str) -> list[str]:
    """The lines of a text. Not `splitlines`: other characters that end lines (U+2028, form feeds) stand within sentences."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
