"""The MobileNetV3 family of elastic super-networks (Once-for-All, arXiv:1908.09791; MobileNetV3, arXiv:1905.02244).

Stages: a stem convolution, a first block without choices, then per stage of the network `max(depths)` inverted bottlenecks
whose kernel and expand ratio are elastic and whose last ones the stage's depth switches off, then a head.
"""

from dataclasses import dataclass

from flax import nnx
from jaxtyping import Array, Float

from nasjax.errors import ConfigError
from nasjax.space import Gene
from nasjax.supernets.cpu.convolution import ACTIVATIONS, Maps
from nasjax.supernets.elastic import Conv, ConvNorm, Dense, SqueezeExcite, make_divisible, pick
from nasjax.supernets.families.limits import COUNT, COUNT_OR_NONE, ODD, POSITIVE, WHOLE, check_limits
from nasjax.supernets.resolution import RESOLUTIONS, check_resolutions
from nasjax.supernets.stage import Choice, Mixed, Stage, Statistics, UsedStatistics
from nasjax.supernets.supernet import SuperNet

LIMITS = {
    **dict.fromkeys(("image_size", "resolutions"), WHOLE),
    **dict.fromkeys(("channels", "classes", "stem_width", "stem_stride", "widths", "strides", "depths"), COUNT),
    **dict.fromkeys(("first_width", "final_expand", "final_width"), COUNT_OR_NONE),
    **dict.fromkeys(("expands", "epsilon"), POSITIVE),
    "kernels": ODD,
}
"""What the numbers of a configuration may be."""


@dataclass(frozen=True)
class MobileNetV3Config:
    """What a network of this family looks like; the defaults are Once-for-All's MobileNetV3 of width 1.0.

    One entry a stage in `widths`, `strides`, `depths`, `activations`, `squeeze_excite`; a `first_width`, `final_expand` or
    `final_width` of 0 leaves that part out. `checkpoint`: a file of weights, ours or as published for PyTorch, or `shipped`
    for those inside the package. The weights that Once-for-All publishes expect RGB pictures (batch, height, width,
    channels) scaled to 0-1, less (.485, .456, .406) and over (.229, .224, .225). `elastic_resolution`
    makes the resolution a gene of 160, 192 and 224 pixels, `resolutions` one of others: pictures of `image_size` are scaled
    down to it. `new_classifier` leaves the checkpoint's classifier, of other classes, for one that is drawn: to be trained.
    """

    image_size: int = 224
    elastic_resolution: bool = False
    resolutions: tuple[int, ...] = ()
    channels: int = 3
    classes: int = 1000
    stem_width: int = 16
    stem_stride: int = 2
    stem_activation: str = "h_swish"
    first_width: int = 16
    first_activation: str = "relu"
    widths: tuple[int, ...] = (24, 40, 80, 112, 160)
    strides: tuple[int, ...] = (2, 2, 2, 1, 2)
    depths: tuple[tuple[int, ...], ...] = ((2, 3, 4),) * 5
    kernels: tuple[int, ...] = (3, 5, 7)
    expands: tuple[int, ...] = (3, 4, 6)
    activations: tuple[str, ...] = ("relu", "relu", "h_swish", "h_swish", "h_swish")
    squeeze_excite: tuple[bool, ...] = (False, True, False, True, True)
    final_expand: int = 960
    final_width: int = 1280
    final_activation: str = "h_swish"
    epsilon: float = 1e-5
    checkpoint: str | None = None
    new_classifier: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """The resolutions to choose from; none where the resolution is no gene."""
        return self.resolutions or (RESOLUTIONS if self.elastic_resolution else ())

    def __post_init__(self):
        check_limits(self, LIMITS)
        for name in ("strides", "depths", "activations", "squeeze_excite"):
            if len(getattr(self, name)) != len(self.widths):
                raise ConfigError(f"{name} has {len(getattr(self, name))} entries, widths {len(self.widths)}: one a stage")
        check_resolutions(self.sizes, self.image_size)
        for name in {self.stem_activation, self.first_activation, self.final_activation, *self.activations}:
            if name not in ACTIVATIONS:
                raise ConfigError(f"unknown activation {name!r}; allowed: {', '.join(ACTIVATIONS)}")

    def create(self, seed: int = 0) -> "MobileNetV3":
        """The super-network with weights drawn from `seed`."""
        return MobileNetV3(self, rngs=nnx.Rngs(seed))


class Stem(Stage):
    """The first convolution."""

    def __init__(self, config: MobileNetV3Config, *, rngs: nnx.Rngs):
        self.conv = ConvNorm(config.channels, config.stem_width, (3,), stride=config.stem_stride, rngs=rngs,
                             activation=config.stem_activation, epsilon=config.epsilon)  # fmt: skip

    def forward(self, carry: Maps, choice: Choice, statistics: UsedStatistics) -> tuple[Maps, Statistics]:
        carry, moments = self.conv(carry, statistics.get("conv"))
        return carry, {"conv": moments}


