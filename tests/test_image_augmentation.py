"""Augmentations against Pillow and plain loops; each follows from its key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from tiny import close, easy_task

from nasjax.errors import ConfigError
from nasjax.tasks import image_augmentation as aug
from nasjax.tasks.image_augmentation import Augmentation, Mixed, Scale, augment_images
from nasjax.training import PlainConfig
from nasjax.training.losses import check_augmentation

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 13, 3)).astype(np.uint8)
PICTURE = Image.fromarray(PIXELS)
IMAGES = np.random.default_rng(1).normal(size=(40, 8, 10, 3)).astype(np.float32)
LABELS = np.random.default_rng(2).integers(0, 5, 40).astype(np.int32)
SCALE = Scale((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def unit(image):
    return jnp.asarray(np.asarray(image), jnp.float32) / 255


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.7])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(aug.brightness, ImageEnhance.Brightness), (aug.saturation, ImageEnhance.Color), (aug.contrast, ImageEnhance.Contrast),
     (aug.sharpness, ImageEnhance.Sharpness)],
)  # fmt: skip
def test_enhancements_are_pillow_s(ours, theirs, factor):
    """Which rounds grey values, their mean and results to integers."""
    found = np.asarray(ours(unit(PICTURE), factor)) * 255
    assert np.abs(found - np.asarray(theirs(PICTURE).enhance(factor), np.float32)).max() < 2.1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda image: aug.posterize(image, 5), lambda image: ImageOps.posterize(image, 5)),
        (lambda image: aug.solarize(image, 100 / 255), lambda image: ImageOps.solarize(image, 100)),
        (aug.autocontrast, ImageOps.autocontrast),
        (aug.equalize, ImageOps.equalize),
    ],
)
def test_operations_on_histograms_are_pillow_s(ours, theirs):
    pale = Image.fromarray((PIXELS // 3 + 60).astype(np.uint8))
    for picture in (PICTURE, pale, Image.new("RGB", (5, 4), (9, 9, 200))):
        found = np.asarray(ours(unit(picture))) * 255
        assert np.abs(found - np.asarray(theirs(picture), np.float32)).max() < 1.01


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_moves_are_pillow_s_affine_maps(name):
    """Away from the edge, which Pillow fills and ours repeats."""
    smooth = np.asarray(Image.fromarray(PIXELS).resize((26, 22), Image.Resampling.BICUBIC))
    height, width = smooth.shape[:2]
    matrix = np.asarray(aug._moved(name, 9, jnp.float32(1), height, width))
    (rows, shear_down, down), (shear_right, columns, right), _ = matrix
    # Pillow's places are (column, row), counted from the corner of the first pixel.
    centre = np.array([width / 2, height / 2])
    linear = np.array([[columns, shear_right], [shear_down, rows]])
    shift = centre + np.array([right, down]) - linear @ centre
    data = (*linear[0], shift[0], *linear[1], shift[1])
    wanted = np.asarray(
        Image.fromarray(smooth).transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR), float
    )
    found = np.asarray(aug.sample(unit(smooth), jnp.asarray(matrix))) * 255
    inside = np.s_[6:-6, 9:-9] if name.startswith("translate") else np.s_[6:-6, 6:-6]
    assert np.abs(found - wanted)[inside].max() < 2.5
    assert np.abs(found - smooth).max() > 20


def everything():
    return {
        "flip": Augmentation(shift=0, flip=True),
        "crop": Augmentation(shift=0, crop=0.3),
        "jitter": Augmentation(shift=0, jitter=0.4),
        "randaugment": Augmentation(shift=0, randaugment=2),
        "mixup": Augmentation(shift=0, mixup=0.4),
        "cutmix": Augmentation(shift=0, cutmix=1.0),
        "all": Augmentation(2, True, 0.5, 0.3, 2, 12, 0.2, 1.0),
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", everything())
def test_the_same_key_gives_the_same_finite_images_and_another_others(name, channels):
    settings, images = everything()[name], IMAGES[..., :channels]
    run = jax.jit(lambda key: augment_images(key, jnp.asarray(images), jnp.asarray(LABELS), settings, Scale((0.4,), (0.2,))))
    (first, _), (again, _), (other, _) = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    assert first.shape == images.shape and np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other) and not np.allclose(first, images)


def test_all_off_is_the_identity():
    images, labels = augment_images(jax.random.key(0), IMAGES, LABELS, Augmentation(shift=0), SCALE)
    assert images is IMAGES and labels is LABELS


def test_half_of_the_images_are_mirrored():
    images = np.tile(IMAGES, (10, 1, 1, 1))
    found, _ = augment_images(jax.random.key(0), images, np.tile(LABELS, 10), Augmentation(shift=0, flip=True), SCALE)
    same = np.isclose(found, images, atol=1e-5).all((1, 2, 3))
    mirrored = np.isclose(found, images[:, :, ::-1], atol=1e-5).all((1, 2, 3))
    assert (same ^ mirrored).all() and 0.4 < mirrored.mean() < 0.6


def test_crops_cover_the_areas_asked_for():
    """Boxes lie inside the image, on average in its middle."""
    keys = jax.random.split(jax.random.key(0), 2000)
    boxes = np.asarray(jax.vmap(lambda key: aug._crop_matrix(key, 0.25, 8, 10))(keys))
    rows, columns, down, right = boxes[:, 0, 0], boxes[:, 1, 1], boxes[:, 0, 2], boxes[:, 1, 2]
    assert (np.abs(down) <= 4 * (1 - rows) + 1e-5).all() and (np.abs(right) <= 5 * (1 - columns) + 1e-5).all()
    area = rows * columns
    assert area.min() >= 0.25 - 1e-5 and area.max() <= 1 and area.mean() == pytest.approx(0.6, abs=0.05)
    whole = (rows < 1) & (columns < 1)
    aspects = columns[whole] / rows[whole]
    assert 0.75 - 1e-4 <= aspects.min() < 0.8 < 1.25 < aspects.max() <= 4 / 3 + 1e-4
    assert np.abs([down.mean(), right.mean()]).max() < 0.1


def test_mixup_blends_images_and_labels_by_one_share():
    found, mixed = augment_images(jax.random.key(3), IMAGES, LABELS, Augmentation(shift=0, mixup=0.7), SCALE)
    share = float(mixed.share[0])
    others = (np.asarray(found[:8]) - share * IMAGES[:8]) / (1 - share)
    partners = [int(np.isclose(other, IMAGES, atol=1e-2).all((1, 2, 3)).argmax()) for other in others]
    assert 0 < share < 1 and mixed.second[:8].tolist() == LABELS[partners].tolist()


def test_cutmix_s_share_is_that_of_its_pixels():
    shares = []
    for seed in range(6):
        found, mixed = augment_images(jax.random.key(seed), IMAGES, LABELS, Augmentation(shift=0, cutmix=1.0), SCALE)
        kept = (np.asarray(found) == IMAGES).all(-1)
        moved = kept[mixed.first != mixed.second]
        assert moved.mean() == pytest.approx(float(mixed.share[0]), abs=1e-5)
        shares.append(float(mixed.share[0]))
    assert len(set(shares)) > 3


def test_the_loss_of_mixed_classes_is_that_of_their_weighted_one_hot():
    task = easy_task((30, 6, 6))
    logits = jax.random.normal(jax.random.key(0), (4, 3))
    mixed = Mixed(jnp.asarray([0, 1, 2, 0]), jnp.asarray([1, 1, 0, 2]), jnp.asarray([0.3, 0.5, 0.9, 1.0]))
    hot = mixed.share[:, None] * jax.nn.one_hot(mixed.first, 3) + (1 - mixed.share)[:, None] * jax.nn.one_hot(
        mixed.second, 3
    )
    close(task.loss(logits, mixed), -(hot * jax.nn.log_softmax(logits)).sum(-1), 1e-5)


def test_colours_change_in_pixel_values():
    """Normalised images, twice as bright, are those of pixels twice as bright."""
    pixels = np.random.default_rng(0).uniform(0.05, 0.4, (6, 5, 5, 3)).astype(np.float32)
    mean, deviation = np.array(SCALE.mean, np.float32), np.array(SCALE.deviation, np.float32)
    found, _ = augment_images(
        jax.random.key(0), jnp.asarray((pixels - mean) / deviation), LABELS[:6], Augmentation(shift=0, jitter=0.3), SCALE
    )
    plain, _ = augment_images(jax.random.key(0), jnp.asarray(pixels), LABELS[:6], Augmentation(shift=0, jitter=0.3), Scale())
    np.testing.assert_allclose(np.asarray(found) * deviation + mean, plain, atol=1e-5)
    assert np.asarray(plain).min() >= 0 and np.asarray(plain).max() <= 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"crop": 0.0}, "trainer.crop must be above 0 and at most 1"), ({"mixup": -1.0}, "trainer.mixup must be at le"),
     ({"magnitude": 31}, "trainer.magnitude must be at most 30"), ({"jitter": 2.0}, "trainer.jitter must be at most 1")],
)  # fmt: skip
def test_wrong_settings_are_one_line(changes, said):
    with pytest.raises(ConfigError, match=said):
        PlainConfig(**changes)


def test_a_task_without_augmentation_says_so():
    class Plain(type(easy_task((6, 6, 6)))):
        augments = False

    task = easy_task((6, 6, 6))
    check_augmentation(task, PlainConfig(flip=True))
    task.__class__ = Plain
    check_augmentation(task, PlainConfig())
    with pytest.raises(ConfigError, match=r"has no augmentation: leave trainer.flip, trainer.mixup out"):
        check_augmentation(task, PlainConfig(flip=True, mixup=0.1))
