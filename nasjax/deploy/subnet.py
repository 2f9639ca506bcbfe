"""Hands a sub-network over: sliced out, its batch norms re-calibrated, checked against the super-network, written."""

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
from jaxtyping import Array, Float

from nasjax.errors import ConfigError
from nasjax.evaluation import PopulationEvaluator
from nasjax.export import answers_again, kind
from nasjax.space import Option
from nasjax.supernets import SUPERNETS, SuperNet
from nasjax.supernets.extract import extract
from nasjax.supernets.folders import save_network
from nasjax.supernets.resolution import resized
from nasjax.tasks import ImageClassification

TOLERANCE = 1e-4
"""The largest difference of logits between the masked super-network and the network handed over."""

ROUNDING = 3e-5
"""What is allowed where logits are large, in parts of the largest: float32 was seen to differ by 1.8e-5."""


@dataclass(frozen=True, eq=False)
class Extracted:
    """A sub-network as a network of its own: `network(images)` are its logits; printed, it is a line a stage.

    `arch` and `choices` say which it is, `difference` how far its logits were at most from the super-network's on
    validation `pictures` (batch, height, width, channels), whose masked `logits` are kept to check what is written.
    """

    network: SuperNet = field(repr=False)
    origin: Mapping[str, Any]
    arch: tuple[int, ...]
    choices: Mapping[str, Option]
    difference: float
    pictures: Float[np.ndarray, "batch height width channels"] = field(repr=False)
    logits: Float[np.ndarray, "batch classes"] = field(repr=False)

    def __call__(self, images: Float[np.ndarray | Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        return self.network(images)

    def __str__(self) -> str:
        return str(self.network)

    def save(self, folder: str | Path, exports: Sequence[str] = (), batch: int | None = None) -> Path:
        """Writes `network.safetensors` and `config.json`, which `nasjax.load` reads, and files of the suffixes in `exports`.

        All of them answer right in a process of their own before the folder is there. Raises ConfigError for a folder that
        exists, an unknown suffix, a package that is missing, or a network that such a file cannot hold.
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
            self._check([partial, *files], batch)
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def export(self, file: str | Path, batch: int | None = None) -> Path:
        """Writes one file of the kind that its suffix says (`nasjax.export.KINDS`): .stablehlo, .onnx, .pth, .safetensors.

        StableHLO and ONNX take `batch` pictures at a time (None: any number). It answers right in a process of its own
        before it is there. Raises ConfigError as `save` does, and for a file that exists or a folder that does not.
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
            self._check([partial], batch)
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

    def _check(self, paths: Sequence[Path], batch: int | None) -> None:
        """Raises RuntimeError where what was written does not answer, elsewhere, as the super-network does."""
        pictures = np.resize(self.pictures, (batch or len(self.pictures), *self.pictures.shape[1:]))
        logits = np.resize(self.logits, (len(pictures), self.logits.shape[1]))
        for found in answers_again(paths, pictures):
            _difference(logits, found, self.choices)


def deliver(
    net: SuperNet,
    evaluator: PopulationEvaluator,
    arch: tuple[int, ...],
    pictures: Float[np.ndarray, "batch height width channels"],
) -> Extracted:
    """The sub-network `arch`, its batch norms re-calibrated as when it was measured; checked on `pictures`.

    Raises RuntimeError where its logits are not those of the masked super-network's.
    """
    statistics = evaluator.statistics(arch)
    evaluator.release()  # Two more programs are compiled here.
    network = extract(net, arch, statistics)
    pictures = np.asarray(resized(jnp.asarray(pictures), net.resolution(arch)))
    traced = jnp.asarray(arch, jnp.int32)
    logits = _answers(net, lambda net, *given: net.forward(*given)[0], jnp.asarray(pictures), traced, statistics)
    choices = net.space.decode(np.array(arch, np.int32))
    difference = _difference(logits, answers(network, pictures), choices)
    return Extracted(network, net.origin, arch, choices, difference, pictures, logits)


def scores(networks: Sequence[SuperNet], task: ImageClassification, batch: int) -> list[dict[str, float]]:
    """Every metric of extracted networks that differ in their weights alone, on the validation pictures, `batch` at once."""
    graph = nnx.split(networks[0])[0]
    size = networks[0].resolution((0,))
    held = task.validation

    @jax.jit
    def totals(weights, images, labels):
        return task.scores(nnx.merge(graph, weights)(resized(images, size)), labels).sum(0)

    found = []
    for network in networks:
        weights = nnx.split(network)[1]
        parts = [
            np.asarray(totals(weights, held.images[i : i + batch], held.labels[i : i + batch]), np.float64)
            for i in range(0, len(held), batch)
        ]
        found.append(dict(zip(task.metrics, (np.sum(parts, 0) / len(held)).tolist(), strict=True)))
    return found


def answers(
    network: SuperNet, pictures: Float[np.ndarray, "batch height width channels"]
) -> Float[np.ndarray, "batch classes"]:
    """The logits of an extracted network."""
    return _answers(network, lambda network, images: network(images), pictures)


def _answers(net: SuperNet, forward: Callable[..., Any], *given: Any) -> Float[np.ndarray, "batch classes"]:
    """What a network answers; weights and what is given are no constants of the program, which the cache then finds."""
    graph, weights = nnx.split(net)
    return np.asarray(jax.jit(lambda weights, *given: forward(nnx.merge(graph, weights), *given))(weights, *given))


def _difference(wanted: Float[np.ndarray, "batch classes"], found: Any, choices: Mapping[str, Option]) -> float:
    """The largest difference. Raises RuntimeError where it is above what is allowed."""
    difference = float(np.abs(wanted - found).max())
    if not difference <= max(TOLERANCE, ROUNDING * float(np.abs(wanted).max())):
        words = ", ".join(f"{name}={value}" for name, value in choices.items())
        raise RuntimeError(f"network {words} answers differently once extracted (by {difference:.1e}): please report this")
    return difference
