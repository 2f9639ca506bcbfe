"""Weights on disk: nasjax's safetensors, named by place in the network, and state dicts published for PyTorch."""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Set
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nasjax.errors import ConfigError, one_line
from nasjax.host import regular_file, replace_file
from nasjax.supernets.elastic import Dense
from nasjax.supernets.families.transformer import Transformer
from nasjax.supernets.hat import weights as hat
from nasjax.supernets.ofa.weights import by_canonical_name, canonical_name, published_names, spelled_like
from nasjax.supernets.published_tensor import PublishedTensor
from nasjax.supernets.supernet import SuperNet
from nasjax.supernets.torch_files import Foreign, StoredTensor, TorchFileError, read_torch

TORCH_PREFIXES = (b"PK\x03\x04", b"\x80")
"""First bytes of files of torch.save (zip, and the older pickle); published checkpoints often have no suffix."""

LFS_PREFIX = b"version https://git-lfs.github.com/spec/"
"""First bytes of the pointer that stands for a file which Git LFS has not fetched."""

SAFETENSORS_TYPES = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"), "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}  # fmt: skip
"""The element types that are read, as safetensors names them."""

STATE_DICT_KEYS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "swa_state_dict", "swa_model", "swa",
    "state_dict", "model_state_dict", "model", "net", "network", "module", "weights",
)  # fmt: skip
"""Keys under which training scripts keep state dicts, beside the optimiser's state and the like: averaged ones first."""

MOST_WRAPPERS = 8
"""Parts of a name that may stand before that in the network, where it was trained within other modules (as by Lightning)."""

INNER_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What `torch.compile` and others put into names, at any place."""

SAVE_ALONE = "save one alone: torch.save(model.state_dict(), FILE)"
"""What to do with a file of which it is not known what to take."""

TRANSFORMS = "transforms"
"""The attribute name of the matrices that make smaller kernels."""

CLASSIFIER = "classify"
"""The attribute name of the last layer in the heads of our families."""


def tensors(net: SuperNet) -> dict[str, np.ndarray]:
    """Returns all weights and stored batch-norm statistics by name, such as `stages.3.depthwise.conv.kernel`."""
    return {_dotted(path): np.asarray(variable[...]) for path, variable in nnx.to_flat_state(nnx.state(net))}


def weights_digest(net: SuperNet) -> str:
    """A digest of all weights and stored batch-norm statistics."""
    hashed = sha256()
    for path, leaf in nnx.to_flat_state(nnx.state(net)):
        hashed.update(str((path, leaf[...].shape)).encode())
        hashed.update(np.ascontiguousarray(leaf[...]).data)
    return hashed.hexdigest()


def save_weights(net: SuperNet, path: Path, metadata: dict[str, Any]) -> None:
    """Writes all weights to a safetensors file, atomically; `metadata` is stored with them as JSON."""
    replace_file(path, save(tensors(net), {"nasjax": json.dumps(metadata)}))


def read_facts(path: Path) -> dict[str, Any]:
    """What `save_weights` has stored with weights; nothing for other files."""
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get("nasjax", "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def load_weights(make: Callable[[], SuperNet], path: Path, classifier_seed: int | None = None) -> SuperNet:
    """Returns the network that `make` builds, with the weights of a file; its own weights are never computed.

    The file is a safetensors file that nasjax wrote, or a published state dict: as PyTorch wrote it, or as safetensors under
    the published names. With a `classifier_seed` the file's classifier, which must have another number of classes, is
    replaced by a newly initialised one. Raises ConfigError for a file that cannot be read, and for a checkpoint of another
    network, naming the first tensor that is missing, unexpected or of another shape.
    """
    net = fill(make, read_tensors(path), str(path), classifier_seed)
    net.facts = read_facts(path)
    return net


def _new_classifier(net: SuperNet, seed: int) -> dict[str, jax.Array]:
    """Returns the weights of a newly initialised classifier, by name."""
    inputs, classes = getattr(net.stages[-1], CLASSIFIER).kernel.shape
    state = nnx.state(Dense(inputs, classes, rngs=nnx.Rngs(seed)))
    prefix = f"stages.{len(net.stages) - 1}.{CLASSIFIER}"
    return {f"{prefix}.{_dotted(path)}": leaf[...] for path, leaf in nnx.to_flat_state(state)}


def _differs_in_classes(tensor: np.ndarray, variable: nnx.Variable) -> bool:
    """Whether a classifier's tensor has the shape of `variable` except for the number of classes."""
    return tensor.shape[:-1] == variable.shape[:-1] and tensor.shape[-1:] != variable.shape[-1:]


