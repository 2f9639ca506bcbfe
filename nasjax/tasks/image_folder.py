"""Image classification from folders of pictures, in ImageNet's layout."""

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

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

Listed = list[tuple[Path, int]]


@dataclass(frozen=True)
class ImageFolderConfig:
    """Your own pictures in folders: `path/CLASS/*.jpg`, or `path/train/CLASS/…` beside `path/val/CLASS/…`.

    Classes are the names of the folders, sorted, or `classes`. `validation` and `test` are shares of `val/` where that is
    there, else of all pictures. What they leave over is not used where there is a `train/`, and trains where there is none;
    where they leave nothing, as the defaults do, the validation pictures also train and re-calibrate batch norms. At
    most `limit` pictures a split are read (0: all). Pictures are scaled so that the shorter side is `image_size` / `crop`,
    their centre cut out, and channels normalised by `mean` and `deviation` (ImageNet's). A picture that cannot be read is
    refused, or passed over with `skip_broken`.
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
        """Raises ConfigError, in one line, for a folder that is missing, empty, or holds what cannot be read."""
        if self.path is None:
            raise ConfigError("task=image_folder needs task.path=FOLDER, with one folder of pictures a class")
        root = Path(self.path)
        if not root.is_dir():
            raise ConfigError(f"task.path={root} is not a folder")
        rng = np.random.default_rng(self.seed)
        if (root / "val").is_dir():
            classes = self.classes or _classes(root / "train" if (root / "train").is_dir() else root / "val")
            held = _shuffled(rng, _listed(root / "val", classes))
            train = _shuffled(rng, _listed(root / "train", classes)) if (root / "train").is_dir() else held
        else:
            classes = self.classes or _classes(root)
            train = held = _shuffled(rng, _listed(root, classes))
        sizes = [round(share * len(held)) for share in (self.validation, self.test)]
        if min(sizes) < 1 or sum(sizes) > len(held):
            raise ConfigError(
                f"task.validation={self.validation} and task.test={self.test} leave a split of {len(held)} pictures empty"
            )
        validation, test = held[: sizes[0]], held[sizes[0] : sum(sizes)]
        if train is held:
            train = held[sum(sizes) :] or validation
        parts = [part[: self.limit or None] for part in (train, validation, test)]
        self._check_memory(sum(map(len, parts)))
        train_split, validation_split, test_split = map(self._read, parts)
        origin = {"name": "image_folder", **asdict(self)}
        return ImageClassification(train_split, validation_split, test_split, classes=len(classes), origin=origin)

    def _check_memory(self, pictures: int) -> None:
        """Raises ConfigError, before anything is read, where the pictures do not fit into this machine's memory."""
        wanted = pictures * self.image_size**2 * 3 * 4 / 1e9
        here = memory_bytes() / 1e9
        if wanted > 0.8 * here:
            fit = max(1, int(0.2 * here / wanted * pictures))
            raise ConfigError(
                f"task.path={self.path}: {pictures} pictures of {self.image_size} x {self.image_size} take {wanted:.0f} GB, "
                f"this machine has {here:.0f}; task.limit={fit} reads so many a split"
            )

    def _read(self, listed: Listed) -> Split:
        pixels = np.empty((len(listed), self.image_size, self.image_size, 3), np.float32)
        labels: list[int] = []
        broken = []
        for path, label in listed:
            try:
                pixels[len(labels)] = read_image(path, self.image_size, self.crop)
            except Exception as error:  # Decoders of broken pictures raise whatever they stumble over.
                if self.skip_broken:
                    broken.append(path)
                    continue
                words = str(error).splitlines() or [type(error).__name__]
                reason = f"{path} cannot be read as a picture ({words[0]})"
                raise ConfigError(f"{reason}; task.skip_broken=true passes over it") from None
            labels.append(label)
        if broken:
            print(f"nasjax: passed over {len(broken)} pictures that cannot be read, {broken[0]} first", file=sys.stderr)
        if not labels:
            raise ConfigError(f"task.path={self.path}: no picture of a split could be read")
        pixels = pixels[: len(labels)]
        for channel, (mean, deviation) in enumerate(zip(self.mean, self.deviation, strict=True)):
            pixels[..., channel] = (pixels[..., channel] / 255 - mean) / deviation
        return Split(pixels, np.array(labels, np.int32))


def read_image(path: Path, size: int, crop: float) -> Float[np.ndarray, "size size 3"]:
    """A picture as RGB: the shorter side scaled to `size` / `crop` (bilinear), the centre cut out; values 0-255.

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


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if not names:
        raise ConfigError(f"{folder} has no folders: one a class is wanted")
    return names


def _listed(folder: Path, classes: Sequence[str]) -> Listed:
    """Every picture with its class, sorted by name. Raises ConfigError for a class that is not one of `classes`."""
    extra = sorted(set(_classes(folder)) - set(classes))
    if extra:
        raise ConfigError(f"{folder / extra[0]} is not one of the {len(classes)} classes {', '.join(classes[:5])}…")
    listed = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if not listed:
        raise ConfigError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return listed


def _shuffled(rng: np.random.Generator, listed: Listed) -> Listed:
    return [listed[i] for i in rng.permutation(len(listed))]
