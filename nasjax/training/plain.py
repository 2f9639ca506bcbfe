"""Plain training: every step trains the largest sub-network, an extracted network's only one, on the targets."""

from dataclasses import dataclass

from nasjax.training.base import Step, Subnets, TrainerConfig, only_largest


@dataclass(frozen=True)
class PlainConfig(TrainerConfig):
    """Settings: those of all methods. With a teacher (`teacher=FILE`) its outputs count as much as the targets."""

    def subnets(self, step: Step) -> Subnets:
        return only_largest(step)
