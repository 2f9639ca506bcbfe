"""Ensemble of small neural networks, trained together; the time of a fit grows linearly with the number of rows."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.errors import ConfigError
from nasjax.predictors.inputs import Inputs, group_membership, mask_held_out, scale_by_group, standardise_targets
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class Layers(NamedTuple):
    """Weights of one member: two hidden layers, and a linear layer from features to output beside them."""

    linear: Float[Array, " features"]
    first: Float[Array, "features hidden"]
    shift: Float[Array, " hidden"]
    second: Float[Array, "hidden hidden"]
    bias: Float[Array, " hidden"]
    last: Float[Array, " hidden"]


class MLPModel(NamedTuple):
    """A fitted ensemble; `layers` has a leading axis of members."""

    centre: Float[Array, " features"]
    scale: Float[Array, " features"]
    mean: Float[Array, ""]
    unit: Float[Array, ""]
    layers: Layers
    noise: Float[Array, ""]
    """Root mean squared error of the held-out predictions; the least standard deviation that is predicted."""
    held_out: Float[Array, " rows"]
    """Predictions of each row by the member that has not seen it; NaN for invalid rows."""


@dataclass(frozen=True)
class MLP:
    """Ensemble of `members` networks with two layers of `hidden` units; each is fitted without every `members`-th row.

    Training takes `steps` full-batch steps of AdamW with learning rate `rate` (cosine decay) and weight decay `decay`.
    Raises ConfigError for invalid settings.
    """

    max_rows: ClassVar[float] = math.inf

    members: int = 8
    hidden: int = 32
    steps: int = 200
    rate: float = 0.03
    decay: float = 1.0

    def __post_init__(self):
        for name, least in (("members", 2), ("hidden", 1), ("steps", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"predictor.{name} must be at least {least}, not {getattr(self, name)}")
        if not self.rate > 0:
            raise ConfigError(f"predictor.rate must be above 0, not {self.rate}")
        if not self.decay >= 0:
            raise ConfigError(f"predictor.decay must be at least 0, not {self.decay}")

    @partial(jax.jit, static_argnums=0)
    def fit(
        self,
        inputs: SearchSpace | Inputs,
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> MLPModel:
        """Fits the valid rows: mask True (None: all) and value not NaN."""
        known = standardise_targets(values, mask)
        centre, scale, features = scale_by_group(inputs.features(archs), known, group_membership(inputs))
        # Rows take turns, so that every member leaves out both early and late measurements.
        fold_of_row = (jnp.cumsum(known.counts).astype(jnp.int32) - 1) % self.members
        unseen = (fold_of_row[None] == jnp.arange(self.members)[:, None]).astype(jnp.float32)
        weight = known.counts[None] * (1 - unseen)
        weight = weight / jnp.maximum(weight.sum(1, keepdims=True), 1)
        start = jax.vmap(partial(_initial_layers, features.shape[1], self.hidden))(
            jax.random.split(jax.random.key(0), self.members)
        )

        def loss(layers: Layers) -> Float[Array, ""]:
            outputs = jax.vmap(_forward, (0, None))(layers, features)
            return (weight * (outputs - known.values[None]) ** 2).sum()

        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            rates = optax.cosine_decay_schedule(self.rate, self.steps)
            adam = optax.adamw(rates, weight_decay=self.decay)

            def step(carry, _):
                layers, state = carry
                updates, state = adam.update(jax.grad(loss)(layers), state, layers)
                return (optax.apply_updates(layers, updates), state), None

            layers = lax.scan(step, (start, adam.init(start)), length=self.steps)[0][0]
        outputs = (jax.vmap(_forward, (0, None))(layers, features) * unseen).sum(0)
        noise = jnp.sqrt((known.counts * (outputs - known.values) ** 2).sum() / known.rows)
        others = mask_held_out(known, known.mean + known.unit * outputs)
        return MLPModel(centre, scale, known.mean, known.unit, layers, known.unit * noise, others)

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: MLPModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Mean of the members; standard deviation from their disagreement and the cross-validated error."""
        features = (inputs.features(archs) - model.centre[None]) / model.scale[None]
        outputs = jax.vmap(_forward, (0, None))(model.layers, features)
        between = model.unit * outputs.std(0)
        return model.mean + model.unit * outputs.mean(0), jnp.sqrt(between**2 + jnp.maximum(model.noise, 1e-6) ** 2)


def _initial_layers(features: int, hidden: int, key: Array) -> Layers:
    """Random initial weights of one member."""
    first, second, last = jax.random.split(key, 3)
    return Layers(
        linear=jnp.zeros(features),
        # Features have unit variance per group, not each; a smooth initial function predicts best from few rows.
        first=0.4 * jax.random.normal(first, (features, hidden)),
        shift=jnp.zeros(hidden),
        second=jax.random.normal(second, (hidden, hidden)) * (1 / hidden) ** 0.5,
        bias=jnp.zeros(hidden),
        last=jax.random.normal(last, (hidden,)) * 0.1 / hidden**0.5,
    )


def _forward(layers: Layers, features: Float[Array, "pop features"]) -> Float[Array, " pop"]:
    """The output of one member for each row."""
    inner = jax.nn.silu(features @ layers.first + layers.shift[None])
    inner = jax.nn.silu(inner @ layers.second + layers.bias[None])
    return features @ layers.linear + inner @ layers.last
