"""Augmentations of the training images that re-calibrate batch norms: those that they were trained with."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

Images = Float[np.ndarray, "n height width channels"]

MARGIN = 8
"""A cropped image is moved by at most this part of its side."""


def _unchanged(rng: np.random.Generator, images: Images) -> Images:
    return images


def _flipped(rng: np.random.Generator, images: Images) -> Images:
    """Each mirrored left to right, or not."""
    mirrored = rng.random(len(images)) < 0.5
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def _cut(rng: np.random.Generator, images: Images) -> Images:
    """Each moved by up to an eighth of its side, its edge mirrored into what is left, then flipped or not."""
    height, width = images.shape[1:3]
    rows, columns = height // MARGIN, width // MARGIN
    padded = np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), "symmetric")
    places = zip(rng.integers(2 * rows + 1, size=len(images)), rng.integers(2 * columns + 1, size=len(images)), strict=True)
    moved = np.stack([padded[i, y : y + height, x : x + width] for i, (y, x) in enumerate(places)])
    return _flipped(rng, moved)


AUGMENTATIONS: Mapping[str, Callable[[np.random.Generator, Images], Images]] = {
    "none": _unchanged,
    "flip": _flipped,
    "crop": _cut,
}
"""Every augmentation by name."""
