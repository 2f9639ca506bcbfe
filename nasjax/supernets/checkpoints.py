"""Weights on disk: safetensors, one tensor a weight, named by its place in the network; or as published for PyTorch."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nasjax.errors import ConfigError
from nasjax.supernets.elastic import Dense
from nasjax.supernets.ofa.weights import Published, in_full, published_names, shortened
from nasjax.supernets.supernet import SuperNet

TORCH_FILES = (b"PK\x03\x04", b"\x80")
"""How the files of torch.save begin (zip, and the older pickles); the published ones have no suffix to go by."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How the few lines begin that stand for a file which Git LFS did not fetch."""

KINDS = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
"""Safetensors' names of the types that we read: real numbers that NumPy knows."""

WRAPPERS = ("state_dict", "model", "net")
"""Under which of these names training scripts keep the state dict, beside an optimiser's state and the like."""


def tensors(net: SuperNet) -> dict[str, np.ndarray]:
    """All weights and stored statistics by name, such as `stages.3.depthwise.conv.kernel`."""
    return {_name(path): np.asarray(variable[...]) for path, variable in nnx.to_flat_state(nnx.state(net))}


def save_weights(net: SuperNet, path: Path, facts: dict[str, Any]) -> None:
    """Writes a safetensors file, whole or not at all; `facts` (JSON) say what the network is."""
    data = save(tensors(net), {"nasjax": json.dumps(facts)})
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    os.replace(partial, path)


def load_weights(make: Callable[[], SuperNet], path: Path, classifier: int | None = None) -> SuperNet:
    """The network that `make` builds (its own weights are never computed) with the weights of a file.

    The file: our safetensors, or a published state dict, as PyTorch wrote it or as safetensors under the published names.
    With a seed as `classifier` the file's classifier, which must be of another number of classes, is replaced by a new one.
    Raises ConfigError for a file that cannot be read, or naming the first tensor that is missing, unexpected or misshapen.
    """
    return fill(make, read_tensors(path), str(path), classifier)


CLASSIFIER = "classify"
"""What the heads of our families call their last layer."""


def _classifier(net: SuperNet, seed: int) -> dict[str, Any]:
    """Weights of a new classifier, by name."""
    inputs, classes = getattr(net.stages[-1], CLASSIFIER).kernel.shape
    state = nnx.state(Dense(inputs, classes, rngs=nnx.Rngs(seed)))
    place = f"stages.{len(net.stages) - 1}.{CLASSIFIER}"
    return {f"{place}.{_name(path)}": leaf[...] for path, leaf in nnx.to_flat_state(state)}


def _other_classes(tensor: np.ndarray, variable: Any) -> bool:
    """Whether a classifier's tensor has the shape that is wanted but for the number of classes."""
    return tensor.shape[:-1] == variable.shape[:-1] and tensor.shape[-1:] != variable.shape[-1:]


