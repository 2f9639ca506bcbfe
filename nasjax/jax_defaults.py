"""JAX's settings that results depend on: nasjax computes with JAX's defaults, whatever a shell or a notebook has set."""

import inspect
from collections.abc import Callable, Generator
from contextlib import ExitStack
from functools import cache, wraps
from typing import Any, TypeVar, cast

import jax
from threadpoolctl import ThreadpoolController

DEFAULTS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "jax_enable_x64": (False, jax.enable_x64),
    "jax_numpy_dtype_promotion": ("standard", jax.numpy_dtype_promotion),
    "jax_numpy_rank_promotion": ("allow", jax.numpy_rank_promotion),
    "jax_default_matmul_precision": (None, jax.default_matmul_precision),
    "jax_default_prng_impl": ("threefry2x32", jax.default_prng_impl),
    "jax_threefry_partitionable": (True, jax.threefry_partitionable),
    "jax_legacy_prng_key": ("allow", jax.legacy_prng_key),
    "jax_disable_jit": (False, jax.disable_jit),
    # NaN is padding, and marks what could not be measured.
    "jax_debug_nans": (False, jax.debug_nans),
    "jax_debug_infs": (False, jax.debug_infs),
    # A state's key is used again where a killed search resumes a step.
    "jax_debug_key_reuse": (False, jax.debug_key_reuse),
    "jax_transfer_guard_host_to_device": ("allow", jax.transfer_guard_host_to_device),
    "jax_transfer_guard_device_to_device": ("allow", jax.transfer_guard_device_to_device),
    "jax_transfer_guard_device_to_host": ("allow", jax.transfer_guard_device_to_host),
}
"""Each setting with JAX's default, and the context manager that sets it in one thread."""

OF_A_PROCESS: dict[str, Any] = {"jax_random_seed_offset": 0, "jax_no_tracing": False}
"""Settings that JAX sets for whole processes only, with its defaults: commands set them, functions leave them."""

Function = TypeVar("Function", bound=Callable[..., Any])


def changed_settings() -> list[str]:
    """The settings of `DEFAULTS` that differ from JAX's defaults."""
    return [name for name, (default, _) in DEFAULTS.items() if getattr(jax.config, name) not in (default, None)]


def restore_defaults() -> list[str]:
    """Sets JAX's defaults in this process, which is nasjax's own. Returns the names of the settings that had others."""
    values = {name: default for name, (default, _) in DEFAULTS.items()} | OF_A_PROCESS
    changed = [name for name, default in values.items() if getattr(jax.config, name) not in (default, None)]
    for name in changed:
        jax.config.update(name, values[name])
    return changed


def with_jax_defaults(function: Function) -> Function:
    """Decorates a function, or a generator's every step, to run with JAX's defaults and one thread of BLAS.

    Its caller's settings are kept.
    """
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def steps(*arguments: Any, **named: Any) -> Generator[Any, None, Any]:
            generator = function(*arguments, **named)
            try:
                while True:
                    with _defaults():
                        try:
                            step = next(generator)
                        except StopIteration as end:
                            return end.value
                    yield step
            finally:
                generator.close()

        return cast(Function, steps)

    @wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        with _defaults():
            return function(*arguments, **named)

    return cast(Function, run)


def _defaults() -> ExitStack:
    """Enters a context for what is changed only: another context compiles programs again, although its values are equal."""
    stack = ExitStack()
    for name in changed_settings():
        default, context = DEFAULTS[name]
        stack.enter_context(context(default))
    stack.enter_context(_blas().limit(limits=1, user_api="blas"))
    return stack


@cache
def _blas() -> ThreadpoolController:
    """The BLAS of NumPy, and that of SciPy, by which XLA decomposes matrices on a CPU.

    Several threads take longer for the few hundred rows of predictors, and round as their number has it.
    """
    import scipy.linalg  # noqa: F401  XLA would load it with its first decomposition, too late to be found here.

    return ThreadpoolController()
