"""Weights on disk: nasjax's safetensors, named by place in the network, and state dicts published for PyTorch."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nasjax.errors import ConfigError
from nasjax.host import replace_file
from nasjax.supernets.elastic import Dense
from nasjax.supernets.ofa.weights import PublishedTensor, by_canonical_name, published_names, spelled_like
from nasjax.supernets.supernet import SuperNet

TORCH_PREFIXES = (b"PK\x03\x04", b"\x80")
"""First bytes of files of torch.save (zip, and the older pickle); published checkpoints often have no suffix."""

LFS_PREFIX = b"version https://git-lfs.github.com/spec/"
"""First bytes of the pointer that stands for a file which Git LFS has not fetched."""

SAFETENSORS_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
"""The element types that are read, as safetensors names them: real numbers that NumPy has."""

STATE_DICT_KEYS = ("state_dict", "model", "net")
"""Keys under which training scripts keep the state dict, beside the optimiser's state and the like."""

CLASSIFIER = "classify"
"""The attribute name of the last layer in the heads of our families."""


def tensors(net: SuperNet) -> dict[str, np.ndarray]:
    """Returns all weights and stored batch-norm statistics by name, such as `stages.3.depthwise.conv.kernel`."""
    return {_dotted(path): np.asarray(variable[...]) for path, variable in nnx.to_flat_state(nnx.state(net))}


def save_weights(net: SuperNet, path: Path, metadata: dict[str, Any]) -> None:
    """Writes all weights to a safetensors file, atomically; `metadata` is stored with them as JSON."""
    replace_file(path, save(tensors(net), {"nasjax": json.dumps(metadata)}))


def load_weights(make: Callable[[], SuperNet], path: Path, classifier_seed: int | None = None) -> SuperNet:
    """Returns the network that `make` builds, with the weights of a file; its own weights are never computed.

    The file is a safetensors file that nasjax wrote, or a published state dict: as PyTorch wrote it, or as safetensors under
    the published names. With a `classifier_seed` the file's classifier, which must have another number of classes, is
    replaced by a newly initialised one. Raises ConfigError for a file that cannot be read, and for a checkpoint of another
    network, naming the first tensor that is missing, unexpected or of another shape.
    """
    return fill(make, read_tensors(path), str(path), classifier_seed)


def _new_classifier(net: SuperNet, seed: int) -> dict[str, jax.Array]:
    """Returns the weights of a newly initialised classifier, by name."""
    inputs, classes = getattr(net.stages[-1], CLASSIFIER).kernel.shape
    state = nnx.state(Dense(inputs, classes, rngs=nnx.Rngs(seed)))
    prefix = f"stages.{len(net.stages) - 1}.{CLASSIFIER}"
    return {f"{prefix}.{_dotted(path)}": leaf[...] for path, leaf in nnx.to_flat_state(state)}


def _differs_in_classes(tensor: np.ndarray, variable: nnx.Variable) -> bool:
    """Whether a classifier's tensor has the shape of `variable` except for the number of classes."""
    return tensor.shape[:-1] == variable.shape[:-1] and tensor.shape[-1:] != variable.shape[-1:]


