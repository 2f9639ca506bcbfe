"""Augmentation of training images: pure functions of a key, within jit. Images are float32 (batch, height, width, channels).

Colours are changed in pixel values of 0 to 1; normalised images are brought back to them and normalised again. Crops, flips
and RandAugment's rotations, shears and translations are one affine map, by bilinear interpolation; edges are repeated.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Int

from nasjax.errors import ConfigError
from nasjax.types import Images, PRNGKey

Image = Float[Array, "height width channels"]
Affine = Float[Array, "3 3"]
"""From a place (row, column, 1) of the new image to one of the old, in pixels from the centre."""

BINS = 30
"""The greatest magnitude of RandAugment."""

SHEAR, SHIFT, DEGREES, FACTOR = 0.3, 150 / 331, 30.0, 0.9
"""At magnitude 30: the shear, the share of the side that is translated, the rotation, and how far factors are from 1."""

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R 601)."""


@dataclass(frozen=True)
class Augmentation:
    """Settings: all are off but `shift`. Texts and tasks of one's own need not have them.

    Attributes:
      shift: images are shifted by up to so many pixels along each axis; edges are repeated.
      flip: every image is mirrored left to right with probability .5.
      crop: the least share of the area that is cut out and scaled to the whole, at aspects of 3/4 to 4/3; 1: no cropping.
      jitter: brightness, contrast and saturation are multiplied by factors that differ from 1 by up to this.
      randaugment: the number of random operations on each image (arXiv:1909.13719); 0: none.
      magnitude: of these operations, 0 to 30.
      mixup: alpha of mixup (arXiv:1710.09412); 0: off.
      cutmix: alpha of CutMix (arXiv:1905.04899); 0: off. With both, each batch takes one of the two.
    """

    shift: int = 1
    flip: bool = False
    crop: float = 1.0
    jitter: float = 0.0
    randaugment: int = 0
    magnitude: int = 9
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        for name in ("shift", "jitter", "randaugment", "magnitude", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ConfigError(f"trainer.{name} must be at least 0, not {getattr(self, name)}")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"trainer.crop must be above 0 and at most 1, not {self.crop}")
        if self.magnitude > BINS:
            raise ConfigError(f"trainer.magnitude must be at most {BINS}, not {self.magnitude}")
        if self.jitter > 1:
            raise ConfigError(f"trainer.jitter must be at most 1, not {self.jitter}")


class Mixed(NamedTuple):
    """Targets of mixed images: `share` of each image has the class `first`, the rest the class `second`."""

    first: Int[Array, " batch"]
    second: Int[Array, " batch"]
    share: Float[Array, " batch"]


class Scale(NamedTuple):
    """How pixel values of 0 to 1 were normalised: by each channel's mean and deviation, or by one of all."""

    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)


def augment_images(
    key: PRNGKey, images: Images, labels: Int[Array, " batch"], settings: Augmentation, scale: Scale
) -> tuple[Images, Any]:
    """Augmented images, and their labels, or `Mixed` ones."""
    shifting, placing, colouring, mixing = key, *jax.random.split(jax.random.fold_in(key, 1), 3)
    if settings.shift:
        images = shift_images(shifting, images, settings.shift)
    if settings.flip or settings.crop < 1 or settings.randaugment:
        images, drawn = _placed(placing, images, settings)
    if settings.jitter or settings.randaugment:
        mean, deviation = jnp.asarray(scale.mean, jnp.float32), jnp.asarray(scale.deviation, jnp.float32)
        pixels = images * deviation + mean
        keys = jax.random.split(colouring, len(images))
        if settings.randaugment:
            pixels = jax.vmap(lambda image, drawn: _recoloured(image, drawn, settings.magnitude))(pixels, drawn)
        if settings.jitter:
            pixels = jax.vmap(lambda key, image: jitter(key, image, settings.jitter))(keys, pixels)
        images = (pixels - mean) / deviation
    if settings.mixup or settings.cutmix:
        return mix(mixing, images, labels, settings)
    return images, labels


def shift_images(key: PRNGKey, images: Images, shift: int) -> Images:
    """Every image shifted by up to `shift` pixels along each axis; edges are repeated."""
    _, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * shift + 1)

    def crop(image: Image, corner: Int[Array, "2"]) -> Image:
        return lax.dynamic_slice(image, (corner[0], corner[1], jnp.int32(0)), (height, width, channels))

    return jax.vmap(crop)(padded, corners)


# -- places of pixels -------------------------------------------------------------------------------------------------------


