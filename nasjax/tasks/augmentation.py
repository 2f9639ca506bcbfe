"""Augmentations of the training images that batch norms are re-calibrated on, as in the network's training."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

ImageArray = Float[np.ndarray, "n height width channels"]

MARGIN = 8
"""A cropped image is shifted by at most its side divided by this."""


def _unchanged(rng: np.random.Generator, images: ImageArray) -> ImageArray:
    """The same images."""
    return images


def _flipped(rng: np.random.Generator, images: ImageArray) -> ImageArray:
    """Every image mirrored left to right with probability 0.5."""
    mirrored = rng.random(len(images)) < 0.5
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def _cropped(rng: np.random.Generator, images: ImageArray) -> ImageArray:
    """Every image shifted by up to an eighth of its side, its margins mirrored, then flipped with probability 0.5."""
    height, width = images.shape[1:3]
    rows, columns = height // MARGIN, width // MARGIN
    padded = np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), "symmetric")
    corners = zip(rng.integers(2 * rows + 1, size=len(images)), rng.integers(2 * columns + 1, size=len(images)), strict=True)
    shifted = np.stack([padded[i, y : y + height, x : x + width] for i, (y, x) in enumerate(corners)])
    return _flipped(rng, shifted)


AUGMENTATIONS: Mapping[str, Callable[[np.random.Generator, ImageArray], ImageArray]] = {
    "none": _unchanged,
    "flip": _flipped,
    "crop": _cropped,
}
"""Every augmentation by name."""