class SeparableBlock(Stage):
    """Depthwise convolution and projection, without choices: MobileNetV3's first block."""

    def __init__(self, inputs: int, outputs: int, *, activation: str, epsilon: float, rngs: nnx.Rngs):
        self.identity = inputs == outputs
        self.depthwise = ConvNorm(inputs, inputs, (3,), depthwise=True, activation=activation, epsilon=epsilon, rngs=rngs)
        self.project = ConvNorm(inputs, outputs, epsilon=epsilon, rngs=rngs)

    def forward(self, carry: Maps, choice: Choice, statistics: UsedStatistics) -> tuple[Maps, Statistics]:
        used: Statistics = {}
        x, used["depthwise"] = self.depthwise.pending(carry, statistics.get("depthwise"))
        x, used["project"] = self.project(x, statistics.get("project"))
        return (carry + x if self.identity else x), used


class InvertedBottleneck(Stage):
    """Expand (1 x 1), depthwise convolution, squeeze-and-excitation, project (1 x 1); identity added where shapes allow.

    Its genes are the kernel size and the expand ratio; the gate is the depth that may switch it off.
    """

    sizes_only = (0,)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        kernel: Gene,
        expand: Gene,
        gate: tuple[Gene, float] | None,
        *,
        activation: str,
        squeeze_excite: bool,
        epsilon: float,
        rngs: nnx.Rngs,
    ):
        self.genes = (kernel, expand)
        self.gate = gate
        self.inputs = inputs
        self.identity = stride == 1 and inputs == outputs
        middle = self.middles()[-1]
        kernels: tuple[int, ...] = kernel.options  # type: ignore[assignment]
        self.expand = ConvNorm(inputs, middle, activation=activation, epsilon=epsilon, rngs=rngs)
        self.depthwise = ConvNorm(middle, middle, kernels, stride=stride, depthwise=True, activation=activation,
                                  epsilon=epsilon, rngs=rngs)  # fmt: skip
        self.excite = SqueezeExcite(middle, rngs=rngs) if squeeze_excite else None
        self.project = ConvNorm(middle, outputs, epsilon=epsilon, rngs=rngs)

    def middles(self) -> tuple[int, ...]:
        """The width between expansion and projection, for each expand ratio."""
        return tuple(make_divisible(round(self.inputs * ratio)) for ratio in self.genes[1].options)  # type: ignore

    def forward(self, carry: Maps, choice: Mixed, statistics: UsedStatistics) -> tuple[Maps, Statistics]:
        middle = pick(self.middles(), choice[1])  # type: ignore[arg-type]
        used: Statistics = {}
        x, used["expand"] = self.expand.pending(carry, statistics.get("expand"), middle)
        x, used["depthwise"] = self.depthwise.pending(x, statistics.get("depthwise"), middle, self.option(choice, 0))
        if self.excite is not None:
            x = self.excite(x, middle)
        x, used["project"] = self.project(x, statistics.get("project"))
        return (carry + x if self.identity else x), used


class Head(Stage):
    """Last expansion, average pooling, last hidden layer, classifier."""

    def __init__(self, inputs: int, config: MobileNetV3Config, *, rngs: nnx.Rngs):
        self.activation = config.final_activation
        expanded = config.final_expand or inputs
        expand = ConvNorm(inputs, expanded, activation=config.final_activation, epsilon=config.epsilon, rngs=rngs)
        self.expand = expand if config.final_expand else None
        self.mix = Conv(expanded, config.final_width, rngs=rngs) if config.final_width else None
        self.classify = Dense(config.final_width or expanded, config.classes, rngs=rngs)

    def forward(
        self, carry: Maps, choice: Choice, statistics: UsedStatistics
    ) -> tuple[Float[Array, "batch classes"], Statistics]:
        used: Statistics = {}
        if self.expand is not None:
            carry, used["expand"] = self.expand(carry, statistics.get("expand"))
        x = carry.mean((1, 2), keepdims=True)
        if self.mix is not None:
            x = ACTIVATIONS[self.activation](self.mix(x))
        return self.classify(x[:, 0, 0]), used


class MobileNetV3(SuperNet):
    """A super-network of this family."""

    def __init__(self, config: MobileNetV3Config, *, rngs: nnx.Rngs):
        self.config = config
        stages: list[Stage] = [Stem(config, rngs=rngs)]
        width = config.stem_width
        if config.first_width:
            stages.append(
                SeparableBlock(
                    width, config.first_width, activation=config.first_activation, epsilon=config.epsilon, rngs=rngs
                )
            )
            width = config.first_width
        for i, outputs in enumerate(config.widths):
            depth = Gene(f"depth_{i + 1}", config.depths[i])
            for block in range(max(config.depths[i])):
                gate = (depth, block + 1) if block >= min(config.depths[i]) else None
                needs = gate and (depth.name, block + 1)
                stages.append(
                    InvertedBottleneck(
                        width,
                        outputs,
                        config.strides[i] if block == 0 else 1,
                        Gene(f"kernel_{i + 1}_{block + 1}", config.kernels, needs),
                        Gene(f"expand_{i + 1}_{block + 1}", config.expands, needs),
                        gate,
                        activation=config.activations[i],
                        squeeze_excite=config.squeeze_excite[i],
                        epsilon=config.epsilon,
                        rngs=rngs,
                    )
                )
                width = outputs
        stages.append(Head(width, config, rngs=rngs))
        super().__init__(stages, (config.image_size, config.image_size, config.channels), config.sizes)
