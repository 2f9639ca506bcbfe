"""What a run's summary says about its search space, as drawings and comparisons need it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nasjax.errors import ConfigError
from nasjax.outline import OutlineBlock


@dataclass(frozen=True)
class SpaceSummary:
    """The search space of a finished run, every option as text.

    `options` has the options of each gene; `blocks` the outline of the super-network, empty where only genes are known (a
    table). `largest` are the genes of the largest network and `costs` its exact costs; both are None where the options have
    no order or that network cannot be measured.
    """

    options: Mapping[str, tuple[str, ...]]
    blocks: tuple[OutlineBlock, ...] = ()
    largest: Mapping[str, str] | None = None
    costs: Mapping[str, float] | None = None


def read_space(summary: Mapping[str, Any], networks: Iterable[Mapping[str, str]]) -> SpaceSummary:
    """Reads the search space from the content of `summary.json`.

    Summaries of older versions do not list the options: they are then collected from the genes of the run's `networks`.
    Raises KeyError, TypeError or ValueError where the summary is damaged.
    """
    names: list[str] = summary["genes"]
    if "options" not in summary:
        seen: dict[str, dict[str, None]] = {name: {} for name in names}
        for genes in networks:
            for name, option in genes.items():
                seen[name][option] = None
        return SpaceSummary({name: sorted_options(options) for name, options in seen.items()})
    options = {name: tuple(str(option) for option in summary["options"][name]) for name in names}
    blocks = tuple(_read_block(block, options) for block in summary["blocks"])
    if summary["largest"] is None:
        return SpaceSummary(options, blocks)
    genes = {str(name): str(option) for name, option in summary["largest"]["genes"].items()}
    costs = {str(name): float(cost) for name, cost in summary["largest"]["costs"].items()}
    space = SpaceSummary(options, blocks, genes, costs)
    if (gene := gene_with_unknown_option(space, genes)) is not None:
        raise ConfigError(f"the largest network's {gene!r} is {genes[gene]!r:.60}, which is not among its options")
    return space


def _read_block(entry: Mapping[str, Any], options: Mapping[str, tuple[str, ...]]) -> OutlineBlock:
    gate = None
    if entry["gate"] is not None:
        name, value = entry["gate"]
        gate = (str(name), float(value))
    block = OutlineBlock(str(entry["kind"]), int(entry["unit"]), tuple(entry["genes"]), gate)
    if unknown := [name for name in block.genes if name not in options]:
        raise ConfigError(f"'blocks' has the gene {unknown[0]!r:.60}, which is not among 'genes'")
    if gate and any(option_value(option) is None for option in options[gate[0]]):
        raise ConfigError(f"'blocks' has the depth {gate[0]!r:.60}, whose options are not numbers")
    return block


def sorted_options(options: Iterable[str]) -> tuple[str, ...]:
    """Options in ascending order where all are numbers, else in the order given."""
    given = tuple(options)
    return tuple(sorted(given, key=float)) if all(option_value(option) is not None for option in given) else given


def gene_with_unknown_option(space: SpaceSummary, genes: Mapping[str, str]) -> str | None:
    """The first gene of a network whose option is not in the space; None where all are."""
    return next((name for name, option in genes.items() if option not in space.options[name]), None)


def option_value(option: str) -> float | None:
    """An option as a number; None where it is a word."""
    try:
        return float(option)
    except ValueError:
        return None
