"""The ResNet-D family of elastic super-networks (Once-for-All's ResNet50, arXiv:1908.09791; ResNet-D, arXiv:1812.01187).

Stages: three of a stem whose residual block may be left out, then bottlenecks whose expand ratio is elastic, whose last ones
the depth switches off and whose width one gene sets for each stage of the network, then a head.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import PyTree

from nasjax.errors import ConfigError
from nasjax.space import Gene
from nasjax.supernets.cpu.convolution import Maps
from nasjax.supernets.elastic import ConvNorm, Dense, Size, cut, make_divisible, pick
from nasjax.supernets.families.limits import COUNT, COUNT_OR_NONE, ONE_OR_TWO, POSITIVE, WHOLE, check_limits
from nasjax.supernets.resolution import RESOLUTIONS, check_resolutions
from nasjax.supernets.stage import Choice, Stage, Statistics, UsedStatistics
from nasjax.supernets.supernet import SuperNet

LIMITS = {
    **dict.fromkeys(("image_size", "resolutions"), WHOLE),
    **dict.fromkeys(("channels", "classes", "stem_width", "widths", "least_depths"), COUNT),
    **dict.fromkeys(("expands", "multipliers", "epsilon"), POSITIVE),
    "strides": ONE_OR_TWO,
    "depths": COUNT_OR_NONE,
}
"""What the numbers of a configuration may be; shortcuts are pooled by their stride, which knows 1 and 2."""


@dataclass(frozen=True)
class ResNetConfig:
    """What a network of this family looks like; the defaults are Once-for-All's ResNet50.

    One entry a stage in `widths` (at multiplier 1), `strides` and `least_depths`, to which an option of `depths` is added.
    `checkpoint`: a file of weights, ours or as published for PyTorch (None: drawn). The published weights expect RGB
    pictures (batch, height, width, channels) scaled to 0-1, less (.485, .456, .406) and over (.229, .224, .225).
    `elastic_resolution` makes the resolution a gene of 160, 192 and 224 pixels, `resolutions` one of others: pictures of
    `image_size` are scaled down to it. `new_classifier` leaves the checkpoint's classifier, of other classes, for one that
    is drawn: to be trained.
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

    @property
    def sizes(self) -> tuple[int, ...]:
        """The resolutions to choose from; none where the resolution is no gene."""
        return self.resolutions or (RESOLUTIONS if self.elastic_resolution else ())

    def __post_init__(self):
        check_limits(self, LIMITS)
        for name in ("strides", "least_depths"):
            if len(getattr(self, name)) != len(self.widths):
                raise ConfigError(f"{name} has {len(getattr(self, name))} entries, widths {len(self.widths)}: one a stage")
        check_resolutions(self.sizes, self.image_size)

    def create(self, seed: int = 0) -> "ResNet":
        """The super-network with weights drawn from `seed`."""
        return ResNet(self, rngs=nnx.Rngs(seed))


@dataclass(frozen=True)
class Width:
    """An elastic number of channels: `base` times an option of `gene`, rounded to a multiple of 8; or `half` of it."""

    gene: Gene
    base: int
    half: bool = False

    def options(self, gene: Gene) -> tuple[int, ...]:
        """The widths that the options of `gene` stand for (an extracted stage's has one)."""
        whole = [make_divisible(int(self.base * multiplier)) for multiplier in gene.options]  # type: ignore[arg-type]
        return tuple(make_divisible(width // 2) if self.half else width for width in whole)  # type: ignore[misc]

    @property
    def largest(self) -> int:
        return max(self.options(self.gene))


class StemConv(Stage):
    """A 3 x 3 convolution of the stem; the last one pools."""

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
    """The stem's residual block, which its depth may leave out: no activation after the sum."""

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
    """Reduce (1 x 1), spatial convolution, expand (1 x 1), shortcut added, activation.

    Its genes are the width that it is given (where a stage of the network begins), the one it hands on, the expand ratio.
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
        middle, wide = max(self.middles()), outputs.largest
        self.reduce = ConvNorm(inputs.largest, middle, activation="relu", epsilon=epsilon, rngs=rngs)
        self.spatial = ConvNorm(middle, middle, (3,), stride=stride, activation="relu", epsilon=epsilon, rngs=rngs)
        self.expand = ConvNorm(middle, wide, epsilon=epsilon, rngs=rngs)
        self.shortcut = ConvNorm(inputs.largest, wide, epsilon=epsilon, rngs=rngs) if project else None

    def middles(self) -> tuple[int, ...]:
        """The width inside, for each output width (outer) and expand ratio (inner): it follows the output's width."""
        return tuple(
            make_divisible(round(width * ratio))  # type: ignore[misc, operator, arg-type]
            for width in self.outputs.options(self.genes[-2])
            for ratio in self.genes[-1].options
        )

    def forward(self, carry: Maps, choice: Choice, statistics: UsedStatistics) -> tuple[Maps, Statistics]:
        carry = cut(carry, -1, pick(self.inputs.options(self.genes[0]), choice[0]))
        width = pick(self.outputs.options(self.genes[-2]), choice[-2])
        middle: Size = pick(self.middles(), choice[-2] * len(self.genes[-1].options) + choice[-1])
        used: Statistics = {}
        residual = carry
        if self.shortcut is not None:
            pooled = average_pool(carry, self.stride)
            residual, used["shortcut"] = self.shortcut(pooled, statistics.get("shortcut"), width)
        x, used["reduce"] = self.reduce.pending(carry, statistics.get("reduce"), middle)
        x, used["spatial"] = self.spatial.pending(x, statistics.get("spatial"), middle)
        x, used["expand"] = self.expand(x, statistics.get("expand"), width)
        return jnp.maximum(x + residual, 0), used


class Head(Stage):
    """Average pooling, classifier."""

    def __init__(self, inputs: Width, classes: int, *, rngs: nnx.Rngs):
        self.inputs = inputs
        self.genes = (inputs.gene,)
        self.classify = Dense(inputs.largest, classes, rngs=rngs)

    def forward(self, carry: Maps, choice: Choice, statistics: UsedStatistics) -> tuple[PyTree, Statistics]:
        carry = cut(carry, -1, pick(self.inputs.options(self.genes[0]), choice[0]))
        return self.classify(carry.mean((1, 2))), {}


def max_pool(x: Maps) -> Maps:
    """The greatest of 3 x 3 pixels, stride 2, one pixel of padding."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))


def average_pool(x: Maps, size: int) -> Maps:
    """The mean of size x size pixels, stride `size`; a window that the edge cuts counts those inside (size 1 or 2)."""
    if size == 1:
        return x
    # An odd edge, repeated once, leaves the mean of the pixels inside: (a + a) / 2 = a.
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), mode="edge")
    return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3]).mean((2, 4))


class ResNet(SuperNet):
    """A super-network of this family.

    Genes: `depth_stem` (0 or the largest option: whether the stem's residual block is there), `depth_1`… (blocks beyond
    `least_depths`), `width_stem_middle`, `width_stem`, `width_1`… (multipliers), `expand_1_1`… (of a block's output width).
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
        super().__init__(stages, (config.image_size, config.image_size, config.channels), config.sizes)

    def middle_multiplier(self, multiplier: float) -> float:
        """The least multiplier of the same middle width in the stem: .65 and .8 both give 24, so they are one option."""
        stem = Width(Gene("width_stem_middle", self.config.multipliers), self.config.stem_width, half=True)
        widths = dict(zip(self.config.multipliers, stem.options(stem.gene), strict=True))
        return min(other for other in widths if widths[other] == widths[multiplier])
