"""Once-for-All's own way to write an architecture, which DyNAS-T uses too: lists `ks`, `e`, `d`, or `d`, `e`, `w`.

The lists have an entry for every block, switched on or not; a single number stands for a list of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nasjax.space import Option
from nasjax.supernets.mobilenet_v3 import MobileNetV3
from nasjax.supernets.resnet import ResNet


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


def from_ofa(net: MobileNetV3 | ResNet, lists: Mapping[str, Sequence[Any] | float]) -> dict[str, Option]:
    """The named choices that `net.space.encode` takes, from OFA's lists.

    Raises ValueError for a list that is missing, unexpected or of another length, and for an entry that is not allowed.
    """
    places = FAMILIES[type(net)](net)
    if set(lists) != set(places):
        raise ValueError(f"the lists of an architecture are {', '.join(places)}, not {', '.join(lists) or 'none'}")
    choices: dict[str, Option] = {}
    for name, entries in places.items():
        given = lists[name]
        numbers = list(given) if isinstance(given, Sequence) else [given] * len(entries)
        if len(numbers) != len(entries):
            raise ValueError(f"list {name!r} has {len(numbers)} entries, {len(entries)} are wanted")
        for entry, number in zip(entries, numbers, strict=True):
            if entry.gene is None:
                continue
            if number not in entry.options:
                raise ValueError(f"list {name!r} cannot hold {number!r}; allowed: {', '.join(map(str, entry.options))}")
            choices[entry.gene] = entry.options[number]
    return net.space.decode(net.space.encode(choices))


def to_ofa(net: MobileNetV3 | ResNet, choices: Mapping[str, Option]) -> dict[str, list[Any]]:
    """OFA's lists for named choices; entries of blocks that are switched off, which it ignores, are the smallest."""
    return {
        name: [
            next(n for n, option in entry.options.items() if choices.get(entry.gene, option) == option) for entry in entries
        ]
        for name, entries in FAMILIES[type(net)](net).items()
    }
