"""What predictors read of architectures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class Targets(NamedTuple):
    """Measurements as a predictor fits them: `mean + unit * values`, with variance 1; rows that do not count are 0."""

    counts: Float[Array, " pop"]
    rows: Float[Array, ""]
    mean: Float[Array, ""]
    unit: Float[Array, ""]
    values: Float[Array, " pop"]


def targets(values: Float[Array | ndarray, " pop"], mask: Mask | None) -> Targets:
    """The rows that count have mask True (None: all) and a value that is not NaN; `rows` is their number, at least 1."""
    values = jnp.asarray(values, jnp.float32)
    counts = ~jnp.isnan(values) if mask is None else ~jnp.isnan(values) & mask
    rows = jnp.maximum(counts.astype(jnp.float32).sum(), 1)
    mean = jnp.where(counts, values, 0).sum() / rows
    centred = jnp.where(counts, values - mean, 0)
    unit = jnp.sqrt((centred**2).sum() / rows)
    unit = jnp.where(unit > 0, unit, 1)
    return Targets(counts.astype(jnp.float32), rows, mean, unit, centred / unit)


def held_out(known: Targets, predicted: Float[Array, " pop"]) -> Float[Array, " pop"]:
    """Predictions of rows by models that have not seen them: NaN for rows that do not count, or where there is but one."""
    return jnp.where((known.counts > 0) & (known.rows > 1), predicted, jnp.nan)


def by_family(
    features: Float[Array, "pop features"], known: Targets, families: Float[Array, "features families"]
) -> tuple[Float[Array, " features"], Float[Array, " features"], Float[Array, "pop features"]]:
    """Centre, scale, and the features centred and scaled: a family varies by one unit in all; rows that do not count are 0.

    Scales, lengths and their priors then mean the same in every space.
    """
    centre = (features * known.counts[:, None]).sum(0) / known.rows
    centred = (features - centre[None]) * known.counts[:, None]
    spread = jnp.sqrt(((centred**2).sum(0) @ families) / known.rows)
    scale = families @ jnp.where(spread > 1e-6, spread, 1)
    return centre, scale, centred / scale[None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prior:
    """What an earlier search's values let one expect: models of `predictor`, which read `inputs`, one a value."""

    predictor: Any = field(metadata={"static": True})
    inputs: "Inputs"
    models: tuple[Any, ...]

    def features(self, archs: Population) -> Float[Array, "pop models"]:
        """The expected value by each model."""
        return jnp.stack([self.predictor.predict(self.inputs, model, archs)[0] for model in self.models], 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """A space's features, the logarithm of an exact cost in all and by part (`parts`, jittable), and what a `prior` expects.

    Offers what a `SearchSpace` offers a predictor: `features`, and their `families`, which share a length scale.
    """

    space: SearchSpace = field(metadata={"static": True})
    parts: Callable[[Population], Float[Array, "pop parts"]] | None = field(default=None, metadata={"static": True})
    prior: Prior | None = None

    def features(self, archs: Population) -> Float[Array, "pop features"]:
        """The space's features, then log(cost), then log(1 + cost) of every part, then the prior's values."""
        features = [self.space.features(archs)]
        if self.parts is not None:
            costs = self.parts(archs)
            features += [jnp.log(costs.sum(1, keepdims=True)), jnp.log1p(costs)]
        if self.prior is not None:
            features.append(self.prior.features(archs))
        return jnp.concatenate(features, axis=1)

    @cached_property
    def families(self) -> tuple[int, ...]:
        """Per feature the number of its family: the space's, but one for each option of unordered genes; costs by part.

        Each of the prior's values is a family of its own.
        """
        columns = [
            None if gene.ordered else option
            for gene in self.space.genes
            for option in range(len(gene.options) - (1 if gene.ordered and not gene.needs else 0))
        ]
        named = list(zip(self.space.families, columns, strict=True))
        known = list(dict.fromkeys(named))
        families = [known.index(name) for name in named]
        if self.parts is not None:
            one = jax.ShapeDtypeStruct((1, len(self.space.genes)), jnp.int32)
            families += [len(known), *([len(known) + 1] * jax.eval_shape(self.parts, one).shape[1])]
        first = max(families, default=-1) + 1
        return (*families, *range(first, first + (0 if self.prior is None else len(self.prior.models))))


def membership(inputs: SearchSpace | Inputs) -> Float[Array, "features families"]:
    """One column a family, 1 for its features."""
    families = np.array((inputs if isinstance(inputs, Inputs) else Inputs(inputs)).families, np.int32)
    return jnp.asarray(families[:, None] == np.arange(families.max(initial=0) + 1), jnp.float32)
