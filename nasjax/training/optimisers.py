"""Optimisers and learning-rate schedules by name; all are optax's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from nasjax.errors import ConfigError

BACK = 0.5
"""Lookahead goes so far from the slow weights to the fast ones (arXiv:1907.08610)."""

Mask = Callable[[PyTree], PyTree]

OPTIMISERS: Mapping[str, Callable[[float, Mask], optax.GradientTransformation]] = {
    "adamw": lambda decay, mask: optax.adamw(1.0, weight_decay=decay, mask=mask),
    "sgd": lambda decay, mask: optax.chain(
        optax.add_decayed_weights(decay, mask), optax.sgd(1.0, momentum=0.9, nesterov=True)
    ),
    "lamb": lambda decay, mask: optax.lamb(1.0, weight_decay=decay, mask=mask),
    "lion": lambda decay, mask: optax.lion(1.0, weight_decay=decay, mask=mask),
    "rmsprop": lambda decay, mask: optax.chain(optax.add_decayed_weights(decay, mask), optax.rmsprop(1.0, momentum=0.9)),
}
"""Every optimiser by name, at learning rate 1: the updates are scaled by each step's."""

SCHEDULES: Mapping[str, Callable[[int, int], optax.Schedule]] = {
    "cosine": lambda warm, steps: optax.warmup_cosine_decay_schedule(0.0, 1.0, warm, steps),
    "linear": lambda warm, steps: _after_warm_up(warm, optax.linear_schedule(1.0, 0.0, steps - warm)),
    "constant": lambda warm, steps: _after_warm_up(warm, optax.constant_schedule(1.0)),
}
"""Every schedule by name, of steps of warm-up and of all steps; its greatest value is 1."""


@dataclass(frozen=True)
class Optimisation:
    """Settings of the optimiser.

    Attributes:
      learning_rate: the greatest of the schedule.
      optimizer: `adamw`, `sgd` (Nesterov momentum .9), `lamb`, `lion` or `rmsprop`.
      schedule: `cosine`, `linear` (both to 0) or `constant`.
      warmup: the share of steps, at the beginning, in which the learning rate rises from 0.
      weight_decay, decay_vectors: of all weights; of matrices and kernels only, with `decay_vectors=false`.
      clip: the greatest norm of a gradient, which is scaled down to it; 0: any.
      ema: the result is the moving average of the weights with this decay; 0: the weights themselves.
      lookahead: every so many steps weights go half-way back to those before (arXiv:1907.08610); 0: never.
    """

    learning_rate: float = 4e-3
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: float = 0.05
    weight_decay: float = 1e-2
    decay_vectors: bool = True
    clip: float = 0.0
    ema: float = 0.0
    lookahead: int = 0

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ConfigError(f"trainer.learning_rate must be above 0, not {self.learning_rate}")
        for name in ("weight_decay", "clip", "lookahead"):
            if getattr(self, name) < 0:
                raise ConfigError(f"trainer.{name} must be at least 0, not {getattr(self, name)}")
        for name in ("warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name} must be at least 0 and below 1, not {getattr(self, name)}")
        for name, allowed in (("optimizer", OPTIMISERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} is unknown; allowed: {', '.join(allowed)}")


class Optimised(NamedTuple):
    """An optimiser's state: optax's moments, the number of steps, and slow or averaged weights, where there are any."""

    moments: Any
    steps: Array
    slow: Any
    average: Any


def _after_warm_up(warm: int, schedule: optax.Schedule) -> optax.Schedule:
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warm), schedule], [warm])


def learning_rates(settings: Optimisation, steps: int) -> Float[np.ndarray, " steps"]:
    """The learning rate of each of so many steps."""
    schedule = SCHEDULES[settings.schedule](int(settings.warmup * steps), steps)
    return settings.learning_rate * np.asarray(jax.vmap(schedule)(jnp.arange(steps)), np.float32)


def _optax(settings: Optimisation) -> optax.GradientTransformation:
    """Optax's transformation of gradients to updates, at learning rate 1."""

    def mask(weights: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: settings.decay_vectors or leaf.ndim > 1, weights)

    optimiser = OPTIMISERS[settings.optimizer](settings.weight_decay, mask)
    return optax.chain(optax.clip_by_global_norm(settings.clip), optimiser) if settings.clip else optimiser


def begin(settings: Optimisation, weights: PyTree) -> Optimised:
    """The state before the first step."""
    slow, average = (weights if wanted else None for wanted in (settings.lookahead, settings.ema))
    return Optimised(_optax(settings).init(weights), jnp.zeros((), jnp.int32), slow, average)


def update(
    settings: Optimisation, state: Optimised, weights: PyTree, gradient: PyTree, rate: Float[Array, ""]
) -> tuple[PyTree, Optimised]:
    """The weights and the state after a step with learning rate `rate`; within jit."""
    updates, moments = _optax(settings).update(gradient, state.moments, weights)
    weights = optax.apply_updates(weights, jax.tree.map(lambda leaf: rate * leaf, updates))
    steps, slow, average = state.steps + 1, state.slow, state.average
    if settings.lookahead:
        due = steps % settings.lookahead == 0
        slow = jax.tree.map(lambda new, old: jnp.where(due, old + BACK * (new - old), old), weights, slow)
        weights = jax.tree.map(lambda new, back: jnp.where(due, back, new), weights, slow)
    if settings.ema:
        average = optax.incremental_update(weights, average, 1 - settings.ema)
    return weights, Optimised(moments, steps, slow, average)


def result(state: Optimised, weights: PyTree) -> PyTree:
    """The weights that training gives: the average, the slow ones, or the last ones."""
    return next(tree for tree in (state.average, state.slow, weights) if tree is not None)
