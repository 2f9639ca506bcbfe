"""Folders of images as a task."""

import os

import numpy as np
import pytest
from PIL import Image

from nasjax import tasks
from nasjax.tasks.image_files import read_image


def paint(path, colour, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    """Ten red cats and ten blue dogs, in shades that name the image."""
    for i in range(10):
        paint(tmp_path / "cat" / f"{i}.png", (100 + i, 0, 0))
        paint(tmp_path / "dog" / f"{i}.PNG", (0, 0, 100 + i), size=(40, 16))
    return tmp_path


def create(path, **changes):
    return tasks.image_classification(path, **{"image_size": 8, **changes})


def colours(split):
    """(red, blue) of the first pixel of every image, 0-255."""
    values = split.inputs[:, 0, 0] * np.array([0.229, 0.224, 0.225]) + np.array([0.485, 0.456, 0.406])
    return [tuple(pixel) for pixel in np.round(values * 255).astype(int)[:, ::2].tolist()]


def test_every_image_is_in_one_split_with_its_class(folder):
    task = create(folder, validation=0.3, test=0.2)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [10, 6, 4]
    seen = []
    for split in (task.train, task.validation, task.test):
        assert split.inputs.shape[1:] == (8, 8, 3)
        for (red, blue), label in zip(colours(split), split.targets, strict=True):
            assert (red > 0) == (label == 0)
            assert (blue > 0) == (label == 1)
            seen.append((red, blue))
    assert sorted(seen) == sorted([(100 + i, 0) for i in range(10)] + [(0, 100 + i) for i in range(10)])
    assert task.classes == 2


def test_validation_images_train_too_where_the_shares_leave_none(folder):
    """As the docs say of the defaults; a share that is left over is apart."""
    task = create(folder)
    assert colours(task.train) == colours(task.validation) and len(task.train) == 10
    apart = create(folder, validation=0.4, test=0.4)
    assert len(apart.train) == 4 and not set(colours(apart.train)) & set(colours(apart.validation) + colours(apart.test))


@pytest.mark.parametrize(
    ("number", "validation", "test"), [(2, 1, 1), (3, 2, 1), (4, 2, 2), (5, 2, 3), (6, 3, 3), (7, 4, 3)]
)
def test_shares_that_make_up_all_images_leave_none_whatever_their_number(tmp_path, number, validation, test):
    for i in range(number):
        paint(tmp_path / "cat" / f"{i}.png", (100 + i, 0, 0))
    task = create(tmp_path)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [validation, validation, test]
    assert colours(task.train) == colours(task.validation)


def test_train_and_val_folders_are_kept_apart(folder, tmp_path):
    root = tmp_path / "set"
    (root / "train").mkdir(parents=True)
    for name in ("cat", "dog"):
        (folder / name).rename(root / "train" / name)
        paint(root / "val" / name / "v.png", (1, 2, 3))
        paint(root / "val" / name / "w.png", (1, 2, 3))
    task = create(root)
    assert [len(split) for split in (task.train, task.validation, task.test)] == [20, 2, 2]
    assert set(colours(task.validation) + colours(task.test)) == {(1, 3)}
    assert len(create(root, limit=5).train) == 5


def test_classes_may_be_named(folder):
    assert set(create(folder, classes=("dog", "cat")).train.targets) <= {0, 1}
    task = create(folder, classes=("bird", "cat", "dog"))
    assert task.classes == 3
    assert 0 not in np.concatenate([s.targets for s in (task.train, task.validation, task.test)])
    with pytest.raises(ValueError, match="dog is not one of the 1 classes"):
        create(folder, classes=("cat",))


def test_the_centre_is_cut_out_after_scaling(tmp_path):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48] = 255
    Image.fromarray(pixels).save(tmp_path / "stripe.png")
    assert (read_image(tmp_path / "stripe.png", 32, 1.0) == 255).all()
    small = read_image(tmp_path / "stripe.png", 8, 0.5)
    assert small.shape == (8, 8, 3)
    assert (small == 255).all()
    whole = read_image(tmp_path / "stripe.png", 16, 0.5)
    assert whole.shape == (16, 16, 3)
    assert (whole[:, 2:14] == 255).all()


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda folder: folder / "none", "is not a folder"),
        (lambda folder: folder / "cat", "has no folders"),
        (lambda folder: (folder / "empty" / "a").mkdir(parents=True) or folder / "empty", "has no images"),
    ],
)
def test_a_folder_without_images_is_refused(folder, mistake, words):
    with pytest.raises(ValueError, match=words):
        create(mistake(folder))


def test_a_broken_image_is_named_or_passed_over(folder):
    (folder / "cat" / "3.png").write_bytes((folder / "cat" / "3.png").read_bytes()[:40])
    (folder / "dog" / "text.jpg").write_text("not an image")
    with pytest.raises(ValueError, match=r"(3\.png|text\.jpg) cannot be read as an image.*skip_broken=true"):
        create(folder)
    task = create(folder, skip_broken=True, validation=0.3, test=0.3)
    assert sum(len(split) for split in (task.train, task.validation, task.test)) == 19


def test_images_passed_over_are_counted_and_the_others_keep_their_classes(folder, capsys):
    for name in ("0.png", "4.png"):
        (folder / "cat" / name).write_bytes(b"")
    (folder / "dog" / "5.PNG").write_bytes((folder / "dog" / "5.PNG").read_bytes()[:60])
    task = create(folder, skip_broken=True, validation=0.3, test=0.3)
    assert "skipped 1 image" in capsys.readouterr().err
    for split in (task.train, task.validation, task.test):
        assert [blue > 0 for _, blue in colours(split)] == [label == 1 for label in split.targets]


