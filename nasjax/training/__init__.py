"""Training methods for super-networks."""

from nasjax.training.sandwich import SandwichConfig

TRAINERS = {"sandwich": SandwichConfig}
"""Every training method by name."""

__all__ = ["TRAINERS", "SandwichConfig"]
