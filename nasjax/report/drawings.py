"""Networks drawn as HTML: a block for each layer, grouped into units.

A block's height shows its width or expand ratio, its colour the kernel size. Where the layers are not known (a table), every
gene is a block, whose height and colour show the position of the chosen option.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from itertools import groupby
from math import prod

from nasjax.outline import OutlineBlock
from nasjax.report.formatting import without_numbers
from nasjax.runs.space_summary import SpaceSummary, option_value, sorted_options

LAST_COLOUR = 4
"""Colours are numbered from 0: the classes k0 to k4 of the style sheet."""

DIMENSIONS = ("kernel", "expand", "width", "heads", "hidden")
"""Elastic dimensions that are recognised in the names of genes."""


@dataclass(frozen=True)
class DrawingStyle:
    """How the blocks of a search space are coloured: the gene that colours each block, and the colour of each option."""

    colouring_genes: Mapping[OutlineBlock, str]
    colours: Mapping[str, int]


def drawing_style(space: SpaceSummary) -> DrawingStyle:
    """Colours by kernel size; in blocks without a kernel, by the first gene whose options are words."""
    genes = {block: gene for block in space.blocks if (gene := _colouring_gene(space, block))}
    options = sorted_options(dict.fromkeys(option for gene in genes.values() for option in space.options[gene]))
    return DrawingStyle(genes, {option: _colour(position, len(options)) for position, option in enumerate(options)})


def draw_network(space: SpaceSummary, style: DrawingStyle, genes: Mapping[str, str], small: bool = False) -> str:
    """The network with these genes as HTML. A `small` drawing is hidden from screen readers, and its style shows no text."""
    if space.blocks:
        units = [list(unit) for _, unit in groupby(space.blocks, key=lambda block: block.unit)]
        drawn = [_unit([_layer(space, style, block, genes) for block in unit], _depth(unit, genes)) for unit in units]
    else:
        drawn = [_unit([_gene(space, name, genes)], name) for name in space.options]
    classes = "network" + (" strip" if not space.blocks else "") + (" small" if small else "")
    label = escape(", ".join(f"{name}={option}" for name, option in genes.items()))
    accessibility = 'aria-hidden="true"' if small else f'role="img" aria-label="{label}"'
    return f'<div class="{classes}" {accessibility}>{"".join(drawn)}</div>'


def legend(space: SpaceSummary, style: DrawingStyle) -> str:
    """What height, colour and dashed outlines mean, as HTML, with the colour of every option."""
    if not space.blocks:
        return "Height and colour: the place of the option among those of its gene. Outlines: genes that do not exist there."
    parts = []
    if style.colours:
        dimension = elastic_dimension(next(iter(style.colouring_genes.values())))
        keys = " ".join(f'<span class="swatch k{colour}"></span> {escape(o)}' for o, colour in style.colours.items())
        parts.append(f"Colour: {escape(dimension)} {keys}.")
    heights = dict.fromkeys(" × ".join(map(elastic_dimension, height_genes(space, style, b))) for b in space.blocks)
    if any(heights):
        parts.append(f"Height: {escape(' or '.join(filter(None, heights)))}, of the largest.")
    if any(block.gate for block in space.blocks):
        parts.append("Outlines: layers switched off.")
    return " ".join(parts)


def undrawn_genes(space: SpaceSummary) -> list[str]:
    """The genes that no block shows, such as the resolution."""
    drawn = {name for block in space.blocks for name in (*block.genes, *(block.gate or ())[:1])}
    return [name for name in space.options if name not in drawn] if space.blocks else []


def elastic_dimension(gene: str) -> str:
    """The elastic dimension that a gene's name contains, else the name without its numbers."""
    return next((dimension for dimension in DIMENSIONS if dimension in gene.lower()), "") or without_numbers(gene)


def height_genes(space: SpaceSummary, style: DrawingStyle, block: OutlineBlock) -> list[str]:
    """The genes that make a block's height: those with positive numbers as options, but for the one that colours it."""
    return [
        name
        for name in block.genes
        if name != style.colouring_genes.get(block)
        and all((option_value(option) or 0.0) > 0 for option in space.options[name])
    ]


def _layer(space: SpaceSummary, style: DrawingStyle, block: OutlineBlock, genes: Mapping[str, str]) -> str:
    """A layer as a block."""
    if not block.is_on(genes):
        return f'<span class="block off" title="{escape(block.kind)}, switched off"></span>'
    chosen = {name: genes[name] for name in block.genes if name in genes}
    title = escape(", ".join([block.kind, *(f"{name}={option}" for name, option in chosen.items())]))
    tall = [name for name in height_genes(space, style, block) if name in chosen]
    height = prod(float(chosen[name]) / max(map(float, space.options[name])) for name in tall)
    above = re.sub(r"^0\.", ".", chosen[tall[-1]]) if tall else ""
    option = chosen.get(style.colouring_genes.get(block, ""), "")
    return _block(style.colours.get(option, LAST_COLOUR // 2), height, title, above, option)


def _gene(space: SpaceSummary, name: str, genes: Mapping[str, str]) -> str:
    """A gene as a block, where the layers are not known."""
    if name not in genes:
        return f'<span class="block off" title="{escape(name)} does not exist here"></span>'
    options = space.options[name]
    position = options.index(genes[name])
    height = (position + 1) / len(options)
    return _block(_colour(position, len(options)), height, escape(f"{name}={genes[name]}"), genes[name], "")


def _block(colour: int, height: float, title: str, above: str, inside: str) -> str:
    size = max(0.12, height)
    label = f"<b>{escape(inside)}</b>" if inside and len(inside) <= 3 else ""
    over = f"<i>{escape(above)}</i>" if above else ""
    return f'<span class="block k{colour}" style="--size:{size:.3g}" title="{title}">{over}{label}</span>'


def _colouring_gene(space: SpaceSummary, block: OutlineBlock) -> str | None:
    kernels = [name for name in block.genes if "kernel" in name.lower()]
    words = [name for name in block.genes if any(option_value(option) is None for option in space.options[name])]
    return next(iter(kernels + words), None)


def _unit(blocks: list[str], name: str) -> str:
    below = f'<span class="name" title="{escape(name)}">{escape(name)}</span>' if name else ""
    return f'<span class="unit" style="--layers:{len(blocks)}"><span class="layers">{"".join(blocks)}</span>{below}</span>'


def _depth(unit: list[OutlineBlock], genes: Mapping[str, str]) -> str:
    """The depth of a unit, as text; "" for a unit of one block, which is too narrow for it."""
    gates = [block.gate[0] for block in unit if block.gate]
    return f"{gates[0]}={genes.get(gates[0], '–')}" if gates and len(unit) > 1 else ""


def _colour(position: int, count: int) -> int:
    """The colour of an option by its position among `count`."""
    return round(LAST_COLOUR * position / (count - 1)) if count > 1 else LAST_COLOUR
