"""Population evaluation branch by branch: sub-networks in turn, each stage a `lax.switch` over what it may be.

Only what a sub-network consists of is computed; what is compiled is the same for every population, and memory holds one
sub-network. Between stages the carry has its largest width: a branch slices it and pads it back with zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from nasjax.evaluation.evaluator import EvaluatorConfig
from nasjax.evaluation.memory import Needs, compiler_bytes, network_bytes
from nasjax.evaluation.programs import Programs
from nasjax.supernets.stage import Choice, Stage, Statistics, SuperNet
from nasjax.tasks import ImageClassification


@dataclass(frozen=True)
class SwitchConfig(EvaluatorConfig):
    """One sub-network after the other, each at its own cost: for full-size networks. Compiles once, whatever is measured."""

    def needs(self, net: SuperNet) -> Needs:
        return Needs(network_bytes(net), compiler_bytes(net, Switched), together=False)

    def way(self, net: SuperNet, task: ImageClassification, spare: float, mesh: Mesh | None = None) -> Programs:
        return Programs(net, task, Switched, in_turn, mesh)


def in_turn(function: Callable[..., Any], number: Int[Array, ""], *populations: Any) -> Any:
    """The first `number` rows one after the other; zeros for the rest."""

    def row(i: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[i], populations)

    rows = len(jax.tree.leaves(populations)[0])
    nothing = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), jax.eval_shape(function, *row(0)))

    def add(i: Any, found: Any) -> Any:
        return jax.tree.map(lambda whole, new: whole.at[i].set(new), found, function(*row(i)))

    return lax.fori_loop(0, number, add, nothing)


class Switched:
    """A super-network that computes, for a traced architecture, no more than its sub-network; stages that follow one
    another and are alike run as one loop, so that they are compiled once."""

    def __init__(self, net: SuperNet):
        self.net = net
        bare = [nnx.split(stage.bare()) for stage in net.stages]
        indices = [list(group) for _, group in groupby(range(len(bare)), key=lambda i: (bare[i][0], _shapes(bare[i][1])))]
        self.groups = [(group, bare[group[0]][0], _stacked([bare[i][1] for i in group])) for group in indices]

    def forward(
        self, carry: PyTree, arch: Choice, statistics: tuple[Statistics, ...] | None
    ) -> tuple[PyTree, tuple[Statistics, ...]]:
        """As `SuperNet.forward`, for a traced architecture."""
        choices = self.net.choices(arch)
        used: list[Statistics] = []
        for group, graph, weights in self.groups:
            stages = [self.net.stages[i] for i in group]
            counts = tuple(len(gene.options) for gene in stages[0].genes)
            run = partial(_run, graph, counts, any(stage.gate is not None for stage in stages))
            places = jnp.stack([_place(stage, choices[i]) for stage, i in zip(stages, group, strict=True)])
            given = None if statistics is None else _stacked([statistics[i] for i in group])
            rows = (weights, places, given)
            first = jax.tree.map(lambda leaf: leaf[0], rows)
            if len(group) > 1 and _shapes(jax.eval_shape(run, carry, first)[0]) == _shapes(carry):
                carry, moments = lax.scan(run, carry, rows)
                used += [jax.tree.map(lambda leaf, i=i: leaf[i], moments) for i in range(len(group))]
                continue
            for i in range(len(group)):
                carry, moments = run(carry, jax.tree.map(lambda leaf, i=i: leaf[i], rows))
                used.append(moments)
        return carry, tuple(used)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _run(
    graph: nnx.GraphDef, counts: tuple[int, ...], gated: bool, carry: PyTree, row: tuple[Any, Int[Array, ""], Any]
) -> tuple[PyTree, Statistics]:
    """One stage, of `row`: its weights, the place of its choice among the branches, its statistics."""
    weights, place, statistics = row

    def stage(choice: tuple[int, ...], carry: PyTree, weights: Any, statistics: Any) -> tuple[PyTree, Statistics]:
        return nnx.merge(graph, weights)(carry, choice, statistics)

    choices = list(product(*map(range, counts)))
    whole = jax.eval_shape(partial(stage, choices[-1]), carry, weights, statistics)[0]

    def branch(choice: tuple[int, ...]) -> Any:
        def taken(carry: PyTree, weights: Any, statistics: Any) -> tuple[PyTree, Statistics]:
            narrow, used = stage(choice, carry, weights, statistics)
            return jax.tree.map(_padded, narrow, whole), used

        return taken

    def skipped(carry: PyTree, weights: Any, statistics: Any) -> tuple[PyTree, Statistics]:
        return carry, statistics or nnx.merge(graph, weights).stored()

    branches = [*map(branch, choices), *([skipped] if gated else [])]
    return lax.switch(place, branches, carry, weights, statistics)


def _place(stage: Stage, choice: Choice) -> Int[Array, ""]:
    """Which branch a stage's choice is: the options of its genes, the last varying fastest; the last branch skips it."""
    counts = tuple(len(gene.options) for gene in stage.genes)
    own = choice if stage.gate is None else choice[1:]
    place = jnp.int32(0)
    for count, index in zip(counts, own, strict=True):
        place = place * count + index
    return place if stage.gate is None else jnp.where(stage.skipped(choice), prod(counts), place)


def _padded(narrow: Array, whole: jax.ShapeDtypeStruct) -> Array:
    return jnp.pad(narrow, [(0, to - size) for size, to in zip(narrow.shape, whole.shape, strict=True)])


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _shapes(tree: PyTree) -> Any:
    return jax.tree.structure(tree), tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))
