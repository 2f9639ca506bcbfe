"""Single-path training (Single Path One-Shot, arXiv:1904.00420): every step trains one random sub-network on the targets."""

from dataclasses import dataclass

import jax.numpy as jnp

from nasjax.space import SearchSpace
from nasjax.training.loop import Subnets, TrainerConfig
from nasjax.types import PRNGKey


@dataclass(frozen=True)
class SinglePathConfig(TrainerConfig):
    """Settings: those of all methods. A step takes the time of one sub-network, and teaches no other."""

    def subnets(self, space: SearchSpace, key: PRNGKey) -> Subnets:
        return Subnets((), (), jnp.asarray(space.sample_raw(key, 1)), None, (1.0,))
