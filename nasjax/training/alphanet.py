"""AlphaNet (arXiv:2102.07954): the sandwich rule, distilled by the greater of two alpha-divergences."""

from dataclasses import dataclass

from nasjax.tasks.divergences import Divergence, adaptive_alpha
from nasjax.training.sandwich import SandwichConfig


@dataclass(frozen=True)
class AlphaNetConfig(SandwichConfig):
    """Settings: those of the sandwich rule. Gradients are clipped, as the published training does."""

    clip: float = 1.0

    def divergence(self) -> Divergence:
        return adaptive_alpha
