"""The ResNet-D family of elastic super-networks (Once-for-All's ResNet50, arXiv:1908.09791; ResNet-D, arXiv:1812.01187).

The stages of the super-network, in order: three of a stem, whose residual block may be left out; groups of bottlenecks (what
the papers call stages), whose expand ratio is elastic block by block, whose width is elastic group by group, and the last of
which are switched off by the group's depth; a head.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import PyTree

from nasjax.errors import ConfigError
from nasjax.space import Gene
from nasjax.supernets.cpu.convolution import Maps
from nasjax.supernets.elastic import ConvNorm, Dense, by_importance, cut, make_divisible, pick
from nasjax.supernets.families.limits import (
    INTEGER,
    NON_NEGATIVE_INTEGER,
    ONE_OR_TWO,
    POSITIVE,
    POSITIVE_INTEGER,
    check_limits,
)
from nasjax.supernets.layer import Size
from nasjax.supernets.resolution import RESOLUTIONS, check_resolutions
from nasjax.supernets.stage import Choice, Stage, Statistics, UsedStatistics
from nasjax.supernets.supernet import SuperNet

LIMITS = {
    **dict.fromkeys(("image_size", "resolutions"), INTEGER),
    **dict.fromkeys(("channels", "classes", "stem_width", "widths", "least_depths"), POSITIVE_INTEGER),
    **dict.fromkeys(("expands", "multipliers", "epsilon"), POSITIVE),
    "strides": ONE_OR_TWO,
    "depths": NON_NEGATIVE_INTEGER,
}
"""The allowed range of each numeric setting; `average_pool`, in the shortcuts, knows strides of 1 and 2 only."""


@dataclass(frozen=True)
class ResNetConfig:
    """Configuration of a ResNet-D super-network; the defaults are Once-for-All's ResNet50.

    Attributes:
      image_size: height and width of the input images, in pixels.
      elastic_resolution: makes the resolution a gene with the options 160, 192 and 224; images are scaled down to it.
      resolutions: other options of that gene, at most `image_size` each.
      channels, classes: numbers of input channels and of classes.
      stem_width: width of the stem at multiplier 1.
      widths, strides, least_depths: one entry a group of blocks: width at multiplier 1, stride of the first block, number of
        blocks that are always there.
      depths: the options of each group's depth gene, a number of blocks added to its `least_depths`.
      expands: the options of each block's expand ratio, hidden width over output width.
      multipliers: the options of each width gene.
      epsilon: of all batch norms.
      checkpoint: a file of weights, nasjax's or published for PyTorch; None: weights are initialised from a seed.
        Once-for-All's published weights expect RGB images (batch, height, width, 3) scaled to 0-1, from which
        (.485, .456, .406) is subtracted, divided by (.229, .224, .225).
      new_classifier: initialises the classifier, to be trained, where the checkpoint has another number of classes.
      untrained: says that untrained weights are meant: a search on them gives no warning.

    Raises ConfigError for invalid settings.
    """

    image_size: int = 224
    elastic_resolution: bool = False
    resolutions: tuple[int, ...] = ()
    channels: int = 3
    classes: int = 1000
    stem_width: int = 64
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    least_depths: tuple[int, ...] = (2, 2, 4, 2)
    depths: tuple[int, ...] = (0, 1, 2)
    expands: tuple[float, ...] = (0.2, 0.25, 0.35)
    multipliers: tuple[float, ...] = (0.65, 0.8, 1.0)
    epsilon: float = 1e-5
    checkpoint: str | None = None
    new_classifier: bool = False
    untrained: bool = False

    @property
    def resolution_options(self) -> tuple[int, ...]:
        """The options of the resolution gene, in pixels; empty where the resolution is not a gene."""
        return self.resolutions or (RESOLUTIONS if self.elastic_resolution else ())

    def __post_init__(self):
        check_limits(self, LIMITS)
        for name in ("strides", "least_depths"):
            if len(getattr(self, name)) != len(self.widths):
                raise ConfigError(
                    f"{name} has {len(getattr(self, name))} entries, widths {len(self.widths)}: the numbers must be equal"
                )
        check_resolutions(self.resolution_options, self.image_size)

    def create(self, seed: int = 0) -> "ResNet":
        """Returns the super-network with weights initialised from `seed`."""
        return ResNet(self, rngs=nnx.Rngs(seed))


@dataclass(frozen=True)
class Width:
    """An elastic number of channels: `base` times the option of `gene`, rounded to a multiple of 8, halved if `half`."""

    gene: Gene
    base: int
    half: bool = False

    def options(self, gene: Gene) -> tuple[int, ...]:
        """The widths for the options of `gene`, which may be a narrowed copy of the own one (extracted stages have one)."""
        full = [make_divisible(int(self.base * multiplier)) for multiplier in gene.options]  # type: ignore[arg-type]
        return tuple(make_divisible(width // 2) if self.half else width for width in full)  # type: ignore[misc]

    @property
    def largest(self) -> int:
        """The greatest width."""
        return max(self.options(self.gene))


class StemConv(Stage):
    """A convolution of the stem (3 x 3), followed by max pooling if `pool`. Its genes are its widths, in and out."""

    def __init__(self, inputs: Width | int, outputs: Width, *, stride: int, pool: bool, epsilon: float, rngs: nnx.Rngs):
        self.inputs = inputs if isinstance(inputs, Width) else None
        self.outputs = outputs
        self.pool = pool
        self.genes = (outputs.gene,) if self.inputs is None else (self.inputs.gene, outputs.gene)
        wide = inputs.largest if isinstance(inputs, Width) else inputs
        self.conv = ConvNorm(wide, outputs.largest, (3,), stride=stride, activation="relu", epsilon=epsilon, rngs=rngs)

    def forward(self, carry: Maps, choice: Choice, statistics: UsedStatistics) -> tuple[Maps, Statistics]:
        if self.inputs is not None:
            carry = cut(carry, -1, pick(self.inputs.options(self.genes[0]), choice[0]))
        width = pick(self.outputs.options(self.genes[-1]), choice[-1])
        x, moments = self.conv(carry, statistics.get("conv"), width)
        return (max_pool(x) if self.pool else x), {"conv": moments}


class StemBlock(Stage):
    """The stem's residual block, which the gate may leave out; there is no activation after the sum."""

    def __init__(self, width: Width, gate: tuple[Gene, float], *, epsilon: float, rngs: nnx.Rngs):
        self.width = width
        self.genes = (width.gene,)
        self.gate = gate
        self.conv = ConvNorm(width.largest, width.largest, (3,), activation="relu", epsilon=epsilon, rngs=rngs)

    def forward(self, carry: Maps, choice: Choice, statistics: UsedStatistics) -> tuple[Maps, Statistics]:
        width = pick(self.width.options(self.genes[0]), choice[0])
        carry = cut(carry, -1, width)
        x, moments = self.conv(carry, statistics.get("conv"), width)
        return carry + x, {"conv": moments}


