"""Networks for other programs: StableHLO, ONNX, and Once-for-All's own form for PyTorch."""

import os
import pickle
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
from jaxtyping import PyTree

from nasjax.errors import ConfigError
from nasjax.export.published import run_published, to_pth, to_safetensors
from nasjax.export.stablehlo import run_stablehlo, stablehlo
from nasjax.export.to_onnx import run_onnx, to_onnx
from nasjax.supernets import SuperNet


@dataclass(frozen=True)
class Kind:
    """A file format.

    `make(network, origin, batch)` is its content, `run(file, inputs)` are the outputs of the network in it; `origin` says
    what `nasjax.load` rebuilds the network from. `stem` is its file name in a folder. It `needs` packages, which `get`
    installs.
    """

    make: Callable[[SuperNet, Mapping[str, Any], int | None], bytes]
    run: Callable[[Path, Any], Any]
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
"""Settings that the process which loads files is given too."""


def reloaded_outputs(paths: Sequence[Path], inputs: PyTree[np.ndarray]) -> list[PyTree[np.ndarray]]:
    """The outputs of each exported file, or folder for `nasjax.load`, in a process that has nothing but them.

    Raises RuntimeError where that process fails.
    """
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "inputs.pickle").write_bytes(pickle.dumps(inputs))
        found = [Path(place) / f"{i}.pickle" for i in range(len(paths))]
        # It finds what this process finds, does not compile again what it has compiled, and leaves an accelerator shared.
        cache = {name.upper(): getattr(jax.config, name) for name in CACHE}
        environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            **{name: str(value) for name, value in cache.items() if value is not None},
        }
        command = [sys.executable, "-m", "nasjax.export", place, *map(str, paths)]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            names = ", ".join(path.name for path in paths)
            raise RuntimeError(f"what was written ({names}) cannot be loaded again ({last}): please report this")
        return [pickle.loads(file.read_bytes()) for file in found]


__all__ = ["KINDS", "Kind", "kind", "reloaded_outputs", "run_onnx", "run_published", "run_stablehlo", "stablehlo", "to_onnx"]
