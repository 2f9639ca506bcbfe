"""Hands a sub-network over: sliced out, its batch norms re-calibrated, checked against the super-network, written."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from nasjax.evaluation import PopulationEvaluator
from nasjax.evaluation.resolution import resized
from nasjax.export import run_stablehlo, stablehlo
from nasjax.extract import extract, load, save_network
from nasjax.space import Option
from nasjax.supernets import SuperNet

TOLERANCE = 1e-4
"""The largest difference of logits between the masked super-network and the network handed over."""

ROUNDING = 3e-5
"""What is allowed where logits are large, in parts of the largest: float32 was seen to differ by 1.8e-5."""


@dataclass(frozen=True, eq=False)
class Extracted:
    """A sub-network as a network of its own: `network(images)` are its logits.

    `arch` and `choices` say which it is, `difference` how far its logits were at most from the super-network's on
    validation `pictures` (batch, height, width, channels), whose masked `logits` are kept to check what is written.
    """

    network: SuperNet
    origin: Mapping[str, Any]
    arch: tuple[int, ...]
    choices: Mapping[str, Option]
    difference: float
    pictures: Float[np.ndarray, "batch height width channels"] = field(repr=False)
    logits: Float[np.ndarray, "batch classes"] = field(repr=False)

    def __call__(self, images: Float[np.ndarray | Array, "batch height width channels"]) -> Float[Array, "batch classes"]:
        return self.network(images)

    def save(self, folder: str | Path) -> Path:
        """Writes `network.safetensors` and `config.json`, which `nasjax.load` reads; checked before the folder is there."""
        target = Path(folder)
        if target.exists():
            raise ValueError(f"out={target} exists already; name another folder, or remove it")
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.mkdir(parents=True)
        try:
            save_network(self.network, self.origin, self.arch, partial)
            saved = load(partial)
            self._check(lambda pictures: _answers(saved, lambda network: network(pictures)))
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def export(self, file: str | Path, batch: int | None = None) -> Path:
        """Writes StableHLO for `batch` pictures at a time (None: any number); loaded again and checked before it is there.

        Raises ValueError for a file of another kind than `.stablehlo`, one that exists, or a folder that does not.
        """
        target = Path(file)
        if target.suffix != ".stablehlo":
            raise ValueError(f"{target} is of no known kind; allowed: .stablehlo")
        if target.exists():
            raise ValueError(f"{target} exists already; name another file, or remove it")
        if not target.parent.is_dir():
            raise ValueError(f"{target}: there is no folder {target.parent}")
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            partial.write_bytes(stablehlo(self.network, batch))
            self._check(lambda images: run_stablehlo(partial, images), batch)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _check(self, network: Callable[[Any], Any], batch: int | None = None) -> None:
        """Raises RuntimeError where what was written does not answer as the super-network does."""
        pictures = np.resize(self.pictures, (batch or len(self.pictures), *self.pictures.shape[1:]))
        logits = np.resize(self.logits, (len(pictures), self.logits.shape[1]))
        _difference(logits, network(pictures), self.choices)


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
    logits = _answers(net, lambda net: net.forward(jnp.asarray(pictures), traced, statistics)[0])
    choices = net.space.decode(np.array(arch, np.int32))
    difference = _difference(logits, _answers(network, lambda network: network(pictures)), choices)
    return Extracted(network, net.origin, arch, choices, difference, pictures, logits)


def _answers(net: SuperNet, forward: Callable[[SuperNet], Any]) -> Float[np.ndarray, "batch classes"]:
    """What a network answers, compiled, its weights no constants of the program."""
    graph, weights = nnx.split(net)
    return np.asarray(jax.jit(lambda weights: forward(nnx.merge(graph, weights)))(weights))


def _difference(wanted: Float[np.ndarray, "batch classes"], found: Any, choices: Mapping[str, Option]) -> float:
    """The largest difference. Raises RuntimeError where it is above what is allowed."""
    difference = float(np.abs(wanted - found).max())
    if not difference <= max(TOLERANCE, ROUNDING * float(np.abs(wanted).max())):
        words = ", ".join(f"{name}={value}" for name, value in choices.items())
        raise RuntimeError(f"network {words} answers differently once extracted (by {difference:.1e}): please report this")
    return difference
