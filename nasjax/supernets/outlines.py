"""The outline of a super-network: the blocks that reports draw it as."""

from collections.abc import Sequence

from nasjax.outline import OutlineBlock
from nasjax.supernets.stage import Stage


def outline(stages: Sequence[Stage]) -> tuple[OutlineBlock, ...]:
    """One block for each stage that reads genes or can be skipped, in order.

    A new unit begins where the class of stages changes, and after a stage whose gate the next one does not share. A gene
    that an earlier unit reads too is the width of the stage's inputs; it is omitted from the block's genes unless the stage
    reads no other.
    """
    blocks: list[OutlineBlock] = []
    previous: Stage | None = None
    earlier: set[str] = set()  # Genes that earlier units read.
    current: set[str] = set()  # Genes that this unit reads.
    unit = -1
    for stage in stages:
        depth = None if previous is None or previous.gate is None else previous.gate[0]
        if type(stage) is not type(previous) or (depth is not None and (stage.gate is None or stage.gate[0] != depth)):
            unit, earlier, current = unit + 1, earlier | current, set()
        names = tuple(gene.name for gene in stage.genes)
        shaping = tuple(name for name in names if name not in earlier) or names
        current |= set(names)
        previous = stage
        if names or stage.gate is not None:
            gate = stage.gate and (stage.gate[0].name, stage.gate[1])
            blocks.append(OutlineBlock(type(stage).__name__, unit, shaping, gate))
    return tuple(blocks)
