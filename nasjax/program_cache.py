"""Compiled programs, kept in a folder for the next process."""

import os
from pathlib import Path

import jax

from nasjax.host import cache_folder

_first: list[str] = []
"""The folder, where it had no programs when this process began to use it, until somebody has been told."""


def cache_programs() -> None:
    """Keeps compiled programs in a folder for later processes, where JAX has been given none (nor an empty name)."""
    given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if given is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    local = folder and "://" not in folder
    _first[:] = [folder] if local and not (Path(folder).is_dir() and any(Path(folder).iterdir())) else []


def take_first_folder() -> str | None:
    """The folder that compiled programs are kept in, where there were none before this process; only once."""
    return _first.pop() if _first else None
