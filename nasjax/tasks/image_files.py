"""Images in files that stand where an array of images stands: they are decoded when they are indexed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageOps

from nasjax.errors import ConfigError
from nasjax.host import processors

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
"""The formats that are read, as Pillow names them: those that it decodes itself, by running no other program."""

FULL_SCALE = {"I": 65535, "I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I;16N": 65535, "F": 1}
"""The value of white in Pillow's modes of more than 8 bits."""

MOST_CALLS = 4096
"""How many calls wait for threads at once: each takes memory."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Normalised RGB images in files, float32, with the attributes of an array (n, size, size, 3).

    Indexed by an integer, a slice or an array of integers it returns the decoded images, and raises ConfigError, which names
    the file, for one that cannot be decoded. Nothing decoded is kept.

    Attributes:
      paths: the files.
      size, crop: as for `read_image`.
      mean, deviation: of each channel of images scaled to 0-1, for normalisation.
      rows: which of `paths` the array has, of any shape, whose axes come first; -1 is an image of zeros.
    """

    paths: tuple[Path, ...]
    size: int
    crop: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    rows: Int[np.ndarray, "..."]

    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.rows.shape, self.size, self.size, 3)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of all images, decoded."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, positions: Int[np.ndarray, "..."]) -> "ImageFiles":
        """The images at these positions of the first axis, of any shape, not decoded yet; -1 is an image of zeros."""
        rows = self.rows[positions]
        rows[positions < 0] = -1
        return replace(self, rows=rows)

    def __getitem__(self, index: Any) -> Float[np.ndarray, "... size size 3"]:
        rows = self.rows[index]
        images = np.zeros((*np.shape(rows), self.size, self.size, 3), self.dtype)
        flat, places = np.reshape(rows, -1), images.reshape(-1, self.size, self.size, 3)

        def fill(i: int) -> None:
            if flat[i] >= 0:
                places[i] = self.image(self.paths[flat[i]])

        in_threads(fill, len(flat))
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[...].astype(dtype or self.dtype, copy=False)

    def image(self, path: Path) -> Float[np.ndarray, "size size 3"]:
        """One image, decoded and normalised. Raises ConfigError if it cannot be decoded."""
        try:
            pixels = read_image(path, self.size, self.crop)
        except Exception as error:  # Decoders may raise anything for a broken image.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"{path} cannot be read as an image ({reason}); task.skip_broken=true skips such files"
            ) from None
        for channel, (mean, deviation) in enumerate(zip(self.mean, self.deviation, strict=True)):
            pixels[..., channel] = (pixels[..., channel] / 255 - mean) / deviation
        return pixels

    def broken(self) -> np.ndarray:
        """Whether each of the images cannot be decoded, bool (n,); decodes all of them."""

        def is_broken(i: int) -> bool:
            try:
                self[i]
            except ConfigError:
                return True
            return False

        return np.array(in_threads(is_broken, len(self)), bool)

    def check(self) -> None:
        """Decodes all images, one by one. Raises ConfigError for the first that cannot be."""

        def decode(i: int) -> None:
            self[i]

        in_threads(decode, len(self))

    @cached_property
    def digest(self) -> str:
        """Names the images: equal for files of equal contents that are scaled and normalised alike. Reads all files."""

        def of_file(i: int) -> bytes:
            with self.paths[self.rows[i]].open("rb") as opened:
                return file_digest(opened, "sha256").digest()

        settings = repr((self.size, self.crop, self.mean, self.deviation))
        return sha256(b"".join([settings.encode(), *in_threads(of_file, len(self))])).hexdigest()


def in_threads(function: Callable[[int], Result], number: int) -> list[Result]:
    """`function` of 0 to `number` - 1, by one thread a processor; Pillow and hashing let others run meanwhile.

    Once it raises for one of them, few others are begun.
    """
    if number < 2:
        return [function(i) for i in range(number)]
    each = -(-number // MOST_CALLS)

    def part(first: int) -> list[Result]:
        return [function(i) for i in range(first, min(first + each, number))]

    with ThreadPoolExecutor(processors()) as pool:
        return [result for results in pool.map(part, range(0, number, each)) for result in results]


def read_image(path: Path, size: int, crop: float) -> Float[np.ndarray, "size size 3"]:
    """Reads an image as RGB, values 0-255: the shorter side is scaled to `size` / `crop` (bilinear), the centre cut out.

    It is turned as its EXIF orientation says. Raises OSError or ValueError for a file that cannot be read, but decoders may
    raise anything.

    Source: the evaluation transform of torchvision and Once-for-All, `ceil(size / 0.875)` then a centre crop.
    """
    with Image.open(path, formats=_formats()) as opened:
        image = _with_8_bits(ImageOps.exif_transpose(opened)).convert("RGB")
    shorter = int(np.ceil(size / crop))
    scale = shorter / min(image.size)
    width, height = (max(shorter, int(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.array(image.crop((left, top, left + size, top + size)), np.float32)


def _with_8_bits(image: Image.Image) -> Image.Image:
    """An image of 16 bits, 32-bit integers (0-65535) or floats (0-1), scaled to 0-255; others as they are.

    Raises ValueError for values outside: the value of white is then unknown.
    """
    white = FULL_SCALE.get(image.mode)
    if white is None:
        return image
    values = np.asarray(image, np.float64)
    if not (values.min() >= 0 and values.max() <= white):
        raise ValueError(f"its values are {values.min():g} to {values.max():g}, not 0 to {white}: save it with 8 or 16 bits")
    return Image.fromarray(np.round(values * (255 / white)).astype(np.uint8))


@cache
def _formats() -> list[str]:
    """Those of FORMATS that this Pillow has."""
    return [name for name in FORMATS if name in set(Image.registered_extensions().values())]


def image_suffixes() -> frozenset[str]:
    """The suffixes of image files, in lower case."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
