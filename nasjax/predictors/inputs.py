"""Inputs and targets of predictors: features of architectures and standardised values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.graphs import Graph, graph_features
from nasjax.predictors.base import Model, Predictor
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class Targets(NamedTuple):
    """Standardised measurements: the measured values are `mean + unit * values`."""

    counts: Float[Array, " pop"]
    """1 for valid rows, 0 for the others."""
    rows: Float[Array, ""]
    """The number of valid rows, at least 1."""
    mean: Float[Array, ""]
    unit: Float[Array, ""]
    """The standard deviation of the measured values; 1 if they are constant."""
    values: Float[Array, " pop"]
    """Mean 0 and variance 1; 0 for invalid rows."""


def standardise_targets(values: Float[Array | ndarray, " pop"], mask: Mask | None) -> Targets:
    """Standardises the values of the valid rows: those whose mask is True (None: all) and whose value is not NaN."""
    values = jnp.asarray(values, jnp.float32)
    counts = ~jnp.isnan(values) if mask is None else ~jnp.isnan(values) & mask
    rows = jnp.maximum(counts.astype(jnp.float32).sum(), 1)
    mean = jnp.where(counts, values, 0).sum() / rows
    centred = jnp.where(counts, values - mean, 0)
    unit = jnp.sqrt((centred**2).sum() / rows)
    unit = jnp.where(unit > 0, unit, 1)
    return Targets(counts.astype(jnp.float32), rows, mean, unit, centred / unit)


def mask_held_out(known: Targets, predicted: Float[Array, " pop"]) -> Float[Array, " pop"]:
    """Cross-validated predictions with NaN for invalid rows, and for all rows if only one is valid."""
    return jnp.where((known.counts > 0) & (known.rows > 1), predicted, jnp.nan)


def scale_by_group(
    features: Float[Array, "pop features"], known: Targets, groups: Float[Array, "features groups"]
) -> tuple[Float[Array, " features"], Float[Array, " features"], Float[Array, "pop features"]]:
    """Centre, scale, and the features standardised by group: variances within a group add up to 1; invalid rows are 0.

    Kernel scales and their priors then mean the same in every search space.
    """
    centre = (features * known.counts[:, None]).sum(0) / known.rows
    centred = (features - centre[None]) * known.counts[:, None]
    spread = jnp.sqrt(((centred**2).sum(0) @ groups) / known.rows)
    scale = groups @ jnp.where(spread > 1e-6, spread, 1)
    return centre, scale, centred / scale[None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prior:
    """Models of earlier searches' measurements, one per metric and search; their predictions are features of a new search.

    `predictor` fitted the `models` on `inputs`; `lacking` has for each the genes, by position, that its search did not have.
    """

    predictor: Predictor = field(metadata={"static": True})
    inputs: "Inputs"
    models: tuple[Model, ...]
    lacking: tuple[tuple[int, ...], ...] = field(metadata={"static": True})

    def features(self, archs: Population) -> Float[Array, "pop models"]:
        """The mean that each model predicts, of architectures whose lacking genes have their last options."""
        last, archs = jnp.asarray(self.inputs.space.counts, jnp.int32) - 1, jnp.asarray(archs)
        means = []
        for model, lacking in zip(self.models, self.lacking, strict=True):
            if lacking:
                known = archs.at[:, list(lacking)].set(last[jnp.asarray(lacking)][None])
                means.append(self.predictor.predict(self.inputs, model, self.inputs.space.canonical(known))[0])
            else:
                means.append(self.predictor.predict(self.inputs, model, archs)[0])
        return jnp.stack(means, 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inputs:
    """Features of architectures: those of the space, of a graph, logarithms of an exact cost, and predictions of a prior.

    `graph` is that of a space of cells. `parts` (jittable) returns the exact cost of each part of the network, such as its
    multiply-accumulates per stage. Predictors use the same interface as of `SearchSpace`: `features`, and `feature_groups`,
    which share a length scale.
    """

    space: SearchSpace = field(metadata={"static": True})
    parts: Callable[[Population], Float[Array, "pop parts"]] | None = field(default=None, metadata={"static": True})
    graph: Graph | None = field(default=None, metadata={"static": True})
    prior: Prior | None = None

    def features(self, archs: Population) -> Float[Array, "pop features"]:
        """The features of the space and graph, log(total cost), log(1 + cost) of each part, then the prior's predictions."""
        features = [self.space.features(archs)]
        if self.graph is not None:
            features += graph_features(self.graph, archs)
        if self.parts is not None:
            costs = self.parts(archs)
            features += [jnp.log(costs.sum(1, keepdims=True)), jnp.log1p(costs)]
        if self.prior is not None:
            features.append(self.prior.features(archs))
        return jnp.concatenate(features, axis=1)

    @cached_property
    def feature_groups(self) -> tuple[int, ...]:
        """Per feature the number of its group.

        The space's groups come first, where each option of an unordered gene is a separate group, and all genes of a graph
        are one; then each kind of the graph's features, the total cost, the costs of all parts together, and each of the
        prior's predictions.
        """
        columns = [
            (i, None if gene.ordered else option)
            for i, gene in enumerate(self.space.genes)
            for option in range(len(gene.options) - (1 if gene.ordered and not gene.needs else 0))
        ]
        of_graph = frozenset() if self.graph is None else self.graph.columns
        named = [
            None if gene in of_graph else (group, option)
            for group, (gene, option) in zip(self.space.feature_groups, columns, strict=True)
        ]
        known = list(dict.fromkeys(named))
        groups = [known.index(name) for name in named]
        widths: list[int] = []  # Of the groups that follow.
        one = jax.ShapeDtypeStruct((1, len(self.space.genes)), jnp.int32)
        if self.graph is not None:
            widths += [part.shape[1] for part in jax.eval_shape(partial(graph_features, self.graph), one)]
        if self.parts is not None:
            widths += [1, jax.eval_shape(self.parts, one).shape[1]]
        if self.prior is not None:
            widths += [1] * len(self.prior.models)
        return (*groups, *(len(known) + i for i, width in enumerate(widths) for _ in range(width)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KnownInputs(Inputs):
    """Inputs of one population, whose features were computed before: `features` returns these."""

    known: Float[Array, "pop features"] | None = None

    def features(self, archs: Population) -> Float[Array, "pop features"]:
        assert self.known is not None
        return self.known


def group_membership(inputs: SearchSpace | Inputs) -> Float[Array, "features groups"]:
    """Indicator matrix: element (f, g) is 1 if feature f belongs to group g."""
    groups = np.array((inputs if isinstance(inputs, Inputs) else Inputs(inputs)).feature_groups, np.int32)
    return jnp.asarray(groups[:, None] == np.arange(groups.max(initial=0) + 1), jnp.float32)
