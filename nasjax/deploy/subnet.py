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
from nasjax.evaluation.scoring import finished_totals, program_arguments, score
from nasjax.evaluation.totals import Totals, merged, metric_function, stacked
from nasjax.export import KINDS, kind, reloaded_outputs
from nasjax.export.programs import without_padding
from nasjax.host import new_place
from nasjax.jax_defaults import with_jax_defaults
from nasjax.space import Option
from nasjax.supernets import SUPERNETS, SuperNet, save_network
from nasjax.supernets.extract import extract
from nasjax.supernets.folders import is_network
from nasjax.supernets.runner import Subnet
from nasjax.tasks import Task

TOLERANCE = 1e-4
"""The largest difference between the outputs of the masked super-network and of the extracted network."""

ROUNDING = 3e-5
"""The largest difference relative to the largest output: float32 results differed by up to 1.8e-5."""


@dataclass(frozen=True, eq=False)
class Extracted:
    """An extracted sub-network. `network(inputs)` returns its outputs; `str` has one line for each stage.

    `arch` and `choices` are its architecture. `difference` is the largest difference between its outputs and those of the
    masked super-network on prepared validation `inputs`; these `outputs` verify files when they are written. `files` are
    those of the task's that lie beside the weights, such as vocabularies.
    """

    network: SuperNet = field(repr=False)
    origin: Mapping[str, Any]
    arch: tuple[int, ...]
    choices: Mapping[str, Option]
    difference: float
    inputs: PyTree[np.ndarray] = field(repr=False)
    outputs: PyTree[np.ndarray] = field(repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def __call__(self, inputs: PyTree[np.ndarray | Array]) -> PyTree[Array]:
        return self.network(inputs)

    def __str__(self) -> str:
        return str(self.network)

    @property
    def examples(self) -> int:
        """The number of validation examples used for verification."""
        return len(jax.tree.leaves(self.inputs)[0])

    @with_jax_defaults
    def save(
        self, folder: str | Path, exports: Sequence[str] = (), batch: int | None = None, overwrite: bool = False
    ) -> Path:
        """Writes `network.safetensors` and `config.json`, which `nasjax.load` reads, and files of the suffixes in `exports`.

        All of them are loaded and verified in a separate process before the folder appears. With `overwrite` it takes the
        place of one that was saved before. Raises ConfigError for a folder that exists otherwise, an unknown suffix, a
        missing package, or a network that the format does not support.
        """
        target = Path(folder).resolve() if overwrite else Path(folder)
        replaced = overwrite and is_network(target) and not Path.cwd().is_relative_to(target)
        if not replaced:
            new_place(f"out={folder}", target, "folder")
        others = [file.name for file in target.iterdir() if file.name not in self._written()] if replaced else []
        if others:
            raise ConfigError(f"{folder} has other files, such as {others[0]}: name another folder, or remove it")
        kinds = [kind(suffix) for suffix in exports]
        self._facts()
        partial, before = (target.with_name(f".{target.name}.{os.getpid()}{suffix}") for suffix in ("", ".before"))
        partial.mkdir(parents=True)
        try:
            save_network(self.network, self.origin, self.arch, partial)
            _write(partial, self.files)
            written = [_write(partial, made.make(self.network, self._facts, batch)) for made in kinds]
            self._verify([[partial], *written], batch)
            if replaced:
                os.replace(target, before)
            os.replace(partial, target)
            shutil.rmtree(before, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if before.exists() and not target.exists():
                os.replace(before, target)
        return target

    @with_jax_defaults
    def export(self, file: str | Path, batch: int | None = None, overwrite: bool = False) -> Path:
        """Writes one file of the format that its suffix names (`nasjax.export.KINDS`): .stablehlo, .onnx, .pth,
        .safetensors. An encoder-decoder's `net.onnx` is two, `net.encoder.onnx`, which is returned, and `net.step.onnx`.

        StableHLO and ONNX files take `batch` examples at a time (None: any number). The file is loaded and verified in a
        separate process before it appears, or with `overwrite` takes the place of another. Raises ConfigError as `save`
        does, for a file that exists otherwise, and for a folder that does not.
        """
        target = Path(file)
        names = kind(target.suffix).names(self.network)
        targets = [target] if len(names) == 1 else [target.with_name(f"{target.stem}.{name}") for name in names]
        return self.export_to(targets, batch, overwrite)[0]

    @with_jax_defaults
    def export_to(self, targets: Sequence[Path], batch: int | None = None, overwrite: bool = False) -> Sequence[Path]:
        """Writes the files of one format, as `export` does, to these paths, in the order of `Kind.names`; returns them."""
        made = kind(targets[0].suffix)
        for target in targets:
            if not (overwrite and target.is_file()):
                new_place(str(target), target)
        contents = made.make(self.network, self._facts, batch).values()
        partial = {target.with_name(f".{os.getpid()}.{target.name}"): target for target in targets}
        try:
            self._verify([_write(Path(), dict(zip(partial, contents, strict=True)))], batch)
            for file, target in partial.items():
                os.replace(file, target)
        finally:
            for file in partial:
                file.unlink(missing_ok=True)
        return targets

    def _written(self) -> set[str]:
        """The names of all files that `save` may write."""
        exported = [name for made in KINDS.values() for name in made.names(self.network)]
        return {"config.json", "network.safetensors", *self.files, *exported}

    def _facts(self) -> dict[str, Any]:
        """What `nasjax.load` rebuilds the network from. Raises ConfigError for a super-network that was made in memory."""
        if self.origin["name"] not in SUPERNETS:
            raise ConfigError(
                "the super-network was made in memory and cannot be rebuilt from a file: use nasjax.supernets.create with "
                "its name, or with 'module:Class' for your own class"
            )
        return {"supernet": {**self.origin, "checkpoint": None}, "arch": list(self.arch)}

    def _verify(self, written: Sequence[Sequence[Path]], batch: int | None) -> None:
        """Raises RuntimeError if outputs of the written files, loaded in a separate process, are not the super-network's."""
        number = batch or self.examples

        def resized(leaf: np.ndarray) -> np.ndarray:
            return np.resize(leaf, (number, *leaf.shape[1:]))

        inputs, outputs = jax.tree.map(resized, (self.inputs, self.outputs))
        wanted, *found = (
            without_padding(self.network, inputs, some) for some in (outputs, *reloaded_outputs(written, inputs))
        )
        for one in found:
            _difference(wanted, one, self.choices)


def extract_subnet(
    net: SuperNet, evaluator: PopulationEvaluator, arch: tuple[int, ...], inputs: PyTree[np.ndarray]
) -> Extracted:
    """Extracts the sub-network `arch`, re-calibrated as in its measurement, and verifies it on `inputs`.

    Raises RuntimeError if its outputs are not those of the masked super-network.
    """
    statistics = evaluator.statistics(arch)
    evaluator.release()  # Frees memory to compile two more programs.
    network = extract(net, arch, statistics if net.has_norms else None)
    prepared = jax.tree.map(np.asarray, net.prepare(jax.tree.map(jnp.asarray, inputs), net.host(arch)))
    traced = jnp.asarray(arch, jnp.int32)
    outputs = _outputs(net, lambda net, *given: net.forward(*given)[0], prepared, traced, statistics)
    choices = net.space.decode(np.array(arch, np.int32))
    difference = _difference(outputs, network_outputs(network, prepared), choices)
    return Extracted(network, net.origin, arch, choices, difference, prepared, outputs, evaluator.task.files())


def validation_metrics(networks: Sequence[SuperNet], task: Task, batch: int) -> list[dict[str, float]]:
    """Every metric on the validation examples, `batch` at once, of extracted networks that differ in weights only."""
    graph = nnx.split(networks[0])[0]
    host = networks[0].host((0,) * len(networks[0].space.genes))
    blocks = [block for step in blocks_by_step(task.validation, min(batch, len(task.validation)), 1) for block in step]

    @jax.jit
    def scored(weights: Any, batch: Block) -> Any:
        network = nnx.merge(graph, weights)
        arch = (0,) * len(network.space.genes)
        return score(task, Subnet(network, arch, network.stored(), host), batch)

    def totals(weights: Any, block: Block) -> Totals:
        batch = jax.tree.map(lambda leaf: leaf[0], block)
        return finished_totals(task, scored(weights, program_arguments(batch, task.on_host)), batch)

    metrics_of = metric_function(task)
    metrics = []
    for network in networks:
        weights = nnx.split(network)[1]
        values = metrics_of(stacked([merged(stacked([totals(weights, block) for block in blocks]))]))
        metrics.append({objective.name: values[objective.name].item() for objective in task.objectives})
    return metrics


def network_outputs(network: SuperNet, inputs: PyTree[np.ndarray]) -> PyTree[np.ndarray]:
    """The outputs of an extracted network for prepared inputs."""
    only = (0,) * len(network.space.genes)
    # Not `network(inputs)`, which has JAX's default precision.
    return _outputs(network, lambda net, *given: net.forward(given[0], only, net.stored())[0], inputs)


def _outputs(net: SuperNet, forward: Callable[..., Any], *arguments: Any) -> PyTree[np.ndarray]:
    """`forward(net, *arguments)`; weights are arguments of the program, whose cached form serves all weights.

    Products are in float32 on accelerators, too, whose quickest ones would differ by more than the tolerance.
    """
    graph, weights = nnx.split(net)
    run = jax.jit(lambda weights, *arguments: forward(nnx.merge(graph, weights), *arguments))
    with jax.default_matmul_precision("highest"):
        return jax.tree.map(np.asarray, run(weights, *arguments))


def _write(folder: Path, contents: Mapping[Any, bytes]) -> list[Path]:
    """Writes files by their names; returns their paths."""
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def _difference(expected: PyTree[np.ndarray], outputs: PyTree[np.ndarray], choices: Mapping[str, Option]) -> float:
    """The largest difference between outputs. Raises RuntimeError if it is above the tolerance."""
    worst = 0.0
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(outputs), strict=True):
        difference = float(np.abs(one - np.asarray(other)).max())
        if not difference <= max(TOLERANCE, ROUNDING * float(np.abs(one).max())):
            named = ", ".join(f"{name}={value}" for name, value in choices.items())
            raise RuntimeError(
                f"the outputs of network {named} differ by {difference:.1e} once extracted: please report this"
            )
        worst = max(worst, difference)
    return worst
