"""Extraction of sub-networks: the same class with one option for each gene, its weights sliced, its kernels transformed."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
from flax import nnx
from jaxtyping import PyTree

from nasjax.supernets.layer import Layer, recording
from nasjax.supernets.stage import Stage, Statistics
from nasjax.supernets.supernet import SuperNet


def extract_stage(stage: Stage, choice: tuple[int, ...], carry: PyTree, statistics: Statistics | None = None) -> Stage:
    """The stage with weights sliced to `choice`. `carry`: shapes of its inputs; `statistics`: full width, stored in it."""
    narrowed = nnx.clone(stage)
    if statistics is not None:
        narrowed.keep(statistics)
    sizes, _ = _traced(stage, choice, carry)
    for (_, module), size in zip(list(nnx.iter_modules(narrowed)), sizes, strict=True):
        if isinstance(module, Layer) and size is not None:
            module.narrow(**size)
    fixed = tuple(replace(gene, options=(gene.options[i],)) for gene, i in zip(stage.reads, choice, strict=True))
    if stage.gate is not None:
        narrowed.gate = (fixed[0], stage.gate[1])
    narrowed.genes = fixed[len(fixed) - len(stage.genes) :]
    return narrowed


def extract(net: SuperNet, arch: tuple[int, ...], statistics: tuple[Statistics, ...] | None = None) -> SuperNet:
    """The sub-network `arch` (a static architecture) as a separate network, without the stages that it skips.

    `statistics`: batch-norm statistics to store in it, full width, stage by stage; by default the super-network's.
    """
    host = net.host(arch)
    carry: PyTree = net.example(host)
    stages = []
    choices: tuple[tuple[int, ...], ...] = net.choices(arch)  # type: ignore[assignment]
    for i, (stage, choice) in enumerate(zip(net.stages, choices, strict=True)):
        if not stage.skipped(choice):
            own_statistics = None if statistics is None else statistics[i]
            stages.append(extract_stage(stage, choice, carry, own_statistics))
        carry = carry_after(stage, choice, carry)
    extracted = nnx.clone(net)
    extracted.stages = nnx.List(stages)
    extracted.fix_host(host)
    extracted.tie()
    return extracted


def carry_after(stage: Stage, choice: tuple[int, ...], carry: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of the carry that a stage returns."""
    return _traced(stage, choice, carry)[1]


Sizes = tuple[Mapping[str, int] | None, ...]
"""The static sizes that each module of a stage is called with; None if it is no layer or is not called."""


def _traced(stage: Stage, choice: tuple[int, ...], carry: PyTree) -> tuple[Sizes, PyTree[jax.ShapeDtypeStruct]]:
    """The sizes that the stage's layers are called with, and the shapes of the carry that it returns."""
    graph, weights = nnx.split(stage)
    leaves, tree = jax.tree.flatten((weights, carry))
    given = graph, choice, tree, tuple(map(_shape, leaves))
    try:
        hash(graph)
    except TypeError:  # a setting of a user's stage, such as a dict, which no cache can look up
        return _traced_shapes.__wrapped__(*given)
    return _traced_shapes(*given)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=getattr(leaf, "weak_type", False))


@lru_cache(maxsize=4096)
def _traced_shapes(
    graph: nnx.GraphDef, choice: tuple[int, ...], tree: Any, shapes: tuple[jax.ShapeDtypeStruct, ...]
) -> tuple[Sizes, PyTree[jax.ShapeDtypeStruct]]:
    """Networks share most stages, and a trace takes tens of milliseconds, so that results are kept."""
    sizes: list[Mapping[str, int] | None] = []

    def run(weights: PyTree, carry: PyTree) -> PyTree:
        stage = nnx.merge(graph, weights)
        with recording() as calls:
            after = stage(carry, choice, None)[0]
        sizes.extend(calls.get(id(module)) for _, module in nnx.iter_modules(stage))
        return after

    after = jax.eval_shape(run, *jax.tree.unflatten(tree, shapes))
    return tuple(sizes), after
