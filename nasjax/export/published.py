"""Once-for-All's format of a specialised network: a PyTorch state dict and the `net.config` of its classes (PyPI: ofa).

`ofa.imagenet_classification.networks.get_net_by_name(config["name"]).build_from_config(config)` creates the network, which
loads the state dict, so that deployment tools of Once-for-All can use it.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from safetensors import safe_open
from safetensors.numpy import save

from nasjax.errors import ConfigError
from nasjax.registry import settings
from nasjax.supernets import SUPERNETS, SuperNet
from nasjax.supernets.checkpoints import fill, read_tensors, tensors
from nasjax.supernets.elastic import Conv, ConvNorm
from nasjax.supernets.extract import extract
from nasjax.supernets.families import mobilenet_v3, resnet
from nasjax.supernets.ofa.weights import published_names
from nasjax.supernets.torch_files import read_torch

OTHER_FAMILY = (
    "only Once-for-All's families (MobileNetV3, ProxylessNAS, ResNet) can be written in its format; export it as .onnx"
)
"""Message for networks that Once-for-All has no class for."""


def to_pth(net: SuperNet, origin: Mapping[str, Any], batch: int | None = None) -> bytes:
    """An extracted network as a PyTorch file with `state_dict`, `config` (`net_config`) and `image_size`.

    `origin`, stored as JSON under `nasjax`, is what `nasjax.load` creates the network from. `batch` has no effect: this
    format holds no program. Raises ConfigError for a network of another family.
    """
    import torch

    config, image_size = net_config(net), net.input_shape[0]
    state = {name: torch.from_numpy(tensor) for name, tensor in state_dict(net).items()}
    file = io.BytesIO()
    torch.save({"state_dict": state, "config": config, "image_size": image_size, "nasjax": json.dumps(origin)}, file)
    return file.getvalue()


def to_safetensors(net: SuperNet, origin: Mapping[str, Any], batch: int | None = None) -> bytes:
    """The same content as safetensors, written without PyTorch: the state dict as tensors, the rest as JSON metadata."""
    metadata = {"config": net_config(net), "image_size": net.input_shape[0], "nasjax": origin}
    return save(state_dict(net), {name: json.dumps(value) for name, value in metadata.items()})


def run_published(file: Path, images: Float[np.ndarray, "batch height width channels"]) -> Float[Array, "batch classes"]:
    """Logits of the network in a file of `to_pth` or `to_safetensors`; its weights are read as published ones are."""
    if file.suffix == ".pth":
        text = read_torch(file).objects["nasjax"]
    else:
        with safe_open(file, framework="numpy") as content:
            text = content.metadata()["nasjax"]
    origin = json.loads(text)
    config = settings("supernet", SUPERNETS, origin["supernet"])
    net = fill(lambda: extract(config.create(0), tuple(origin["arch"])), read_tensors(file), str(file))
    graph, weights = nnx.split(net)
    return jax.jit(lambda weights, images: nnx.merge(graph, weights)(images))(weights, images)


def state_dict(net: SuperNet) -> dict[str, np.ndarray]:
    """Weights of an extracted network under Once-for-All's names, in PyTorch's layout.

    Raises ConfigError for a network of another family.
    """
    published = published_names(net)
    if not published:
        raise ConfigError(OTHER_FAMILY)
    # Stem blocks repeat a component (conv.conv) that `published_names` leaves out.
    repeated = {f"input_stem.{i}.conv.weight" for i, stage in enumerate(net.stages) if isinstance(stage, resnet.StemBlock)}
    ours = tensors(net)
    state = {}
    for name, theirs in published.items():
        tensor = ours[name] if theirs.axes is None else ours[name].transpose(np.argsort(theirs.axes))
        full = theirs.name.replace(".conv.", ".conv.conv.") if theirs.name in repeated else theirs.name
        state[full] = np.array(tensor, order="C")
        if theirs.name.endswith("running_var"):
            state[theirs.name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return state


def net_config(net: SuperNet) -> dict[str, Any]:
    """The `net.config` of an extracted network: its class in Once-for-All and the settings of every layer.

    Raises ConfigError for a network that none of Once-for-All's classes can represent.
    """
    if isinstance(net, mobilenet_v3.MobileNetV3):
        return _mobilenet_config(net)
    if isinstance(net, resnet.ResNet):
        return _resnet_config(net)
    raise ConfigError(OTHER_FAMILY)


def _mobilenet_config(net: mobilenet_v3.MobileNetV3) -> dict[str, Any]:
    """`net.config` of a MobileNetV3 or ProxylessNAS."""
    first, *blocks, last = net.stages
    stem, head = cast(mobilenet_v3.Stem, first), cast(mobilenet_v3.Head, last)
    expand = None if head.expand is None else _conv_norm_config(head.expand)
    classifier = _linear_config(head.classify.kernel.shape)
    last_layers = {"feature_mix_layer": expand}
    if head.mix is not None:
        if expand is None:
            raise ConfigError("Once-for-All's MobileNetV3 cannot represent a final_width without a final_expand")
        mix = _conv_config("ConvLayer", head.mix, head.activation) | _CONV_DEFAULTS | {"use_bn": False}
        last_layers = {"final_expand_layer": expand, "feature_mix_layer": mix}
    return {
        # ProxylessNASNets has no hidden layer before the classifier, and may have no expansion.
        "name": "ProxylessNASNets" if head.mix is None else "MobileNetV3",
        "bn": _norm_config(net.config.epsilon),
        "first_conv": _conv_norm_config(stem.conv),
        "blocks": [_inverted_bottleneck_config(stage) for stage in blocks],
        **last_layers,
        "classifier": classifier,
    }


def _inverted_bottleneck_config(stage: Any) -> dict[str, Any]:
    """A MobileNet block. With `mid_channels`, `expand_ratio` has no effect, except that 1 leaves out the expansion."""
    expand = getattr(stage, "expand", None)
    first, depthwise = expand or stage.depthwise, stage.depthwise
    ratio: Any = 1 if expand is None else stage.genes[1].options[0]
    inputs, outputs = first.conv.kernel.shape[3 if expand is None else 2], stage.project.conv.kernel.shape[3]
    block = {
        "name": "MBConvLayer",
        "in_channels": inputs,
        "out_channels": outputs,
        "kernel_size": depthwise.conv.kernel.shape[0],
        "stride": depthwise.conv.stride,
        "expand_ratio": None if ratio == 1 and expand is not None else ratio,
        "mid_channels": None if expand is None else expand.conv.kernel.shape[3],
        "act_func": depthwise.activation,
        "use_se": getattr(stage, "excite", None) is not None,
        "groups": None,
    }
    return _residual_config(block, outputs if stage.identity else None)


def _resnet_config(net: resnet.ResNet) -> dict[str, Any]:
    head: Any = net.stages[-1]
    stem = [_stem_config(stage) for stage in net.stages if isinstance(stage, resnet.StemConv | resnet.StemBlock)]
    return {
        "name": "ResNets",
        "bn": _norm_config(net.config.epsilon),
        "input_stem": stem,
        "blocks": [_bottleneck_config(stage) for stage in net.stages if isinstance(stage, resnet.Bottleneck)],
        "classifier": _linear_config(head.classify.kernel.shape),
    }


def _stem_config(stage: resnet.StemConv | resnet.StemBlock) -> dict[str, Any]:
    conv = _conv_norm_config(stage.conv)
    return _residual_config(conv, conv["out_channels"]) if isinstance(stage, resnet.StemBlock) else conv


def _bottleneck_config(stage: resnet.Bottleneck) -> dict[str, Any]:
    inputs, middle = stage.reduce.conv.kernel.shape[2:]
    return {
        "name": "ResNetBottleneckBlock",
        "in_channels": inputs,
        "out_channels": stage.expand.conv.kernel.shape[3],
        "kernel_size": stage.spatial.conv.kernel.shape[0],
        "stride": stage.spatial.conv.stride,
        "expand_ratio": stage.genes[-1].options[0],
        "mid_channels": middle,
        "act_func": "relu",
        "groups": 1,
        "downsample_mode": "avgpool_conv",
    }


_CONV_DEFAULTS = {"stride": 1, "dilation": 1, "groups": 1, "bias": False, "has_shuffle": False, "use_se": False}
_LAYER_DEFAULTS = {"dropout_rate": 0, "ops_order": "weight_bn_act"}


def _norm_config(epsilon: float) -> dict[str, Any]:
    return {"momentum": 0.1, "eps": epsilon}


def _conv_norm_config(layer: ConvNorm) -> dict[str, Any]:
    config = _conv_config("ConvLayer", layer.conv, layer.activation)
    return config | _CONV_DEFAULTS | {"stride": layer.conv.stride, "use_bn": True}


def _conv_config(name: str, conv: Conv, activation: str) -> dict[str, Any]:
    size, _, inputs, outputs = conv.kernel.shape
    sizes = {"kernel_size": size, "in_channels": inputs, "out_channels": outputs}
    return {"name": name, **sizes, "act_func": None if activation == "none" else activation, **_LAYER_DEFAULTS}


def _linear_config(shape: tuple[int, ...]) -> dict[str, Any]:
    inputs, outputs = shape
    sizes = {"in_features": inputs, "out_features": outputs, "bias": True, "use_bn": False, "act_func": None}
    return {"name": "LinearLayer", **sizes, **_LAYER_DEFAULTS}


def _residual_config(conv: Mapping[str, Any], width: int | None) -> dict[str, Any]:
    """A block with an identity shortcut of that width (None: without a shortcut)."""
    shortcut = None
    if width is not None:
        sizes = {"in_channels": width, "out_channels": width, "use_bn": False, "act_func": None}
        shortcut = {"name": "IdentityLayer", **sizes, **_LAYER_DEFAULTS}
    return {"name": "ResidualBlock", "conv": dict(conv), "shortcut": shortcut}
