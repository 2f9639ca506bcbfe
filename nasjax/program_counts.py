"""How many programs a command compiles, about as many as others of its kind did: progress says how many are left."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import jax

from nasjax.host import cache_folder, replace_file

TYPICAL: Mapping[str, int] = MappingProxyType(
    {"concurrent": 18, "ehvi": 29, "full": 12, "proxy": 19, "random": 13, "weaknas": 17}
)
"""Programs of a search by its tactic where none of its kind has run here: of the digits super-network, with defaults."""


def search_kind(tactic: str, supernet: str, evaluator: str) -> str:
    """Returns the kind of a search: those of one kind compile about as many programs."""
    return f"search {tactic} {supernet} {evaluator}"


def expected_programs(kind: str) -> int | None:
    """Returns how many programs a command of this kind compiles in a new process; None where that is not known."""
    command, _, rest = kind.partition(" ")
    typical = TYPICAL.get(rest.partition(" ")[0]) if command == "search" else None
    return _kept().get(kind, typical)


def keep_programs(kind: str, number: int) -> None:
    """Keeps how many programs a command of this kind compiled, unless another compiled more: a resumed run has fewer."""
    kept = _kept()
    if number <= kept.get(kind, 0):
        return
    file = _file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps({**kept, kind: number}, indent=1, sort_keys=True).encode())
    except OSError:  # A home that cannot be written to: the next run knows no more than this one did.
        pass


def _file() -> Path:
    return cache_folder() / f"programs-{jax.__version__}.json"


def _kept() -> dict[str, int]:
    """The numbers that are kept, by kind; none where the file is missing or damaged."""
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {kind: number for kind, number in kept.items() if isinstance(number, int)} if isinstance(kept, dict) else {}
