"""Extraction of sub-networks: the same class with one option for each gene, its weights sliced, its kernels transformed."""

from dataclasses import replace

import jax
from flax import nnx
from jaxtyping import PyTree

from nasjax.supernets.elastic import Layer, recording
from nasjax.supernets.stage import Choice, Stage, Statistics
from nasjax.supernets.supernet import SuperNet


def extract_stage(stage: Stage, choice: tuple[int, ...], carry: PyTree, statistics: Statistics | None = None) -> Stage:
    """The stage with weights sliced to `choice`. `carry`: shapes of its inputs; `statistics`: full width, stored in it."""
    with recording() as calls:
        jax.eval_shape(lambda x: stage(x, choice, None), carry)
    narrowed = nnx.clone(stage)
    if statistics is not None:
        narrowed.keep(statistics)
    sizes = [calls.get(id(module)) for _, module in nnx.iter_modules(stage)]
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
    for i, (stage, choice) in enumerate(zip(net.stages, net.choices(arch), strict=True)):
        if not stage.skipped(choice):
            own_statistics = None if statistics is None else statistics[i]
            stages.append(extract_stage(stage, choice, carry, own_statistics))  # type: ignore[arg-type]
        carry = carry_after(stage, choice, carry)
    extracted = nnx.clone(net)
    extracted.stages = nnx.List(stages)
    extracted.fix_host(host)
    return extracted


def carry_after(stage: Stage, choice: Choice, carry: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of the carry that a stage returns."""
    return jax.eval_shape(lambda x: stage(x, choice, None)[0], carry)
