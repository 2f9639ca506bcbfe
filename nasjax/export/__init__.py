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
from nasjax.export.programs import ExportedRunner, Program, programs
from nasjax.export.published import run_published, to_pth, to_safetensors
from nasjax.export.stablehlo import load_stablehlo, program_to_stablehlo, run_stablehlo, stablehlo
from nasjax.export.to_onnx import load_onnx, program_to_onnx, run_onnx, to_onnx
from nasjax.supernets import SuperNet


@dataclass(frozen=True)
class Kind:
    """A file format.

    Attributes:
      make: `make(network, facts, batch)` returns the contents of the files, by their `names`; `facts()` returns what
        `nasjax.load` rebuilds the network from.
      run: `run(files, inputs)` returns the outputs of the network in these files.
      names: `names(network)` are those of the files in a folder: one, or the encoder's and the decoding step's.
      needs: packages that it needs; `get`: how to install them.
    """

    make: Callable[[SuperNet, Callable[[], Mapping[str, Any]], int | None], Mapping[str, bytes]]
    run: Callable[[Sequence[Path], Any], Any]
    names: Callable[[SuperNet], Sequence[str]]
    needs: tuple[str, ...] = ()
    get: str = ""


def _of_programs(
    suffix: str, write: Callable[[SuperNet, Program], bytes], load: Callable[[Path], Any], needs: tuple[str, ...], get: str
) -> Kind:
    """A format whose files hold a program each."""

    def make(net: SuperNet, facts: Any, batch: int | None) -> dict[str, bytes]:
        return {f"{name}{suffix}": write(net, program) for name, program in programs(net, batch).items()}

    def run(files: Sequence[Path], inputs: Any) -> Any:
        loaded = [load(file) for file in files]
        return ExportedRunner(*loaded)(inputs) if len(loaded) > 1 else loaded[0](inputs)

    return Kind(make, run, lambda net: [f"{name}{suffix}" for name in programs(net)], needs, get)


def _of_weights(suffix: str, write: Callable[..., bytes], needs: tuple[str, ...] = (), get: str = "") -> Kind:
    """A file of Once-for-All's format."""
    name = f"ofa{suffix}"
    return Kind(
        lambda net, facts, batch: {name: write(net, facts(), batch)},
        lambda files, inputs: run_published(files[0], inputs),
        lambda net: [name],
        needs,
        get,
    )


KINDS = {
    ".stablehlo": _of_programs(
        ".stablehlo", program_to_stablehlo, load_stablehlo, ("flatbuffers",), "pip install nasjax[export]"
    ),
    ".onnx": _of_programs(".onnx", program_to_onnx, load_onnx, ("onnx", "onnxruntime"), "pip install nasjax[onnx]"),
    ".pth": _of_weights(".pth", to_pth, ("torch",), "pip install torch; .safetensors does without"),
    ".safetensors": _of_weights(".safetensors", to_safetensors),
}
"""Every file format by suffix."""


def kind(suffix: str) -> Kind:
    """The file format of a suffix. Raises ConfigError for an unknown suffix and a package that is missing or broken."""
    if suffix not in KINDS:
        raise ConfigError(f"{suffix or 'no suffix'} is not a known export format; allowed: {', '.join(KINDS)}")
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


def reloaded_outputs(written: Sequence[Sequence[Path]], inputs: PyTree[np.ndarray]) -> list[PyTree[np.ndarray]]:
    """The outputs of each network, in one exported file or two, or a folder for `nasjax.load`, loaded in a separate process.

    It computes on the CPU: in float32, while an accelerator would round products, and beside a process that holds that.
    Raises RuntimeError if that process fails.
    """
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "inputs.pickle").write_bytes(pickle.dumps((written, inputs)))
        output_files = [Path(place) / f"{i}.pickle" for i in range(len(written))]
        # The process has this one's modules and compilation cache.
        cache = {name.upper(): getattr(jax.config, name) for name in CACHE}
        environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "JAX_PLATFORMS": "cpu",
            **{name: str(value) for name, value in cache.items() if value is not None},
        }
        command = [sys.executable, "-m", "nasjax.export", place]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            names = ", ".join(path.name for paths in written for path in paths)
            raise RuntimeError(f"the written files ({names}) cannot be loaded ({last}): please report this")
        return [pickle.loads(file.read_bytes()) for file in output_files]


__all__ = [
    "KINDS",
    "ExportedRunner",
    "Kind",
    "Program",
    "kind",
    "load_onnx",
    "load_stablehlo",
    "programs",
    "reloaded_outputs",
    "run_onnx",
    "run_published",
    "run_stablehlo",
    "stablehlo",
    "to_onnx",
]  # fmt: skip