def test_shares_that_leave_a_split_empty_are_refused(folder):
    with pytest.raises(ValueError, match="leave a split of 20 images empty"):
        create(folder, validation=0.01)


def rounded(values, white):
    """Values of a ramp at 8 bits, as NumPy computes them."""
    return np.round(np.asarray(values, np.float64) / white * 255)


RAMP = np.linspace(0, 65535, 256).reshape(16, 16)


@pytest.mark.parametrize(
    ("suffix", "dtype", "mode", "white"),
    [
        ("png", "<u2", "I;16", 65535),
        ("tif", "<u2", "I;16", 65535),
        ("tif", ">u2", "I;16B", 65535),
        ("pgm", "<u2", "I", 65535),
        ("tif", "<i4", "I", 65535),
        ("TIFF", "<f4", "F", 1),
        ("tif", "u1", "L", 255),
    ],
)
def test_images_of_more_than_8_bits_are_scaled(tmp_path, suffix, dtype, mode, white):
    values = (RAMP * (white / 65535)).astype(dtype)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert Image.open(tmp_path / f"a.{suffix}").mode == mode
    read = read_image(tmp_path / f"a.{suffix}", 16, 1.0)
    np.testing.assert_array_equal(read, np.repeat(rounded(values, white)[..., None], 3, axis=-1))
    assert len(np.unique(read)) == 256


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[-1, 5]], "<i4"), "its values are -1 to 5, not 0 to 65535: save it with 8 or 16 bits"),
        (np.array([[0, 10**6]], "<i4"), "its values are 0 to 1e[+]06, not 0 to 65535"),
        (np.array([[0, 255]], "<f4"), "its values are 0 to 255, not 0 to 1"),
        (np.array([[0, np.nan]], "<f4"), "its values are nan to nan, not 0 to 1"),
    ],
)
def test_values_without_a_known_white_are_refused(tmp_path, values, words):
    (tmp_path / "cat").mkdir()
    for name in ("a", "b"):
        Image.fromarray(values).save(tmp_path / "cat" / f"{name}.tif")
    with pytest.raises(ValueError, match=rf"[ab]\.tif cannot be read as an image \({words}"):
        create(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_images_are_turned_as_their_exif_orientation_says(tmp_path, suffix, orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[8:, 16:] = 255, 100
    half = upright[::-1, ::-1]
    stored = (upright, upright[:, ::-1], half, upright[::-1], upright.swapaxes(0, 1), np.rot90(upright),
              half.swapaxes(0, 1), np.rot90(upright, -1))[orientation - 1]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"quality": 100} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif, **how)
    read = read_image(tmp_path / f"a.{suffix}", 16, 1.0)
    np.testing.assert_allclose(read, upright[:, 8:24], atol=2)


def test_every_usual_suffix_is_read_in_any_case(tmp_path, capsys):
    suffixes = ("jpg", "JPEG", "png", "PNG", "bmp", "webp", "tif", "TIFF", "Tif", "gif", "ppm", "pgm", "jp2")
    for number, suffix in enumerate(suffixes):
        paint(tmp_path / "cat" / f"{number}.{suffix}", (9, 9, 9))
    task = create(tmp_path, validation=0.4, test=0.4)
    assert sum(len(split) for split in (task.train, task.validation, task.test)) == len(suffixes)
    assert capsys.readouterr().err == ""


def test_what_is_left_out_is_said_in_one_line_a_folder(folder, tmp_path, capsys):
    root = tmp_path / "set"
    for name in ("cat", "dog"):
        paint(root / "val" / name / "v.png", (1, 2, 3))
        (root / "train").mkdir(exist_ok=True)
        (folder / name).rename(root / "train" / name)
    (root / "train" / "fox").mkdir()
    for name in ("v", "w"):
        paint(root / "val" / "fox" / f"{name}.png", (1, 2, 3))
    paint(root / "train" / "cat" / "more" / "1.png", (1, 2, 3))
    paint(root / "train" / "cat" / "most" / "1.png", (1, 2, 3))
    (root / "train" / "dog" / "names.txt").write_text("")
    (root / "train" / "dog" / ".DS_Store").write_text("")
    (root / "train" / "dog" / "._1.jpg").write_text("")
    (root / "train" / "dog" / "gone.jpg").symlink_to("nothing.jpg")
    os.mkfifo(root / "train" / "dog" / "pipe.png")
    (root / "test").mkdir()
    paint(root / "train" / "plain.png", (1, 2, 3))
    task = create(root)
    assert len(task.train) == 20 and task.classes == 3
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"nasjax: {root}: left out folders beside train and val (1: test)",
        f"nasjax: {root / 'train'}: left out images outside class folders (1: plain.png); "
        "folders within class folders (2: cat/more, …); hidden files (1: dog/._1.jpg); "
        "links to nothing, devices and pipes (2: dog/gone.jpg, …); files without the suffix of an image (1: dog/names.txt); "
        "classes without images (1: fox)",
    ]


def test_images_a_folder_too_deep_are_named_where_there_are_no_others(tmp_path):
    paint(tmp_path / "train" / "cat" / "1.png", (1, 2, 3))
    with pytest.raises(ValueError, match=r"has no images \(.*images must lie in .*/CLASS, not .* deeper as in train/cat$"):
        create(tmp_path)
