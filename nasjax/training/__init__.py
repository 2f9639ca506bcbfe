"""Training methods for super-networks."""

from nasjax.training.alphanet import AlphaNetConfig
from nasjax.training.attentive import AttentiveConfig
from nasjax.training.plain import PlainConfig
from nasjax.training.progressive import ProgressiveConfig
from nasjax.training.sandwich import SandwichConfig
from nasjax.training.single_path import SinglePathConfig

TRAINERS = {
    "sandwich": SandwichConfig,
    "single_path": SinglePathConfig,
    "progressive": ProgressiveConfig,
    "attentive": AttentiveConfig,
    "alphanet": AlphaNetConfig,
    "plain": PlainConfig,
}
"""Every training method by name."""

__all__ = [
    "TRAINERS", "AlphaNetConfig", "AttentiveConfig", "PlainConfig", "ProgressiveConfig", "SandwichConfig",
    "SinglePathConfig",
]  # fmt: skip
