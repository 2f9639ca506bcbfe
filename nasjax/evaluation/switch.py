"""Population evaluation by `lax.switch`: sub-networks run one after the other, each stage branches over its static choices.

A sub-network takes its own cost only, the same program serves every population, and memory holds one sub-network at a time.
Between stages the carry has its full width: branches slice it, and pad their outputs with zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from nasjax.evaluation.memory import Needs, compiler_bytes, network_bytes
from nasjax.evaluation.micro_batched import MicroBatched, micro_batched
from nasjax.evaluation.population import StrategyConfig
from nasjax.evaluation.programs import Programs, in_turn
from nasjax.supernets.elastic import Branching, Recalibrate
from nasjax.supernets.stage import Choice, Stage, Statistics
from nasjax.supernets.supernet import SuperNet
from nasjax.tasks import Task


@dataclass(frozen=True)
class SwitchConfig(StrategyConfig):
    """Runs one sub-network after the other, each at its own cost, with one program: for full-size networks."""

    def needs(self, net: SuperNet) -> Needs:
        return Needs(network_bytes(net), compiler_bytes(net, Switched), together=False)

    def strategy(self, net: SuperNet, task: Task, spare: float, mesh: Mesh | None = None) -> Programs:
        return Programs(net, task, Switched, in_turn, mesh)


class Switched(MicroBatched):
    """A super-network that runs a traced architecture at the cost of its sub-network.

    Consecutive stages of equal structure are compiled once, as one loop.
    """

    def __init__(self, net: SuperNet):
        super().__init__(net)
        bare = [nnx.split(stage.bare()) for stage in net.stages]
        groups = groupby(range(len(bare)), key=lambda i: (net.stages[i].repeated, bare[i][0], _shapes(bare[i][1])))
        indices = [list(group) for _, group in groups]
        self.groups = [(group, bare[group[0]][0], _stacked([bare[i][1] for i in group])) for group in indices]

    def forward(
        self,
        carry: PyTree,
        arch: Choice,
        statistics: tuple[Statistics, ...] | Recalibrate | None,
        start: int | None = None,
        stop: int | None = None,
    ) -> tuple[PyTree, tuple[Statistics, ...]]:
        choices = self.net.choices(arch)
        used: list[Statistics] = []
        wanted = range(len(choices))[start:stop]
        for group, graph, weights in self.groups:
            if group[0] not in wanted:
                continue
            stages = [self.net.stages[i] for i in group]
            options = tuple(gene.options for gene in stages[0].genes)
            run = partial(_run, graph, stages[0].sizes_only, options, any(stage.gate is not None for stage in stages))
            branches = _stacked([_branch_index(stage, choices[i]) for stage, i in zip(stages, group, strict=True)])
            known = _stacked([statistics[i] for i in group]) if isinstance(statistics, tuple) else statistics
            rows = (weights, branches, known)
            first = jax.tree.map(lambda leaf: leaf[0], rows)
            in_micro_batches = isinstance(statistics, tuple) and start is None

            def step(
                carry: PyTree, row: Any, run: Any = run, in_micro_batches: bool = in_micro_batches
            ) -> tuple[PyTree, Statistics]:
                if not in_micro_batches:
                    return run(carry, row)
                return micro_batched(lambda carry: run(carry, row)[0], carry, row[0]), row[2]

            if len(group) > 1 and _shapes(jax.eval_shape(run, carry, first)[0]) == _shapes(carry):
                carry, moments = lax.scan(step, carry, rows)
                used += [jax.tree.map(lambda leaf, i=i: leaf[i], moments) for i in range(len(group))]
                continue
            for i in range(len(group)):
                carry, moments = step(carry, jax.tree.map(lambda leaf, i=i: leaf[i], rows))
                used.append(moments)
        return carry, tuple(used)


def _shapes(tree: PyTree) -> Any:
    """Structure, shapes and types: equal for trees that can replace each other in a loop."""
    return jax.tree.structure(tree), tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))


def _stacked(trees: list[Any]) -> Any:
    """One tree of the stacked leaves of several."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(
    graph: nnx.GraphDef,
    inner: tuple[int, ...],
    options: tuple[tuple[Any, ...], ...],
    gated: bool,
    carry: PyTree,
    row: tuple[Any, tuple[Int[Array, ""], Int[Array, " inner"]], Any],
) -> tuple[PyTree, Statistics]:
    """Runs the stage of a `row`: its weights, the index of its branch and of its `inner` genes' options, its statistics."""
    weights, (branch_index, indices), statistics = row

    def stage(choice: tuple[Any, ...], carry: PyTree, weights: Any, statistics: Any) -> tuple[PyTree, Statistics]:
        return nnx.merge(graph, weights).forward(carry, choice, {} if statistics is None else statistics)

    choices = _branch_choices(inner, options)
    shapes, unchanged = zip(*(_outputs(partial(stage, one), carry, weights, statistics) for one in choices), strict=True)
    full, kept = shapes[-1], set.intersection(*unchanged)
    before = dict(jax.tree_util.tree_leaves_with_path(carry))

    def covering(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        """The shape that holds what a stage returns, and what it got, which may be more in an extracted network."""
        old = before.get(path)
        if old is None or old.ndim != leaf.ndim:
            return leaf
        return jax.ShapeDtypeStruct(tuple(map(max, leaf.shape, old.shape)), leaf.dtype)

    if gated:
        full = jax.tree_util.tree_map_with_path(covering, full)

    def changed(carry: PyTree) -> list[Any]:
        return [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(carry) if path not in kept]

    def branch(choice: tuple[int, ...]) -> Any:
        def run(carry: PyTree, weights: Any, statistics: Any, indices: Any) -> tuple[list[Any], Statistics]:
            mixed: list[Any] = list(choice)
            for index, gene in zip(indices, inner, strict=True):
                mixed[gene] = Branching(options[gene], index)
            narrow, used = stage(tuple(mixed), carry, weights, statistics)
            return changed(jax.tree.map(padded, narrow, full)), used

        return run

    def skipped(carry: PyTree, weights: Any, statistics: Any, indices: Any) -> tuple[list[Any], Statistics]:
        known = isinstance(statistics, dict) and statistics
        return changed(jax.tree.map(padded, carry, full)), known or nnx.merge(graph, weights).stored()

    branches = [*map(branch, choices), *([skipped] if gated else [])]
    new, used = lax.switch(branch_index, branches, carry, weights, statistics, indices)
    following = iter(new)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(full)]
    leaves = [before[path] if path in kept else next(following) for path in paths]
    return jax.tree.unflatten(jax.tree.structure(full), leaves), used