def load_largest(make: Callable[[], SuperNet], path: Path, classifier_seed: int | None = None) -> SuperNet:
    """As `load_weights`, from the weights of the largest sub-network alone.

    These lack the matrices that make smaller kernels, which are then the centre of the largest one.
    """
    net = fill(make, read_tensors(path), str(path), classifier_seed, alone=True)
    net.facts = read_facts(path)
    return net


def fill(
    make: Callable[[], SuperNet],
    given: Mapping[str, np.ndarray],
    source: str,
    classifier_seed: int | None = None,
    alone: bool = False,
) -> SuperNet:
    """Returns the network that `make` builds, with the tensors `given`; otherwise as `load_weights`.

    `source` names the tensors in messages. `alone`: they may be those of the largest sub-network, see `load_largest`.
    """
    net = nnx.eval_shape(make)
    graph, state = nnx.split(net)
    variables = nnx.to_flat_state(state)
    own_names = {_dotted(path) for path, _ in variables}
    if isinstance(net, Transformer):
        published, given = hat.published_names(net), hat.separated(given, net, source)
    else:
        published = published_names(net)
    given = _network_alone(given, own_names, {stored.name for stored in published.values()}, source)
    ours = not own_names.isdisjoint(given) or any(name.startswith("stages.") for name in given)
    published = {} if ours else published
    mistake = f"{source} is a checkpoint of another super-network:"
    left = {name: (name, tensor) for name, tensor in given.items()} if ours else by_canonical_name(given, source)
    new_classifier = {} if classifier_seed is None else _new_classifier(net, classifier_seed)
    filled = []
    for path, variable in variables:
        own_name = _dotted(path)
        stored = published.get(own_name, PublishedTensor(own_name))
        if stored.name not in left and alone and TRANSFORMS in path:
            filled.append((path, variable.replace(jnp.eye(variable.shape[0], dtype=variable.dtype))))
            continue
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
        _check_finite(name, tensor, source)
        if own_name in new_classifier:
            raise ConfigError(
                f"{source} has a classifier of {variable.shape[-1]} classes: leave supernet.new_classifier out, or change "
                f"supernet.classes"
            )
        filled.append((path, variable.replace(jax.device_put(stored.to_ours(tensor).astype(variable.dtype)))))
    if left:
        raise ConfigError(f"{mistake} tensor {min(left.values())[0]!r} is unexpected")
    return nnx.merge(graph, nnx.from_flat_state(filled))


def _network_alone(
    given: Mapping[str, np.ndarray], own: Set[str], published: Set[str], source: str
) -> Mapping[str, np.ndarray]:
    """The tensors of the network, without what stands before all its names; a line names others that lie beside them.

    What stands before them shows in the names wanted: `own` ones, or `published` ones in canonical spelling.
    """
    counts: Counter[str] = Counter()
    for name in given:
        rest = name
        for _ in range(MOST_WRAPPERS + 1):
            counts[name.removesuffix(rest)] += rest in own or canonical_name(rest) in published
            rest = rest.partition(".")[2]
    most = max(counts.values(), default=0)
    prefixes = [prefix for prefix, count in counts.items() if count == most]
    if not most or prefixes == [""]:
        return given
    if len(prefixes) > 1 and most == len(own):
        names = ", ".join(f"{prefix}*" for prefix in prefixes[:5])
        raise ConfigError(f"{source} holds the network's weights several times, as {names}: {SAVE_ALONE}")
    beside = [name for name in given if not name.startswith(prefixes[0]) and name.rpartition(".")[2] != "n_averaged"]
    if beside:
        print(f"nasjax: {source}: takes the weights of {prefixes[0]}*, not {', '.join(beside[:5])}", file=sys.stderr)
    return {name.removeprefix(prefixes[0]): tensor for name, tensor in given.items() if name.startswith(prefixes[0])}


