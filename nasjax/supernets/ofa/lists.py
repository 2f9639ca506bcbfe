"""Architectures as Once-for-All and DyNAS-T write them: lists `ks`, `e`, `d` (MobileNets) or `d`, `e`, `w` (ResNets).

The lists are kernel sizes, expand ratios, depths and indices of width multipliers. `ks` and `e` have an entry for every
block, switched on or not; a single number means the same for all entries. `r`, a list of one, is the resolution; `wid`,
which Once-for-All writes for its MobileNets, is always None.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nasjax.errors import ConfigError
from nasjax.space import Option
from nasjax.supernets.families.mobilenet_v3 import MobileNetV3
from nasjax.supernets.families.resnet import ResNet


class Entry(NamedTuple):
    """An entry of a list: the gene that it sets (None: there is none), and the option that each allowed number means."""

    gene: str | None
    options: Mapping[Any, Option]


def _gene_entries(net: MobileNetV3 | ResNet, prefix: str) -> list[Entry]:
    """Returns an entry for each gene whose name has the prefix; its numbers are the options themselves."""
    return [Entry(gene.name, {o: o for o in gene.options}) for gene in net.space.genes if gene.name.startswith(prefix)]


def _mobilenet_lists(net: MobileNetV3) -> dict[str, list[Entry]]:
    depths = [
        Entry(f"depth_{i + 1}" if len(options) > 1 else None, {depth: depth for depth in options})
        for i, options in enumerate(net.config.depths)
    ]
    return {"ks": _gene_entries(net, "kernel_"), "e": _gene_entries(net, "expand_"), "d": depths}


def _resnet_lists(net: ResNet) -> dict[str, list[Entry]]:
    stages = range(1, len(net.config.widths) + 1)
    # Only the greatest depth of the stem has its residual block.
    stem = {depth: depth if depth == max(net.config.depths) else 0 for depth in net.config.depths}
    depths = [Entry("depth_stem", stem), *(Entry(f"depth_{i}", {d: d for d in net.config.depths}) for i in stages)]
    multipliers = dict(enumerate(net.config.multipliers))
    widths = [Entry(f"width_{i}", multipliers) for i in ("stem", *stages)]
    middle = Entry("width_stem_middle", {i: net.middle_multiplier(m) for i, m in multipliers.items()})
    return {"d": depths, "e": _gene_entries(net, "expand_"), "w": [middle, *widths]}


FAMILIES: dict[type, Callable[[Any], dict[str, list[Entry]]]] = {MobileNetV3: _mobilenet_lists, ResNet: _resnet_lists}
"""For each family: a function that returns the entries of a network's lists, by name, without `r`."""


def _resolution_entries(net: MobileNetV3 | ResNet) -> list[Entry]:
    """Returns the entry of `r`; a network whose resolution is not a gene allows only that of its images."""
    sizes = net.resolutions or net.input_shape[:1]
    return [Entry("resolution" if net.resolutions else None, {size: size for size in sizes})]


def from_ofa(net: MobileNetV3 | ResNet, lists: Mapping[str, Sequence[Any] | np.ndarray | float | None]) -> dict[str, Option]:
    """Converts Once-for-All's lists to named choices, which `net.space.encode` takes.

    `r` is needed if the resolution is a gene; otherwise it may be left out, or is the resolution of the network's images.
    Raises ConfigError for a list that is missing, unexpected or of another length, and for an entry that is not allowed.
    """
    layout = FAMILIES[type(net)](net)
    given = {name: numbers for name, numbers in lists.items() if name != "wid" or numbers is not None}
    if net.resolutions or "r" in given:
        layout["r"] = _resolution_entries(net)
    if set(given) != set(layout):
        raise ConfigError(f"the lists of an architecture are {', '.join(layout)}, not {', '.join(given) or 'none'}")
    choices: dict[str, Option] = {}
    for name, entries in layout.items():
        value: Any = given[name]
        value = value.tolist() if isinstance(value, np.ndarray) else value
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        numbers = list(value) if is_list else [value] * len(entries)
        if len(numbers) != len(entries):
            raise ConfigError(f"list {name!r} has {len(numbers)} entries, {len(entries)} are needed")
        for entry, number in zip(entries, numbers, strict=True):
            if entry.gene is None and not is_list:
                continue  # A single number for all blocks does not concern those without a choice.
            if not isinstance(number, Hashable) or number not in entry.options:
                raise ConfigError(f"list {name!r} cannot hold {number!r}; allowed: {', '.join(map(str, entry.options))}")
            if entry.gene is not None:
                choices[entry.gene] = entry.options[number]
    return net.space.decode(net.space.encode(choices))


def to_ofa(net: MobileNetV3 | ResNet, choices: Mapping[str, Option]) -> dict[str, list[Any]]:
    """Converts named choices to Once-for-All's lists; blocks that are switched off get the smallest entries (ignored there).

    Raises ConfigError for choices that are not a sub-network of `net`.
    """
    chosen = net.space.decode(net.space.encode(choices))
    layout = FAMILIES[type(net)](net) | ({"r": _resolution_entries(net)} if net.resolutions else {})

    def number(entry: Entry) -> Option:
        return next(n for n, option in entry.options.items() if chosen.get(entry.gene or "", option) == option)

    return {name: [number(entry) for entry in entries] for name, entries in layout.items()}
