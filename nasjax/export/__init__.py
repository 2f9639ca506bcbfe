"""Networks for other programs: StableHLO, ONNX, and Once-for-All's own form for PyTorch."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from nasjax.errors import ConfigError
from nasjax.export.published import run_published, to_pth, to_safetensors
from nasjax.export.stablehlo import run_stablehlo, stablehlo
from nasjax.export.to_onnx import run_onnx, to_onnx
from nasjax.supernets import SuperNet


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    `make(network, about, batch)` is its content, `run(file, images)` what the network in it answers; `about` says what
    `nasjax.load` makes the network from. `stem` names it in a folder. It `needs` packages, which `get` installs.
    """

    make: Callable[[SuperNet, Mapping[str, Any], int | None], bytes]
    run: Callable[[Path, np.ndarray], Any]
    stem: str
    needs: tuple[str, ...] = ()
    get: str = ""


KINDS = {
    ".stablehlo": Kind(
        lambda net, about, batch: stablehlo(net, batch),
        run_stablehlo,
        "network",
        ("flatbuffers",),
        "pip install nasjax[export]",
    ),
    ".onnx": Kind(to_onnx, run_onnx, "network", ("onnx", "onnxruntime"), "pip install nasjax[onnx]"),
    ".pth": Kind(to_pth, run_published, "ofa", ("torch",), "pip install torch; .safetensors does without"),
    ".safetensors": Kind(to_safetensors, run_published, "ofa"),
}
"""Every kind of file by its suffix."""


def kind(suffix: str) -> Kind:
    """The kind of file with that suffix. Raises ConfigError for an unknown one, or where a package is missing for it."""
    if suffix not in KINDS:
        raise ConfigError(f"{suffix or 'no suffix'} is of no known kind; allowed: {', '.join(KINDS)}")
    for package in KINDS[suffix].needs:
        try:
            import_module(package)
        except ImportError:
            raise ConfigError(f"{suffix} needs the package {package}: {KINDS[suffix].get}") from None
    return KINDS[suffix]


CACHE = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
"""Settings that a process of one's own is given too."""


def answers_again(
    paths: Sequence[Path], images: Float[np.ndarray, "batch height width channels"]
) -> list[Float[np.ndarray, "batch classes"]]:
    """What each exported file, or folder for `nasjax.load`, answers in a process that has nothing but them.

    Raises RuntimeError where that process fails.
    """
    with tempfile.TemporaryDirectory() as place:
        np.save(Path(place) / "images.npy", images)
        found = [Path(place) / f"{i}.npy" for i in range(len(paths))]
        # It finds what this process finds, does not compile again what it has compiled, and leaves an accelerator shared.
        cache = {name.upper(): getattr(jax.config, name) for name in CACHE}
        environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            **{name: str(value) for name, value in cache.items() if value is not None},
        }
        words = [place, *map(str, paths)]
        done = subprocess.run([sys.executable, "-m", "nasjax.export", *words], env=os.environ | environment,
                              capture_output=True, text=True)  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            names = ", ".join(path.name for path in paths)
            raise RuntimeError(f"what was written ({names}) cannot be loaded again ({last}): please report this")
        return [np.load(file) for file in found]


__all__ = ["KINDS", "Kind", "answers_again", "kind", "run_onnx", "run_published", "run_stablehlo", "stablehlo", "to_onnx"]
