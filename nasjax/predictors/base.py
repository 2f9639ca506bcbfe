"""Protocols of predictors and of the models that they fit."""

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.space import SearchSpace
from nasjax.types import Mask, Population

if TYPE_CHECKING:
    from nasjax.predictors.inputs import Inputs


class Model(Protocol):
    """A fitted model: any pytree with cross-validated predictions."""

    @property
    def held_out(self) -> Float[Array, " pop"]:
        """Predictions of the rows that were fitted, each by a model that has not seen it; NaN for invalid rows."""


class Predictor(Protocol):
    """A frozen dataclass of settings with two pure functions: `fit` returns a model, `predict` evaluates it inside jit."""

    max_rows: ClassVar[float]
    """The most rows that tactics fit it to, since a fit takes longer than in proportion to them; infinite if it does not."""

    def fit(
        self,
        inputs: "SearchSpace | Inputs",
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> Model:
        """Fits the valid rows: those whose mask is True (None: all) and whose value is not NaN."""

    def predict(
        self, inputs: "SearchSpace | Inputs", model: Any, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Mean and standard deviation of each architecture's value, in the unit of the fitted values.

        `model` is what `fit` of the same predictor returned, `inputs` the same as there.
        """
