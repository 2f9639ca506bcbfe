"""Extracts, re-calibrates, verifies and exports a sub-network."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree

from nasjax.errors import ConfigError
from nasjax.evaluation import PopulationEvaluator
from nasjax.evaluation.blocks import Block, blocks_by_step
from nasjax.evaluation.programs import host_totals
from nasjax.evaluation.totals import Totals, batch_totals, in_float64, merged, metric_function
from nasjax.export import kind, reloaded_outputs
from nasjax.space import Option
from nasjax.supernets import SUPERNETS, SuperNet, save_network
from nasjax.supernets.extract import extract
from nasjax.supernets.runner import Subnet
from nasjax.tasks import Task

TOLERANCE = 1e-4
"""The largest difference between the outputs of the masked super-network and of the extracted network."""

ROUNDING = 3e-5
"""What is allowed where outputs are large, in parts of the largest: float32 was seen to differ by 1.8e-5."""


@dataclass(frozen=True, eq=False)
class Extracted:
    """A sub-network as a network of its own: `network(inputs)` are its outputs; printed, it is a line a stage.

    `arch` and `choices` say which it is, `difference` how far its outputs were at most from the super-network's on
    validation `inputs`, as it reads them, whose masked `outputs` are kept to verify what is written.
    """

    network: SuperNet = field(repr=False)
    origin: Mapping[str, Any]
    arch: tuple[int, ...]
    choices: Mapping[str, Option]
    difference: float
    inputs: PyTree[np.ndarray] = field(repr=False)
    outputs: PyTree[np.ndarray] = field(repr=False)

    def __call__(self, inputs: PyTree[np.ndarray | Array]) -> PyTree[Array]:
        return self.network(inputs)

    def __str__(self) -> str:
        return str(self.network)

    @property
    def examples(self) -> int:
        """The number of validation examples that it was verified on."""
        return len(jax.tree.leaves(self.inputs)[0])

    def save(self, folder: str | Path, exports: Sequence[str] = (), batch: int | None = None) -> Path:
        """Writes `network.safetensors` and `config.json`, which `nasjax.load` reads, and files of the suffixes in `exports`.

        All of them are loaded in a process of their own, and verified, before the folder is there. Raises ConfigError for a
        folder that exists, an unknown suffix, a package that is missing, or a network that such a file cannot hold.
        """
        target = Path(folder)
        if target.exists():
            raise ConfigError(f"out={target} exists already; name another folder, or remove it")
        kinds = {suffix: kind(suffix) for suffix in exports}
        facts = self._facts()
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.mkdir(parents=True)
        try:
            save_network(self.network, self.origin, self.arch, partial)
            files = [partial / f"{made.stem}{suffix}" for suffix, made in kinds.items()]
            for file, made in zip(files, kinds.values(), strict=True):
                file.write_bytes(made.make(self.network, facts, batch))
            self._verify([partial, *files], batch)
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def export(self, file: str | Path, batch: int | None = None) -> Path:
        """Writes one file of the format that its suffix names (`nasjax.export.KINDS`): .stablehlo, .onnx, .pth,
        .safetensors.

        StableHLO and ONNX take `batch` examples at a time (None: any number). It is loaded in a process of its own, and
        verified, before it is there. Raises ConfigError as `save` does, and for a file that exists or a folder that does
        not.
        """
        target = Path(file)
        made = kind(target.suffix)
        if target.exists():
            raise ConfigError(f"{target} exists already; name another file, or remove it")
        if not target.parent.is_dir():
            raise ConfigError(f"{target}: there is no folder {target.parent}")
        partial = target.with_name(f".{os.getpid()}.{target.name}")
        try:
            partial.write_bytes(made.make(self.network, self._facts() if made.stem == "ofa" else {}, batch))
            self._verify([partial], batch)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _facts(self) -> dict[str, Any]:
        """What a reader makes the network from. Raises ConfigError where nothing says how the super-network was made."""
        if self.origin["name"] not in SUPERNETS:
            raise ConfigError(
                "the super-network was made in memory and cannot be made again: nasjax.supernets.create makes it by name, "
                "a class of your own as 'module:Class'"
            )
        return {"supernet": {**self.origin, "checkpoint": None}, "arch": list(self.arch)}

    def _verify(self, paths: Sequence[Path], batch: int | None) -> None:
        """Raises RuntimeError where what was written has other outputs, elsewhere, than the super-network."""
        number = batch or self.examples

        def resized(leaf: np.ndarray) -> np.ndarray:
            return np.resize(leaf, (number, *leaf.shape[1:]))

        inputs, outputs = jax.tree.map(resized, (self.inputs, self.outputs))
        for found in reloaded_outputs(paths, inputs):
            _difference(outputs, found, self.choices)


def extract_subnet(
    net: SuperNet, evaluator: PopulationEvaluator, arch: tuple[int, ...], inputs: PyTree[np.ndarray]
) -> Extracted:
    """The sub-network `arch`, its batch norms re-calibrated as when it was measured; verified on `inputs`.

    Raises RuntimeError where its outputs are not those of the masked super-network.
    """
    statistics = evaluator.statistics(arch)
    evaluator.release()  # Two more programs are compiled here.
    network = extract(net, arch, statistics if net.has_norms else None)
    prepared = jax.tree.map(np.asarray, net.prepare(jax.tree.map(jnp.asarray, inputs), net.host(arch)))
    traced = jnp.asarray(arch, jnp.int32)
    outputs = _outputs(net, lambda net, *given: net.forward(*given)[0], prepared, traced, statistics)
    choices = net.space.decode(np.array(arch, np.int32))
    difference = _difference(outputs, network_outputs(network, prepared), choices)
    return Extracted(network, net.origin, arch, choices, difference, prepared, outputs)


def validation_metrics(networks: Sequence[SuperNet], task: Task, batch: int) -> list[dict[str, float]]:
    """Every metric of extracted networks that differ in their weights alone, on the validation examples, `batch` at once."""
    graph = nnx.split(networks[0])[0]
    host = networks[0].host((0,) * len(networks[0].space.genes))
    blocks = [block for step in blocks_by_step(task.validation, min(batch, len(task.validation)), 1) for block in step]

    @jax.jit
    def scored(weights: Any, batch: Block) -> Any:
        network = nnx.merge(graph, weights)
        arch = (0,) * len(network.space.genes)
        outputs = task.outputs(Subnet(network, arch, network.stored(), host), batch.inputs)
        return outputs if task.on_host else batch_totals(task.statistics(outputs, batch.targets), batch.weights)

    def totals(weights: Any, block: Block) -> Totals:
        found = scored(weights, jax.tree.map(lambda leaf: leaf[0], block))
        if not task.on_host:
            return in_float64(found)
        one = host_totals(task, jax.tree.map(lambda leaf: np.asarray(leaf)[None, None], found), block)
        return Totals(*(part[0] for part in one))

    described = metric_function(task)
    found = []
    for network in networks:
        weights = nnx.split(network)[1]
        parts = [totals(weights, block) for block in blocks]
        whole = merged(Totals(*(np.stack(part) for part in zip(*parts, strict=True))))
        values = described(Totals(*(part[None] for part in whole)))
        found.append({objective.name: values[objective.name].item() for objective in task.objectives})
    return found


def network_outputs(network: SuperNet, inputs: PyTree[np.ndarray]) -> PyTree[np.ndarray]:
    """The outputs of an extracted network."""
    return _outputs(network, lambda network, inputs: network(inputs), inputs)


def _outputs(net: SuperNet, forward: Callable[..., Any], *arguments: Any) -> PyTree[np.ndarray]:
    """`forward(net, *arguments)`; weights and arguments are no constants of the program, which the cache then finds."""
    graph, weights = nnx.split(net)
    run = jax.jit(lambda weights, *arguments: forward(nnx.merge(graph, weights), *arguments))
    return jax.tree.map(np.asarray, run(weights, *arguments))


def _difference(wanted: PyTree[np.ndarray], found: PyTree[np.ndarray], choices: Mapping[str, Option]) -> float:
    """The largest difference. Raises RuntimeError where it is above what is allowed."""
    worst = 0.0
    for one, other in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        difference = float(np.abs(one - np.asarray(other)).max())
        if not difference <= max(TOLERANCE, ROUNDING * float(np.abs(one).max())):
            named = ", ".join(f"{name}={value}" for name, value in choices.items())
            raise RuntimeError(
                f"the outputs of network {named} differ by {difference:.1e} once extracted: please report this"
            )
        worst = max(worst, difference)
    return worst
