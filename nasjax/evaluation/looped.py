"""A super-network run for a traced architecture, stages that follow one another and are alike as one loop: compiled once."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import PyTree

from nasjax.evaluation.few import few_at_a_time
from nasjax.supernets.stage import Choice, Stage, Statistics, SuperNet

Run = Callable[[PyTree, tuple[Any, Any, Any]], tuple[PyTree, Statistics]]
"""(carry, (weights, what is told, statistics or None)) -> (carry, statistics used): one stage."""


class Looped(ABC):
    """`forward` as `SuperNet.forward`, for a traced architecture. Sub-classes say how one stage runs."""

    def __init__(self, net: SuperNet):
        self.net = net
        bare = [nnx.split(stage.bare()) for stage in net.stages]
        indices = [list(group) for _, group in groupby(range(len(bare)), key=lambda i: (bare[i][0], shapes(bare[i][1])))]
        self.groups = [(group, bare[group[0]][0], _stacked([bare[i][1] for i in group])) for group in indices]

    @abstractmethod
    def told(self, stage: Stage, choice: Choice) -> PyTree:
        """What `run` is told of a stage's choice; arrays that are stacked for stages that are alike."""

    @abstractmethod
    def run(self, graph: nnx.GraphDef, stages: list[Stage]) -> Run:
        """How each of some stages that are alike runs; `graph` is theirs, without gate."""

    def stored(self) -> tuple[Statistics, ...]:
        """The batch-norm statistics kept with the weights, stage by stage."""
        return self.net.stored()

    def forward(
        self, carry: PyTree, arch: Choice, statistics: tuple[Statistics, ...] | None
    ) -> tuple[PyTree, tuple[Statistics, ...]]:
        choices = self.net.choices(arch)
        used: list[Statistics] = []
        for group, graph, weights in self.groups:
            stages = [self.net.stages[i] for i in group]
            run = self.run(graph, stages)
            told = _stacked([self.told(stage, choices[i]) for stage, i in zip(stages, group, strict=True)])
            rows = (weights, told, None if statistics is None else _stacked([statistics[i] for i in group]))
            first = jax.tree.map(lambda leaf: leaf[0], rows)

            def step(carry: PyTree, row: Any, run: Run = run) -> tuple[PyTree, Statistics]:
                if statistics is None:
                    return run(carry, row)
                return few_at_a_time(lambda few: run(few, row)[0], carry, row[0]), row[2]

            if len(group) > 1 and shapes(jax.eval_shape(run, carry, first)[0]) == shapes(carry):
                carry, moments = lax.scan(step, carry, rows)
                used += [jax.tree.map(lambda leaf, i=i: leaf[i], moments) for i in range(len(group))]
                continue
            for i in range(len(group)):
                carry, moments = step(carry, jax.tree.map(lambda leaf, i=i: leaf[i], rows))
                used.append(moments)
        return carry, tuple(used)


def shapes(tree: PyTree) -> Any:
    """Structure, shapes and types: equal where two trees may stand for one another in a loop."""
    return jax.tree.structure(tree), tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
