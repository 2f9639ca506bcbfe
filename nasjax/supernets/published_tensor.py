"""Where a weight stands in a published state dict: its name there, and the order of its axes."""

from typing import NamedTuple

import numpy as np


class PublishedTensor(NamedTuple):
    """Name and layout of a weight in a published state dict.

    Attributes:
      name: its canonical name, see `canonical_name`.
      axes: axis i of our layout is axis `axes[i]` of the published one; None where the layouts are equal.
    """

    name: str
    axes: tuple[int, ...] | None = None

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """Returns the published tensor in our layout."""
        return tensor if self.axes is None else tensor.transpose(self.axes)

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the published shape of a weight that has shape `ours` in our layout."""
        return ours if self.axes is None else tuple(ours[self.axes.index(axis)] for axis in range(len(ours)))