def fill(
    make: Callable[[], SuperNet], found: Mapping[str, np.ndarray], source: str, classifier: int | None = None
) -> SuperNet:
    """As `load_weights`, from tensors in memory; `source` is what messages call them."""
    net = nnx.eval_shape(make)
    graph, state = nnx.split(net)
    wanted = nnx.to_flat_state(state)
    own = any(_name(place) in found for place, _ in wanted)
    names = {} if own else published_names(net)
    mistake = f"{source} is a checkpoint of another super-network:"
    left = {name: (name, tensor) for name, tensor in found.items()} if own else shortened(dict(found), source)
    drawn = {} if classifier is None else _classifier(net, classifier)
    filled = []
    for place, variable in wanted:
        there = names.get(_name(place), Published(_name(place)))
        if there.name not in left:
            raise ConfigError(f"{mistake} it has no tensor {in_full(there.name, found)!r}")
        name, tensor = left.pop(there.name)
        if _name(place) in drawn and _other_classes(there.ours(tensor), variable):
            filled.append((place, variable.replace(drawn[_name(place)])))
            continue
        if tensor.shape != there.shape(variable.shape):
            misshapen = f"{mistake} tensor {name!r} has shape {tensor.shape}, {there.shape(variable.shape)} is wanted"
            if place[-2] == CLASSIFIER and _other_classes(there.ours(tensor), variable):
                misshapen += "; for classes of your own train a classifier: supernet.new_classifier=true draws one"
            raise ConfigError(misshapen)
        if _name(place) in drawn:
            raise ConfigError(
                f"{source} has a classifier of {variable.shape[-1]} classes: leave supernet.new_classifier out, or change "
                f"supernet.classes"
            )
        filled.append((place, variable.replace(jax.device_put(there.ours(tensor).astype(variable.dtype)))))
    if left:
        raise ConfigError(f"{mistake} tensor {min(left.values())[0]!r} is not wanted")
    return nnx.merge(graph, nnx.from_flat_state(filled))


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file or of a PyTorch state dict, under the names that stand there.

    The `module.` before all names that DataParallel leaves is taken off.
    Raises ConfigError, in one line, for a file that is missing or holds anything else than finite real numbers by name.
    """
    if not path.is_file():
        raise ConfigError(f"supernet.checkpoint={path}: there is no checkpoint {path}")
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if not start:
        raise ConfigError(f"{path} cannot be read as safetensors or PyTorch's: it is empty")
    if start == LFS_POINTER:
        raise ConfigError(f"{path} is a pointer of Git LFS, not the checkpoint itself: `git lfs pull` fetches it")
    # Safetensors begin with eight bytes of length, which may be anything, then with JSON.
    found = _read_torch(path) if start.startswith(TORCH_FILES) and start[8:9] != b"{" else _read_safetensors(path)
    for name, tensor in found.items():
        with np.errstate(over="ignore"):
            finite = np.isfinite(tensor.astype(np.float32)).all()
        if not finite:
            raise ConfigError(f"{path}: tensor {name!r} holds values that are not finite: its training may have diverged")
    return _bare(found)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as tensors:
            names = list(tensors.keys())
            for name in names:
                kind = tensors.get_slice(name).get_dtype()
                if kind not in KINDS:
                    raise ConfigError(f"{path}: tensor {name!r} has type {kind}; allowed: {', '.join(KINDS)}")
            return {name: tensors.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as safetensors ({error}), and is no PyTorch state dict") from error


def _bare(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not all(name.startswith("module.") for name in found):
        return found
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    """A state dict, alone or as one of WRAPPERS; plain tensors only, no code of the file is run."""
    try:
        import torch
    except ImportError:
        raise ConfigError(f"{path} was written by PyTorch: reading it needs torch (pip install torch)") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever a damaged or hostile file leads to
        raise ConfigError(
            f"{path} cannot be read as a PyTorch state dict of plain tensors ({type(error).__name__}): "
            f"nothing else is loaded; save its state_dict alone"
        ) from error
    inside = [name for name in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(name), Mapping)]
    if len(inside) > 1:
        raise ConfigError(f"{path} holds {' and '.join(map(repr, inside))}: which is meant? save one of them alone")
    content = content[inside[0]] if inside else content
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ConfigError(f"{path} holds no state dict, alone or under {', '.join(map(repr, WRAPPERS))}")
    for name, value in content.items():
        if not isinstance(name, str):
            raise ConfigError(f"{path} holds no state dict: {name!r}, of one of its tensors, is not a name")
        kinds = {"sparse": value.layout is not torch.strided, "quantized": value.is_quantized,
                 "complex": value.is_complex(), "without values (device meta)": value.is_meta}  # fmt: skip
        wrong = next((kind for kind, found in kinds.items() if found), None)
        if wrong:
            raise ConfigError(f"{path}: tensor {name!r} is {wrong}; dense tensors of real numbers are wanted")
    return {name: value.detach().float().numpy() for name, value in content.items()}


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
