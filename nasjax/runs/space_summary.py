"""What a run's summary tells of its search space, for drawings and comparisons."""

from nasjax.errors import ConfigError
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nasjax.outline import Block


@dataclass(frozen=True)
class Space:
    """`options` of every gene, as text; `blocks` that a network is drawn as, none where only genes are known.

    `largest` has the genes of the largest network (None where no network is that) and `costs` its exact costs.
    """

    options: Mapping[str, tuple[str, ...]]
    blocks: tuple[Block, ...] = ()
    largest: Mapping[str, str] | None = None
    costs: Mapping[str, float] | None = None


def read_space(summary: Mapping[str, Any], chosen: Iterable[Mapping[str, str]]) -> Space:
    """The space as `summary.json` states it; of a run older than that, the options found in the networks `chosen`.

    Raises KeyError, TypeError or ValueError where the summary is damaged.
    """
    names: list[str] = summary["genes"]
    if "options" not in summary:
        seen: dict[str, dict[str, None]] = {name: {} for name in names}
        for genes in chosen:
            for name, option in genes.items():
                seen[name][option] = None
        return Space({name: ordered(found) for name, found in seen.items()})
    options = {name: tuple(str(option) for option in summary["options"][name]) for name in names}
    blocks = tuple(_block(block, options) for block in summary["blocks"])
    if summary["largest"] is None:
        return Space(options, blocks)
    genes = {str(name): str(option) for name, option in summary["largest"]["genes"].items()}
    space = Space(options, blocks, genes, {str(name): float(cost) for name, cost in summary["largest"]["costs"].items()})
    if (wrong := stray(space, genes)) is not None:
        raise ConfigError(f"the largest network's {wrong!r} is {genes[wrong]!r:.60}, which is not among its options")
    return space


def _block(written: Mapping[str, Any], options: Mapping[str, tuple[str, ...]]) -> Block:
    gate = None
    if written["gate"] is not None:
        name, least = written["gate"]
        gate = (str(name), float(least))
    block = Block(str(written["kind"]), int(written["unit"]), tuple(written["genes"]), gate)
    if unknown := [name for name in block.genes if name not in options]:
        raise ConfigError(f"'blocks' has the gene {unknown[0]!r:.60}, which is not among 'genes'")
    if gate and any(value(option) is None for option in options[gate[0]]):
        raise ConfigError(f"'blocks' has the depth {gate[0]!r:.60}, whose options are not numbers")
    return block


def ordered(options: Iterable[str]) -> tuple[str, ...]:
    """Options by value where all are numbers, else as they come."""
    found = tuple(options)
    return tuple(sorted(found, key=float)) if all(value(option) is not None for option in found) else found


def stray(space: Space, genes: Mapping[str, str]) -> str | None:
    """The first gene of a network whose option the space does not have."""
    return next((name for name, option in genes.items() if option not in space.options[name]), None)


def value(option: str) -> float | None:
    """The number that an option is; None for a word."""
    try:
        return float(option)
    except ValueError:
        return None
