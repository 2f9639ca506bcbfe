"""Sub-networks out of super-networks: the same class with one option a gene, its weights sliced and kernels baked in."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from nasjax.supernets import SUPERNETS, load_weights, save_weights
from nasjax.supernets.elastic import Layer, recording
from nasjax.supernets.stage import Choice, Stage, Statistics, SuperNet
from nasjax.tables import settings


def extract_stage(stage: Stage, choice: tuple[int, ...], carry: PyTree, statistics: Statistics | None = None) -> Stage:
    """One stage narrowed to `choice`; `statistics` (full width) replace the stored ones. `carry`: what it is called with."""
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
    """The sub-network `arch` (a static architecture) as a network of its own; stages that it skips are gone.

    `statistics`: the batch-norm statistics to keep, full width, stage by stage; by default the stored ones.
    """
    resolution = net.resolution(arch)
    carry: PyTree = net.example(resolution)
    stages = []
    for i, (stage, choice) in enumerate(zip(net.stages, net.choices(arch), strict=True)):
        assert isinstance(choice, tuple)
        if not stage.skipped(choice):
            stages.append(extract_stage(stage, choice, carry, None if statistics is None else statistics[i]))
        carry = carry_after(stage, choice, carry)
    extracted = nnx.clone(net)
    extracted.stages = nnx.List(stages)
    if resolution is not None:
        extracted.resolutions = (resolution,)
        extracted.input_shape = (resolution, resolution, *net.input_shape[2:])
    return extracted


def carry_after(stage: Stage, choice: Choice, carry: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of what a stage hands on."""
    return jax.eval_shape(lambda x: stage(x, choice, None)[0], carry)


def save_network(net: SuperNet, origin: Mapping[str, Any], arch: tuple[int, ...], folder: Path) -> None:
    """Writes an extracted network: `network.safetensors`, and `config.json`, which says what `load` rebuilds it from."""
    save_weights(net, folder / "network.safetensors", {})
    choices = net.space.decode(np.zeros(len(net.space.genes), np.int32))
    facts = {"supernet": {**origin, "checkpoint": None}, "arch": list(arch), "choices": choices}
    (folder / "config.json").write_text(json.dumps(facts, indent=1))


def load(folder: str | Path) -> SuperNet:
    """The network that `nasjax extract` wrote into a folder: `load(folder)(images)` are its logits.

    Raises ValueError where the folder holds no such network.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise ValueError(f"{folder} holds no extracted network: it has no config.json")
    try:
        facts = json.loads(file.read_text())
        known = {"supernet", "arch", "choices"} <= facts.keys()
    except (ValueError, AttributeError):
        known = False
    if not known:
        raise ValueError(f"{file} was not written by nasjax extract: it does not say which sub-network this is")
    config = settings("supernet", SUPERNETS, facts["supernet"])
    net = load_weights(lambda: extract(config.create(0), tuple(facts["arch"])), Path(folder) / "network.safetensors")
    net.origin = MappingProxyType(facts["supernet"])
    return net