def _placed(key: PRNGKey, images: Images, settings: Augmentation) -> tuple[Images, Any]:
    """Images cropped, flipped, and moved by RandAugment's operations; and kinds and signs of these operations."""
    keys = jax.random.split(key, len(images))
    height, width = images.shape[1:3]

    def one(key: PRNGKey, image: Image) -> tuple[Image, Any]:
        cropping, flipping, choosing, signing = jax.random.split(key, 4)
        matrix = jnp.eye(3)
        if settings.flip:
            matrix = _matrix(columns=jnp.where(jax.random.bernoulli(flipping), -1.0, 1.0))
        if settings.crop < 1:
            matrix = _crop_matrix(cropping, settings.crop, height, width) @ matrix
        kinds = jax.random.randint(choosing, (settings.randaugment,), 0, len(OPERATIONS))
        signs = jnp.where(jax.random.bernoulli(signing, 0.5, (settings.randaugment,)), 1.0, -1.0)
        for i in range(settings.randaugment):
            moves = jnp.stack([_moved(name, settings.magnitude, signs[i], height, width) for name in OPERATIONS])
            matrix = matrix @ moves[kinds[i]]
        return sample(image, matrix), (kinds, signs)

    return jax.vmap(one)(keys, jnp.asarray(images))


def sample(image: Image, matrix: Affine) -> Image:
    """The image whose pixel at each place is the old one's at `matrix` times the place."""
    height, width, _ = image.shape
    rows, columns = jnp.meshgrid(jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij")
    places = jnp.stack([rows, columns, jnp.ones_like(rows)]).reshape(3, -1)
    old = (matrix @ places)[:2].reshape(2, height, width) + jnp.asarray([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    return jax.vmap(lambda channel: map_coordinates(channel, list(old), order=1, mode="nearest"), -1, -1)(image)


def _matrix(rows: Any = 1.0, columns: Any = 1.0, down: Any = 0.0, right: Any = 0.0, shear_down: Any = 0.0,
            shear_right: Any = 0.0) -> Affine:  # fmt: skip
    return jnp.asarray([[rows, shear_down, down], [shear_right, columns, right], [0.0, 0.0, 1.0]], jnp.float32)


def _crop_matrix(key: PRNGKey, least: float, height: int, width: int) -> Affine:
    """To a random box: a share `least` to 1 of the area, log-uniform aspects of 3/4 to 4/3, anywhere inside."""
    area, shape, down, right = jax.random.split(key, 4)
    share = jax.random.uniform(area, (), minval=least)
    aspect = jnp.exp(jax.random.uniform(shape, (), minval=jnp.log(3 / 4), maxval=jnp.log(4 / 3)))
    rows, columns = jnp.minimum(jnp.sqrt(share / aspect), 1), jnp.minimum(jnp.sqrt(share * aspect), 1)
    return _matrix(
        rows,
        columns,
        (1 - rows) * height * (jax.random.uniform(down) - 0.5),
        (1 - columns) * width * (jax.random.uniform(right) - 0.5),
    )


def _moved(name: str, magnitude: int, sign: Array, height: int, width: int) -> Affine:
    """The affine map of an operation; that of operations on colours changes nothing."""
    amount = sign * magnitude / BINS
    angle = jnp.deg2rad(amount * DEGREES)
    moves = {
        "shear_x": {"shear_right": amount * SHEAR},
        "shear_y": {"shear_down": amount * SHEAR},
        "translate_x": {"right": amount * SHIFT * width},
        "translate_y": {"down": amount * SHIFT * height},
        "rotate": {"rows": jnp.cos(angle), "columns": jnp.cos(angle), "shear_down": jnp.sin(angle),
                   "shear_right": -jnp.sin(angle)},
    }  # fmt: skip
    return _matrix(**moves.get(name, {}))


# -- colours: pixel values of 0 to 1 ----------------------------------------------------------------------------------------


def jitter(key: PRNGKey, image: Image, strength: float) -> Image:
    """Brightness, contrast and saturation multiplied by three factors of 1 - `strength` to 1 + `strength`."""
    bright, contrasted, saturated = jax.random.uniform(key, (3,), minval=1 - strength, maxval=1 + strength)
    return saturation(contrast(brightness(image, bright), contrasted), saturated)


def brightness(image: Image, factor: Array | float) -> Image:
    return jnp.clip(image * factor, 0, 1)


def contrast(image: Image, factor: Array | float) -> Image:
    mean = grey(image).mean()
    return jnp.clip(mean + (image - mean) * factor, 0, 1)


def saturation(image: Image, factor: Array | float) -> Image:
    """Unchanged for images of one channel."""
    plain = grey(image)
    return jnp.clip(plain + (image - plain) * factor, 0, 1)


def grey(image: Image) -> Float[Array, "height width 1"]:
    """Luminance of three channels; the mean of any other number."""
    weights = jnp.asarray(GREY) if image.shape[-1] == 3 else jnp.full(image.shape[-1], 1 / image.shape[-1])
    return (image @ weights)[..., None]


def sharpness(image: Image, factor: Array | float) -> Image:
    """The image against itself smoothed by a 3 x 3 kernel; pixels at the edge are left as they are."""
    kernel = jnp.asarray([[1, 1, 1], [1, 5, 1], [1, 1, 1]], jnp.float32) / 13
    smooth = jax.vmap(lambda channel: jax.scipy.signal.convolve2d(channel, kernel, mode="valid"), -1, -1)(image)
    blurred = image.at[1:-1, 1:-1].set(smooth)
    return jnp.clip(blurred + (image - blurred) * factor, 0, 1)


def posterize(image: Image, bits: int) -> Image:
    """The first `bits` of 8 bits."""
    step = 2 ** (8 - bits)
    return jnp.floor(jnp.round(image * 255) / step) * step / 255


def solarize(image: Image, threshold: float) -> Image:
    """Values from `threshold` on are inverted."""
    return jnp.where(image >= threshold, 1 - image, image)


def autocontrast(image: Image) -> Image:
    """Every channel scaled to 0 to 1."""
    low, high = image.min((0, 1)), image.max((0, 1))
    flat = high - low < 1 / 255
    return jnp.where(flat, image, jnp.clip((image - low) / jnp.where(flat, 1, high - low), 0, 1))


def equalize(image: Image) -> Image:
    """Every channel's histogram of 256 values made even, as Pillow does it."""

    def even(channel: Float[Array, "height width"]) -> Float[Array, "height width"]:
        values = jnp.round(jnp.clip(channel, 0, 1) * 255).astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[values].add(1)
        last = counts[jnp.max(jnp.where(counts > 0, jnp.arange(256), 0))]
        step = (counts.sum() - last) // 255
        below = jnp.cumsum(counts) - counts
        table = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
        return jnp.where(step > 0, table[values] / 255, channel)

    return jax.vmap(even, -1, -1)(image)


OPERATIONS = ("identity", "autocontrast", "equalize", "posterize", "solarize", "saturation", "contrast", "brightness",
              "sharpness", "rotate", "shear_x", "shear_y", "translate_x", "translate_y")  # fmt: skip
"""RandAugment's operations (arXiv:1909.13719, Section 3)."""


def _recoloured(image: Image, drawn: tuple[Array, Array], magnitude: int) -> Image:
    """An image after the operations on colours among those that were drawn: their kinds and signs."""
    share = magnitude / BINS

    def after(image: Image, operation: tuple[Array, Array]) -> tuple[Image, None]:
        kind, sign = operation
        factor = 1 + sign * share * FACTOR
        colours = {
            "autocontrast": autocontrast,
            "equalize": equalize,
            "posterize": lambda image: posterize(image, 8 - round(4 * share)),
            "solarize": lambda image: solarize(image, 1 - share),
            "saturation": lambda image: saturation(image, factor),
            "contrast": lambda image: contrast(image, factor),
            "brightness": lambda image: brightness(image, factor),
            "sharpness": lambda image: sharpness(image, factor),
        }
        branches = [colours.get(name, lambda image: image) for name in OPERATIONS]
        return lax.switch(kind, branches, image), None

    return lax.scan(after, image, drawn)[0]


# -- mixtures ---------------------------------------------------------------------------------------------------------------


def mix(key: PRNGKey, images: Images, labels: Int[Array, " batch"], settings: Augmentation) -> tuple[Images, Mixed]:
    """Every image mixed with another one of the batch, by mixup, or a box of it replaced, by CutMix."""
    order, sharing, boxing, choosing = jax.random.split(key, 4)
    partners = jax.random.permutation(order, len(images))
    blended = _mixup(sharing, images, partners, settings.mixup) if settings.mixup else None
    cut = _cutmix(boxing, images, partners, settings.cutmix) if settings.cutmix else None
    if blended is None or cut is None:
        mixed, share = blended or cut  # type: ignore[misc]
    else:
        first = jax.random.bernoulli(choosing)
        mixed, share = jax.tree.map(lambda a, b: jnp.where(first, a, b), blended, cut)
    return mixed, Mixed(labels, labels[partners], jnp.full(len(images), share))


def _mixup(key: PRNGKey, images: Images, partners: Int[Array, " batch"], alpha: float) -> tuple[Images, Array]:
    share = jax.random.beta(key, alpha, alpha)
    return share * images + (1 - share) * images[partners], share


def _cutmix(key: PRNGKey, images: Images, partners: Int[Array, " batch"], alpha: float) -> tuple[Images, Array]:
    """The same box in all images of the batch; its part outside the image is cut off."""
    sharing, down, right = jax.random.split(key, 3)
    height, width = images.shape[1:3]
    side = jnp.sqrt(1 - jax.random.beta(sharing, alpha, alpha))

    def inside(length: int, key: PRNGKey) -> Array:
        middle, half = jax.random.randint(key, (), 0, length), (side * length).astype(jnp.int32) // 2
        places = jnp.arange(length)
        return (places >= middle - half) & (places < middle + half)

    box = inside(height, down)[:, None] & inside(width, right)
    return jnp.where(box[None, :, :, None], images[partners], images), 1 - box.mean()
