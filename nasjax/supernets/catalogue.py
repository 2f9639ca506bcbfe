"""The table of super-networks by name, and functions that create one."""

from pathlib import Path
from typing import Any

import jax
from flax import nnx

from nasjax.errors import ConfigError
from nasjax.host import regular_file
from nasjax.jax_defaults import with_jax_defaults
from nasjax.registry import record, settings
from nasjax.supernets.checkpoints import load_largest, load_weights, weights_digest
from nasjax.supernets.external import ExternalConfig
from nasjax.supernets.families.mobilenet_v3 import MobileNetV3Config
from nasjax.supernets.families.resnet import ResNetConfig
from nasjax.supernets.families.transformer import TransformerConfig
from nasjax.supernets.own import OwnConfig
from nasjax.supernets.supernet import SuperNet
from nasjax.supernets.tabular import TabularConfig

SuperNetConfig = MobileNetV3Config | ResNetConfig | TransformerConfig | TabularConfig | ExternalConfig | OwnConfig
"""The settings of a super-network."""

SUPERNETS: dict[str, SuperNetConfig] = {
    "digits": MobileNetV3Config(
        image_size=8,
        channels=1,
        classes=10,
        stem_width=8,
        stem_stride=1,
        first_width=0,
        widths=(16, 24, 32),
        strides=(2, 1, 2),
        depths=((1, 2),) * 3,
        kernels=(3, 5),
        expands=(2, 3, 4),
        activations=("relu", "h_swish", "h_swish"),
        squeeze_excite=(False, False, True),
        final_expand=0,
        final_width=0,
        checkpoint="shipped",
    ),
    "ofa_mbv3_d234_e346_k357_w1.0": MobileNetV3Config(),
    "ofa_mbv3_d234_e346_k357_w1.2": MobileNetV3Config(
        stem_width=24,
        first_width=24,
        widths=(32, 48, 96, 136, 192),
        final_expand=1152,
        final_width=1536,
    ),
    "ofa_proxyless_d234_e346_k357_w1.3": MobileNetV3Config(
        stem_width=40,
        stem_activation="relu6",
        first_width=24,
        first_activation="relu6",
        widths=(32, 56, 104, 128, 248, 416),
        strides=(2, 2, 2, 1, 2, 1),
        depths=((2, 3, 4),) * 5 + ((1,),),
        activations=("relu6",) * 6,
        squeeze_excite=(False,) * 6,
        final_expand=1664,
        final_width=0,
        final_activation="relu6",
        epsilon=1e-3,
    ),
    "ofa_resnet50": ResNetConfig(),
    "transformer_lt_wmt_en_de": TransformerConfig(),
    "transformer_lt_iwslt_de_en": TransformerConfig(
        source_words=8848,
        target_words=6632,
        shared_embeddings=False,
        length=23,
        heads=(2, 4),
        hidden=(512, 1024, 2048),
        dropout=0.375,
    ),
    "tabular": TabularConfig(),
    "external": ExternalConfig(),
    "own": OwnConfig(),
}
"""Every super-network by name: its default configuration, any field of which can be changed."""

OTHER_SEED = 2**32 - 1
"""A seed that a person hardly chooses, to see whether weights depend on it."""

SHIPPED = Path(__file__).parent / "weights"
"""The folder of the weights inside the package."""