class Bottleneck(Stage):
    """Bottleneck block: reduction (1 x 1), convolution (3 x 3), expansion (1 x 1), sum with the shortcut, activation.

    Its genes are the input width (in the first block of a group), the output width and the expand ratio. The shortcut of a
    group's first block is an average pooling and a convolution (ResNet-D, arXiv:1812.01187, Figure 2c).
    """

    def __init__(
        self,
        inputs: Width,
        outputs: Width,
        expand: Gene,
        stride: int,
        gate: tuple[Gene, float] | None,
        *,
        epsilon: float,
        rngs: nnx.Rngs,
    ):
        self.inputs = inputs
        self.outputs = outputs
        self.stride = stride
        self.gate = gate
        project = inputs != outputs
        self.genes = (inputs.gene, outputs.gene, expand) if project else (outputs.gene, expand)
        hidden, wide = max(self.hidden_widths()), outputs.largest
        self.reduce = ConvNorm(inputs.largest, hidden, activation="relu", epsilon=epsilon, rngs=rngs)
        self.spatial = ConvNorm(hidden, hidden, (3,), stride=stride, activation="relu", epsilon=epsilon, rngs=rngs)
        self.expand = ConvNorm(hidden, wide, epsilon=epsilon, rngs=rngs)
        self.shortcut = ConvNorm(inputs.largest, wide, epsilon=epsilon, rngs=rngs) if project else None

    def hidden_widths(self) -> tuple[int, ...]:
        """The number of channels inside the block, for each output width (outer loop) and expand ratio (inner loop)."""
        return tuple(
            make_divisible(round(width * ratio))  # type: ignore[misc, operator, arg-type]
            for width in self.outputs.options(self.genes[-2])
            for ratio in self.genes[-1].options
        )

    def sort_units(self, least: tuple[int, ...]) -> None:
        ratios = len(self.genes[-1].options)
        widths = np.reshape(self.hidden_widths(), (-1, ratios))[least[-2] :, least[-1] :]
        for layer, following in ((self.reduce, self.spatial), (self.spatial, self.expand)):
            order = by_importance(following.conv.importance(), np.unique(widths).tolist())
            layer.reorder(order)
            following.conv.reorder(inputs=order)

    def forward(self, carry: Maps, choice: Choice, statistics: UsedStatistics) -> tuple[Maps, Statistics]:
        carry = cut(carry, -1, pick(self.inputs.options(self.genes[0]), choice[0]))
        width = pick(self.outputs.options(self.genes[-2]), choice[-2])
        hidden: Size = pick(self.hidden_widths(), choice[-2] * len(self.genes[-1].options) + choice[-1])
        used: Statistics = {}
        residual = carry
        if self.shortcut is not None:
            pooled = average_pool(carry, self.stride)
            residual, used["shortcut"] = self.shortcut(pooled, statistics.get("shortcut"), width)
        x, used["reduce"] = self.reduce.deferred(carry, statistics.get("reduce"), hidden)
        x, used["spatial"] = self.spatial.deferred(x, statistics.get("spatial"), hidden)
        x, used["expand"] = self.expand(x, statistics.get("expand"), width)
        return jnp.maximum(x + residual, 0), used


