"""Image classification from folders of images, in ImageNet's layout."""

import math
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from nasjax.errors import ConfigError
from nasjax.host import memory_bytes
from nasjax.tasks.base import Split
from nasjax.tasks.image_augmentation import Scale
from nasjax.tasks.image_classification import ImageClassification

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
"""The formats that are read, as Pillow names them: those that it decodes itself, by running no other program."""

FULL_SCALE = {"I": 65535, "I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I;16N": 65535, "F": 1}
"""The value of white in Pillow's modes of more than 8 bits."""

LabelledPaths = list[tuple[Path, int]]
"""Image files with the index of their class."""


@dataclass(frozen=True)
class ImageFolderConfig:
    """Your own images in folders: `path/CLASS/*.jpg`, or `path/train/CLASS/*.jpg` and `path/val/CLASS/*.jpg`.

    What is left out (other files, folders within class folders, classes without images) is printed, in a line a folder.

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
        if self.limit < 0:
            raise ConfigError(f"task.limit must be at least 0, not {self.limit}")
        if self.path is None:
            raise ConfigError("task=image_folder needs task.path=FOLDER, with one folder of images for each class")
        root = Path(self.path)
        if not root.is_dir():
            raise ConfigError(f"task.path={root} is not a folder")
        rng = np.random.default_rng(self.seed)
        if (root / "val").is_dir():
            beside = [name for name in _class_names(root) if name not in ("train", "val")]
            _print_left_out(root, {"folders beside train and val": beside} if beside else {})
            classes = self.classes or _class_names(root / "train" if (root / "train").is_dir() else root / "val")
            held = _shuffled(rng, _labelled_paths(root / "val", classes))
            train = _shuffled(rng, _labelled_paths(root / "train", classes)) if (root / "train").is_dir() else held
        else:
            classes = self.classes or _class_names(root)
            train = held = _shuffled(rng, _labelled_paths(root, classes))
        sizes = [round(share * len(held)) for share in (self.validation, self.test)]
        if math.isclose(self.validation + self.test, 1):
            sizes[1] = len(held) - sizes[0]  # Both rounded could be an image too many, or leave one.
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
        scale = Scale(self.mean, self.deviation)
        return ImageClassification(
            train_split, validation_split, test_split, classes=len(classes), scale=scale, origin=origin
        )

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
    return np.asarray(image.crop((left, top, left + size, top + size)), np.float32)


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


def _formats() -> list[str]:
    """Those of FORMATS that this Pillow has."""
    return [name for name in FORMATS if name in set(Image.registered_extensions().values())]


def image_suffixes() -> frozenset[str]:
    """The suffixes of image files, in lower case."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)


def _class_names(folder: Path) -> tuple[str, ...]:
    """Returns the names of the class folders, sorted. Raises ConfigError if there are none."""
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if not names:
        raise ConfigError(f"{folder} has no folders; it must have one for each class")
    return names


def _labelled_paths(folder: Path, classes: Sequence[str]) -> LabelledPaths:
    """All image files of the class folders, sorted by class and name; prints what is left out.

    Raises ConfigError for a folder that is not one of `classes`, and where there are no images.
    """
    extra = sorted(set(_class_names(folder)) - set(classes))
    if extra:
        raise ConfigError(f"{folder / extra[0]} is not one of the {len(classes)} classes {', '.join(classes[:5])}…")
    suffixes = image_suffixes()
    paths: LabelledPaths = []
    left_out: dict[str, list[str]] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if Path(entry.name).suffix.lower() in suffixes and not entry.is_dir():
            left_out.setdefault("images outside class folders", []).append(entry.name)
    for label, name in enumerate(classes):
        before = len(paths)
        entries = os.scandir(folder / name) if (folder / name).is_dir() else ()
        for entry in sorted(entries, key=lambda entry: entry.name):
            reason = _reason_to_leave_out(entry, suffixes)
            if reason is None:
                paths.append((folder / name / entry.name, label))
            elif reason:
                left_out.setdefault(reason, []).append(f"{name}/{entry.name}")
        if len(paths) == before:
            left_out.setdefault("classes without images", []).append(name)
    if not paths:
        deeper = left_out.get("folders within class folders")
        hint = f": images must lie in {folder}/CLASS, not a folder deeper as in {deeper[0]}" if deeper else ""
        raise ConfigError(f"{folder} has no images ({', '.join(sorted(suffixes))}){hint}")
    _print_left_out(folder, left_out)
    return paths


def _reason_to_leave_out(entry: os.DirEntry[str], suffixes: Collection[str]) -> str | None:
    """Why an entry of a class folder is left out; "" for hidden files that are no images, None for images."""
    has_suffix = Path(entry.name).suffix.lower() in suffixes
    if entry.name.startswith("."):
        return "hidden files" if has_suffix else ""
    if entry.is_dir():
        return "folders within class folders"
    if not has_suffix:
        return "files without the suffix of an image"
    return None if entry.is_file() else "links to nothing, devices and pipes"


def _print_left_out(folder: Path, left_out: Mapping[str, Sequence[str]]) -> None:
    """Prints what of a folder is not read, in one line: why, how many, and the first."""
    if left_out:
        parts = (f"{reason} ({len(names)}: {names[0]}{', …' * (len(names) > 1)})" for reason, names in left_out.items())
        print(f"nasjax: {folder}: left out {'; '.join(parts)}", file=sys.stderr)


def _shuffled(rng: np.random.Generator, paths: LabelledPaths) -> LabelledPaths:
    return [paths[i] for i in rng.permutation(len(paths))]
