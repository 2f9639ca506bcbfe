"""Array types used across the package, and the sign convention.

Everything below the user interface is minimised: an objective to be maximised changes sign once, where it is parsed
(`nasjax.objectives`). NaN stands for a value that could not be measured.
"""

from jaxtyping import Array, Bool, Float, Int, Key
from numpy import ndarray

Arch = Int[Array | ndarray, " genes"]
"""One architecture: one option index per gene (int32)."""

Population = Int[Array | ndarray, "pop genes"]
"""Architectures, one per row."""

Objectives = Float[Array | ndarray, "pop obj"]
"""Objective values to be minimised, one row per architecture; NaN marks a failed measurement."""

Violations = Float[Array | ndarray, " pop"]
"""Total constraint violation per row: 0 where all constraints hold, NaN where the measurement failed."""

Mask = Bool[Array | ndarray, " pop"]
"""True for valid rows, False for padding."""

PRNGKey = Key[Array, ""]
"""A typed JAX key (`jax.random.key`)."""

Images = Float[Array | ndarray, "batch height width channels"]
"""A batch of images: NHWC, float32."""