def _outputs(run: Callable[..., Any], carry: PyTree, *others: Any) -> tuple[PyTree[jax.ShapeDtypeStruct], set[Any]]:
    """The shapes of the carry that a stage returns, and the paths of the leaves that it returns as it got them.

    A conditional would copy these, and a decoder's carry has caches that most stages do not touch.
    """
    kept: set[Any] = set()

    def noting(carry: PyTree, *others: Any) -> PyTree:
        after = run(carry, *others)[0]
        before = dict(jax.tree_util.tree_leaves_with_path(carry))
        kept.update(path for path, leaf in jax.tree_util.tree_leaves_with_path(after) if before.get(path) is leaf)
        return after

    return jax.eval_shape(noting, carry, *others), kept


def _branch_choices(inner: tuple[int, ...], options: tuple[tuple[Any, ...], ...]) -> list[tuple[int, ...]]:
    """The choices with a branch each: all options of the genes, but of `inner` genes the last only."""
    lengths = (range(len(of)) if gene not in inner else [len(of) - 1] for gene, of in enumerate(options))
    return list(product(*lengths))


def branches(net: SuperNet) -> int:
    """The number of branches that are compiled for a super-network: those of stages of equal structure once."""
    number = {}
    for stage in net.stages:
        graph, weights = nnx.split(nnx.eval_shape(lambda stage=stage: stage.bare()))
        choices = _branch_choices(stage.sizes_only, tuple(gene.options for gene in stage.genes))
        number[repr((graph, _shapes(weights)))] = len(choices) + (stage.gate is not None)
    return sum(number.values())


def _branch_index(stage: Stage, choice: Choice) -> tuple[Int[Array, ""], Int[Array, " inner"]]:
    """The index of a choice's branch (last gene fastest; the last branch skips the stage), and of its `inner` options."""
    indices: list[int | Array] = list(choice if stage.gate is None else choice[1:])
    branch = jnp.int32(0)
    for gene, index in enumerate(indices):
        if gene not in stage.sizes_only:
            branch = branch * len(stage.genes[gene].options) + index
    if stage.gate is not None:
        branches = len(_branch_choices(stage.sizes_only, tuple(gene.options for gene in stage.genes)))
        branch = jnp.where(stage.skipped(choice), branches, branch)
    return branch, jnp.asarray([indices[gene] for gene in stage.sizes_only], jnp.int32)


def padded(narrow: Array, full: jax.ShapeDtypeStruct) -> Array:
    """The array padded with zeros to the full shape."""
    if narrow.shape == full.shape:  # A scalar too, which cannot be padded.
        return narrow
    return jnp.pad(narrow, [(0, to - size) for size, to in zip(narrow.shape, full.shape, strict=True)])
