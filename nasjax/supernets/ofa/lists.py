"""Once-for-All's own way to write an architecture, which DyNAS-T uses too: lists `ks`, `e`, `d`, or `d`, `e`, `w`.

The lists have an entry for every block, switched on or not; a single number stands for a list of it. `r`, a list of one, is
the resolution; `wid`, which OFA writes for its MobileNets, is None always.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nasjax.errors import ConfigError
from nasjax.space import Option
from nasjax.supernets.families.mobilenet_v3 import MobileNetV3
from nasjax.supernets.families.resnet import ResNet


class Entry(NamedTuple):
    """One entry of a list: the gene that it sets (None: nothing), and the option that each number stands for."""

    gene: str | None
    options: Mapping[Any, Option]


def _same(net: Any, start: str) -> list[Entry]:
    """An entry for each gene whose name begins so, its numbers the options themselves."""
    return [Entry(gene.name, {o: o for o in gene.options}) for gene in net.space.genes if gene.name.startswith(start)]


def _mobilenet(net: MobileNetV3) -> dict[str, list[Entry]]:
    depths = [
        Entry(f"depth_{i + 1}" if len(options) > 1 else None, {depth: depth for depth in options})
        for i, options in enumerate(net.config.depths)
    ]
    return {"ks": _same(net, "kernel_"), "e": _same(net, "expand_"), "d": depths}


def _resnet(net: ResNet) -> dict[str, list[Entry]]:
    stages = range(1, len(net.config.widths) + 1)
    # The stem's residual block is there at the greatest depth only.
    stem = {depth: depth if depth == max(net.config.depths) else 0 for depth in net.config.depths}
    depths = [Entry("depth_stem", stem), *(Entry(f"depth_{i}", {d: d for d in net.config.depths}) for i in stages)]
    multipliers = dict(enumerate(net.config.multipliers))
    widths = [Entry(f"width_{i}", multipliers) for i in ("stem", *stages)]
    middle = Entry("width_stem_middle", {i: net.middle_multiplier(m) for i, m in multipliers.items()})
    return {"d": depths, "e": _same(net, "expand_"), "w": [middle, *widths]}


FAMILIES: dict[type, Any] = {MobileNetV3: _mobilenet, ResNet: _resnet}


def _resolution(net: MobileNetV3 | ResNet) -> list[Entry]:
    """Of a network whose resolution is no gene, that of its pictures is the only one."""
    sizes = net.resolutions or net.input_shape[:1]
    return [Entry("resolution" if net.resolutions else None, {size: size for size in sizes})]


def from_ofa(net: MobileNetV3 | ResNet, lists: Mapping[str, Sequence[Any] | np.ndarray | float | None]) -> dict[str, Option]:
    """The named choices that `net.space.encode` takes, from OFA's lists.

    `r` is wanted where the resolution is a gene; where it is none it may be left out, or is that of the network's pictures.
    Raises ConfigError for a list that is missing, unexpected or of another length, and for an entry that is not allowed.
    """
    places = FAMILIES[type(net)](net)
    given = {name: numbers for name, numbers in lists.items() if name != "wid" or numbers is not None}
    if net.resolutions or "r" in given:
        places["r"] = _resolution(net)
    if set(given) != set(places):
        raise ConfigError(f"the lists of an architecture are {', '.join(places)}, not {', '.join(given) or 'none'}")
    choices: dict[str, Option] = {}
    for name, entries in places.items():
        value: Any = given[name]
        value = value.tolist() if isinstance(value, np.ndarray) else value
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        numbers = list(value) if listed else [value] * len(entries)
        if len(numbers) != len(entries):
            raise ConfigError(f"list {name!r} has {len(numbers)} entries, {len(entries)} are wanted")
        for entry, number in zip(entries, numbers, strict=True):
            if entry.gene is None and not listed:
                continue  # A number for all blocks is none for those without a choice.
            if not isinstance(number, Hashable) or number not in entry.options:
                raise ConfigError(f"list {name!r} cannot hold {number!r}; allowed: {', '.join(map(str, entry.options))}")
            if entry.gene is not None:
                choices[entry.gene] = entry.options[number]
    return net.space.decode(net.space.encode(choices))


def to_ofa(net: MobileNetV3 | ResNet, choices: Mapping[str, Option]) -> dict[str, list[Any]]:
    """OFA's lists for named choices; entries of blocks that are switched off, which it ignores, are the smallest.

    Raises ConfigError for choices that are no sub-network of `net`.
    """
    chosen = net.space.decode(net.space.encode(choices))
    places = FAMILIES[type(net)](net) | ({"r": _resolution(net)} if net.resolutions else {})

    def number(entry: Entry) -> Any:
        return next(n for n, option in entry.options.items() if chosen.get(entry.gene or "", option) == option)

    return {name: [number(entry) for entry in entries] for name, entries in places.items()}
