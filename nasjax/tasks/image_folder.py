"""Image classification from folders of images, in ImageNet's layout."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from nasjax.errors import ConfigError
from nasjax.host import memory_bytes
from nasjax.tasks.base import Split
from nasjax.tasks.image_classification import ImageClassification

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Suffixes of image files, in lower case; other files are ignored."""

LabelledPaths = list[tuple[Path, int]]
"""Image files with the index of their class."""


@dataclass(frozen=True)
class ImageFolderConfig:
    """Your own images in folders: `path/CLASS/*.jpg`, or `path/train/CLASS/*.jpg` and `path/val/CLASS/*.jpg`.

    Attributes:
      path: the folder.
      image_size, crop: images are scaled so that the shorter side is `image_size` / `crop`, and the central square of
        `image_size` is cut out.
      classes: names of the class folders, in the order of the labels; empty: all class folders, sorted.
      validation, test: shares of the images in `val/`, or of all images if there is no `val/`. Without a `train/`, the
        remaining images are for training and re-calibration; if there are none, as with the defaults, the validation images
        are. With a `train/` the remaining images are not used.
      limit: the greatest number of images a split; 0: no limit.
      mean, deviation: of each channel of images scaled to 0-1, for normalisation; the defaults are ImageNet's.
      skip_broken: skips images that cannot be read, which otherwise raise ConfigError.
      seed: shuffles the images before they are split.
    """

    path: str | None = None
    image_size: int = 224
    crop: float = 0.875
    classes: tuple[str, ...] = ()
    validation: float = 0.5
    test: float = 0.5
    limit: int = 0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
    skip_broken: bool = False
    seed: int = 0

    def create(self) -> ImageClassification:
        """Reads all images. Raises ConfigError if the folder is missing or empty, or has an image that cannot be read."""
        if self.path is None:
            raise ConfigError("task=image_folder needs task.path=FOLDER, with one folder of images for each class")
        root = Path(self.path)
        if not root.is_dir():
            raise ConfigError(f"task.path={root} is not a folder")
        rng = np.random.default_rng(self.seed)
        if (root / "val").is_dir():
            classes = self.classes or _class_names(root / "train" if (root / "train").is_dir() else root / "val")
            held = _shuffled(rng, _labelled_paths(root / "val", classes))
            train = _shuffled(rng, _labelled_paths(root / "train", classes)) if (root / "train").is_dir() else held
        else:
            classes = self.classes or _class_names(root)
            train = held = _shuffled(rng, _labelled_paths(root, classes))
        sizes = [round(share * len(held)) for share in (self.validation, self.test)]
        if min(sizes) < 1 or sum(sizes) > len(held):
            raise ConfigError(
                f"task.validation={self.validation} and task.test={self.test} leave a split of {len(held)} images empty"
            )
        validation, test = held[: sizes[0]], held[sizes[0] : sum(sizes)]
        if train is held:
            train = held[sum(sizes) :] or validation
        parts = [part[: self.limit or None] for part in (train, validation, test)]
        self._check_memory(sum(map(len, parts)))
        train_split, validation_split, test_split = map(self._read, parts)
        origin = {"name": "image_folder", **asdict(self)}
        return ImageClassification(train_split, validation_split, test_split, classes=len(classes), origin=origin)

    def _check_memory(self, images: int) -> None:
        """Raises ConfigError, before anything is read, if so many images do not fit into this machine's memory."""
        needed = images * self.image_size**2 * 3 * 4 / 1e9
        memory = memory_bytes() / 1e9
        if needed > 0.8 * memory:
            limit = max(1, int(0.2 * memory / needed * images))
            raise ConfigError(
                f"task.path={self.path}: {images} images of {self.image_size} x {self.image_size} take {needed:.0f} GB, "
                f"this machine has {memory:.0f}; task.limit={limit} limits the images of each split"
            )

    def _read(self, paths: LabelledPaths) -> Split:
        """Reads and normalises the images of a split."""
        pixels = np.empty((len(paths), self.image_size, self.image_size, 3), np.float32)
        labels: list[int] = []
        broken = []
        for path, label in paths:
            try:
                pixels[len(labels)] = read_image(path, self.image_size, self.crop)
            except Exception as error:  # Decoders may raise anything for a broken image.
                if self.skip_broken:
                    broken.append(path)
                    continue
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ConfigError(
                    f"{path} cannot be read as an image ({reason}); task.skip_broken=true skips such files"
                ) from None
            labels.append(label)
        if broken:
            print(f"nasjax: skipped {len(broken)} images that cannot be read, {broken[0]} first", file=sys.stderr)
        if not labels:
            raise ConfigError(f"task.path={self.path}: no image of a split can be read")
        pixels = pixels[: len(labels)]
        for channel, (mean, deviation) in enumerate(zip(self.mean, self.deviation, strict=True)):
            pixels[..., channel] = (pixels[..., channel] / 255 - mean) / deviation
        return Split(pixels, np.array(labels, np.int32))


def read_image(path: Path, size: int, crop: float) -> Float[np.ndarray, "size size 3"]:
    """Reads an image as RGB, values 0-255: the shorter side is scaled to `size` / `crop` (bilinear), the centre cut out.

    Source: the evaluation transform of torchvision and Once-for-All, `ceil(size / 0.875)` then a centre crop.
    """
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    shorter = int(np.ceil(size / crop))
    scale = shorter / min(image.size)
    width, height = (max(shorter, int(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)), np.float32)


def _class_names(folder: Path) -> tuple[str, ...]:
    """Returns the names of the class folders, sorted. Raises ConfigError if there are none."""
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if not names:
        raise ConfigError(f"{folder} has no folders; it must have one for each class")
    return names


def _labelled_paths(folder: Path, classes: Sequence[str]) -> LabelledPaths:
    """Returns all image files, sorted by class and name. Raises ConfigError for a folder that is not one of `classes`."""
    extra = sorted(set(_class_names(folder)) - set(classes))
    if extra:
        raise ConfigError(f"{folder / extra[0]} is not one of the {len(classes)} classes {', '.join(classes[:5])}…")
    paths = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not paths:
        raise ConfigError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)})")
    return paths


def _shuffled(rng: np.random.Generator, paths: LabelledPaths) -> LabelledPaths:
    return [paths[i] for i in rng.permutation(len(paths))]
