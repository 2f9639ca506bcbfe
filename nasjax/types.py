"""The glossary as array types, and the sign rule.

Below the surface everything is minimised: an objective flips its sign once, where it enters (`nasjax.objectives`). A value
that could not be measured is NaN.
"""

from jaxtyping import Array, Bool, Float, Int, Key
from numpy import ndarray

Arch = Int[Array | ndarray, " genes"]
"""One architecture: an option index a gene (int32)."""

Population = Int[Array | ndarray, "pop genes"]
"""Architectures, one a row."""

Objectives = Float[Array | ndarray, "pop obj"]
"""Minimised values, one row an architecture; NaN marks a failed measurement."""

Violations = Float[Array | ndarray, " pop"]
"""How far each row is from keeping the constraints, 0 where it does; NaN for a failed row."""

Mask = Bool[Array | ndarray, " pop"]
"""True for rows that count; the others are padding."""

PRNGKey = Key[Array, ""]
"""A typed JAX key (`jax.random.key`)."""

Images = Float[Array | ndarray, "batch height width channels"]
"""Pictures, NHWC, float32."""
