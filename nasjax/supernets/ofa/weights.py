"""The names and layouts under which Once-for-All publishes weights (github.com/mit-han-lab/once-for-all; PyPI: ofa)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from nasjax.errors import ConfigError
from nasjax.supernets.families import mobilenet_v3, resnet
from nasjax.supernets.stage import Stage
from nasjax.supernets.supernet import SuperNet


class Published(NamedTuple):
    """Where a weight stands in a published file: its name (as `short` makes it), and the order of its axes there.

    Axis i of ours is axis `axes[i]` of theirs; None where they agree.
    """

    name: str
    axes: tuple[int, ...] | None = None

    def ours(self, tensor: np.ndarray) -> np.ndarray:
        """A published tensor in our layout."""
        return tensor if self.axes is None else tensor.transpose(self.axes)

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape there of a weight that has shape `ours` here."""
        return ours if self.axes is None else tuple(ours[self.axes.index(axis)] for axis in range(len(ours)))


def short(name: str) -> str:
    """A published name without what differs between versions of the original: repeated and renamed wrappers.

    `blocks.1.mobile_inverted_conv.depth_conv.bn.bn.weight` and `blocks.1.conv.depth_conv.bn.weight` are one weight.
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
"""The published name of every part of a stage; `block` counts the stages that are blocks, `stage` all of them."""

LEAVES = {
    "conv.kernel": "conv.weight",
    "norm.scale": "bn.weight",
    "norm.bias": "bn.bias",
    "norm.mean": "bn.running_mean",
    "norm.variance": "bn.running_var",
    "kernel": "weight",
    "bias": "bias",
}
"""The published name of a weight within its part; kernel transforms beside."""

AXES = {4: (2, 3, 1, 0), 2: (1, 0)}
"""Layout of a convolution's kernel (OIHW there, HWIO here) and a dense one's, by the number of axes."""


def published_names(net: SuperNet) -> dict[str, Published]:
    """Where each of our weights, by our name, stands in a published file; empty for a family that was never published.

    `net` may be abstract (`nnx.eval_shape`): only structure and shapes are read.
    """
    names: dict[str, Published] = {}
    block = 0
    for i, stage in enumerate(net.stages):
        parts = _parts(stage)
        if parts is None:
            return {}
        for path, variable in nnx.to_flat_state(nnx.state(stage)):
            words = ".".join(map(str, path))
            part = next(part for part in parts if words.startswith(part + "."))
            place = parts[part].format(block=block, stage=i)
            leaf, axes = _leaf(stage, words.removeprefix(part + "."), variable.ndim)
            names[f"stages.{i}.{words}"] = Published(short(f"{place}.{leaf}"), axes)
        block += any("{block}" in place for place in parts.values())
    return names


def _parts(stage: Stage) -> dict[str, str] | None:
    parts = PARTS.get(type(stage))
    # ProxylessNAS has one convolution before its classifier and calls it as MobileNetV3 calls its second.
    if isinstance(stage, mobilenet_v3.Head) and stage.mix is None:
        return {**PARTS[mobilenet_v3.Head], "expand": "feature_mix_layer"}
    return parts


def _leaf(stage: Stage, words: str, axes: int) -> tuple[str, tuple[int, ...] | None]:
    """Published name and layout of a weight within its part."""
    transform = re.fullmatch(r"conv\.transforms\.to_(\d+)", words)
    if transform is None:
        return LEAVES[words], AXES.get(axes)
    small = int(transform[1])
    large = min(size for size in stage.genes[0].options if size > small)  # type: ignore[operator, type-var]
    return f"conv.{large}to{small}_matrix", None


def shortened(found: Mapping[str, Any], source: str) -> dict[str, tuple[str, Any]]:
    """A published state dict by short names, the names as they stand there beside; batch norms' step counters left out.

    Raises ConfigError where two names stand for one weight; `source` is what the message calls the file.
    """
    short_names: dict[str, tuple[str, Any]] = {}
    for name, tensor in found.items():
        if name.endswith("num_batches_tracked"):
            continue
        if short(name) in short_names:
            raise ConfigError(
                f"{source} holds one weight under two names, {short_names[short(name)][0]!r} and {name!r}: remove one"
            )
        short_names[short(name)] = name, tensor
    return short_names


def in_full(name: str, written: Iterable[str]) -> str:
    """A short name as a file would write it that holds the names `written`: as its like in another block; else as it is."""
    number = re.compile(r"\d+")
    for other in reversed(list(written)):
        if number.sub("#", short(other)) == number.sub("#", name):
            return number.sub("{}", other).format(*number.findall(name))
    return name