@with_jax_defaults
def create(name: str, *, seed: int = 0, **changes: Any) -> Any:
    """Creates a super-network, ready to be searched: `create("digits")`, `create("tabular", table=…, genes=…)`.

    Args:
      name: a name in `SUPERNETS`, or `module:Class` for a class of your own.
      seed: initialises the weights where there is no checkpoint, and a new classifier.
      **changes: fields of the configuration, such as `checkpoint`.

    Returns a `SuperNet`, a `TabularNet` or an `ExternalNet`. Raises ConfigError for an unknown name or field, for invalid
    settings, and for a checkpoint of another super-network.

    `net(images, arch)` of an image classifier returns logits. Once-for-All's weights expect `images` (batch, height, width,
    3): float32 RGB, scaled to 0-1, minus (.485, .456, .406), divided by (.229, .224, .225). Those of `digits` expect
    (batch, 8, 8, 1): scaled to 0-1, minus .3, divided by .38.
    """
    if ":" in name:
        name, changes = "own", {"target": name, **changes}
    config = settings("supernet", SUPERNETS, {"name": name, **changes})
    checkpoint, meant = getattr(config, "checkpoint", None), getattr(config, "untrained", False)
    # A class of the user's has no such setting: nothing is known of its classifier.
    new_classifier = getattr(config, "new_classifier", False)
    if meant and checkpoint is not None and not new_classifier:
        raise ConfigError(f"supernet.untrained=true, but supernet.checkpoint={checkpoint}: leave one out (checkpoint=null)")
    if checkpoint is None:
        net = config.create(seed)
    else:
        given = f"supernet.checkpoint={checkpoint}"
        path = SHIPPED / f"{name}.safetensors" if checkpoint == "shipped" else regular_file(given, checkpoint)
        net = load_weights(config.create, path, seed if new_classifier else None)
    net.origin = record(SUPERNETS, config, name)
    if isinstance(net, SuperNet) and not meant and (checkpoint is None or new_classifier) and not _is_traced(net):
        net.untrained = weights_digest(net)
    return net


@with_jax_defaults
def from_largest(source: str | Path, name: str, *, seed: int = 0, **changes: Any) -> SuperNet:
    """A super-network whose largest sub-network has the weights of a trained network, to be trained.

    `source`: a file of weights, nasjax's or published for PyTorch, or a folder of `nasjax extract`. Smaller kernels are the
    centre of the largest one, and hidden units are sorted by importance, so that narrow sub-networks have those that matter.
    The other arguments are those of `create`, without a `checkpoint`. Raises ConfigError for
    weights of a network that is not the largest sub-network.
    """
    config = settings("supernet", SUPERNETS, {"name": name, **changes})
    if getattr(config, "checkpoint", None) is not None:
        raise ConfigError(f"largest={source} has the weights: leave supernet.checkpoint={config.checkpoint} out")
    path, seeded = Path(source), seed if getattr(config, "new_classifier", False) else None
    path = path / "network.safetensors" if path.is_dir() else regular_file(f"largest={source}", path)
    if not path.exists():
        raise ConfigError(f"largest={source} holds no extracted network: it has no {path.name}")
    net: SuperNet = load_largest(config.create, path, seeded)
    net.sort_units(tuple(map(int, net.space.largest())))
    net.origin = record(SUPERNETS, config, name)
    return net


def _is_traced(net: SuperNet) -> bool:
    """Whether the network is created inside `eval_shape` or `jit`, where weights have no values yet."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(nnx.state(net)))


def untrained_warning(net: SuperNet) -> str | None:
    """A line that says that the weights are untrained, and what to do; None where they are trained, or may be.

    Untrained are weights as `create` initialised them: without a checkpoint, or with a new classifier. Those of a class that
    loads its weights itself do not depend on the seed.
    """
    if net.untrained is None or net.untrained != weights_digest(net):
        return None
    config = settings("supernet", SUPERNETS, net.origin)
    if isinstance(config, OwnConfig) and weights_digest(config.create(OTHER_SEED)) == net.untrained:
        return None
    name = getattr(config, "target", None) or net.origin["name"]
    problem = "has untrained weights: load trained ones by supernet.checkpoint=FILE"
    if config.checkpoint is not None:
        problem = "has an untrained classifier (supernet.new_classifier=true): train it first, by nasjax train"
    return f"supernet={name} {problem}; until then its metrics are those of chance (supernet.untrained=true: this is meant)"


def abstract(name: str, **changes: Any) -> SuperNet:
    """Creates a super-network without weights (abstract arrays), quickly: for its search space, shapes and costs.

    Raises ConfigError for an unknown name or field, and for a super-network that is not of one of our families (a table, a
    function, a class of the user's).
    """
    config = settings("supernet", SUPERNETS, {"name": name, **changes})
    if not isinstance(config, MobileNetV3Config | ResNetConfig | TransformerConfig):
        raise ConfigError(f"supernet={name} is not one of Once-for-All's or HAT's")
    return nnx.eval_shape(config.create)
