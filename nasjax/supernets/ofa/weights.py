"""Names and layouts of the weights that Once-for-All publishes (github.com/mit-han-lab/once-for-all; PyPI: ofa)."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
from flax import nnx

from nasjax.errors import ConfigError
from nasjax.supernets.families import mobilenet_v3, resnet
from nasjax.supernets.published_tensor import PublishedTensor
from nasjax.supernets.stage import Stage
from nasjax.supernets.supernet import SuperNet


def canonical_name(name: str) -> str:
    """Returns a published name without the wrapper modules that versions of the original repeat or name differently.

    `blocks.1.mobile_inverted_conv.depth_conv.bn.bn.weight` becomes `blocks.1.conv.depth_conv.bn.weight`.
    """
    return re.sub(r"\b(conv|bn|linear)(\.\1)+\b", r"\1", name.replace(".mobile_inverted_conv.", ".conv."))


PARTS: dict[type[Stage], dict[str, str]] = {
    mobilenet_v3.Stem: {"conv": "first_conv"},
    mobilenet_v3.SeparableBlock: {
        "depthwise": "blocks.{block}.conv.depth_conv",
        "project": "blocks.{block}.conv.point_linear",
    },
    mobilenet_v3.InvertedBottleneck: {
        "expand": "blocks.{block}.conv.inverted_bottleneck",
        "depthwise": "blocks.{block}.conv.depth_conv",
        "excite.reduce": "blocks.{block}.conv.depth_conv.se.fc.reduce",
        "excite.expand": "blocks.{block}.conv.depth_conv.se.fc.expand",
        "project": "blocks.{block}.conv.point_linear",
    },
    mobilenet_v3.Head: {"expand": "final_expand_layer", "mix": "feature_mix_layer.conv", "classify": "classifier.linear"},
    resnet.StemConv: {"conv": "input_stem.{stage}"},
    resnet.StemBlock: {"conv": "input_stem.{stage}.conv"},
    resnet.Bottleneck: {
        "reduce": "blocks.{block}.conv1",
        "spatial": "blocks.{block}.conv2",
        "expand": "blocks.{block}.conv3",
        "shortcut": "blocks.{block}.downsample",
    },
    resnet.Head: {"classify": "classifier.linear"},
}
"""The published name of each part of a stage. `{stage}` is the stage's index; `{block}` counts only stages that have it."""

LEAVES = {
    "conv.kernel": "conv.weight",
    "norm.scale": "bn.weight",
    "norm.bias": "bn.bias",
    "norm.mean": "bn.running_mean",
    "norm.variance": "bn.running_var",
    "kernel": "weight",
    "bias": "bias",
}
"""The published name of each weight within its part, kernel transforms apart."""

AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
"""`PublishedTensor.axes` by number of axes: convolutions are published as OIHW (ours: HWIO), dense kernels transposed."""


def published_names(net: SuperNet) -> dict[str, PublishedTensor]:
    """Returns the published name and layout of every weight, by our name; empty if Once-for-All has no such family.

    `net` may be abstract (`nnx.eval_shape`): only structure and shapes are read.
    """
    names: dict[str, PublishedTensor] = {}
    block = 0
    for i, stage in enumerate(net.stages):
        parts = _part_names(stage)
        if parts is None:
            return {}
        for path, variable in nnx.to_flat_state(nnx.state(stage)):
            name = ".".join(map(str, path))
            part = next(part for part in parts if name.startswith(part + "."))
            published_part = parts[part].format(block=block, stage=i)
            leaf, axes = _published_leaf(stage, name.removeprefix(part + "."), variable.ndim)
            names[f"stages.{i}.{name}"] = PublishedTensor(canonical_name(f"{published_part}.{leaf}"), axes)
        block += any("{block}" in published_part for published_part in parts.values())
    return names


def _part_names(stage: Stage) -> dict[str, str] | None:
    """Returns the published names of a stage's parts; None for a stage that Once-for-All does not have."""
    parts = PARTS.get(type(stage))
    # ProxylessNAS has one convolution before its classifier, under the name of MobileNetV3's second.
    if isinstance(stage, mobilenet_v3.Head) and stage.mix is None:
        return {**PARTS[mobilenet_v3.Head], "expand": "feature_mix_layer"}
    return parts


def _published_leaf(stage: Stage, name: str, axes: int) -> tuple[str, tuple[int, ...] | None]:
    """Returns the published name and layout of a weight within its part."""
    transform = re.fullmatch(r"conv\.transforms\.to_(\d+)", name)
    if transform is None:
        return LEAVES[name], AXES.get(axes)
    small = int(transform[1])
    large = min(size for size in stage.genes[0].options if size > small)  # type: ignore[operator, type-var]
    return f"conv.{large}to{small}_matrix", None


def by_canonical_name(published: Mapping[str, np.ndarray], source: str) -> dict[str, tuple[str, np.ndarray]]:
    """Returns name and tensor of a published state dict by canonical name, without the step counters of batch norms.

    Raises ConfigError if two names mean one weight; `source` names the file in the message.
    """
    canonical: dict[str, tuple[str, np.ndarray]] = {}
    for name, tensor in published.items():
        if name.endswith("num_batches_tracked"):
            continue
        key = canonical_name(name)
        if key in canonical:
            raise ConfigError(f"{source} holds one weight under two names, {canonical[key][0]!r} and {name!r}: remove one")
        canonical[key] = name, tensor
    return canonical


def spelled_like(name: str, file_names: Iterable[str]) -> str:
    """Returns a canonical name in the spelling of a file, taken from the same weight of another block if the file has it."""
    number = re.compile(r"\d+")
    for other in reversed(list(file_names)):
        if number.sub("#", canonical_name(other)) == number.sub("#", name):
            return number.sub("{}", other).format(*number.findall(name))
    return name
