"""Single-path training (Single Path One-Shot, arXiv:1904.00420): every step trains one random sub-network on the targets."""

from dataclasses import dataclass

from nasjax.training.base import Step, Subnets, TrainerConfig, only_largest


@dataclass(frozen=True)
class SinglePathConfig(TrainerConfig):
    """Settings: those of all methods. A step takes the time of one sub-network, and teaches no other."""

    def subnets(self, step: Step) -> Subnets:
        if step.space.size == 1:  # An extracted network, which may have a teacher.
            return only_largest(step)
        return Subnets((), (), step.sample(1), None, (1.0,))