def _check_finite(name: str, tensor: np.ndarray, source: str) -> None:
    """Raises ConfigError for a tensor with values that float32 does not hold."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(tensor.astype(np.float32)).all()
    if not finite:
        raise ConfigError(f"{source}: tensor {name!r} holds values that are not finite: its training may have diverged")


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file or of a PyTorch state dict, by their names without those of compiled modules.

    They are views of the mapped file, read when they are used. Of several state dicts the averaged one is taken, and the
    choice printed. Raises ConfigError for a file that is missing, that cannot be read, or that holds no tensors by name.
    """
    with regular_file(f"checkpoint {path}", path).open("rb") as file:
        start = file.read(len(LFS_PREFIX))
    if not start:
        raise ConfigError(f"{path} is empty: it is neither a safetensors file nor a PyTorch state dict")
    if start == LFS_PREFIX:
        raise ConfigError(f"{path} is a pointer of Git LFS, not the checkpoint itself: fetch it by `git lfs pull`")
    # A safetensors file begins with eight bytes of length, which may equal a prefix of PyTorch's, then with JSON.
    is_torch = start.startswith(TORCH_PREFIXES) and start[8:9] != b"{"
    return _unwrapped(_read_state_dict(path) if is_torch else _read_safetensors(path), path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, whatever their names."""
    try:
        with safe_open(path, framework="numpy"):  # Raises unless header and length of the file agree.
            content = np.asarray(np.memmap(path, np.uint8, "r"))
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"{path} cannot be read as safetensors ({error}), and is not a PyTorch state dict either"
        ) from error
    first = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:first].tobytes())
    header.pop("__metadata__", None)
    tensors = {}
    for name, about in header.items():
        if about["dtype"] not in SAFETENSORS_TYPES:
            raise ConfigError(f"{path}: tensor {name!r} has type {about['dtype']}; allowed: {', '.join(SAFETENSORS_TYPES)}")
        begin, end = about["data_offsets"]
        numbers = content[first + begin : first + end].view(SAFETENSORS_TYPES[about["dtype"]])
        tensors[name] = numbers.reshape(about["shape"])
    return tensors


def _unwrapped(content: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Removes from all names what `torch.compile` and others put into them."""
    short = {INNER_WRAPPERS.sub("", name): tensor for name, tensor in content.items()}
    if len(short) < len(content):
        raise ConfigError(f"{path} holds weights both with and without the names of wrapping modules: remove one of both")
    return short


def _read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, alone or under keys; nothing else of the file is built, no code of it is run."""
    try:
        file = read_torch(path)
    except Exception as error:  # A damaged or hostile file may raise anything in pickle and zipfile.
        reason = str(error) if isinstance(error, TorchFileError) else f"it is damaged: {one_line(error)}"
        raise ConfigError(
            f"{path} cannot be read as a PyTorch state dict ({reason}): write one by torch.save(model.state_dict(), FILE)"
        ) from error
    tensors = {}
    for name, tensor in _chosen_state_dict(file.objects, path).items():
        if tensor.unread:
            raise ConfigError(f"{path}: tensor {name!r} is {tensor.unread}; only dense tensors of real numbers are read")
        try:
            tensors[name] = file.array(tensor)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"{path}: tensor {name!r} cannot be read ({error}): is the file complete?") from error
    return tensors


def _chosen_state_dict(objects: Any, path: Path) -> dict[str, StoredTensor]:
    """The state dict of a file; of several the first in the order of STATE_DICT_KEYS, as a line then says."""
    found = _state_dicts(objects)
    known = [keys for keys in found if set(keys) <= set(STATE_DICT_KEYS)] or list(found)
    known.sort(key=lambda keys: [STATE_DICT_KEYS.index(key) for key in keys if key in STATE_DICT_KEYS])
    names = [".".join(keys) for keys in known]
    if not known:
        raise ConfigError(f"{path} holds no state dict, but {_content(objects)}: {SAVE_ALONE}")
    if len(known) > 1 and known[0][0] not in STATE_DICT_KEYS:
        raise ConfigError(f"{path} holds several state dicts, {', '.join(names[:5])}: {SAVE_ALONE}")
    # Under other keys lie weights, too, unless there are fewer: parts, or an optimiser's state.
    others = [".".join(keys) for keys in found if keys not in known and len(found[keys]) >= len(found[known[0]])]
    if left := names[1:] + others:
        print(f"nasjax: {path}: takes the weights of {names[0]!r}, not of {', '.join(left[:5])}", file=sys.stderr)
    return found[known[0]]


def _state_dicts(objects: Any, keys: tuple[str, ...] = ()) -> dict[tuple[str, ...], dict[str, StoredTensor]]:
    """Every state dict in the objects of a file, by the keys that lead to it."""
    if not isinstance(objects, Mapping) or len(keys) > 3:
        return {}
    named = {name: value for name, value in objects.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, StoredTensor)}
    inner: dict[tuple[str, ...], dict[str, StoredTensor]] = {}
    if not any("." in name for name in tensors):  # Else these are a network's, whatever lies beside them.
        for name, value in named.items():
            inner |= _state_dicts(value, (*keys, name))
    return inner or ({keys: tensors} if tensors else {})


def _content(objects: Any) -> str:
    """What a file holds, in words."""
    if isinstance(objects, Foreign):
        return f"an object of {objects.kind}"
    if isinstance(objects, Mapping):
        keys = [repr(key) + (f" ({value.kind})" if isinstance(value, Foreign) else "") for key, value in objects.items()]
        return f"the keys {', '.join(keys[:5]) or 'none'}"[:200]
    return f"a {type(objects).__name__}"


def _dotted(path: tuple[Any, ...]) -> str:
    """The name of a weight: its path in the network, joined by dots."""
    return ".".join(map(str, path))
