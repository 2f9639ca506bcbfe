"""The MobileNetV3 family of elastic super-networks (Once-for-All, arXiv:1908.09791; MobileNetV3, arXiv:1905.02244).

The stages of the super-network, in order: a stem convolution; a first block without choices; for each group of blocks of one
width (the papers call it a stage) `max(depths)` inverted bottlenecks, whose kernel size and expand ratio are elastic and the
last of which are switched off by the group's depth; a head.
"""

from dataclasses import dataclass

from flax import nnx
from jaxtyping import Array, Float

from nasjax.errors import ConfigError
from nasjax.space import Gene
from nasjax.supernets.cpu.convolution import ACTIVATIONS, Maps
from nasjax.supernets.elastic import Conv, ConvNorm, Dense, by_importance, make_divisible, pick
from nasjax.supernets.families.limits import INTEGER, NON_NEGATIVE_INTEGER, ODD, POSITIVE, POSITIVE_INTEGER, check_limits
from nasjax.supernets.resolution import RESOLUTIONS, check_resolutions
from nasjax.supernets.squeeze_excite import SqueezeExcite
from nasjax.supernets.stage import Choice, Mixed, Stage, Statistics, UsedStatistics
from nasjax.supernets.supernet import SuperNet

LIMITS = {
    **dict.fromkeys(("image_size", "resolutions"), INTEGER),
    **dict.fromkeys(("channels", "classes", "stem_width", "stem_stride", "widths", "strides", "depths"), POSITIVE_INTEGER),
    **dict.fromkeys(("first_width", "final_expand", "final_width"), NON_NEGATIVE_INTEGER),
    **dict.fromkeys(("expands", "epsilon"), POSITIVE),
    "kernels": ODD,
}
"""The allowed range of each numeric setting."""


@dataclass(frozen=True)
class MobileNetV3Config:
    """Configuration of a MobileNetV3 super-network; the defaults are Once-for-All's of width 1.0.

    Attributes:
      image_size: height and width of the input images, in pixels.
      elastic_resolution: makes the resolution a gene with the options 160, 192 and 224; images are scaled down to it.
      resolutions: other options of that gene, at most `image_size` each.
      channels, classes: numbers of input channels and of classes.
      stem_width, stem_stride, stem_activation: of the first convolution.
      first_width, first_activation: of the block without choices; a width of 0 leaves it out.
      widths, strides, depths, activations, squeeze_excite: one entry a group of blocks; of `depths`, a tuple of options.
      kernels, expands: the options of every block's kernel size and expand ratio.
      final_expand, final_width, final_activation: widths of the head's expansion and hidden layer; 0 leaves one out.
      epsilon: of all batch norms.
      checkpoint: a file of weights, nasjax's or published for PyTorch; `shipped`: the file inside the package; None: weights
        are initialised from a seed. Once-for-All's published weights expect RGB images (batch, height, width, 3) scaled to
        0-1, from which (.485, .456, .406) is subtracted, divided by (.229, .224, .225).
      new_classifier: initialises the classifier, to be trained, where the checkpoint has another number of classes.
      untrained: says that untrained weights are meant: a search on them gives no warning.

    Raises ConfigError for invalid settings.
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
    untrained: bool = False

    @property
    def resolution_options(self) -> tuple[int, ...]:
        """The options of the resolution gene, in pixels; empty where the resolution is not a gene."""
        return self.resolutions or (RESOLUTIONS if self.elastic_resolution else ())

    def __post_init__(self):
        check_limits(self, LIMITS)
        for name in ("strides", "depths", "activations", "squeeze_excite"):
            if len(getattr(self, name)) != len(self.widths):
                raise ConfigError(
                    f"{name} has {len(getattr(self, name))} entries, widths {len(self.widths)}: the numbers must be equal"
                )
        check_resolutions(self.resolution_options, self.image_size)
        for name in {self.stem_activation, self.first_activation, self.final_activation, *self.activations}:
            if name not in ACTIVATIONS:
                raise ConfigError(f"unknown activation {name!r}; allowed: {', '.join(ACTIVATIONS)}")

    def create(self, seed: int = 0) -> "MobileNetV3":
        """Returns the super-network with weights initialised from `seed`."""
        return MobileNetV3(self, rngs=nnx.Rngs(seed))


class Stem(Stage):
    """The first convolution (3 x 3), with batch norm and activation."""

    def __init__(self, config: MobileNetV3Config, *, rngs: nnx.Rngs):
        self.conv = ConvNorm(config.channels, config.stem_width, (3,), stride=config.stem_stride, rngs=rngs,
                             activation=config.stem_activation, epsilon=config.epsilon)  # fmt: skip

    def forward(self, carry: Maps, choice: Choice, statistics: UsedStatistics) -> tuple[Maps, Statistics]:
        carry, moments = self.conv(carry, statistics.get("conv"))
        return carry, {"conv": moments}


class SeparableBlock(Stage):
    """Depthwise convolution (3 x 3) and projection (1 x 1), without choices: MobileNetV3's first block."""

    def __init__(self, inputs: int, outputs: int, *, activation: str, epsilon: float, rngs: nnx.Rngs):
        self.identity = inputs == outputs
        self.depthwise = ConvNorm(inputs, inputs, (3,), depthwise=True, activation=activation, epsilon=epsilon, rngs=rngs)
        self.project = ConvNorm(inputs, outputs, epsilon=epsilon, rngs=rngs)

    def forward(self, carry: Maps, choice: Choice, statistics: UsedStatistics) -> tuple[Maps, Statistics]:
        used: Statistics = {}
        x, used["depthwise"] = self.depthwise.deferred(carry, statistics.get("depthwise"))
        x, used["project"] = self.project(x, statistics.get("project"))
        return (carry + x if self.identity else x), used


