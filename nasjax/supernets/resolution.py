"""Elastic resolution: a host gene of networks that read images, which are scaled before the first stage.

The task's image is scaled, which has been cropped before. Once-for-All scales and crops the original image for each
resolution: at 160 and 192 pixels the values differ by 4 to 7 of 255 on average (two photographs).
"""

import jax
import numpy as np
from jaxtyping import Array, Float

from nasjax.errors import ConfigError

RESOLUTIONS = (160, 192, 224)
"""The default options of an elastic resolution, in pixels a side."""


def check_resolutions(resolutions: tuple[int, ...], image_size: int) -> None:
    """Raises ConfigError unless images of `image_size` pixels can be scaled down to all of `resolutions`."""
    for size in (image_size, *resolutions):
        if size < 1:
            raise ConfigError(f"image_size and resolutions must be at least 1, not {size}")
        if size > image_size:
            raise ConfigError(f"resolutions has {size}, which is above image_size={image_size}")


def resized(
    images: Float[Array | np.ndarray, "*batches height width channels"], size: int | None
) -> Float[Array | np.ndarray, "*batches size size channels"]:
    """Images scaled to `size` x `size` pixels, bilinear and anti-aliased; unchanged if they have that size, or for None."""
    if size is None or images.shape[-3:-1] == (size, size):
        return images
    return jax.image.resize(images, (*images.shape[:-3], size, size, images.shape[-1]), "linear")
