"""Weights on disk: safetensors, one tensor a weight, named by its place in the network."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nasjax.supernets.stage import SuperNet


def tensors(net: SuperNet) -> dict[str, np.ndarray]:
    """All weights and stored statistics by name, such as `stages.3.depthwise.conv.kernel`."""
    return {_name(path): np.asarray(variable[...]) for path, variable in nnx.to_flat_state(nnx.state(net))}


def save_weights(net: SuperNet, path: Path, facts: dict[str, Any]) -> None:
    """Writes a safetensors file, whole or not at all; `facts` (JSON) say what the network is."""
    data = save(tensors(net), {"nasjax": json.dumps(facts)})
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    os.replace(partial, path)


def load_weights(make: Callable[[], SuperNet], path: Path) -> SuperNet:
    """The network that `make` builds (its own weights are never computed) with the weights of a file.

    Raises ValueError for a file that cannot be read, or naming the first tensor that is missing, unexpected or misshapen.
    """
    graph, state = nnx.split(nnx.eval_shape(make))
    found = _read(path)
    wanted = nnx.to_flat_state(state)
    filled = []
    for place, variable in wanted:
        name = _name(place)
        if name not in found:
            raise ValueError(f"{path} is a checkpoint of another super-network: it has no tensor {name!r}")
        tensor = found.pop(name)
        if tensor.shape != variable.shape:
            raise ValueError(
                f"{path} is a checkpoint of another super-network: tensor {name!r} has shape {tensor.shape}, "
                f"{variable.shape} is wanted"
            )
        filled.append((place, variable.replace(jnp.asarray(tensor, variable.dtype))))
    if found:
        raise ValueError(f"{path} is a checkpoint of another super-network: tensor {min(found)!r} is not wanted")
    return nnx.merge(graph, nnx.from_flat_state(filled))


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error})") from error


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
