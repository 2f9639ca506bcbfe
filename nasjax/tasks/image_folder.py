"""Image classification from folders of images, in ImageNet's layout."""

import math
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nasjax.errors import ConfigError
from nasjax.host import memory_bytes
from nasjax.tasks.base import Split
from nasjax.tasks.image_augmentation import Scale
from nasjax.tasks.image_classification import ImageClassification
from nasjax.tasks.image_files import ImageFiles, image_suffixes
from nasjax.words import plural

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
      memory_share: the greatest share of this machine's memory that images may take; more of them are read from disk as they
        are needed, in blocks and ahead of the steps of a training, to the same values. 0: always.
      skip_broken: skips images that cannot be read, which otherwise raise ConfigError: each is decoded once to find these.
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
    memory_share: float = 0.4
    skip_broken: bool = False
    seed: int = 0

    def create(self) -> ImageClassification:
        """Reads all images, or finds their files. Raises ConfigError if the folder is missing or empty, or an image broken.

        Broken training images that are not held in memory raise it when they are needed.
        """
        if self.limit < 0:
            raise ConfigError(f"task.limit must be at least 0, not {self.limit}")
        if not 0 <= self.memory_share <= 1:
            raise ConfigError(f"task.memory_share must be 0 to 1, not {self.memory_share}")
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
        in_memory = not self._reads_as_needed(sum(map(len, parts)))
        # A broken test image would be found last, after hours; a training image is needed at the beginning.
        validation_split, test_split = (self._split(part, in_memory, check=True) for part in parts[1:])
        shared = parts[0] == parts[1]  # Images that are in memory once.
        train_split = validation_split if shared else self._split(parts[0], in_memory, check=False)
        origin = {"name": "image_folder", **asdict(self)}
        scale = Scale(self.mean, self.deviation)
        return ImageClassification(
            train_split, validation_split, test_split, classes=len(classes), scale=scale, origin=origin
        )

    def _reads_as_needed(self, images: int) -> bool:
        """Whether so many images are too many to be held in memory; says so, unless that is asked for."""
        needed, memory = images * self.image_size**2 * 3 * 4 / 1e9, memory_bytes() / 1e9
        if needed <= self.memory_share * memory:
            return False
        if self.memory_share:
            size = f"{self.image_size} x {self.image_size} take {needed:.3g} GB, this machine has {memory:.3g}"
            print(
                f"nasjax: {plural(images, 'image')} of {size}: they are read from disk as they are needed", file=sys.stderr
            )
        return True

    def _split(self, paths: LabelledPaths, in_memory: bool, check: bool) -> Split:
        """The images of a split, without broken ones if these are skipped; with `check` each is decoded once."""
        labels = np.array([label for _, label in paths], np.int32)
        rows = np.arange(len(paths))
        files = ImageFiles(tuple(path for path, _ in paths), self.image_size, self.crop, self.mean, self.deviation, rows)
        if self.skip_broken:
            broken = np.flatnonzero(files.broken())
            if len(broken):
                first = files.paths[broken[0]]
                print(f"nasjax: skipped {plural(len(broken), 'image')} that cannot be read, {first} first", file=sys.stderr)
            kept = np.delete(np.arange(len(files)), broken)
            files, labels = files.at(kept), labels[kept]
            if not len(files):
                raise ConfigError(f"task.path={self.path}: no image of a split can be read")
        elif check and not in_memory:
            files.check()
        return Split.of_files(files, labels, in_memory)


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
