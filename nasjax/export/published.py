"""Once-for-All's own form of a network: a PyTorch state dict under its names, and the `net.config` of its classes.

`ofa.imagenet_classification.networks.get_net_by_name(config["name"]).build_from_config(config)` is the network that the
state dict fits (PyPI: ofa), so that programs that take its specialised networks take ours.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def to_pth(net: SuperNet, about: Mapping[str, Any], batch: int | None = None) -> bytes:
    """What `torch.save` writes of `state_dict`, `config`, `image_size` and, for our reader, `nasjax`: JSON of `about`."""
    import torch

    config, image_size = net_config(net), net.input_shape[0]
    state = {name: torch.from_numpy(tensor) for name, tensor in state_dict(net).items()}
    file = io.BytesIO()
    torch.save({"state_dict": state, "config": config, "image_size": image_size, "nasjax": json.dumps(about)}, file)
    return file.getvalue()


def to_safetensors(net: SuperNet, about: Mapping[str, Any], batch: int | None = None) -> bytes:
    """The same without PyTorch: the state dict's tensors, all else as JSON in the file's metadata."""
    facts = {"config": net_config(net), "image_size": net.input_shape[0], "nasjax": about}
    return save(state_dict(net), {name: json.dumps(value) for name, value in facts.items()})


def run_published(file: Path, images: Float[np.ndarray, "batch height width channels"]) -> Float[Array, "batch classes"]:
    """What the network in such a file answers, read as any published weights are."""
    if file.suffix == ".pth":
        import torch

        about = torch.load(file, weights_only=True)["nasjax"]
    else:
        with safe_open(file, framework="numpy") as content:
            about = content.metadata()["nasjax"]
    facts = json.loads(about)
    config = settings("supernet", SUPERNETS, facts["supernet"])
    net = fill(lambda: extract(config.create(0), tuple(facts["arch"])), read_tensors(file), str(file))
    graph, weights = nnx.split(net)
    return jax.jit(lambda weights, images: nnx.merge(graph, weights)(images))(weights, images)


def state_dict(net: SuperNet) -> dict[str, np.ndarray]:
    """An extracted network's weights under Once-for-All's names, in PyTorch's layout.

    Raises ConfigError for a network of another family.
    """
    places = published_names(net)
    if not places:
        raise ConfigError("only Once-for-All's families (MobileNetV3, ProxylessNAS, ResNet) can be written in its own form")
    # The one place where its classes say a name twice, which our short names do not.
    twice = {f"input_stem.{i}.conv.weight" for i, stage in enumerate(net.stages) if isinstance(stage, resnet.StemBlock)}
    ours = tensors(net)
    found = {}
    for name, there in places.items():
        tensor = ours[name] if there.axes is None else ours[name].transpose(np.argsort(there.axes))
        full = there.name.replace(".conv.", ".conv.conv.") if there.name in twice else there.name
        found[full] = np.array(tensor, order="C")
        if there.name.endswith("running_var"):
            found[there.name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return found


def net_config(net: SuperNet) -> dict[str, Any]:
    """The `net.config` of an extracted network: which class of Once-for-All it is, and every layer's settings.

    Raises ConfigError for a network that none of its classes can hold.
    """
    if isinstance(net, mobilenet_v3.MobileNetV3):
        return _mobilenet(net)
    if isinstance(net, resnet.ResNet):
        return _resnet(net)
    raise ConfigError("only Once-for-All's families (MobileNetV3, ProxylessNAS, ResNet) can be written in its own form")


def _mobilenet(net: mobilenet_v3.MobileNetV3) -> dict[str, Any]:
    stem, *blocks, head = net.stages
    assert isinstance(stem, mobilenet_v3.Stem) and isinstance(head, mobilenet_v3.Head)
    expand = None if head.expand is None else _conv(head.expand)
    classifier = _linear(head.classify.kernel.shape)
    ends = {"feature_mix_layer": expand}
    if head.mix is not None:
        if expand is None:
            raise ConfigError("Once-for-All's MobileNetV3 has no network with a final_width and without a final_expand")
        mix = _layer("ConvLayer", head.mix, head.activation) | _PLAIN | {"use_bn": False}
        ends = {"final_expand_layer": expand, "feature_mix_layer": mix}
    return {
        # Its ProxylessNAS is the class without a last hidden layer, and without an expansion where there is none.
        "name": "ProxylessNASNets" if head.mix is None else "MobileNetV3",
        "bn": _norm(net.config.epsilon),
        "first_conv": _conv(stem.conv),
        "blocks": [_inverted(stage) for stage in blocks],
        **ends,
        "classifier": classifier,
    }


def _inverted(stage: Any) -> dict[str, Any]:
    """A block; its `expand_ratio` is for reading only where `mid_channels` is given, but at 1 there is no expansion."""
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
    return _residual(block, outputs if stage.identity else None)


def _resnet(net: resnet.ResNet) -> dict[str, Any]:
    head: Any = net.stages[-1]
    stem = [_stem(stage) for stage in net.stages if isinstance(stage, resnet.StemConv | resnet.StemBlock)]
    return {
        "name": "ResNets",
        "bn": _norm(net.config.epsilon),
        "input_stem": stem,
        "blocks": [_bottleneck(stage) for stage in net.stages if isinstance(stage, resnet.Bottleneck)],
        "classifier": _linear(head.classify.kernel.shape),
    }


def _stem(stage: resnet.StemConv | resnet.StemBlock) -> dict[str, Any]:
    conv = _conv(stage.conv)
    return _residual(conv, conv["out_channels"]) if isinstance(stage, resnet.StemBlock) else conv


def _bottleneck(stage: resnet.Bottleneck) -> dict[str, Any]:
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


_PLAIN = {"stride": 1, "dilation": 1, "groups": 1, "bias": False, "has_shuffle": False, "use_se": False}
_ORDER = {"dropout_rate": 0, "ops_order": "weight_bn_act"}


def _norm(epsilon: float) -> dict[str, Any]:
    return {"momentum": 0.1, "eps": epsilon}


def _conv(layer: ConvNorm) -> dict[str, Any]:
    plain = _layer("ConvLayer", layer.conv, layer.activation)
    return plain | _PLAIN | {"stride": layer.conv.stride, "use_bn": True}


def _layer(name: str, conv: Conv, activation: str) -> dict[str, Any]:
    size, _, inputs, outputs = conv.kernel.shape
    act = None if activation == "none" else activation
    return {"name": name, "kernel_size": size, "in_channels": inputs, "out_channels": outputs, "act_func": act, **_ORDER}


def _linear(shape: tuple[int, ...]) -> dict[str, Any]:
    inputs, outputs = shape
    sizes = {"in_features": inputs, "out_features": outputs, "bias": True, "use_bn": False, "act_func": None}
    return {"name": "LinearLayer", **sizes, **_ORDER}


def _residual(conv: Mapping[str, Any], width: int | None) -> dict[str, Any]:
    """A block with an identity of that width beside it; None: with none."""
    beside = None
    if width is not None:
        sizes = {"in_channels": width, "out_channels": width, "use_bn": False, "act_func": None}
        beside = {"name": "IdentityLayer", **sizes, **_ORDER}
    return {"name": "ResidualBlock", "conv": dict(conv), "shortcut": beside}
