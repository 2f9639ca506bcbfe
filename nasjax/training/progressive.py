"""Progressive shrinking (Once-for-All, arXiv:1908.09791): the largest first, then elastic kernels, depths and widths.

The largest sub-network is trained alone, and its outputs are learnt from, beside the targets, in all phases that follow.
Each opens more options: of kernel sizes, then depths, then expand ratios, then widths; but for kernels first the second
largest option, then all. Before expand ratios and widths are opened, hidden units are sorted by importance, so that
narrow sub-networks get the units that matter (`SuperNet.sort_units`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from flax import nnx

from nasjax.errors import ConfigError
from nasjax.supernets import SuperNet
from nasjax.supernets.elastic import Conv
from nasjax.training.base import FIXED, Phase, Step, Subnets, TrainerConfig, only_largest

SORTED = ("expand", "width")
"""The dimensions before which hidden units are sorted."""


class Opening(NamedTuple):
    """A published phase: the dimension opened, whether all its options or one more, and share of epochs, learning rate and
    number of sub-networks a step."""

    dimension: str
    whole: bool
    epochs: int
    rate: float
    subnets: int


PUBLISHED = (
    Opening("", True, 180, 1.0, 1),
    Opening("kernel", True, 120, 0.37, 1),
    Opening("depth", False, 25, 0.031, 2),
    Opening("depth", True, 120, 0.092, 2),
    Opening("expand", False, 25, 0.031, 4),
    Opening("expand", True, 120, 0.092, 4),
    Opening("width", False, 25, 0.031, 4),
    Opening("width", True, 120, 0.092, 4),
)
"""Epochs and learning rates of Section 4.1 and of the published training script, rates in relation to the first phase's; for
widths, which the paper does not train so, those of expand ratios. Phases of one size more are left out where two are all."""


PUBLISHED_EPOCHS = 590
"""Of all published phases together, which those for widths are not."""


@dataclass(frozen=True)
class ProgressiveConfig(TrainerConfig):
    """Settings.

    Attributes:
      largest: the share of epochs in which the largest sub-network is trained alone; 0, and the teacher is the network as it
        is given, which must be trained. By default the published share, or 0 for a network with trained weights.
      shrinking_rate: the factor of the learning rates of all phases but the first. The published ones fine-tune through 590
        epochs; with fewer, they are nearer to the first phase's (the published ratio to the power of epochs / 590).
    """

    largest: float = -1.0
    shrinking_rate: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not (self.largest == -1 or 0 <= self.largest < 1):
            raise ConfigError(f"trainer.largest must be at least 0 and below 1, not {self.largest}")
        if self.shrinking_rate <= 0:
            raise ConfigError(f"trainer.shrinking_rate must be above 0, not {self.shrinking_rate}")

    def phases(self, net: SuperNet) -> tuple[Phase, ...]:
        space = net.space
        dimensions, counts = dimensions_of(net), np.array(space.counts)
        sizes = {name: counts[[d == name for d in dimensions]].max() for name in set(dimensions) - {""}}
        if not any(size > 1 for size in sizes.values()):
            raise ConfigError(
                "trainer=progressive opens kernel sizes, depths and widths one after the other; this network has none that "
                "is elastic: trainer=plain trains it"
            )
        openings = [
            opening
            for opening in PUBLISHED
            if not opening.dimension or sizes.get(opening.dimension, 1) > (1 if opening.whole else 2)
        ]
        shares = np.array([opening.epochs for opening in openings], float)
        first = self.largest if self.largest >= 0 else 0.0 if net.untrained is None else shares[0] / shares.sum()
        if first == 0 and net.untrained is not None:
            raise ConfigError(
                "trainer.largest=0 needs a trained network as the teacher: give largest=FILE or supernet.checkpoint"
            )
        shares = np.concatenate([[first], (1 - first) * shares[1:] / shares[1:].sum()])
        needed = int((shares > 0).sum())
        if self.epochs < needed:
            raise ConfigError(f"trainer.epochs={self.epochs} is too few: progressive shrinking has {needed} phases here")
        epochs = shared_out(self.epochs, shares)
        least = np.where([d == "" for d in dimensions], 0, counts - 1)
        phases = []
        for i, (opening, number) in enumerate(zip(openings, epochs, strict=True)):
            opened = np.array([d == opening.dimension for d in dimensions], bool) & (opening.dimension != "")
            least = np.where(opened, 0 if opening.whole else np.maximum(counts - 2, 0), least)
            rate = opening.rate ** min(1.0, self.epochs / PUBLISHED_EPOCHS)
            rate *= self.shrinking_rate if opening.dimension else 1.0
            phases.append(Phase(number, rate, tuple(map(int, least)), PUBLISHED.index(openings[i])))
        return tuple(phases) if epochs[0] else tuple(phases[1:])

    def fixes_teacher(self, phases: Sequence[Phase], index: int) -> bool:
        return PUBLISHED[phases[index].kind].dimension != "" and (
            index == 0 or PUBLISHED[phases[index - 1].kind].dimension == ""
        )

    def reorder(self, net: SuperNet, before: Phase, after: Phase) -> None:
        if not PUBLISHED[before.kind].dimension:
            # Weight decay has made them smaller, and nothing has trained them.
            for _, layer in nnx.iter_modules(net):
                if isinstance(layer, Conv):
                    layer.centre_small_kernels()
        if PUBLISHED[after.kind].dimension in SORTED:
            net.sort_units(before.least)

    def subnets(self, step: Step) -> Subnets:
        opening = PUBLISHED[step.kind]
        if not opening.dimension:
            return only_largest(step)
        return Subnets((), (), step.sample(opening.subnets), FIXED, (1.0,) * opening.subnets)


def dimensions_of(net: SuperNet) -> tuple[str, ...]:
    """The dimension that each gene belongs to: `depth` (of gates), `kernel` (`Stage.sizes_only`), `width` (genes of several
    stages), `expand` (all others); "" for host genes, which are elastic all the time."""
    gates = {stage.gate[0].name for stage in net.stages if stage.gate is not None}
    kernels = {stage.genes[i].name for stage in net.stages for i in stage.sizes_only}
    hosts = {gene.name for gene in net.host_genes}

    def dimension(name: str) -> str:
        if name in hosts:
            return ""
        if name in gates:
            return "depth"
        if name in kernels:
            return "kernel"
        return (
            "width" if len([stage for stage in net.stages if name in [gene.name for gene in stage.genes]]) > 1 else "expand"
        )

    return tuple(dimension(gene.name) for gene in net.space.genes)


def shared_out(number: int, shares: np.ndarray) -> list[int]:
    """`number` epochs in proportion to shares, at least one where a share is above 0: largest remainders get the rest."""
    least = (shares > 0).astype(int)
    wanted = shares / shares.sum() * number
    epochs = np.maximum(np.floor(wanted).astype(int), least)
    while epochs.sum() != number:
        step = 1 if epochs.sum() < number else -1
        spare = np.where((epochs + step >= least) & (shares > 0), step * (wanted - epochs), -np.inf)
        epochs[spare.argmax()] += step
    return epochs.tolist()
