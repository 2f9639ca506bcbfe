"""Training methods for super-networks."""

from nasjax.training.sandwich import SandwichConfig
from nasjax.training.single_path import SinglePathConfig

TRAINERS = {"sandwich": SandwichConfig, "single_path": SinglePathConfig}
"""Every training method by name."""

__all__ = ["TRAINERS", "SandwichConfig", "SinglePathConfig"]
