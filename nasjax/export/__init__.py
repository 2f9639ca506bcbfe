"""Export formats of extracted networks: StableHLO, ONNX, and Once-for-All's format for PyTorch."""

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

from nasjax.errors import ConfigError, one_line
from nasjax.export.published import run_published, to_pth, to_safetensors
from nasjax.export.stablehlo import run_stablehlo, stablehlo
from nasjax.export.to_onnx import run_onnx, to_onnx
from nasjax.supernets import SuperNet


@dataclass(frozen=True)
class Kind:
    """A file format.

    Attributes:
      make: `make(network, origin, batch)` returns the file's content; `origin`: what `nasjax.load` rebuilds it from.
      run: `run(file, inputs)` returns the outputs of the network in a file.
      stem: the file's name in a folder, without suffix.
      needs: packages that it needs; `get`: how to install them.
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
"""Every file format by suffix."""


def kind(suffix: str) -> Kind:
    """The file format of a suffix. Raises ConfigError for an unknown suffix and a package that is missing or broken."""
    if suffix not in KINDS:
        raise ConfigError(f"{suffix or 'no suffix'} is no known export format; allowed: {', '.join(KINDS)}")
    for package in KINDS[suffix].needs:
        try:
            import_module(package)
        except (ImportError, OSError) as error:  # OSError: a library of the package's cannot be loaded.
            if isinstance(error, ModuleNotFoundError) and error.name == package:
                raise ConfigError(f"{suffix} needs the package {package}: {KINDS[suffix].get}") from None
            raise ConfigError(
                f"{suffix} needs the package {package}, which is installed but cannot be loaded ({one_line(error)}): "
                "install it again"
            ) from error
    return KINDS[suffix]


CACHE = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
"""JAX settings that are passed to the process that loads files."""


def reloaded_outputs(paths: Sequence[Path], inputs: PyTree[np.ndarray]) -> list[PyTree[np.ndarray]]:
    """The outputs of each exported file, or folder for `nasjax.load`, as loaded in a separate process.

    Raises RuntimeError if that process fails.
    """
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "inputs.pickle").write_bytes(pickle.dumps(inputs))
        output_files = [Path(place) / f"{i}.pickle" for i in range(len(paths))]
        # The process has this one's modules and compilation cache, and shares the accelerator's memory.
        cache = {name.upper(): getattr(jax.config, name) for name in CACHE}
        environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            **{name: str(value) for name, value in cache.items() if value is not None},
        }
        command = [sys.executable, "-m", "nasjax.export", place, *map(str, paths)]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            names = ", ".join(path.name for path in paths)
            raise RuntimeError(f"the written files ({names}) cannot be loaded ({last}): please report this")
        return [pickle.loads(file.read_bytes()) for file in output_files]


__all__ = ["KINDS", "Kind", "kind", "reloaded_outputs", "run_onnx", "run_published", "run_stablehlo", "stablehlo", "to_onnx"]
