"""What networks are timed on: this process's processors, a process with other threads, somebody else's program.

A device is called with a network (shapes are enough) and what it reads, one after the other, while nothing else runs here.
"""

import errno
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import PyTree

from nasjax.errors import ConfigError
from nasjax.evaluation.base import OUT_OF_MEMORY
from nasjax.export import stablehlo
from nasjax.hardware.energy import Counter, counter_here
from nasjax.hardware.measurement import Latency, Precision, compiled, filled, measure_latency
from nasjax.hardware.pace import WORK, Pace
from nasjax.host import processor_name
from nasjax.supernets.supernet import SuperNet


class Failed(ConfigError):
    """A device could not time a network; it may well time others."""


class Device(Protocol):
    """Times networks; `context` says all that a latency depends on beside the network. Raises `Failed` for a network."""

    @property
    def context(self) -> Mapping[str, Any]: ...

    def __call__(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency: ...

    def close(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Here:
    """A device of this process."""

    device: jax.Device
    name: str
    threads: int
    precision: Precision
    clock: Callable[[], float] = time.perf_counter
    counter: Counter | None = None
    pace: Pace | None = None

    @property
    def context(self) -> dict[str, Any]:
        return machine(self.name, self.threads, self.counter) | ({} if self.pace is None else {"pace": WORK})

    def __call__(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency:
        batch = jax.tree.leaves(inputs)[0].shape[0]
        try:
            return measure_latency(
                compiled(network, inputs, self.device),
                self.clock,
                batch=batch,
                threads=self.threads,
                device=self.name,
                precision=self.precision,
                counter=self.counter,
                pace=self.pace,
            )
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError) and not str(error).startswith(OUT_OF_MEMORY):
                raise
            raise Failed(f"hardware.batch={batch} takes more memory than {self.name} has") from None

    def close(self) -> None:
        """Nothing is held."""


def machine(name: str, threads: int, counter: Counter | None) -> dict[str, Any]:
    """What a latency depends on: the device, its threads, the compiler; and whether energy is counted beside it."""
    energy = {} if counter is None else {"energy": [file.parent.name for file, _ in counter.domains]}
    return {"device": name, "threads": threads, "jaxlib": jax.lib.__version__, **energy}


class Process:
    """Another process with `threads` threads, on as many processors where it can choose; it is started when first used."""

    def __init__(self, threads: int, precision: Precision):
        self.context = machine(processor_name(), threads, counter_here()) | {"pace": WORK}
        self._threads, self._precision = threads, precision
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nasjax.hardware.worker", str(self._threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | environment(self._threads),
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump((network, inputs, self._precision), self._process.stdin)
            self._process.stdin.flush()
            answer = pickle.load(self._process.stdout)
        except BaseException as error:
            # Also Ctrl-C: what would come now is the answer to this question, not to the next one.
            self._process.kill()
            self._process.wait()
            self._process = None
            if not isinstance(error, OSError | EOFError):
                raise
            raise ConfigError(f"the process that times networks has ended ({error}); what it said is above") from error
        if isinstance(answer, Failed):
            raise answer
        if isinstance(answer, str):
            raise ConfigError(f"the process that times networks failed: {answer}")
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None


def environment(threads: int) -> dict[str, str]:
    """What XLA reads of the environment when it starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    single = "--xla_cpu_multi_thread_eigen=false" if threads == 1 else ""
    return {
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=1 {single}".strip(),
        "JAX_PLATFORMS": "cpu",
        **dict.fromkeys(("NPROC", "PJRT_NPROC", "OMP_NUM_THREADS"), str(threads)),
    }


def ended(words: Sequence[str], seconds: float) -> tuple[int, str, str]:
    """A program's code, output and errors once it has ended.

    Raises OSError where it cannot be run, subprocess.TimeoutExpired after `seconds`; whatever it started then ends too.
    """
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    with subprocess.Popen(words, start_new_session=True, **piped) as process:
        try:
            out, error = process.communicate(timeout=seconds)
        except BaseException:  # A keyboard's interrupt too: it does not reach another session.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, out, error


class Program:
    """Somebody else's program: it is given an exported network's file (StableHLO) and prints milliseconds."""

    def __init__(self, command: str, seconds: float):
        try:
            self._words, self._seconds = shlex.split(command), seconds
        except ValueError as error:
            raise ConfigError(f"hardware.command={command}: {str(error)[0].lower()}{str(error)[1:]}") from None
        if not self._words:
            raise ConfigError(
                "hardware=command needs hardware.command=PROGRAM, which is given a file and prints milliseconds"
            )
        # Of the same words another program may be meant elsewhere, or later.
        files = [Path(shutil.which(self._words[0]) or self._words[0]), *map(Path, self._words[1:])]
        contents = [sha256(file.read_bytes()).hexdigest()[:16] for file in files if file.is_file()]
        self.context = {"device": command, "program": contents}

    def __call__(self, network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> Latency:
        batch = jax.tree.leaves(inputs)[0].shape[0]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.stablehlo"
            file.write_bytes(stablehlo(filled(network), batch))
            milliseconds = self._run(file)
        return Latency(milliseconds, np.nan, 1, True, batch, 0, self._words[0], {}, 0, np.nan)

    def _run(self, file: Path) -> float:
        """What the program prints last. Raises `Failed` where that is no time, ConfigError where it cannot be run at all."""
        what = f"hardware.command={self._words[0]}"
        try:
            code, out, error = ended([*self._words, str(file)], self._seconds)
        except FileNotFoundError:
            raise ConfigError(f"{what}: there is no such program") from None
        except PermissionError:
            raise ConfigError(f"{what} cannot be run: make it executable") from None
        except OSError as failed:
            why = (
                "a script begins with #!/bin/sh, or another interpreter"
                if failed.errno == errno.ENOEXEC
                else failed.strerror
            )
            raise ConfigError(f"{what} cannot be run: {why}") from None
        except subprocess.TimeoutExpired:
            raise Failed(f"{what} took more than {self._seconds:g} s: say hardware.timeout") from None
        if code:
            said = (error or out).strip().splitlines()
            raise Failed(f"{what} ended with code {code}: {said[-1] if said else 'it said nothing'}")
        last = (out.split() or [""])[-1]
        try:
            milliseconds = float(last)
        except ValueError:
            milliseconds = 0.0
        if not 0 < milliseconds < float("inf"):
            raise Failed(f"{what} must print milliseconds last, not {last or 'nothing'}")
        return milliseconds

    def close(self) -> None:
        """Nothing is held."""
