"""The sandwich rule with in-place distillation (Universally Slimmable Networks, arXiv:1903.05134).

Every step trains the largest sub-network on the targets, and the smallest and some random ones on the largest's outputs, or
without distillation on the targets, too. An extracted network has one sub-network only, which is trained on the targets.
"""

from dataclasses import dataclass

from nasjax.supernets import SuperNet
from nasjax.supernets.families.transformer import Transformer
from nasjax.training.base import Step, Subnets, TrainerConfig, only_largest


@dataclass(frozen=True)
class SandwichConfig(TrainerConfig):
    """Settings.

    Attributes:
      random_subnets: the number of random sub-networks in every step.
      distillation: whether all others learn from the largest's outputs; else from the targets, as in Hardware-aware
        Transformers (arXiv:2005.14187). A Transformer that starts untrained does not learn by distillation.
    """

    random_subnets: int = 2
    distillation: bool = True

    def advice(self, net: SuperNet) -> str:
        if not (self.distillation and net.untrained and isinstance(net, Transformer) and net.space.size > 1):
            return ""
        return (
            "a Transformer that starts untrained learns next to nothing by distillation: train its largest sub-network "
            "first, alone (docs/translation.md)"
        )

    def subnets(self, step: Step) -> Subnets:
        if step.space.size == 1:  # An extracted network has no other sub-network to teach.
            return only_largest(step)
        largest, smallest = (tuple(map(int, arch)) for arch in (step.space.largest(), step.space.smallest()))
        teacher = 0 if self.distillation else None
        drawn = step.sample(self.random_subnets)
        return Subnets((largest, smallest), (None, teacher), drawn, teacher, (1.0,) * (2 + self.random_subnets))
