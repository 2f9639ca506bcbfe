"""Compiled programs, kept in a folder for the next process."""

import os

import jax

from nasjax.host import cache_folder


def cache_programs() -> None:
    """Keeps compiled programs in a folder for later processes, where JAX has been given none (nor an empty name)."""
    given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if given is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
