"""Single-path training (Single Path One-Shot, arXiv:1904.00420): every step trains one random sub-network on the targets."""

from dataclasses import dataclass

from nasjax.training.base import Step, Subnets, TrainerConfig


@dataclass(frozen=True)
class SinglePathConfig(TrainerConfig):
    """Settings: those of all methods. A step takes the time of one sub-network, and teaches no other."""

    def subnets(self, step: Step) -> Subnets:
        return Subnets((), (), step.sample(1), None, (1.0,))
