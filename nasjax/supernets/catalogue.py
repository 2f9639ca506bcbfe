"""Every super-network by name, and how one is made."""

from pathlib import Path
from typing import Any

from flax import nnx

from nasjax.errors import ConfigError
from nasjax.registry import record, settings
from nasjax.supernets.checkpoints import load_weights
from nasjax.supernets.external import ExternalConfig
from nasjax.supernets.families.mobilenet_v3 import MobileNetV3Config
from nasjax.supernets.families.resnet import ResNetConfig
from nasjax.supernets.own import OwnConfig
from nasjax.supernets.supernet import SuperNet
from nasjax.supernets.tabular import TabularConfig

SUPERNETS: dict[str, Any] = {
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
    "tabular": TabularConfig(),
    "external": ExternalConfig(),
    "own": OwnConfig(),
}
"""Every super-network by name: its configuration, which a caller may change field by field."""

SHIPPED = Path(__file__).parent / "weights"


def create(name: str, *, seed: int = 0, **changes: Any) -> Any:
    """The named super-network, ready to be searched: `create("digits")`, `create("tabular", table=…, genes=…)`.

    `changes` are fields of its configuration, `checkpoint` among them; without a checkpoint weights are drawn from `seed`.
    A class of your own is named `module:Class`. Raises ConfigError for an unknown name or field, or a checkpoint of another
    super-network. `new_classifier=True` draws the classifier from `seed` where the checkpoint's has other classes.

    `net(images, arch)` are logits. Once-for-All's weights expect `images` (batch, height, width, 3), float32 RGB scaled to
    0-1, less (.485, .456, .406), over (.229, .224, .225); the digits' (batch, 8, 8, 1), 0-1 too, less .3, over .38.
    """
    if ":" in name:
        name, changes = "own", {"target": name, **changes}
    config = settings("supernet", SUPERNETS, {"name": name, **changes})
    checkpoint = getattr(config, "checkpoint", None)
    if checkpoint is None:
        net = config.create(seed)
    else:
        path = SHIPPED / f"{name}.safetensors" if checkpoint == "shipped" else Path(checkpoint)
        # Somebody's own class has no classifier that we know of.
        net = load_weights(config.create, path, seed if getattr(config, "new_classifier", False) else None)
    net.origin = record(SUPERNETS, config, name)
    return net


def abstract(name: str, **changes: Any) -> SuperNet:
    """The named super-network of ours without weights: its genes, shapes and costs, at once.

    Raises ConfigError for an unknown name or field, and for one that is a table or somebody else's function.
    """
    config = settings("supernet", SUPERNETS, {"name": name, **changes})
    if not isinstance(config, MobileNetV3Config | ResNetConfig):
        raise ConfigError(f"supernet={name} is not one of Once-for-All's")
    return nnx.eval_shape(config.create)