def fill(
    make: Callable[[], SuperNet], given: Mapping[str, np.ndarray], source: str, classifier_seed: int | None = None
) -> SuperNet:
    """Returns the network that `make` builds, with the tensors `given`; otherwise as `load_weights`.

    `source` names the tensors in messages.
    """
    net = nnx.eval_shape(make)
    graph, state = nnx.split(net)
    variables = nnx.to_flat_state(state)
    ours = any(_dotted(path) in given for path, _ in variables)
    published = {} if ours else published_names(net)
    mistake = f"{source} is a checkpoint of another super-network:"
    left = {name: (name, tensor) for name, tensor in given.items()} if ours else by_canonical_name(given, source)
    new_classifier = {} if classifier_seed is None else _new_classifier(net, classifier_seed)
    filled = []
    for path, variable in variables:
        own_name = _dotted(path)
        stored = published.get(own_name, PublishedTensor(own_name))
        if stored.name not in left:
            raise ConfigError(f"{mistake} it has no tensor {spelled_like(stored.name, given)!r}")
        name, tensor = left.pop(stored.name)
        if own_name in new_classifier and _differs_in_classes(stored.to_ours(tensor), variable):
            filled.append((path, variable.replace(new_classifier[own_name])))
            continue
        if tensor.shape != stored.shape(variable.shape):
            misshapen = f"{mistake} tensor {name!r} has shape {tensor.shape}, {stored.shape(variable.shape)} is expected"
            if path[-2] == CLASSIFIER and _differs_in_classes(stored.to_ours(tensor), variable):
                misshapen += "; for classes of your own train a classifier: supernet.new_classifier=true initialises one"
            raise ConfigError(misshapen)
        if own_name in new_classifier:
            raise ConfigError(
                f"{source} has a classifier of {variable.shape[-1]} classes: leave supernet.new_classifier out, or change "
                f"supernet.classes"
            )
        filled.append((path, variable.replace(jax.device_put(stored.to_ours(tensor).astype(variable.dtype)))))
    if left:
        raise ConfigError(f"{mistake} tensor {min(left.values())[0]!r} is unexpected")
    return nnx.merge(graph, nnx.from_flat_state(filled))


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a safetensors file or of a PyTorch state dict, by the names in the file.

    The prefix `module.` that DataParallel puts before all names is removed. Raises ConfigError for a file that is missing,
    that cannot be read, or that holds anything but finite real numbers by name.
    """
    if not path.is_file():
        raise ConfigError(f"supernet.checkpoint={path}: there is no checkpoint {path}")
    with path.open("rb") as file:
        start = file.read(len(LFS_PREFIX))
    if not start:
        raise ConfigError(f"{path} is empty: it is neither a safetensors file nor a PyTorch state dict")
    if start == LFS_PREFIX:
        raise ConfigError(f"{path} is a pointer of Git LFS, not the checkpoint itself: fetch it by `git lfs pull`")
    # A safetensors file begins with eight bytes of length, which may equal a prefix of PyTorch's, then with JSON.
    is_torch = start.startswith(TORCH_PREFIXES) and start[8:9] != b"{"
    content = _read_torch(path) if is_torch else _read_safetensors(path)
    for name, tensor in content.items():
        with np.errstate(over="ignore"):
            finite = np.isfinite(tensor.astype(np.float32)).all()
        if not finite:
            raise ConfigError(f"{path}: tensor {name!r} holds values that are not finite: its training may have diverged")
    return _without_parallel_prefix(content)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a safetensors file, whatever their names."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            for name in names:
                dtype = file.get_slice(name).get_dtype()
                if dtype not in SAFETENSORS_TYPES:
                    raise ConfigError(f"{path}: tensor {name!r} has type {dtype}; allowed: {', '.join(SAFETENSORS_TYPES)}")
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as safetensors ({error}), and is no PyTorch state dict either") from error


def _without_parallel_prefix(content: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes the `module.` of PyTorch's DataParallel, if all names have it."""
    if not all(name.startswith("module.") for name in content):
        return content
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict, alone or under one of STATE_DICT_KEYS; only plain tensors, and no code of the file is run."""
    try:
        import torch
    except ImportError:
        raise ConfigError(f"{path} was written by PyTorch: reading it needs torch (pip install torch)") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged or hostile file may raise anything in torch.
        raise ConfigError(
            f"{path} cannot be read as a PyTorch state dict of plain tensors ({type(error).__name__}): "
            f"nothing else is loaded; save its state_dict alone"
        ) from error
    keys = [key for key in STATE_DICT_KEYS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
    if len(keys) > 1:
        raise ConfigError(f"{path} holds {' and '.join(map(repr, keys))}: which is meant? save one of them alone")
    content = content[keys[0]] if keys else content
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ConfigError(f"{path} holds no state dict, alone or under {', '.join(map(repr, STATE_DICT_KEYS))}")
    for name, value in content.items():
        if not isinstance(name, str):
            raise ConfigError(f"{path} holds no state dict: the key {name!r} of a tensor is not a string")
        unsupported = {"sparse": value.layout is not torch.strided, "quantized": value.is_quantized,
                       "complex": value.is_complex(), "without values (device meta)": value.is_meta}  # fmt: skip
        reason = next((reason for reason, holds in unsupported.items() if holds), None)
        if reason:
            raise ConfigError(f"{path}: tensor {name!r} is {reason}; only dense tensors of real numbers are read")
    return {name: value.detach().float().numpy() for name, value in content.items()}


def _dotted(path: tuple[Any, ...]) -> str:
    """The name of a weight: its path in the network, joined by dots."""
    return ".".join(map(str, path))
