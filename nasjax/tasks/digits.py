"""Image classification of scikit-learn's handwritten digits."""

from dataclasses import asdict, dataclass, replace

from nasjax.tasks.image_augmentation import Scale
from nasjax.tasks.image_classification import ImageClassification, split_images


@dataclass(frozen=True)
class DigitsConfig:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels: 900 for training, 600 for validation, 297 for test.

    `seed` shuffles them before they are split.
    """

    seed: int = 0

    def create(self) -> ImageClassification:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = (digits.images[..., None] / 16.0 - 0.3) / 0.38
        task = split_images(images, digits.target, validation=600, test=297, seed=self.seed)
        return replace(task, scale=Scale((0.3,), (0.38,)), origin={"name": "digits", **asdict(self)})
