"""A network as it is drawn: blocks in a row, in units that a depth makes longer or shorter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

# Pages are drawn without JAX, which takes long to import.
if TYPE_CHECKING:
    from nasjax.supernets.stage import Stage


@dataclass(frozen=True)
class Block:
    """A stage with choices: its class, the genes that shape it, and the gate (gene, least value) that may leave it out.

    Blocks of one `unit` stand beside each other; where a unit has a depth, it leaves out the last of them.
    """

    kind: str
    unit: int
    genes: tuple[str, ...]
    gate: tuple[str, float] | None = None

    def on(self, chosen: Mapping[str, str]) -> bool:
        """Whether it is there in an architecture: the options, as text, of the genes that exist."""
        return self.gate is None or (self.gate[0] in chosen and float(chosen[self.gate[0]]) >= self.gate[1])


def outline(stages: Sequence["Stage"]) -> tuple[Block, ...]:
    """The stages that genes shape or leave out, in order.

    A unit ends where the class of the stages changes, or where an optional stage is followed by one that its depth does not
    rule. A gene that an earlier unit reads is the width of what comes in, and shapes a block only where no other does.
    """
    blocks: list[Block] = []
    before: Stage | None = None
    earlier: set[str] = set()
    current: set[str] = set()
    unit = -1
    for stage in stages:
        ruled = None if before is None or before.gate is None else before.gate[0]
        if type(stage) is not type(before) or (ruled is not None and (stage.gate is None or stage.gate[0] != ruled)):
            unit, earlier, current = unit + 1, earlier | current, set()
        names = tuple(gene.name for gene in stage.genes)
        own = tuple(name for name in names if name not in earlier) or names
        current |= set(names)
        before = stage
        if names or stage.gate is not None:
            gate = stage.gate and (stage.gate[0].name, stage.gate[1])
            blocks.append(Block(type(stage).__name__, unit, own, gate))
    return tuple(blocks)
