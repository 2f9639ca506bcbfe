"""Elastic resolution: the host gene of networks that read images, which are scaled to it before the first stage.

What is scaled is the task's image, cropped already. Once-for-All scales and crops the original anew for each resolution:
other pixels, by 4 to 7 of 255 on average on two photographs, at 160 and 192 instead of 224.
"""

import jax
import numpy as np
from jaxtyping import Array, Float

from nasjax.errors import ConfigError

RESOLUTIONS = (160, 192, 224)
"""Pixels a side to choose from where the resolution is elastic and no list is given."""


def check_resolutions(resolutions: tuple[int, ...], image_size: int) -> None:
    """Raises ConfigError unless images of `image_size` pixels can be scaled down to all of `resolutions`."""
    for size in (image_size, *resolutions):
        if size < 1:
            raise ConfigError(f"an image has at least one pixel a side, not {size}: change image_size or resolutions")
        if size > image_size:
            raise ConfigError(f"resolutions has {size}, more than image_size={image_size}")


def resized(
    images: Float[Array | np.ndarray, "*batches height width channels"], size: int | None
) -> Float[Array | np.ndarray, "*batches size size channels"]:
    """Images scaled to `size` x `size` pixels, bilinear and anti-aliased; unchanged for None or where they
    have that size."""
    if size is None or images.shape[-3:-1] == (size, size):
        return images
    return jax.image.resize(images, (*images.shape[:-3], size, size, images.shape[-1]), "linear")
