"""How far a student's class probabilities are from its teacher's: what distillation minimises."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Logits = Float[Array, "*batch classes"]
Divergence = Callable[[Logits, Logits], Float[Array, "*batch"]]
"""A function of a student's logits and its teacher's, to be minimised by the student; the teacher gets no gradient."""

LEAST, GREATEST = -1.0, 1.0
"""AlphaNet's alphas: the first punishes a student that is too sure, the second one that is not sure enough."""

GREATEST_RATIO = 5.0
"""Powers of the ratio of probabilities are clipped to this, as their variance is large."""


def cross_entropy(student: Logits, teacher: Logits) -> Float[Array, "*batch"]:
    """The cross-entropy of the student against the teacher's probabilities, in nats."""
    # Log probabilities are logits less their logsumexp: written out, they would be read and written several times.
    wanted = jax.nn.softmax(lax.stop_gradient(teacher))
    return jax.nn.logsumexp(student, axis=-1) - (wanted * student).sum(-1)


def adaptive_alpha(student: Logits, teacher: Logits) -> Float[Array, "*batch"]:
    """The greater of two alpha-divergences of each example; its gradient is the clipped one of AlphaNet.

    Source: AlphaNet (arXiv:2102.07954), equations 5 to 8 and Algorithm 1, with alphas of -1 and 1, clipped at 5.
    """
    log_p, log_q = jax.nn.log_softmax(lax.stop_gradient(teacher)), jax.nn.log_softmax(student)
    values, surrogates = zip(*(_alpha(log_p, log_q, alpha) for alpha in (LEAST, GREATEST)), strict=True)
    chosen = jnp.where(values[0] > values[1], surrogates[0], surrogates[1])
    # The value is the divergence, the gradient that of the surrogate.
    return lax.stop_gradient(jnp.maximum(values[0], values[1]) - chosen) + chosen


def _alpha(log_p: Logits, log_q: Logits, alpha: float) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """The alpha-divergence of probabilities p from q, and a function with its gradient with respect to q's logits.

    The divergence is the mean over q of f(p / q), with f(t) = (t^alpha - 1) / (alpha (alpha - 1)), or t log t for alpha 1;
    its gradient is minus the mean over q of (t f'(t) - f(t)) times that of log q. The ratio's powers are clipped in both.
    """
    q = lax.stop_gradient(jnp.exp(log_q))
    log_ratio = lax.stop_gradient(log_p - log_q)
    if alpha == 1.0:  # Written with p: the ratio overflows where q is 0.
        p = jnp.exp(log_p)
        return (p * log_ratio).sum(-1), -(p * log_q).sum(-1)
    power = jnp.minimum(jnp.exp(alpha * log_ratio), GREATEST_RATIO)
    scale = 1 / (alpha * (alpha - 1))
    f, rho = (power - 1) * scale, power / alpha + scale
    return (q * f).sum(-1), -(q * rho * log_q).sum(-1)
