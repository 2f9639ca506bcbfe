"""How a network is drawn: a row of blocks, grouped into units whose depth genes switch blocks on and off."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OutlineBlock:
    """One block of the drawing.

    `kind` is the class of the layer; `genes` are the names of the genes that shape it. Blocks with the same `unit` are
    drawn side by side. `gate=(gene, value)`: the block exists only where that gene is at least `value`; None: always.
    """

    kind: str
    unit: int
    genes: tuple[str, ...]
    gate: tuple[str, float] | None = None

    def is_on(self, chosen: Mapping[str, str]) -> bool:
        """Whether the block exists in an architecture, given the options (as text) of the genes that are switched on."""
        return self.gate is None or (self.gate[0] in chosen and float(chosen[self.gate[0]]) >= self.gate[1])