class Head(Stage):
    """The head: average pooling and classifier. Its outputs are logits."""

    def __init__(self, inputs: Width, classes: int, *, rngs: nnx.Rngs):
        self.inputs = inputs
        self.genes = (inputs.gene,)
        self.classify = Dense(inputs.largest, classes, rngs=rngs)

    def forward(self, carry: Maps, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        carry = cut(carry, -1, pick(self.inputs.options(self.genes[0]), choice[0]))
        return self.classify(carry.mean((1, 2))), {}


def max_pool(x: Maps) -> Maps:
    """Max pooling over 3 x 3 pixels, stride 2, one pixel of padding."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))


def average_pool(x: Maps, size: int) -> Maps:
    """Average pooling over `size` x `size` pixels (1 or 2) at that stride; windows at the edge average the pixels inside."""
    if size == 1:
        return x
    # Repeating an odd edge once keeps the mean of the pixels inside: (a + a) / 2 = a.
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), mode="edge")
    return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3]).mean((2, 4))


class ResNet(SuperNet):
    """A ResNet-D super-network.

    Genes, groups and blocks counted from 1: `depth_stem` (the largest option, or 0: without the stem's residual block),
    `depth_1`… (blocks beyond `least_depths`), `width_stem_middle`, `width_stem`, `width_1`… (multipliers), `expand_1_1`…
    (hidden width of a block over its output width), and `resolution` where it is elastic.
    """

    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        options: dict[str, Any] = {"epsilon": config.epsilon, "rngs": rngs}
        stem = Width(Gene("width_stem", config.multipliers), config.stem_width)
        distinct = tuple(sorted({self.middle_multiplier(multiplier) for multiplier in config.multipliers}))
        middle = Width(Gene("width_stem_middle", distinct), config.stem_width, half=True)
        depth = Gene("depth_stem", (0, max(config.depths)))
        stages: list[Stage] = [
            StemConv(config.channels, middle, stride=2, pool=False, **options),
            StemBlock(middle, (depth, max(config.depths)), **options),
            StemConv(middle, stem, stride=1, pool=True, **options),
        ]
        width = stem
        for i, base in enumerate(config.widths):
            depth = Gene(f"depth_{i + 1}", config.depths)
            outputs = Width(Gene(f"width_{i + 1}", config.multipliers), base)
            for block in range(config.least_depths[i] + max(config.depths)):
                extra = block + 1 - config.least_depths[i]
                gate = (depth, extra) if extra > min(config.depths) else None
                expand = Gene(f"expand_{i + 1}_{block + 1}", config.expands, gate and (depth.name, extra))
                stride = config.strides[i] if block == 0 else 1
                stages.append(Bottleneck(width, outputs, expand, stride, gate, **options))
                width = outputs
        stages.append(Head(width, config.classes, rngs=rngs))
        super().__init__(stages, (config.image_size, config.image_size, config.channels), config.resolution_options)

    def middle_multiplier(self, multiplier: float) -> float:
        """The smallest multiplier with the same width of the stem's middle layer; .65 and .8 (both 24) are one option."""
        stem = Width(Gene("width_stem_middle", self.config.multipliers), self.config.stem_width, half=True)
        widths = dict(zip(self.config.multipliers, stem.options(stem.gene), strict=True))
        return min(other for other in widths if widths[other] == widths[multiplier])
