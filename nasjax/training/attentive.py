"""AttentiveNAS (arXiv:2011.09011): the sandwich rule whose random sub-networks are the best, or the worst, of their size."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from nasjax.errors import ConfigError
from nasjax.training.base import Step, Subnets
from nasjax.training.sandwich import SandwichConfig
from nasjax.types import Population

POOL = 64
"""Among so many random sub-networks the candidates are those nearest in multiply-accumulates to the first."""

ATTENTION = {"best_up": 1.0, "worst_up": -1.0}
"""By what factor of the losses the candidates are ranked, the least first."""


@dataclass(frozen=True)
class AttentiveConfig(SandwichConfig):
    """Settings.

    Attributes:
      attention: `best_up` trains, of candidates of equal multiply-accumulates, the one with the least loss on the step's
        batch, `worst_up` the one with the greatest (Section 3.2).
      candidates: how many are compared, each for a forward pass.
    """

    attention: str = "best_up"
    candidates: int = 3

    def __post_init__(self):
        super().__post_init__()
        if self.attention not in ATTENTION:
            raise ConfigError(f"trainer.attention={self.attention} is unknown; allowed: {', '.join(ATTENTION)}")
        if not 2 <= self.candidates <= POOL:
            raise ConfigError(f"trainer.candidates must be 2 to {POOL}, not {self.candidates}")

    def subnets(self, step: Step) -> Subnets:
        chosen = super().subnets(step)
        if not len(chosen.traced):
            return chosen
        keys = jax.random.split(step.key, self.random_subnets)
        candidates = jnp.concatenate([self._candidates(step, key) for key in keys])
        scores = ATTENTION[self.attention] * step.losses(candidates).reshape(self.random_subnets, self.candidates)
        best = scores.argmin(1) + self.candidates * jnp.arange(self.random_subnets)
        return chosen._replace(traced=candidates[best])

    def _candidates(self, step: Step, key: jax.Array) -> Population:
        """Sub-networks of nearly equal multiply-accumulates, which are those of a random one: their distribution's prior."""
        pool = step.sample(POOL, key)
        macs = step.macs(pool)
        return pool[jnp.argsort(jnp.abs(macs - macs[0]), stable=True)[: self.candidates]]