class InvertedBottleneck(Stage):
    """Inverted bottleneck block: expansion (1 x 1), depthwise convolution, squeeze-and-excitation, projection (1 x 1).

    The input is added to the output where the shapes are equal. Its genes are the kernel size and the expand ratio; its gate
    is the depth gene that may switch it off. Source: MobileNetV3 (arXiv:1905.02244), Section 3.
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
        hidden = self.hidden_widths()[-1]
        kernels: tuple[int, ...] = kernel.options  # type: ignore[assignment]
        self.expand = ConvNorm(inputs, hidden, activation=activation, epsilon=epsilon, rngs=rngs)
        self.depthwise = ConvNorm(hidden, hidden, kernels, stride=stride, depthwise=True, activation=activation,
                                  epsilon=epsilon, rngs=rngs)  # fmt: skip
        self.excite = SqueezeExcite(hidden, rngs=rngs) if squeeze_excite else None
        self.project = ConvNorm(hidden, outputs, epsilon=epsilon, rngs=rngs)

    def hidden_widths(self) -> tuple[int, ...]:
        """The number of channels between expansion and projection, for each option of the expand ratio."""
        return tuple(make_divisible(round(self.inputs * ratio)) for ratio in self.genes[1].options)  # type: ignore

    def sort_units(self, least: tuple[int, ...]) -> None:
        widths = self.hidden_widths()[least[1] :]
        order = by_importance(self.project.conv.importance(), widths)
        self.expand.reorder(order)
        self.depthwise.reorder(order)
        if self.excite is not None:
            self.excite.reorder(order, widths)
        self.project.conv.reorder(inputs=order)

    def forward(self, carry: Maps, choice: Mixed, statistics: UsedStatistics) -> tuple[Maps, Statistics]:
        hidden = pick(self.hidden_widths(), choice[1])  # type: ignore[arg-type]
        used: Statistics = {}
        x, used["expand"] = self.expand.deferred(carry, statistics.get("expand"), hidden)
        x, used["depthwise"] = self.depthwise.deferred(x, statistics.get("depthwise"), hidden, self.option(choice, 0))
        if self.excite is not None:
            x = self.excite(x, hidden)
        x, used["project"] = self.project(x, statistics.get("project"))
        return (carry + x if self.identity else x), used


class Head(Stage):
    """The head: last expansion (1 x 1), average pooling, hidden layer, classifier. Its outputs are logits."""

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
    """A MobileNetV3 super-network.

    Genes, groups and blocks counted from 1: `depth_1`… (blocks of a group, where there are several options), `kernel_1_1`…
    and `expand_1_1`… (of each block), and `resolution` where it is elastic.
    """

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
        super().__init__(stages, (config.image_size, config.image_size, config.channels), config.resolution_options)
