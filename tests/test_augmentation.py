"""Images that re-calibrate batch norms, augmented: the same for a seed, and each what its name says."""

from dataclasses import replace

import numpy as np
import pytest

from nasjax.evaluation import MaskedConfig
from nasjax.tasks.augmentation import AUGMENTATIONS

IMAGES = np.random.default_rng(0).normal(size=(40, 16, 8, 3)).astype(np.float32)


def augmented(name, seed=0):
    return AUGMENTATIONS[name](np.random.default_rng(seed), IMAGES)


def test_a_flipped_image_is_itself_or_its_mirror_image():
    found = augmented("flip")
    mirrored = (found == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert ((found == IMAGES).all((1, 2, 3)) ^ mirrored).all()
    assert 8 < mirrored.sum() < 32


def test_a_cut_image_holds_the_middle_of_its_image():
    found = augmented("crop")
    assert found.shape == IMAGES.shape and found.dtype == IMAGES.dtype
    for image, moved in zip(IMAGES, found, strict=True):
        middle = image[4:12, 2:6]
        windows = [moved[y : y + 8, x : x + 4] for y in range(9) for x in range(5)]
        assert any((window == middle).all() or (window == middle[:, ::-1]).all() for window in windows)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_seed_decides(name):
    np.testing.assert_array_equal(augmented(name), augmented(name))
    assert (name == "none") == np.array_equal(augmented(name), augmented(name, 1))


def test_statistics_and_the_key_know_it(tiny_net, tiny_task):
    plain = MaskedConfig(batch=16, calibration_examples=32)
    flipped = replace(plain, augmentation="flip")
    assert plain.bind(tiny_net, tiny_task).context != flipped.bind(tiny_net, tiny_task).context
    assert not np.array_equal(plain.calibration(tiny_net, tiny_task), flipped.calibration(tiny_net, tiny_task))
    with pytest.raises(ValueError, match=r"evaluator\.augmentation='mirror' must be one of none, flip, crop"):
        replace(plain, augmentation="mirror")
