"""A network drawn as blocks: one a layer, in units; its width is the block's height, its kernel the colour.

Where only genes are known, each is a block, and its height and colour tell the place of the option chosen.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from itertools import groupby
from math import prod

from nasjax.outline import Block
from nasjax.runs.space_summary import Space, ordered, value

LEVELS = 4
"""Colours run from k0 to k4."""

WORDS = ("kernel", "expand", "width", "heads", "hidden")


@dataclass(frozen=True)
class Look:
    """How the blocks of a space are drawn: the gene that colours each, and the colour (0 to 4) of each option."""

    colours: Mapping[Block, str]
    levels: Mapping[str, int]


def look(space: Space) -> Look:
    """The colours of a space: by kernel size, where a block has none by its first choice of words."""
    colours = {block: gene for block in space.blocks if (gene := _colouring(space, block))}
    options = ordered(dict.fromkeys(option for gene in colours.values() for option in space.options[gene]))
    return Look(colours, {option: _level(place, len(options)) for place, option in enumerate(options)})


def drawing(space: Space, style: Look, genes: Mapping[str, str], small: bool = False) -> str:
    """The network with these genes as HTML; a `small` one has no words of its own."""
    if space.blocks:
        units = [list(unit) for _, unit in groupby(space.blocks, key=lambda block: block.unit)]
        rows = [_unit([_layer(space, style, b, genes) for b in unit], _depth(unit, genes)) for unit in units]
    else:
        rows = [_unit([_gene(space, name, genes)], name) for name in space.options]
    kind = "network" + (" strip" if not space.blocks else "") + (" small" if small else "")
    words = escape(", ".join(f"{name}={option}" for name, option in genes.items()))
    told = 'aria-hidden="true"' if small else f'role="img" aria-label="{words}"'
    return f'<div class="{kind}" {told}>{"".join(rows)}</div>'


def legend(space: Space, style: Look) -> str:
    """What height, colour and outline mean, as HTML; every option with its colour."""
    if not space.blocks:
        return "Height and colour: the place of the option among those of its gene. Outlines: genes that do not exist there."
    parts = []
    if style.levels:
        name = stem(next(iter(style.colours.values())))
        keys = " ".join(f'<span class="swatch k{level}"></span> {escape(o)}' for o, level in style.levels.items())
        parts.append(f"Colour: {escape(name)} {keys}.")
    sizes = dict.fromkeys(" × ".join(map(stem, _sizes(space, style, block))) for block in space.blocks)
    if any(sizes):
        parts.append(f"Height: {escape(' or '.join(filter(None, sizes)))}, of the largest.")
    if any(block.gate for block in space.blocks):
        parts.append("Outlines: layers switched off.")
    return " ".join(parts)


def loose(space: Space) -> list[str]:
    """The genes that no block of a drawing shows, as the resolution."""
    drawn = {name for block in space.blocks for name in (*block.genes, *(block.gate or ())[:1])}
    return [name for name in space.options if name not in drawn] if space.blocks else []


def stem(name: str) -> str:
    """What a gene chooses: the word of the field in its name, else the name without its numbers."""
    known = next((word for word in WORDS if word in name.lower()), "")
    return known or re.sub(r"[._-]?\d+", "", name) or name


def _layer(space: Space, style: Look, block: Block, genes: Mapping[str, str]) -> str:
    """A block of a super-network whose stages are known."""
    if not block.on(genes):
        return f'<span class="block off" title="{escape(block.kind)}, switched off"></span>'
    chosen = {name: genes[name] for name in block.genes if name in genes}
    words = escape(", ".join([block.kind, *(f"{name}={option}" for name, option in chosen.items())]))
    sizes = [name for name in _sizes(space, style, block) if name in chosen]
    height = prod(float(chosen[name]) / max(map(float, space.options[name])) for name in sizes)
    above = re.sub(r"^0\.", ".", chosen[sizes[-1]]) if sizes else ""
    colour = chosen.get(style.colours.get(block, ""), "")
    return _block(f"k{style.levels.get(colour, LEVELS // 2)}", height, words, above, colour)


def _gene(space: Space, name: str, genes: Mapping[str, str]) -> str:
    """A gene as a block, where nothing else is known."""
    if name not in genes:
        return f'<span class="block off" title="{escape(name)} does not exist here"></span>'
    options = space.options[name]
    place = options.index(genes[name])
    height = (place + 1) / len(options)
    return _block(f"k{_level(place, len(options))}", height, escape(f"{name}={genes[name]}"), genes[name], "")


def _block(colour: str, height: float, title: str, above: str, inside: str) -> str:
    size = max(0.12, height)
    label = f"<b>{escape(inside)}</b>" if inside and len(inside) <= 3 else ""
    over = f"<i>{escape(above)}</i>" if above else ""
    return f'<span class="block {colour}" style="--size:{size:.3g}" title="{title}">{over}{label}</span>'


def _colouring(space: Space, block: Block) -> str | None:
    kernels = [name for name in block.genes if "kernel" in name.lower()]
    words = [name for name in block.genes if any(value(option) is None for option in space.options[name])]
    return next(iter(kernels + words), None)


def _sizes(space: Space, style: Look, block: Block) -> list[str]:
    """The genes whose options, over the largest, make a block's height: positive numbers that do not colour it."""
    return [
        name
        for name in block.genes
        if name != style.colours.get(block) and all((value(option) or 0.0) > 0 for option in space.options[name])
    ]


def _unit(layers: list[str], name: str) -> str:
    below = f'<span class="name" title="{escape(name)}">{escape(name)}</span>' if name else ""
    return f'<span class="unit" style="--layers:{len(layers)}"><span class="layers">{"".join(layers)}</span>{below}</span>'


def _depth(unit: list[Block], genes: Mapping[str, str]) -> str:
    """The depth of a unit in words; a unit of one layer is too narrow for them."""
    gates = [block.gate[0] for block in unit if block.gate]
    return f"{gates[0]}={genes.get(gates[0], '–')}" if gates and len(unit) > 1 else ""


def _level(place: int, count: int) -> int:
    return round(LEVELS * place / (count - 1)) if count > 1 else LEVELS
