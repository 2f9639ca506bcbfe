"""Mean and variance of feature maps, by two passes over them or by one."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nasjax.supernets import forms
from nasjax.supernets.cpu.convolution import Maps


def moments(x: Maps) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Mean and biased variance over all axes but the last, in float32."""
    x = x.astype(jnp.float32)
    return lax.platform_dependent(x, cpu=two_passes, default=one_pass) if forms.current().one_pass else two_passes(x)


def two_passes(x: Maps) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Moments by the mean first: maps in a CPU's caches are read twice without cost."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    return mean, jnp.square(x - mean.reshape((1,) * len(axes) + (-1,))).mean(axes)


def one_pass(x: Maps) -> tuple[Float[Array, " channels"], Float[Array, " channels"]]:
    """Moments by both sums at once, so that maps are read from memory once.

    They are sums of differences to the first example's mean, which is near enough that nothing cancels.
    """
    axes = tuple(range(x.ndim - 1))
    near = lax.stop_gradient(x[0].mean(axes[:-1]))
    differences = x - near.reshape((1,) * len(axes) + (-1,))
    mean = differences.mean(axes)
    return near + mean, jnp.maximum(jnp.square(differences).mean(axes) - jnp.square(mean), 0)
