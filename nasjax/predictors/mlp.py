"""An ensemble of small neural networks, trained all at once; the cost of a fit grows with the rows, not with their cube."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.errors import ConfigError
from nasjax.predictors.inputs import Inputs, by_family, held_out, membership, targets
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class Layers(NamedTuple):
    """One member: two hidden layers beside a linear one."""

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
    """Root mean squared error of the held-out predictions: the least deviation."""
    held_out: Float[Array, " rows"]
    """Of each row by the member that has not seen it; NaN for rows that do not count."""


@dataclass(frozen=True)
class MLP:
    """`members` networks of two layers of `hidden` units, each fitted to all rows but every `members`-th one of its own.

    `steps` of Adam on all rows at once, with weight decay `decay`.
    """

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
        """The model of the rows that count: mask True (None: all) and value not NaN."""
        known = targets(values, mask)
        centre, scale, features = by_family(inputs.features(archs), known, membership(inputs))
        # Row by row in turn, so that every member leaves out early and late measurements alike.
        turn = (jnp.cumsum(known.counts).astype(jnp.int32) - 1) % self.members
        unseen = (turn[None] == jnp.arange(self.members)[:, None]).astype(jnp.float32)
        weight = known.counts[None] * (1 - unseen)
        weight = weight / jnp.maximum(weight.sum(1, keepdims=True), 1)
        start = jax.vmap(partial(_start, features.shape[1], self.hidden))(jax.random.split(jax.random.key(0), self.members))

        def loss(layers: Layers) -> Float[Array, ""]:
            found = jax.vmap(_output, (0, None))(layers, features)
            return (weight * (found - known.values[None]) ** 2).sum()

        with jax.numpy_dtype_promotion("standard"):  # Optax needs it.
            rates = optax.cosine_decay_schedule(self.rate, self.steps)
            adam = optax.adamw(rates, weight_decay=self.decay)

            def step(carry, _):
                layers, state = carry
                updates, state = adam.update(jax.grad(loss)(layers), state, layers)
                return (optax.apply_updates(layers, updates), state), None

            layers = lax.scan(step, (start, adam.init(start)), length=self.steps)[0][0]
        found = (jax.vmap(_output, (0, None))(layers, features) * unseen).sum(0)
        noise = jnp.sqrt((known.counts * (found - known.values) ** 2).sum() / known.rows)
        others = held_out(known, known.mean + known.unit * found)
        return MLPModel(centre, scale, known.mean, known.unit, layers, known.unit * noise, others)

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: MLPModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Mean of the members; deviation between them, and the cross-validated error beside it."""
        features = (inputs.features(archs) - model.centre[None]) / model.scale[None]
        found = jax.vmap(_output, (0, None))(model.layers, features)
        between = model.unit * found.std(0)
        return model.mean + model.unit * found.mean(0), jnp.sqrt(between**2 + jnp.maximum(model.noise, 1e-6) ** 2)


def _start(features: int, hidden: int, key: Array) -> Layers:
    first, second, last = jax.random.split(key, 3)
    return Layers(
        linear=jnp.zeros(features),
        # Features have unit variance by family, not one by one; a smooth start predicts best from few rows.
        first=0.4 * jax.random.normal(first, (features, hidden)),
        shift=jnp.zeros(hidden),
        second=jax.random.normal(second, (hidden, hidden)) * (1 / hidden) ** 0.5,
        bias=jnp.zeros(hidden),
        last=jax.random.normal(last, (hidden,)) * 0.1 / hidden**0.5,
    )


def _output(layers: Layers, features: Float[Array, "pop features"]) -> Float[Array, " pop"]:
    inner = jax.nn.silu(features @ layers.first + layers.shift[None])
    inner = jax.nn.silu(inner @ layers.second + layers.bias[None])
    return features @ layers.linear + inner @ layers.last
